//! Whether a CometBFT node runs on a home.
//!
//! Each database of CometBFT is a folder `NAME.db` with a file `LOCK`, which the process that has it
//! open locks: with `flock` by goleveldb (the default), with `fcntl` by RocksDB, cleveldb and Pebble.
//! BadgerDB locks the folder with `flock`; boltdb's database is one file, which it locks so.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use perihelion_consensus_reactor::files::write_remedy;
use thiserror::Error;

/// The databases that a CometBFT node has open while it runs.
const OF_A_NODE: [&str; 4] = ["blockstore.db", "state.db", "evidence.db", "tx_index.db"];

/// The one that it opens first.
const FIRST: &str = OF_A_NODE[0];

/// The file in a database that is locked.
const LOCK: &str = "LOCK";

/// CometBFT's databases cannot be had.
#[derive(Debug, Error)]
pub enum CometBftError {
    /// A process has one open.
    #[error(
        "{} is locked by {holder}, as by a CometBFT node that runs on this home: stop that process, \
         or give this one another home; two nodes with one key sign twice",
        path.display()
    )]
    Runs {
        /// What is locked.
        path: PathBuf,
        /// The process: its id and name as far as the system tells.
        holder: String,
    },
    /// The one that is made where none is cannot be made.
    #[error(
        "{}, which keeps CometBFT from starting on this home, cannot be made: {source}{}",
        path.display(),
        write_remedy(source)
    )]
    Unmade {
        /// The folder or the file in it.
        path: PathBuf,
        /// Why it cannot.
        source: io::Error,
    },
    /// It cannot be told.
    #[error("whether a CometBFT node runs on this home cannot be told: {}: {source}: let the user who runs the node own it", path.display())]
    Unknown {
        /// What should be locked.
        path: PathBuf,
        /// Why it cannot.
        source: io::Error,
    },
}

/// CometBFT's databases in a data folder, locked as it locks them: it does not start there as long
/// as the value lives.
#[derive(Debug, Default)]
pub struct CometBftLocks {
    held: HashMap<PathBuf, File>,
}

impl CometBftLocks {
    /// Locks the databases of a CometBFT node that are in `data`. Nothing on disk changes, and what
    /// is not there cannot be locked.
    ///
    /// # Errors
    /// When a process has one of them open, or that cannot be told.
    pub fn of_a_node(data: &Path) -> Result<Self, CometBftError> {
        let mut databases = OF_A_NODE.map(|name| data.join(name)).to_vec();
        databases.retain(|path| path.exists());
        Self::of(&databases)
    }

    /// The same of every database in `data`, those of applications included.
    ///
    /// # Errors
    /// When a process has one of them open, or that cannot be told.
    pub fn of_all(data: &Path) -> Result<Self, CometBftError> {
        let entries = match fs::read_dir(data) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(Self::default()),
            Err(source) => return Err(unknown(data, source)),
        };
        let mut databases = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| unknown(data, source))?.path();
            if path.extension().is_some_and(|extension| extension == "db") {
                databases.push(path);
            }
        }
        databases.sort();
        Self::of(&databases)
    }

    /// Locks the database that a CometBFT node opens first also where none was before: its folder is
    /// made, with nothing but the lock in it, and whoever starts CometBFT there later finds it empty.
    /// One that has come since the others were locked is locked too.
    ///
    /// # Errors
    /// When a process has it open, it cannot be made, or that cannot be told.
    pub fn keep_out(&mut self, data: &Path) -> Result<(), CometBftError> {
        let folder = data.join(FIRST);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unmade(&folder, error));
            }
            _ => self.lock(&folder)?,
        }
        let path = folder.join(LOCK);
        if self.held.contains_key(&path) {
            return Ok(());
        }
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(_) => self.lock(&path),
            // A database of one file, or a link that leads nowhere.
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(unmade(&path, error)),
        }
    }

    fn of(databases: &[PathBuf]) -> Result<Self, CometBftError> {
        let mut locks = Self::default();
        for database in databases {
            locks.lock(database)?;
            locks.lock(&database.join(LOCK))?;
        }
        Ok(locks)
    }

    /// Locks what is at `path`, if anything is, and not by this value already.
    fn lock(&mut self, path: &Path) -> Result<(), CometBftError> {
        if !self.held.contains_key(path)
            && let Some(file) = lock(path)?
        {
            self.held.insert(path.to_owned(), file);
        }
        Ok(())
    }
}

/// CometBFT's databases in a data folder that have anything in them.
#[must_use]
pub fn databases(data: &Path) -> Vec<PathBuf> {
    let holds_data = |path: &PathBuf| match fs::read_dir(path) {
        Ok(entries) => entries.flatten().any(|entry| entry.file_name() != LOCK),
        // One file, or a folder that only its owner reads.
        Err(_) => fs::symlink_metadata(path).is_ok(),
    };
    let known = ["blockstore.db", "state.db"].iter();
    known
        .map(|name| data.join(name))
        .filter(holds_data)
        .collect()
}

/// Locks what is at `path`, if anything is.
fn lock(path: &Path) -> Result<Option<File>, CometBftError> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(source) => return Err(unknown(path, source)),
    };
    let runs = |holder: Option<u32>| CometBftError::Runs {
        path: path.to_owned(),
        holder: describe(holder),
    };
    if let Some(holder) = holder_by_fcntl(&file) {
        return Err(runs(Some(holder)));
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(runs(holder_in_table(&file))),
        Err(TryLockError::Error(source)) => Err(unknown(path, source)),
    }
}

/// Opens a file or folder to lock it: for writing where that may be, since some network file
/// systems want that, and never changing it.
fn open(path: &Path) -> io::Result<File> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            File::open(path)
        }
        opened => opened,
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn unmade(path: &Path, source: io::Error) -> CometBftError {
    CometBftError::Unmade {
        path: path.to_owned(),
        source,
    }
}

fn unknown(path: &Path, source: io::Error) -> CometBftError {
    CometBftError::Unknown {
        path: path.to_owned(),
        source,
    }
}

/// The process that holds a record lock on the file.
fn holder_by_fcntl(file: &File) -> Option<u32> {
    let wanted = rustix::process::Flock::from(rustix::process::FlockType::WriteLock);
    let held = rustix::process::fcntl_getlk(file, &wanted).ok()??;
    let holder = held.pid?.as_raw_nonzero().get();
    u32::try_from(holder).ok()
}

/// The process that has locked the file with `flock`, by the system's table of locks.
///
/// The table is given a page at most at a time, and counted anew each time: a line is passed over
/// where one before it goes between two pages. It is read again then, a few times.
fn holder_in_table(file: &File) -> Option<u32> {
    const READINGS: usize = 4;
    // A reader of less than a page would be given less of the table at a time.
    const PAGES: usize = 64 * 1024;

    let inode = file.metadata().ok()?.ino();
    (0..READINGS).find_map(|_| {
        let table = File::open("/proc/locks").ok()?;
        BufReader::with_capacity(PAGES, table)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| holder_in_line(&line, inode))
    })
}

/// The process of a line of the system's table of locks, if its `flock` is that of this inode.
fn holder_in_line(line: &str, inode: u64) -> Option<u32> {
    // "1: FLOCK  ADVISORY  WRITE 4242 fd:00:131 0 EOF".
    let mut words = line.split_whitespace().skip(1);
    let kind = words.next()?;
    let (process, place) = (words.nth(2)?, words.next()?);
    let found = place.rsplit(':').next()?.parse() == Ok(inode);
    (kind == "FLOCK" && found).then(|| process.parse().ok())?
}

fn describe(process: Option<u32>) -> String {
    let Some(id) = process.filter(|id| *id > 0) else {
        return "another process".to_owned();
    };
    let mut text = format!("process {id}");
    if let Ok(name) = fs::read_to_string(format!("/proc/{id}/comm")) {
        // Writing to a text cannot fail.
        let _written = write!(text, " ({})", name.trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    fn database(data: &Path, name: &str) -> PathBuf {
        let folder = data.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("LOCK"), "").unwrap();
        folder
    }

    #[test]
    fn what_another_has_locked_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert!(CometBftLocks::of_all(&data.join("none")).is_ok());
        for name in OF_A_NODE {
            let path = database(data, name).join("LOCK");
            let held = File::open(&path).unwrap();
            held.try_lock().unwrap();
            for taken in [CometBftLocks::of_a_node(data), CometBftLocks::of_all(data)] {
                let error = taken.unwrap_err().to_string();
                let holder = format!("process {} (", std::process::id());
                assert!(error.contains(&path.display().to_string()), "{error}");
                assert!(error.contains(&holder), "{error}");
            }
            drop(held);
            assert!(CometBftLocks::of_all(data).is_ok());
        }
    }

    /// The table is given in pieces, and one that goes between two of them moves the others up.
    #[test]
    fn the_holder_is_found_while_other_locks_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let locked = |name: &str| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.lock().unwrap();
            file
        };
        let held = locked("held");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let others: [File; 8] = std::array::from_fn(|i| locked(&i.to_string()));
                    drop(others);
                }
            });
            let lost = (0..5_000).filter(|_| holder_in_table(&held) != Some(std::process::id()));
            let lost = lost.count();
            over.store(true, Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }

    #[test]
    fn a_database_in_one_file_or_locked_as_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        fs::write(data.join("state.db"), "boltdb").unwrap();
        let badger = database(data, "blockstore.db");
        for path in [data.join("state.db"), badger] {
            let held = File::open(&path).unwrap();
            held.try_lock().unwrap();
            assert!(CometBftLocks::of_a_node(data).is_err(), "{path:?}");
        }
        assert!(CometBftLocks::of_a_node(data).is_ok());
    }

    #[test]
    fn an_application_may_have_its_own_open_beside_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let held = File::open(database(data, "application.db").join("LOCK")).unwrap();
        held.try_lock().unwrap();
        assert!(CometBftLocks::of_a_node(data).is_ok());
        assert!(CometBftLocks::of_all(data).is_err());
    }

    #[test]
    fn they_are_held_until_dropped_and_stay_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = database(folder.path(), "state.db").join("LOCK");
        let locks = CometBftLocks::of_a_node(folder.path()).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
        drop(locks);
        File::open(&path).unwrap().try_lock().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn one_is_kept_out_where_none_ever_was() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        for _ in 0..2 {
            let mut locks = CometBftLocks::of_a_node(data).unwrap();
            locks.keep_out(data).unwrap();
            // As goleveldb opens it.
            let lock = File::open(data.join("blockstore.db/LOCK")).unwrap();
            assert!(lock.try_lock().is_err());
            assert!(CometBftLocks::of_a_node(data).is_err());
            assert_eq!(databases(data), Vec::<PathBuf>::new(), "it is empty");
            drop(locks);
            lock.try_lock().unwrap();
        }
        fs::write(data.join("blockstore.db/CURRENT"), "").unwrap();
        assert_eq!(databases(data), [data.join("blockstore.db")]);
    }

    #[test]
    fn one_that_starts_meanwhile_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let mut locks = CometBftLocks::of_a_node(data).unwrap();
        let path = database(data, "blockstore.db").join("LOCK");
        let held = File::open(&path).unwrap();
        held.try_lock().unwrap();
        let error = locks.keep_out(data).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        drop(held);
        locks.keep_out(data).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
    }

    /// Left behind by a start that was ended between making the folder and its lock.
    #[test]
    fn one_is_kept_out_of_an_empty_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let path = data.join("blockstore.db");
        fs::create_dir(&path).unwrap();
        let mut locks = CometBftLocks::of_a_node(data).unwrap();
        locks.keep_out(data).unwrap();
        let lock = File::open(path.join("LOCK")).unwrap();
        assert!(lock.try_lock().is_err());
    }

    #[test]
    fn what_is_no_folder_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let path = data.join("blockstore.db");
        fs::write(&path, "boltdb").unwrap();
        let mut locks = CometBftLocks::default();
        locks.keep_out(data).unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"boltdb");
        drop(locks);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        CometBftLocks::default().keep_out(data).unwrap();
    }

    #[test]
    fn a_lock_that_cannot_be_made_says_what_to_do() {
        for (kind, remedy) in [
            (io::ErrorKind::StorageFull, "free some space"),
            (io::ErrorKind::PermissionDenied, "own it"),
            (io::ErrorKind::ReadOnlyFilesystem, "mount the file system"),
        ] {
            let error = unmade("data/blockstore.db".as_ref(), kind.into()).to_string();
            assert!(error.contains(remedy), "{error}");
            assert!(!error.contains("cannot be told"), "{error}");
        }
        // The folder is a file: nothing can be made in it.
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::write(&data, "").unwrap();
        let error = CometBftLocks::default().keep_out(&data).unwrap_err();
        assert!(matches!(error, CometBftError::Unmade { .. }), "{error}");
    }
}
