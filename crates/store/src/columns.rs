//! What lies where: the column families, their keys, and how RocksDB keeps each.

use std::path::Path;

use perihelion_types::Height;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options, WriteBufferManager,
};

use crate::{StoreOptions, direct_io};

/// Values of at least this size go to blob files, so that compaction moves keys and not bodies.
/// Larger: small blocks are rewritten at every level. Smaller: more lookups cost a second read.
const MIN_BLOB_BYTES: u64 = 512;

/// New tables of keys in no order that are compacted with the older ones at once. More: more of them
/// are looked into, as far as their filters do not tell; less: the older ones are rewritten more often.
const RANDOM_TABLES: i32 = 16;

/// A column family. Keys are heights in big-endian order unless said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// By name: `base`, `swept`, `light_base`, `genesis`, `index_cursor_2`.
    Meta,
    /// The exact bytes of a block.
    Blocks,
    /// Beginning of the hash, parts, size, number of transactions.
    BlockMeta,
    /// Beginning of the block's hash to height.
    Hashes,
    /// `seen`: the commit of the last height; block h+1 has the others.
    Commits,
    /// Extended commits, as long as their blocks.
    ExtendedCommits,
    /// Header and commit of pruned blocks within the evidence window (`SignedHeader`).
    Light,
    /// `state`, and under `set` + height the sets that restore its priorities.
    State,
    /// Validator sets, from the height on at which they hold.
    Validators,
    /// Consensus parameters, from the height on at which they hold.
    Params,
    /// Responses to FinalizeBlock, packed (`packed.rs`) where that pays; under `last` the last one when they are discarded.
    Results,
    /// Committed evidence: height, hash. Behind all heights, evidence that waits for a block.
    Evidence,
    /// The built-in application's own keys.
    App,
    /// Transaction hash to its place.
    IndexTxs,
    /// See `index/keys.rs`.
    IndexEvents,
}

impl Column {
    /// All of them; a database without one of these is damaged.
    pub(crate) const ALL: [Self; 15] = [
        Self::Meta,
        Self::Blocks,
        Self::BlockMeta,
        Self::Hashes,
        Self::Commits,
        Self::ExtendedCommits,
        Self::Light,
        Self::State,
        Self::Validators,
        Self::Params,
        Self::Results,
        Self::Evidence,
        Self::App,
        Self::IndexTxs,
        Self::IndexEvents,
    ];

    /// The name on disk.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Blocks => "blocks",
            Self::BlockMeta => "block_meta",
            Self::Hashes => "hashes",
            Self::Commits => "commits",
            Self::ExtendedCommits => "extended_commits",
            Self::Light => "light",
            Self::State => "state",
            Self::Validators => "validators",
            Self::Params => "params",
            Self::Results => "results",
            Self::Evidence => "evidence",
            Self::App => "app",
            Self::IndexTxs => "index_txs",
            Self::IndexEvents => "index_events",
        }
    }

    /// Whether its values are large: written once, read whole.
    const fn is_bulky(self) -> bool {
        matches!(
            self,
            Self::Blocks | Self::ExtendedCommits | Self::Light | Self::Validators | Self::Results
        )
    }

    /// Whether its keys are looked up one by one and may be absent.
    const fn is_hashed(self) -> bool {
        matches!(self, Self::Hashes | Self::IndexTxs | Self::App)
    }

    /// Whether keys that follow each other in time are anywhere: each new table overlaps all there
    /// are, and is compacted with all of them.
    const fn is_random(self) -> bool {
        matches!(self, Self::Hashes | Self::IndexTxs)
    }

    fn options(self, options: &StoreOptions, cache: &Cache) -> Options {
        let mut column = Options::default();
        // The shared budget comes first. While two are being written out, writing waits.
        column.set_write_buffer_size(options.memtable_bytes.max(1 << 20));
        column.set_max_write_buffer_number(2);
        column.set_arena_block_size(64 << 10);
        column.set_compression_type(DBCompressionType::Lz4);
        column.set_level_compaction_dynamic_level_bytes(true);
        if self.is_random() {
            // With more of them at once, that is seldom. A filter tells which one has a key.
            column.set_level_zero_file_num_compaction_trigger(RANDOM_TABLES);
            column.set_level_zero_slowdown_writes_trigger(3 * RANDOM_TABLES);
            column.set_level_zero_stop_writes_trigger(4 * RANDOM_TABLES);
        }
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_format_version(5);
        table.set_block_size(8 << 10);
        if self.is_hashed() {
            table.set_bloom_filter(10.0, false);
        }
        column.set_block_based_table_factory(&table);
        if self.is_bulky() {
            column.set_enable_blob_files(true);
            column.set_min_blob_size(MIN_BLOB_BYTES);
            column.set_blob_file_size(64 << 20);
            if self != Self::Results {
                // Results are packed by then, or are what packing makes no shorter.
                column.set_blob_compression_type(DBCompressionType::Lz4);
            }
            column.set_enable_blob_gc(true);
        }
        column
    }
}

/// The options of every column family, and those of the database. `beside` is a file on the same
/// file system.
pub(crate) fn descriptors(
    beside: &Path,
    options: &StoreOptions,
) -> (Options, Vec<ColumnFamilyDescriptor>) {
    let cache = Cache::new_lru_cache(options.cache_bytes);
    let buffers =
        WriteBufferManager::new_write_buffer_manager(options.memtable_bytes.max(1 << 20), false);
    let columns = Column::ALL
        .into_iter()
        .map(|column| ColumnFamilyDescriptor::new(column.name(), column.options(options, &cache)))
        .collect();
    let mut database = Options::default();
    database.set_write_buffer_manager(&buffers);
    database.set_max_background_jobs(2);
    database.set_max_open_files(256);
    // Unsynced writes cost no system call; see `Sync::No` for what that means.
    database.set_manual_wal_flush(true);
    database.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    database.set_track_and_verify_wals_in_manifest(true);
    database.set_max_total_wal_size(2 * options.memtable_bytes as u64);
    database.set_bytes_per_sync(1 << 20);
    // All tables are written out together, so that no log outlives one round of that: fewer and
    // shorter logs, and what was copied to the system's cache for one is used again for the next.
    database.set_atomic_flush(true);
    // What is written out is seldom read soon: past the system's cache it costs half the time.
    database.set_use_direct_io_for_flush_and_compaction(direct_io::works_with(beside));
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(1 << 20);
    database.set_log_level(LogLevel::Warn);
    (database, columns)
}

/// A height as a key: the order of keys is that of heights. Negative ones sort with 0, where
/// nothing is stored.
pub(crate) fn height_key(height: Height) -> [u8; 8] {
    u64::try_from(height.get()).unwrap_or(0).to_be_bytes()
}

/// The height that a key begins with.
pub(crate) fn key_height(key: &[u8]) -> Option<Height> {
    let bytes = key.get(..8)?.try_into().ok()?;
    i64::try_from(u64::from_be_bytes(bytes))
        .ok()
        .map(Height::new)
}
