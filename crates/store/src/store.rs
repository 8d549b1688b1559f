//! The store as a whole: opening it, the range of heights it holds, its small records.

use std::{
    collections::BTreeSet,
    fmt,
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock},
};

use perihelion_types::{Hash, Height};

use crate::{
    AppWrite, IndexKind, StoreError, StoreOptions, Sync,
    columns::{Column, height_key, key_height},
    compressible::Compressible,
    database::{Batch, Database, Entry},
    home::StoreHome,
};

/// All that the node keeps of a chain. Opened once by one process; shared as `Arc<Store>`; every
/// call blocks.
///
/// Reading while another thread writes is consistent: a height is seen once its whole batch is
/// written, and never again once pruning has moved the base above it.
///
/// After a failed write or sync every later one is refused ([`StoreError::Stopped`]) until the
/// store is opened again. One thread at a time may save blocks and states or prune.
pub struct Store {
    pub(crate) db: Database,
    pub(crate) options: StoreOptions,
    range: RwLock<StoredRange>,
    progress: Progress,
    /// Whether blocks are worth compressing.
    pub(crate) compressible: Mutex<Compressible>,
    /// What reading has failed with, as far as it was told.
    unreadable: Mutex<BTreeSet<String>>,
    // Given up after the database has been closed.
    home: StoreHome,
}

/// Damages that are told. More lines would say the same: the store is lost.
const MAX_TOLD: usize = 16;

/// Which heights are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredRange {
    /// The lowest block, 0 when there is none.
    pub(crate) base: Height,
    /// The highest block, 0 when there is none.
    pub(crate) height: Height,
    /// The lowest height whose header, commit and validators are there; at most the base.
    pub(crate) light_base: Height,
    /// The height of the state, 0 when there is none.
    pub(crate) state: Height,
}

/// Wakes the indexer.
#[derive(Default)]
struct Progress {
    /// Counts saves, and stops.
    signal: Mutex<Signal>,
    changed: Condvar,
}

/// What the indexer waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signal {
    saves: u64,
    pub(crate) stopping: bool,
}

/// Keys of the column family `meta`.
pub(crate) mod meta {
    pub(crate) const BASE: &[u8] = b"base";
    pub(crate) const SWEPT: &[u8] = b"swept";
    pub(crate) const LIGHT_BASE: &[u8] = b"light_base";
    pub(crate) const GENESIS: &[u8] = b"genesis";
    /// Another name than that of the first form of the index, which is made again.
    pub(crate) const INDEX_CURSOR: &[u8] = b"index_cursor_2";
}

impl Store {
    /// Opens the store in the folder `perihelion` of `home_data`, or makes an empty one there, and
    /// finishes a pruning that was cut short.
    ///
    /// # Errors
    /// When another process has it open, its format is not ours, a part of it is missing or
    /// damaged, or the system refuses. Nothing is overwritten then.
    pub fn open(home_data: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let home = StoreHome::take(home_data)?;
        let db = Database::open(&home.database(), options)?;
        let range = StoredRange::load(&db)?;
        let store = Self {
            db,
            options: options.clone(),
            range: RwLock::new(range),
            progress: Progress::default(),
            compressible: Mutex::new(Compressible::new()),
            unreadable: Mutex::default(),
            home,
        };
        store.home.claim()?;
        store.finish_pruning()?;
        Ok(store)
    }

    /// The height of the lowest block, 0 when there is none. Moves up before pruning deletes.
    #[must_use]
    pub fn base(&self) -> Height {
        self.range().base
    }

    /// The height of the highest block, 0 when there is none.
    #[must_use]
    pub fn height(&self) -> Height {
        self.range().height
    }

    /// Base and height of one moment.
    #[must_use]
    pub fn base_and_height(&self) -> (Height, Height) {
        let range = self.range();
        (range.base, range.height)
    }

    /// The lowest height whose header, commit and validators are there: pruning keeps them within
    /// the evidence window. At most the base.
    #[must_use]
    pub fn light_base(&self) -> Height {
        self.range().light_base
    }

    /// The last block height of the saved state, 0 when there is none.
    #[must_use]
    pub fn state_height(&self) -> Height {
        self.range().state
    }

    /// How the store was opened.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// The folder of the database, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.db.path()
    }

    /// Logs that peers or clients asked for what cannot be read, and what helps. Each damage is told
    /// once, sixteen at the most, since they may ask for it again and again; `true` when it was
    /// told.
    pub fn report_unreadable(&self, error: &StoreError) -> bool {
        let (StoreError::Read { reason, .. } | StoreError::Corrupt { reason, .. }) = error else {
            return false;
        };
        let mut told = self
            .unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_news = told.len() < MAX_TOLD && told.insert(reason.clone());
        drop(told);
        if is_news {
            tracing::error!("{error}");
        }
        is_news
    }

    /// Makes every earlier write durable.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.db.sync(self.height())
    }

    /// From now on writes skip the log: each costs a copy of its bytes less, and [`Sync::Yes`] a
    /// file a column family more. A crash takes all of them since the last sync, from the end, as
    /// it takes logged ones; but those are more, up to one and a half times
    /// [`StoreOptions::memtable_bytes`] and one block. For whoever can make again what is lost.
    pub fn skip_log(&self) {
        self.db.skip_log();
    }

    /// Has everything in memory written to tables, without waiting for the disk.
    ///
    /// # Errors
    /// When the disk has failed; the store takes no more writes then.
    pub fn write_out(&self) -> Result<(), StoreError> {
        self.db.write_out(self.height())
    }

    /// Whether writes skip the log.
    #[must_use]
    pub fn skips_log(&self) -> bool {
        self.db.skips_log()
    }

    /// From now on writes go to the log again; all that skipped it is durable.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn use_log(&self) -> Result<(), StoreError> {
        self.db.use_log(self.height())
    }

    /// Writes everything in memory to tables, so that the next start has no log to read again.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.db.flush(self.height())
    }

    /// Binds an empty store to the chain whose genesis has this hash; checks a bound one.
    ///
    /// # Errors
    /// [`StoreError::OtherGenesis`] when it is bound to another.
    pub fn save_genesis_hash(&self, hash: Hash) -> Result<(), StoreError> {
        match self.load_genesis_hash()? {
            Some(stored) if stored == hash => {}
            Some(stored) => {
                return Err(StoreError::OtherGenesis {
                    path: self.db.path().to_owned(),
                    stored,
                    given: hash,
                });
            }
            None => {
                let mut batch = Batch::default();
                batch.put(Column::Meta, meta::GENESIS, hash.as_bytes());
                self.db.write(batch, Sync::Yes, Height::ZERO)?;
            }
        }
        self.home.save_genesis(&hash)
    }

    /// The genesis hash that the store is bound to.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load_genesis_hash(&self) -> Result<Option<Hash>, StoreError> {
        self.db
            .get(Column::Meta, meta::GENESIS)?
            .map(|bytes| {
                Hash::try_from(&bytes[..])
                    .map_err(|error| self.db.corrupt(Column::Meta, meta::GENESIS, error))
            })
            .transpose()
    }

    /// The built-in application's value under `key`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn app_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(Column::App, key)?.map(|value| value.to_vec()))
    }

    /// The built-in application's keys that begin with `prefix`, in order, and their values.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn app_scan(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        self.db.prefix(Column::App, prefix, usize::MAX)
    }

    /// Whether the built-in application has nothing here: it has not run on this store.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn app_is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.db.prefix(Column::App, &[], 1)?.is_empty())
    }

    /// Saves changes of the built-in application alone, as replaying for it makes them.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn save_app_writes(&self, writes: &[AppWrite], sync: Sync) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for write in writes {
            match &write.value {
                Some(value) => batch.put_large(Column::App, &write.key[..], value),
                None => batch.delete(Column::App, &write.key[..]),
            }
        }
        self.db.write(batch, sync, self.height())
    }

    /// Records that a block committed this evidence, the height being the misbehaviour's.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn mark_evidence_committed(&self, height: Height, hash: &Hash) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Column::Evidence, evidence_key(height, hash), [1]);
        self.db.write(batch, Sync::No, height)
    }

    /// Whether a block committed this evidence. Forgotten once the evidence is too old to count.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_evidence_committed(&self, height: Height, hash: &Hash) -> Result<bool, StoreError> {
        let key = evidence_key(height, hash);
        Ok(self.db.get(Column::Evidence, &key)?.is_some())
    }

    pub(crate) fn range(&self) -> StoredRange {
        *self.range.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the range once the batch that changed it has been written.
    pub(crate) fn set_range(&self, change: impl FnOnce(&mut StoredRange)) {
        change(&mut self.range.write().unwrap_or_else(PoisonError::into_inner));
        if self.options.index != IndexKind::Null {
            let mut signal = self.signal();
            signal.saves = signal.saves.wrapping_add(1);
            self.progress.changed.notify_all();
        }
    }

    /// What the indexer has to compare with later.
    pub(crate) fn signal(&self) -> MutexGuard<'_, Signal> {
        self.progress
            .signal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was saved since `seen`, or the indexer is to stop.
    pub(crate) fn wait_for_change(&self, seen: Signal) -> Signal {
        let guard = self.signal();
        *self
            .progress
            .changed
            .wait_while(guard, |signal| *signal == seen)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the indexer to stop, or lets another one start.
    pub(crate) fn set_stopping(&self, stopping: bool) {
        self.signal().stopping = stopping;
        self.progress.changed.notify_all();
    }
}

impl StoredRange {
    /// The height is that of the last block; the rest is recorded.
    fn load(db: &Database) -> Result<Self, StoreError> {
        let last = db.last_at_or_below(Column::BlockMeta, &[u8::MAX; 8])?;
        let height = last.map_or(Ok(Height::ZERO), |(key, _)| {
            key_height(&key).ok_or_else(|| db.corrupt(Column::BlockMeta, &key, "not a height"))
        })?;
        let base = load_height(db, meta::BASE)?.unwrap_or(Height::ZERO);
        Ok(Self {
            base,
            height,
            light_base: load_height(db, meta::LIGHT_BASE)?.unwrap_or(base),
            state: crate::state::load_height(db)?.unwrap_or(Height::ZERO),
        })
    }
}

/// A height that is recorded under a name in `meta`.
pub(crate) fn load_height(db: &Database, key: &[u8]) -> Result<Option<Height>, StoreError> {
    db.get(Column::Meta, key)?
        .map(|value| {
            key_height(&value).ok_or_else(|| db.corrupt(Column::Meta, key, "not a height"))
        })
        .transpose()
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.db.path())
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}

fn evidence_key(height: Height, hash: &Hash) -> Vec<u8> {
    [&height_key(height), hash.as_bytes()].concat()
}

impl Database {
    /// The entries whose keys begin with `prefix`, in order, at most `limit` of them.
    pub(crate) fn prefix(
        &self,
        column: Column,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.range(column, prefix, &prefix_end(prefix), limit)
    }
}

/// The first key after all that begin with `prefix`; a key above every one of ours where there is
/// none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; prefix.len() + 64]
}
