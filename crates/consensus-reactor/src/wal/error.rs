use std::{io, path::PathBuf};

use thiserror::Error;

use super::record::RecordFault;
use crate::files::write_remedy;

/// The log cannot be used. Every case is local: no peer is to blame for one.
#[derive(Debug, Error)]
pub enum WalError {
    /// The system refuses.
    #[error(
        "the consensus log {} cannot be {verb}: {source}{}",
        path.display(),
        write_remedy(source)
    )]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What was to be done with it.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was written and synced is not there any more as it was.
    #[error(
        "the consensus log {} is damaged at offset {offset}: {fault}. What this validator signed at \
         its last height may stand behind it, so nothing is cut off. Restore the file from a copy of \
         now; or wait until the chain is above the height in priv_validator_state.json, keep that \
         file, move the folder of the log away, and start again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the first record stands that cannot be read.
        offset: u64,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// A file of the group is not there.
    #[error(
        "the consensus log lacks {}, between files that are there: restore it from a copy of now; or \
         wait until the chain is above the height in priv_validator_state.json, keep that file, move \
         the folder of the log away, and start again",
        path.display()
    )]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A message is larger than any that may be logged. Nothing was written.
    #[error("a message of {bytes} bytes is not logged, {max} are allowed")]
    TooLarge {
        /// Its bytes, with its time.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// An earlier write failed; the log takes no more until it is opened again.
    #[error("the consensus log {} takes no more writes, since one failed: {reason}", path.display())]
    Stopped {
        /// The head.
        path: PathBuf,
        /// What the failed one said.
        reason: String,
    },
}

impl WalError {
    /// Whether what was durable is damaged or gone: then it can be done without once the chain is
    /// above the height that was signed last.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::MissingFile { .. })
    }
}
