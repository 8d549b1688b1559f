//! The folder of the store: its lock, which names the process, its format, and its chain.
//!
//! ```text
//! perihelion/LOCK     locked by the process that has the store open; holds its id
//! perihelion/FORMAT   the format, made before the database
//! perihelion/GENESIS  the hash of the genesis that the store is bound to
//! perihelion/db/      RocksDB
//! ```
//! The files beside the database are there to refuse a store without opening it: RocksDB writes
//! when it opens.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use perihelion_types::Hash;

use crate::StoreError;

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 4;
/// The file that tells the format.
pub(crate) const FORMAT_FILE: &str = "FORMAT";
/// The oldest format that is still read: in it, results are as the application gave them, and up to
/// 2 each attribute of a transaction has an entry of the index; up to 3 `block_meta` and
/// `hashes` have the whole hash of each block. What is written to such a store makes it one of the new
/// format.
const OLDEST: u32 = 1;
/// The store's folder within the data folder.
const FOLDER: &str = "perihelion";

/// A folder that this process alone may open, with a format that it reads.
///
/// The lock goes with the value, or with the process.
#[derive(Debug)]
pub(crate) struct StoreHome {
    folder: PathBuf,
    lock: File,
}

impl StoreHome {
    /// Takes the folder `perihelion` inside `home_data`, making it when it is not there. A folder
    /// that is refused stays as it is.
    pub(crate) fn take(home_data: &Path) -> Result<Self, StoreError> {
        let folder = home_data.join(FOLDER);
        make_folder(&folder).map_err(|source| file_error(&folder, source))?;
        let path = folder.join("LOCK");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| file_error(&path, source))?;
        let home = Self {
            lock: take_lock(lock, &path)?,
            folder,
        };
        if is_made(&home.folder) {
            check_format(&home.folder)?;
        } else {
            write_format(&home.folder)?;
        }
        Ok(home)
    }

    /// Names this process in the lock, and the format that is written from now on: the last step of
    /// opening, since a store that cannot be opened is not written to.
    pub(crate) fn claim(&self) -> Result<(), StoreError> {
        let found = check_format(&self.folder)?;
        if found != FORMAT {
            write_format(&self.folder)?;
            tracing::info!(
                store = %self.folder.display(),
                before = found,
                now = FORMAT,
                "the store has a newer format from now on: older versions no longer read it"
            );
        }
        let mut lock = &self.lock;
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|source| file_error(&self.folder.join("LOCK"), source))
    }

    /// Where RocksDB's files are.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("db")
    }

    /// Notes the genesis beside the database, unless it is noted.
    pub(crate) fn save_genesis(&self, hash: &Hash) -> Result<(), StoreError> {
        if load_genesis(&self.folder)?.is_some() {
            return Ok(());
        }
        write_durably(&self.folder, "GENESIS", &format!("{hash}\n"))
    }
}

/// The lock of a store that is not opened: no other process can open it meanwhile.
#[derive(Debug)]
pub struct StoreLock {
    /// `None` where there is no store.
    _lock: Option<File>,
}

/// Takes the lock of the store in `home_data` without opening the store or changing anything on
/// disk. Where there is no store, there is nothing to lock.
///
/// # Errors
/// [`StoreError::Locked`] when another process has the store open; when the lock cannot be read.
pub fn lock_store(home_data: &Path) -> Result<StoreLock, StoreError> {
    let path = home_data.join(FOLDER).join("LOCK");
    let lock = match File::open(&path) {
        Ok(file) => Some(take_lock(file, &path)?),
        Err(error) if is_absent(&error) => None,
        Err(source) => return Err(file_error(&path, source)),
    };
    Ok(StoreLock { _lock: lock })
}

/// Whether the store in `home_data` may be opened for the chain whose genesis has this hash, as far
/// as can be told without changing anything on disk. A store that is not there may be made.
///
/// # Errors
/// When another process has it open, its format is not ours, or it is bound to another genesis.
pub fn check_store(home_data: &Path, genesis: &Hash) -> Result<(), StoreError> {
    let _lock = lock_store(home_data)?;
    let folder = home_data.join(FOLDER);
    if !is_made(&folder) {
        return Ok(());
    }
    check_format(&folder)?;
    match load_genesis(&folder)? {
        Some(stored) if stored != *genesis => Err(StoreError::OtherGenesis {
            path: folder,
            stored,
            given: *genesis,
        }),
        _ => Ok(()),
    }
}

/// Whether there is a store in the folder, whole or not.
fn is_made(folder: &Path) -> bool {
    folder.join(FORMAT_FILE).exists() || folder.join("db").exists()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn file_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        source,
    }
}

/// Locks the file; another process's id is read from it.
fn take_lock(mut file: File, path: &Path) -> Result<File, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // An unreadable id leaves the text empty: the lock itself is what counts.
            let _unreadable = file.read_to_string(&mut text);
            Err(StoreError::Locked {
                path: path.to_owned(),
                holder: describe_process(text.trim()),
            })
        }
        Err(TryLockError::Error(source)) => Err(file_error(path, source)),
    }
}

/// The process with this id. One that is gone is not the holder: the holder is still opening.
fn describe_process(id: &str) -> String {
    let folder = Path::new("/proc");
    let name = fs::read_to_string(folder.join(id).join("comm"));
    match name {
        Ok(name) if !id.is_empty() => format!("process {id} ({})", name.trim()),
        _ if id.is_empty() || folder.join("self").exists() => "another process".to_owned(),
        _ => format!("process {id}"),
    }
}

/// The genesis that the store is bound to, as noted beside the database.
fn load_genesis(folder: &Path) -> Result<Option<Hash>, StoreError> {
    let path = folder.join("GENESIS");
    let text = match fs::read_to_string(&path) {
        Err(error) if is_absent(&error) => return Ok(None),
        read => read.map_err(|source| file_error(&path, source))?,
    };
    // What the database says counts where the note cannot be read.
    let bytes = hex::decode(text.trim()).ok();
    Ok(bytes.and_then(|bytes| Hash::try_from(&bytes[..]).ok()))
}

fn check_format(folder: &Path) -> Result<u32, StoreError> {
    let path = folder.join(FORMAT_FILE);
    let text = match fs::read_to_string(&path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|source| file_error(&path, source))?,
    };
    let unknown = || StoreError::UnknownFormat {
        path: path.clone(),
        found: text.chars().take(40).collect(),
    };
    let number = text.split_whitespace().next().ok_or_else(unknown)?;
    let found: u32 = number.parse().map_err(|_| unknown())?;
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            path: path.clone(),
            found: text.trim().chars().take(40).collect(),
            supported: FORMAT,
        });
    }
    if found < OLDEST {
        return Err(StoreError::OlderFormat { path, found });
    }
    Ok(found)
}

/// Makes a folder and those above it, as far as they are not there, each with a name that a power cut
/// leaves.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = match folder.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(error) if !folder.is_dir() => Err(error),
        _ => File::open(above)?.sync_all(),
    }
}

/// Written before the database is made, so that no database is ever without it.
fn write_format(folder: &Path) -> Result<(), StoreError> {
    let text = format!("{FORMAT} perihelion {}\n", env!("CARGO_PKG_VERSION"));
    write_durably(folder, FORMAT_FILE, &text)
}

/// Writes a small file whole or not at all.
fn write_durably(folder: &Path, name: &str, text: &str) -> Result<(), StoreError> {
    let path = folder.join(name);
    let error = |source| file_error(&path, source);
    let partial = folder.join(format!("{name}.new"));
    let mut file = File::create(&partial).map_err(error)?;
    file.write_all(text.as_bytes()).map_err(error)?;
    file.sync_all().map_err(error)?;
    fs::rename(&partial, &path).map_err(error)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(error)
}
