//! The only place that calls RocksDB: typed errors, and no write after a failed one.

use std::{
    borrow::Cow,
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard},
};

use perihelion_types::Height;
use rocksdb::{
    ColumnFamily, DB, DBPinnableSlice, Direction, ErrorKind, FlushOptions, IteratorMode, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use crate::{
    StoreError, StoreOptions, Sync, blob_files,
    columns::{self, Column},
    home, live_files,
};

/// RocksDB with our column families.
pub(crate) struct Database {
    db: DB,
    path: PathBuf,
    /// What the first failed write said.
    failed: OnceLock<String>,
    /// Whether writes skip the log; held while one is made, so that all before and all behind a
    /// change of it are of one kind.
    unlogged: RwLock<bool>,
}

/// The changes of one write: all of them are made, or none. Large values are borrowed until RocksDB
/// copies them.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    changes: Vec<(Column, Change<'a>)>,
}

enum Change<'a> {
    Put(Vec<u8>, Cow<'a, [u8]>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

impl Change<'_> {
    /// Bytes of key and value, and of what RocksDB writes beside them, at the most.
    fn len(&self) -> usize {
        16 + match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
            Self::DeleteRange(from, to) => from.len() + to.len(),
        }
    }
}

impl<'a> Batch<'a> {
    pub(crate) fn put(
        &mut self,
        column: Column,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) {
        self.changes
            .push((column, Change::Put(key.into(), Cow::Owned(value.into()))));
    }

    /// A large value, not copied before RocksDB does.
    pub(crate) fn put_large(&mut self, column: Column, key: impl Into<Vec<u8>>, value: &'a [u8]) {
        self.changes
            .push((column, Change::Put(key.into(), Cow::Borrowed(value))));
    }

    pub(crate) fn delete(&mut self, column: Column, key: impl Into<Vec<u8>>) {
        self.changes.push((column, Change::Delete(key.into())));
    }

    /// Deletes keys from `from` (inclusive) to `to` (exclusive).
    pub(crate) fn delete_range(
        &mut self,
        column: Column,
        from: impl Into<Vec<u8>>,
        to: impl Into<Vec<u8>>,
    ) {
        self.changes
            .push((column, Change::DeleteRange(from.into(), to.into())));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl Database {
    pub(crate) fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let failed = |error: rocksdb::Error| StoreError::Open {
            path: path.to_owned(),
            reason: reason(&error),
        };
        if path.exists() {
            let found = DB::list_cf(&Options::default(), path).map_err(failed)?;
            for column in Column::ALL {
                if !found.iter().any(|name| name == column.name()) {
                    return Err(StoreError::MissingColumnFamily {
                        path: path.to_owned(),
                        name: column.name(),
                    });
                }
            }
        } else {
            Self::create(path, options)?;
        }
        let (database, columns) = columns::descriptors(&beside(path), options);
        let db = DB::open_cf_descriptors(&database, path, columns).map_err(failed)?;
        live_files::check(&db, path)?;
        Ok(Self {
            db,
            path: path.to_owned(),
            failed: OnceLock::new(),
            unlogged: RwLock::default(),
        })
    }

    /// Makes the database beside its place and moves it there once it is whole: a crash in between
    /// leaves nothing that looks like a damaged one.
    fn create(path: &Path, options: &StoreOptions) -> Result<(), StoreError> {
        let file_error = |source| StoreError::File {
            path: path.to_owned(),
            source,
        };
        let partial = path.with_extension("new");
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(file_error)?;
        }
        let (mut database, columns) = columns::descriptors(&beside(path), options);
        database.create_if_missing(true);
        database.create_missing_column_families(true);
        let db = DB::open_cf_descriptors(&database, &partial, columns).map_err(|error| {
            StoreError::Open {
                path: partial.clone(),
                reason: reason(&error),
            }
        })?;
        drop(db);
        fs::rename(&partial, path).map_err(file_error)?;
        let folder = path.parent().unwrap_or(path);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(file_error)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn handle(&self, column: Column) -> &ColumnFamily {
        self.db
            .cf_handle(column.name())
            .expect("the database was opened with every column family")
    }

    /// Writes `batch` as one. `height` is for the error alone.
    #[allow(clippy::needless_pass_by_value, reason = "a batch is written once")]
    pub(crate) fn write(
        &self,
        batch: Batch<'_>,
        sync: Sync,
        height: Height,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        let failed = |error: rocksdb::Error| self.write_error(reason(&error), height);
        let unlogged = self.unlogged();
        let mut options = WriteOptions::default();
        options.disable_wal(*unlogged);
        options.set_sync(sync == Sync::Yes && !*unlogged);
        // Where two tables in memory wait for the disk, RocksDB lets a write wait for as long as the disk
        // is full. A flush waits as well, but ends with what the disk says.
        options.set_no_slowdown(true);
        match self.db.write_opt(self.encode(&batch), &options) {
            Err(error) if error.kind() == ErrorKind::Incomplete => {
                self.flush(height)?;
                options.set_no_slowdown(false);
                self.db.write_opt(self.encode(&batch), &options)
            }
            written => written,
        }
        .map_err(failed)?;
        if *unlogged && sync == Sync::Yes {
            self.flush(height)?;
        }
        Ok(())
    }

    /// The batch as RocksDB takes it, in one piece.
    fn encode(&self, batch: &Batch<'_>) -> WriteBatch {
        let bytes: usize = batch.changes.iter().map(|(_, change)| change.len()).sum();
        // RocksDB doubles a buffer that is too small: a large block would take twice its bytes.
        let mut raw = WriteBatch::with_capacity_bytes(bytes + 64);
        for (column, change) in &batch.changes {
            let column = self.handle(*column);
            match change {
                Change::Put(key, value) => raw.put_cf(column, key, value),
                Change::Delete(key) => raw.delete_cf(column, key),
                Change::DeleteRange(from, to) => raw.delete_range_cf(column, from, to),
            }
        }
        raw
    }

    /// Makes all earlier writes durable.
    pub(crate) fn sync(&self, height: Height) -> Result<(), StoreError> {
        self.check_writable()?;
        if *self.unlogged() {
            return self.flush(height);
        }
        self.db
            .flush_wal(true)
            .map_err(|error| self.write_error(reason(&error), height))
    }

    /// Writes all tables in memory out, as one: after any crash all are there, or none. `height` is
    /// for the error alone.
    pub(crate) fn flush(&self, height: Height) -> Result<(), StoreError> {
        self.flush_by(&FlushOptions::default(), height)
    }

    /// [`Self::flush`] that does not wait for the disk.
    pub(crate) fn write_out(&self, height: Height) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        self.flush_by(&options, height)
    }

    fn flush_by(&self, options: &FlushOptions, height: Height) -> Result<(), StoreError> {
        self.check_writable()?;
        let columns = Column::ALL.map(|column| self.handle(column));
        self.db
            .flush_cfs_opt(&columns.each_ref(), options)
            .map_err(|error| self.write_error(reason(&error), height))
    }

    /// From now on writes skip the log.
    pub(crate) fn skip_log(&self) {
        *self
            .unlogged
            .write()
            .unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Whether writes skip the log.
    pub(crate) fn skips_log(&self) -> bool {
        *self.unlogged()
    }

    /// From now on writes go to the log, behind all that skipped it. `height` is for the error alone.
    pub(crate) fn use_log(&self, height: Height) -> Result<(), StoreError> {
        let mut unlogged = self
            .unlogged
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if *unlogged {
            self.flush(height)?;
            *unlogged = false;
        }
        Ok(())
    }

    fn unlogged(&self) -> RwLockReadGuard<'_, bool> {
        self.unlogged.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether large values that are written out from now on are compressed. What was said last holds
    /// until the database is closed.
    pub(crate) fn compress_blobs(&self, column: Column, compress: bool) {
        let kind = if compress {
            "kLZ4Compression"
        } else {
            "kNoCompression"
        };
        let options = [("blob_compression_type", kind)];
        if let Err(error) = self.db.set_options_cf(self.handle(column), &options) {
            let reason = reason(&error);
            tracing::debug!(
                reason,
                column = column.name(),
                kind,
                "blobs are compressed as before"
            );
        }
    }

    /// Drops whole files that hold nothing but keys of a range that has been deleted.
    pub(crate) fn drop_files(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        height: Height,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        self.db
            .delete_file_in_range_cf(self.handle(column), from, to)
            .map_err(|error| self.write_error(reason(&error), height))
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        match self.failed.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Stopped {
                path: self.path.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// Remembers that a write failed, and says how.
    pub(crate) fn write_error(&self, reason: String, height: Height) -> StoreError {
        // A second failure at the same time changes nothing: the first one is kept.
        let _first = self.failed.set(reason.clone());
        let path = self.path.clone();
        // RocksDB hands the system's error on as text alone.
        if reason.contains("No space left on device") {
            StoreError::DiskFull {
                path,
                height,
                reason,
            }
        } else {
            StoreError::Write {
                path,
                height,
                reason,
            }
        }
    }

    pub(crate) fn get(
        &self,
        column: Column,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'_>>, StoreError> {
        self.db
            .get_pinned_cf(self.handle(column), key)
            .map_err(|error| self.read_error(column, key, &error))
    }

    /// The last entry with a key at or below `key`.
    pub(crate) fn last_at_or_below(
        &self,
        column: Column,
        key: &[u8],
    ) -> Result<Option<Entry>, StoreError> {
        let mode = IteratorMode::From(key, Direction::Reverse);
        match self.db.iterator_cf(self.handle(column), mode).next() {
            None => Ok(None),
            Some(Ok((key, value))) => Ok(Some((key.into(), value.into()))),
            Some(Err(error)) => Err(self.read_error(column, key, &error)),
        }
    }

    /// The entries from `from` (inclusive) to `to` (exclusive) in order, at most `limit` of them.
    pub(crate) fn range(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mode = IteratorMode::From(from, Direction::Forward);
        self.db
            .iterator_cf_opt(self.handle(column), options, mode)
            .take(limit)
            .map(|entry| {
                entry
                    .map(|(key, value)| (key.into(), value.into()))
                    .map_err(|error| self.read_error(column, from, &error))
            })
            .collect()
    }

    /// Visits the entries from `from` (inclusive) to `to` (exclusive) in order, until `visit` breaks.
    pub(crate) fn visit(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut entries = self.db.raw_iterator_cf_opt(self.handle(column), options);
        entries.seek(from);
        while let Some((key, value)) = entries.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            entries.next();
        }
        entries
            .status()
            .map_err(|error| self.read_error(column, from, &error))
    }

    fn read_error(&self, column: Column, key: &[u8], error: &rocksdb::Error) -> StoreError {
        let path = self.path.clone();
        let what = describe_key(key);
        let mut reason = reason(error);
        let column = column.name();
        if error.kind() == ErrorKind::Corruption {
            if !reason.contains(".sst") && !reason.contains(".blob") {
                let files = blob_files::with_key(&path, key);
                if !files.is_empty() {
                    reason = format!("{reason} in {}", files.join(" or "));
                }
            }
            StoreError::Corrupt {
                path,
                column,
                what,
                reason,
            }
        } else {
            StoreError::Read {
                path,
                column,
                what,
                reason,
            }
        }
    }

    /// What is stored under `key` cannot be what was written.
    pub(crate) fn corrupt(
        &self,
        column: Column,
        key: &[u8],
        reason: impl std::fmt::Display,
    ) -> StoreError {
        StoreError::Corrupt {
            path: self.path.clone(),
            column: column.name(),
            what: describe_key(key),
            reason: reason.to_string(),
        }
    }
}

/// Unsynced writes are handed to the disk on a clean stop.
impl Drop for Database {
    fn drop(&mut self) {
        if self.failed.get().is_none()
            && let Err(error) = self.sync(Height::ZERO)
        {
            tracing::error!(%error, path = %self.path.display(), "the last writes may be lost");
        }
    }
}

/// The file that is there beside a database, whether or not that was made yet.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(home::FORMAT_FILE)
}

/// What RocksDB says, the system's error once: it stands before what was done and again behind it.
fn reason(error: &rocksdb::Error) -> String {
    once(error.as_ref())
}

fn once(text: &str) -> String {
    let mut parts: Vec<&str> = text.split(": ").collect();
    if let Some(last) = parts.pop()
        && !parts.contains(&last)
    {
        parts.push(last);
    }
    parts.join(": ")
}

fn describe_key(key: &[u8]) -> String {
    if key.len() == 8
        && let Some(height) = columns::key_height(key)
    {
        return format!("height {height}");
    }
    if key.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return String::from_utf8_lossy(key).into_owned();
    }
    key.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path) -> Database {
        Database::open(&folder.join("db"), &StoreOptions::default()).unwrap()
    }

    fn put(database: &Database, key: &[u8]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Column::App, key, b"value");
        database.write(batch, Sync::No, Height::new(7))
    }

    #[test]
    fn nothing_is_written_after_a_failed_write() {
        let folder = tempfile::tempdir().unwrap();
        let database = opened(folder.path());
        put(&database, b"before").unwrap();
        let reason = "IO error: No space left on device: While appending to file: 000004.log";
        let error = database.write_error(reason.into(), Height::new(7));
        assert!(matches!(error, StoreError::DiskFull { .. }));
        assert!(!error.is_consequence(), "who gets it tells of it");
        let text = error.to_string();
        for part in ["height 7", "000004.log", &*folder.path().to_string_lossy()] {
            assert!(text.contains(part), "{text}");
        }
        for error in [
            put(&database, b"after").unwrap_err(),
            database.sync(Height::ZERO).unwrap_err(),
            database.flush(Height::ZERO).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Stopped { .. }), "{error}");
            assert!(error.is_consequence());
            assert!(error.to_string().contains("No space left"), "{error}");
        }
        assert!(database.get(Column::App, b"before").unwrap().is_some());
        assert!(database.get(Column::App, b"after").unwrap().is_none());
        drop(database);
        put(&opened(folder.path()), b"after").unwrap();
    }

    #[test]
    fn the_systems_error_is_told_once() {
        for (said, told) in [
            (
                "IO error: No space left on device: While appending to file: /d/4.log: No space left on device",
                "IO error: No space left on device: While appending to file: /d/4.log",
            ),
            (
                "Corruption: checksum mismatch",
                "Corruption: checksum mismatch",
            ),
            ("IO error", "IO error"),
        ] {
            assert_eq!(once(said), told);
        }
    }

    #[test]
    fn another_failure_is_no_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let error = opened(folder.path()).write_error("IO error: lost".into(), Height::new(7));
        assert!(matches!(error, StoreError::Write { .. }), "{error}");
    }

    /// A crash while the database is made leaves a folder that is made again.
    #[test]
    fn a_half_made_database_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("db.new");
        std::fs::create_dir(&partial).unwrap();
        std::fs::write(partial.join("CURRENT"), "MANIFEST-000001\n").unwrap();
        put(&opened(folder.path()), b"key").unwrap();
        assert!(!partial.exists());
    }
}
