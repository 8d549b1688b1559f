/// Whether a write waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Returns once the write and all before it survive a power cut.
    Yes,
    /// Stays in a buffer of at most 1 MiB until the next synced write or [`crate::Store::sync`] (all
    /// tables in memory where the log is skipped): a crash, SIGKILL included, drops a suffix of such
    /// writes, never one from the middle.
    No,
}

/// What is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexKind {
    /// Nothing.
    Null,
    /// Transactions by hash and by event, blocks by event.
    Kv,
}

/// How a store is opened.
///
/// Memory: `cache_bytes`, up to three times `memtable_bytes` (one budget being filled, two being
/// written out on a slow disk) and one block's write above each, and about 4 MiB for buffers of the
/// log and of compaction. The defaults stay below 144 MiB together with small blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of the cache for blocks of tables, their indexes and filters. Default 40 MiB; a much
    /// smaller one makes every lookup by hash read the disk.
    pub cache_bytes: usize,
    /// Bytes of all tables in memory together, before they are written out. Default 32 MiB; smaller
    /// ones make more files, and more for compaction to do; larger ones hold more memory and a
    /// longer log, which costs time in the system's cache.
    pub memtable_bytes: usize,
    /// What is indexed. Default [`IndexKind::Kv`].
    pub index: IndexKind,
    /// Keep only the last response to FinalizeBlock (`storage.discard_abci_responses`). Default
    /// false.
    pub discard_abci_responses: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 40 << 20,
            memtable_bytes: 32 << 20,
            index: IndexKind::Kv,
            discard_abci_responses: false,
        }
    }
}
