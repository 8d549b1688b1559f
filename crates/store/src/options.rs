/// Whether a write waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Returns once the write and all before it survive a power cut.
    Yes,
    /// Stays in a buffer of at most 1 MiB until the next synced write or [`crate::Store::sync`]: a
    /// crash, SIGKILL included, drops a suffix of such writes, never one from the middle.
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
/// Memory: `cache_bytes + memtable_bytes`, and about 4 MiB for buffers of the log and of
/// compaction. The defaults stay below 128 MiB together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of the cache for blocks of tables, their indexes and filters. Default 40 MiB; a much
    /// smaller one makes every lookup by hash read the disk.
    pub cache_bytes: usize,
    /// Bytes of all tables in memory together. Default 64 MiB; smaller ones are written out, and
    /// compacted, more often.
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
            memtable_bytes: 64 << 20,
            index: IndexKind::Kv,
            discard_abci_responses: false,
        }
    }
}
