//! The files of a home, in CometBFT's forms. All are written atomically and durably; those with a
//! secret can be read by their owner only, and their content never stands in an error.

mod atomic;
mod genesis;
mod node_key;
mod validator;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use atomic::{create_folder, write_atomically};
pub use genesis::{genesis_id, genesis_json, load_genesis, new_genesis, random_text};
pub use node_key::{generate_node_key, load_node_key, node_key_json};
use thiserror::Error;
pub use validator::{SignState, ValidatorKey};
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
    /// It cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a file is and what to do when it is missing or damaged.
#[derive(Debug, Clone, Copy)]
struct Kind {
    what: &'static str,
    missing: &'static str,
    damaged: &'static str,
}

impl Kind {
    fn read(self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
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

    fn damaged(self, path: &Path, reason: impl Into<String>) -> FileError {
        FileError::Damaged {
            what: self.what,
            path: path.to_owned(),
            reason: reason.into(),
            remedy: self.damaged,
        }
    }

    /// Reads JSON. Only the place of a mistake is told, since the words of the parser may quote
    /// a secret.
    fn parse<T: serde::de::DeserializeOwned>(
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

/// Fails when the file is there.
fn must_not_exist(what: &'static str, path: &Path) -> Result<(), FileError> {
    if path.symlink_metadata().is_ok() {
        return Err(FileError::Exists {
            what,
            path: path.to_owned(),
        });
    }
    Ok(())
}
