use std::{io, path::PathBuf};

use perihelion_types::{BlockId, Hash, Height};
use thiserror::Error;

/// The store cannot do what it was asked. Every case is local: no peer is to blame for one.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "{} is locked by {holder}: stop that process, or give this one another home",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it: its id and, where the system tells, its name.
        holder: String,
    },
    /// A folder or a file beside the database cannot be made, read or written.
    #[error("{}: {source}{}", path.display(), file_remedy(source))]
    File {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store was written by a newer program.
    #[error(
        "{} says {found:?}, and this program knows formats up to {supported}: \
         run the version of perihelion that is named there, or a newer one",
        path.display()
    )]
    NewerFormat {
        /// The file that names the format.
        path: PathBuf,
        /// Its text: the format, and which program wrote it.
        found: String,
        /// The newest known.
        supported: u32,
    },
    /// The store was written by an older program, and nothing can convert it.
    #[error(
        "{} has format {found}, which is no longer read: remove the folder and sync again",
        path.display()
    )]
    OlderFormat {
        /// The file that names the format.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The file that names the format is missing beside a database, or is not readable as one.
    #[error(
        "{} does not name a format ({found:?}): restore it, or remove the folder and sync again",
        path.display()
    )]
    UnknownFormat {
        /// The file that should name it.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// A part of the database is not there.
    #[error(
        "{}: the column family {name:?} is missing: restore the folder from a copy, or remove it \
         and sync again",
        path.display()
    )]
    MissingColumnFamily {
        /// The database.
        path: PathBuf,
        /// What is missing.
        name: &'static str,
    },
    /// A file that the database is made of is not there, or not whole.
    #[error(
        "{}, which holds a part of {column}, {}: restore the folder from a copy, or remove it and \
         sync again",
        path.display(),
        lost(*found, *expected)
    )]
    LostFile {
        /// The file.
        path: PathBuf,
        /// The column family.
        column: String,
        /// The bytes that it has; `None` where it is not there.
        found: Option<u64>,
        /// The bytes that were written.
        expected: u64,
    },
    /// RocksDB refuses to open.
    #[error("cannot open {}: {reason}: {}", path.display(), remedy(reason))]
    Open {
        /// The database.
        path: PathBuf,
        /// What RocksDB said; it names the file.
        reason: String,
    },
    /// No room. Nothing was written, and nothing more is until the store is opened again.
    #[error(
        "no space left for {} at height {height}: free some, then start again ({reason})",
        path.display()
    )]
    DiskFull {
        /// The database.
        path: PathBuf,
        /// The height that was being written.
        height: Height,
        /// What RocksDB said; it names the file.
        reason: String,
    },
    /// A write or a sync failed. Nothing more is written until the store is opened again: a sync
    /// that is tried again may succeed without the data being there.
    #[error(
        "cannot write height {height} to {}: {reason}{}",
        path.display(),
        write_remedy(reason)
    )]
    Write {
        /// The database.
        path: PathBuf,
        /// The height that was being written.
        height: Height,
        /// What RocksDB said; it names the file.
        reason: String,
    },
    /// An earlier write failed.
    #[error("{} takes no more writes, since one failed: {reason}", path.display())]
    Stopped {
        /// The database.
        path: PathBuf,
        /// What the failed one said.
        reason: String,
    },
    /// A read failed.
    #[error("cannot read {column} of {what} from {}: {reason}: {}", path.display(), remedy(reason))]
    Read {
        /// The database.
        path: PathBuf,
        /// The column family.
        column: &'static str,
        /// The key: `height 7`, for instance.
        what: String,
        /// What RocksDB said; it names the file.
        reason: String,
    },
    /// What is stored fails its checksum or cannot be decoded.
    #[error(
        "{column} of {what} in {} is damaged: {reason}: restore the folder from a copy, or \
         remove it and sync again",
        path.display()
    )]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// The column family.
        column: &'static str,
        /// The key: `height 7`, for instance.
        what: String,
        /// What is wrong; a failed checksum names the file.
        reason: String,
    },
    /// A block was to be saved that does not follow the last one.
    #[error("block {height} cannot follow block {last}")]
    NotContiguous {
        /// The height of the block.
        height: Height,
        /// The last height stored.
        last: Height,
    },
    /// Another block is stored at this height.
    #[error("another block is stored at height {height}: {} is, {} came", stored.hash, given.hash)]
    OtherBlock {
        /// The height.
        height: Height,
        /// The id stored.
        stored: Box<BlockId>,
        /// The id of the block that was to be saved.
        given: Box<BlockId>,
    },
    /// A state was to be saved whose block is not there.
    #[error("state at height {state} is above the last block, {last}")]
    StateAhead {
        /// The state's last block height.
        state: Height,
        /// The last height stored.
        last: Height,
    },
    /// The store belongs to another chain.
    #[error(
        "{} holds a chain whose genesis has the hash {stored}, the genesis given has {given}: \
         give the right genesis.json, or another home",
        path.display()
    )]
    OtherGenesis {
        /// The database.
        path: PathBuf,
        /// The hash it was made with.
        stored: Hash,
        /// The hash given now.
        given: Hash,
    },
    /// Pruning was asked to remove what is not there yet.
    #[error("cannot keep heights from {retain} on: the last block is {height}")]
    RetainAboveHeight {
        /// The first height to be kept.
        retain: Height,
        /// The last height stored.
        height: Height,
    },
}

impl StoreError {
    /// Whether it follows from an earlier failure, which was handed to another caller: who got that one
    /// tells of it.
    #[must_use]
    pub const fn is_consequence(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }

    /// Whether the store as it lies there can be used no more: only a copy or a new sync helps.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::OlderFormat { .. }
            | Self::UnknownFormat { .. }
            | Self::MissingColumnFamily { .. }
            | Self::LostFile { .. }
            | Self::Corrupt { .. } => true,
            Self::Open { reason, .. } | Self::Read { reason, .. } => {
                refusal_remedy(reason).is_none()
            }
            Self::Locked { .. }
            | Self::File { .. }
            | Self::NewerFormat { .. }
            | Self::DiskFull { .. }
            | Self::Write { .. }
            | Self::Stopped { .. }
            | Self::NotContiguous { .. }
            | Self::OtherBlock { .. }
            | Self::StateAhead { .. }
            | Self::OtherGenesis { .. }
            | Self::RetainAboveHeight { .. } => false,
        }
    }
}

/// What a file that is not there, or not whole, looks like.
fn lost(found: Option<u64>, expected: u64) -> String {
    match found {
        None => "is missing".to_owned(),
        Some(found) => format!("has {found} bytes of {expected}"),
    }
}

const SPACE: &str = "free some space, then start again";
const OWN: &str = "let the user who runs the node own the folder";
const MOUNT: &str =
    "mount the file system so that it can be written, or give the node another home";
const FILES: &str = "allow this process more open files (ulimit -n), then start again";
const HELD: &str = "stop the program that has the database open, then start again";
const MEMORY: &str = "give this process more memory, then start again";

/// What the system may refuse for the time being, and what helps. RocksDB hands the system's error on
/// as text alone.
const REFUSALS: [(&str, &str); 7] = [
    ("No space left", SPACE),
    ("Disk quota exceeded", SPACE),
    ("Permission denied", OWN),
    ("Read-only file system", MOUNT),
    ("Too many open files", FILES),
    // Of the file that RocksDB locks, beside our own.
    ("Resource temporarily unavailable", HELD),
    ("Cannot allocate memory", MEMORY),
];

/// What helps against a file or folder that the system refuses, behind what it said.
fn file_remedy(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => format!(": {OWN}"),
        io::ErrorKind::ReadOnlyFilesystem => format!(": {MOUNT}"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!(": {SPACE}"),
        _ => String::new(),
    }
}

/// What helps where RocksDB hands on what the system refuses for the time being. In all else that it
/// says files are damaged or missing.
fn refusal_remedy(reason: &str) -> Option<&'static str> {
    let (_, remedy) = REFUSALS
        .iter()
        .find(|(refusal, _)| reason.contains(refusal))?;
    Some(remedy)
}

/// What helps against a database that cannot be opened or read.
fn remedy(reason: &str) -> &'static str {
    refusal_remedy(reason).unwrap_or("restore the folder from a copy, or remove it and sync again")
}

/// What helps against a write that failed, behind what RocksDB said, where that is known.
fn write_remedy(reason: &str) -> String {
    refusal_remedy(reason).map_or_else(String::new, |remedy| format!(": {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody is to throw a store away for it.
    #[test]
    fn what_may_not_be_written_says_what_to_do_and_is_not_lost() {
        for (kind, remedy) in [
            (io::ErrorKind::PermissionDenied, OWN),
            (io::ErrorKind::ReadOnlyFilesystem, MOUNT),
            (io::ErrorKind::StorageFull, SPACE),
            (io::ErrorKind::QuotaExceeded, SPACE),
        ] {
            let error = StoreError::File {
                path: "data/perihelion/LOCK".into(),
                source: kind.into(),
            };
            assert!(error.to_string().ends_with(remedy), "{error}");
            assert!(!error.is_lost());
        }
        for (refusal, remedy) in [
            ("Permission denied", OWN),
            ("Read-only file system", MOUNT),
            ("No space left on device", SPACE),
            ("Disk quota exceeded", SPACE),
            ("Resource temporarily unavailable", HELD),
            ("Cannot allocate memory", MEMORY),
            ("Too many open files", FILES),
        ] {
            let path = PathBuf::from("data/perihelion/db");
            let reason = format!("IO error: While lock file: db/LOCK: {refusal}");
            let opened = StoreError::Open {
                path: path.clone(),
                reason: reason.clone(),
            };
            let read = StoreError::Read {
                path: path.clone(),
                column: "blocks",
                what: "height 7".to_owned(),
                reason: reason.clone(),
            };
            let height = Height::new(7);
            let written = StoreError::Write {
                path,
                height,
                reason,
            };
            for error in [opened, read, written] {
                assert!(error.to_string().ends_with(remedy), "{error}");
                assert!(!error.is_lost(), "{error}");
            }
        }
    }

    #[test]
    fn what_the_disk_has_lost_is_lost() {
        for reason in [
            "Corruption: block checksum mismatch",
            "IO error: While open a file for random read: db/7.sst: Input/output error",
        ] {
            let error = StoreError::Open {
                path: "data/perihelion/db".into(),
                reason: reason.to_owned(),
            };
            assert!(error.to_string().ends_with("remove it and sync again"));
            assert!(error.is_lost());
        }
    }
}
