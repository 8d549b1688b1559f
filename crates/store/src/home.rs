//! The folder of the store: its lock, which names the process, and its format.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::StoreError;

/// The format that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// The file that tells the format.
pub(crate) const FORMAT_FILE: &str = "FORMAT";
/// The oldest format that is still read.
const OLDEST: u32 = 1;
/// What turns a folder of an older format into one of ours.
const REMEDY: &str = "perihelion unsafe-reset-all --keep-addr-book";

/// A folder that this process alone may open, with a format that it reads.
///
/// The lock goes with the value, or with the process.
#[derive(Debug)]
pub(crate) struct StoreHome {
    database: PathBuf,
    _lock: File,
}

impl StoreHome {
    /// Takes the folder `perihelion` inside `home_data`, making it when it is not there.
    pub(crate) fn take(home_data: &Path) -> Result<Self, StoreError> {
        let folder = home_data.join("perihelion");
        fs::create_dir_all(&folder).map_err(|source| file_error(&folder, source))?;
        let lock = take_lock(&folder.join("LOCK"))?;
        let database = folder.join("db");
        let format = folder.join(FORMAT_FILE);
        if format.exists() || database.exists() {
            check_format(&format)?;
        } else {
            write_format(&folder, &format)?;
        }
        Ok(Self {
            database,
            _lock: lock,
        })
    }

    /// Where RocksDB's files are.
    pub(crate) fn database(&self) -> &Path {
        &self.database
    }
}

fn file_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        source,
    }
}

/// Locks the file and writes our process id into it; another's is read from it.
fn take_lock(path: &Path) -> Result<File, StoreError> {
    let error = |source| file_error(path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // An unreadable id leaves the text empty: the lock itself is what counts.
            let _unreadable = file.read_to_string(&mut text);
            return Err(StoreError::Locked {
                path: path.to_owned(),
                holder: describe_process(text.trim()),
            });
        }
        Err(TryLockError::Error(source)) => return Err(error(source)),
    }
    file.set_len(0).map_err(error)?;
    file.rewind().map_err(error)?;
    writeln!(file, "{}", std::process::id()).map_err(error)?;
    Ok(file)
}

fn describe_process(id: &str) -> String {
    if id.is_empty() {
        return "another process".to_owned();
    }
    fs::read_to_string(format!("/proc/{id}/comm")).map_or_else(
        |_| format!("process {id}"),
        |name| format!("process {id} ({})", name.trim()),
    )
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    let text = match fs::read_to_string(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|source| file_error(path, source))?,
    };
    let unknown = || StoreError::UnknownFormat {
        path: path.to_owned(),
        found: text.chars().take(40).collect(),
    };
    let number = text.split_whitespace().next().ok_or_else(unknown)?;
    let found: u32 = number.parse().map_err(|_| unknown())?;
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            path: path.to_owned(),
            found,
            supported: FORMAT,
        });
    }
    if found < OLDEST {
        return Err(StoreError::OlderFormat {
            path: path.to_owned(),
            found,
            command: REMEDY,
        });
    }
    Ok(())
}

/// Written before the database is made, so that no database is ever without it.
fn write_format(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let error = |source| file_error(path, source);
    let partial = folder.join("FORMAT.new");
    let mut file = File::create(&partial).map_err(error)?;
    writeln!(file, "{FORMAT} perihelion {}", env!("CARGO_PKG_VERSION")).map_err(error)?;
    file.sync_all().map_err(error)?;
    fs::rename(&partial, path).map_err(error)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(error)
}
