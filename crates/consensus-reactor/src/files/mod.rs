//! Files of a home: read with the remedy for what is wrong with them, written atomically and durably.
//! The content of a secret one never stands in an error.

mod atomic;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) use atomic::create_folder_io;
pub use atomic::{create_folder, write_atomically};
use thiserror::Error;
use zeroize::Zeroizing;

/// A file of the home cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It is not there.
    #[error("the {what} {} does not exist: {remedy}", path.display())]
    Missing {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// It is there already, and never overwritten.
    #[error("the {what} {} already exists: remove it first if a new one is wanted", path.display())]
    Exists {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("the {what} {} cannot be read: {source}: give the user who runs the node access to it", path.display())]
    Read {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is damaged.
    #[error("the {what} {} is damaged: {reason}: {remedy}", path.display())]
    Damaged {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it; of a secret, only the place.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Another signer has it.
    #[error(
        "another process signs with {}, perhaps one with another home or data folder: both would \
         sign other blocks of one height; stop that one first",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("{} cannot be written: {source}{}", path.display(), write_remedy(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What helps where the system refuses to write, behind what it said; empty where that is not known.
#[must_use]
pub fn write_remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ": let the user who runs the node own it and its folder",
        io::ErrorKind::ReadOnlyFilesystem => {
            ": mount the file system so that it can be written, or give the node another home"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free some space, then start again"
        }
        _ => "",
    }
}

/// What a file is and what to do when it is missing or damaged.
#[derive(Debug, Clone, Copy)]
pub struct FileKind {
    /// What it is.
    pub what: &'static str,
    /// What to do when it is not there.
    pub missing: &'static str,
    /// What to do when it is damaged.
    pub damaged: &'static str,
}

impl FileKind {
    /// Its content, wiped after use.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn read(self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Zeroizing::new(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FileError::Missing {
                what: self.what,
                path: path.to_owned(),
                remedy: self.missing,
            }),
            Err(source) => Err(FileError::Read {
                what: self.what,
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// The error that says what is wrong with it.
    #[must_use]
    pub fn damaged(self, path: &Path, reason: impl Into<String>) -> FileError {
        FileError::Damaged {
            what: self.what,
            path: path.to_owned(),
            reason: reason.into(),
            remedy: self.damaged,
        }
    }

    /// Reads JSON. Only the place of a mistake is told, since the words of the parser may quote
    /// a secret.
    ///
    /// # Errors
    /// When it is not of the form of `T`.
    pub fn parse<T: serde::de::DeserializeOwned>(
        self,
        path: &Path,
        bytes: &[u8],
    ) -> Result<T, FileError> {
        serde_json::from_slice(bytes).map_err(|error| {
            let problem = match error.classify() {
                serde_json::error::Category::Data => "not of the form that CometBFT writes",
                _ => "not valid JSON",
            };
            let reason = format!("{problem}, line {} column {}", error.line(), error.column());
            self.damaged(path, reason)
        })
    }
}

/// Fails when the file, a `what`, is there.
///
/// # Errors
/// Then.
pub fn must_not_exist(what: &'static str, path: &Path) -> Result<(), FileError> {
    if path.symlink_metadata().is_ok() {
        return Err(FileError::Exists {
            what,
            path: path.to_owned(),
        });
    }
    Ok(())
}
