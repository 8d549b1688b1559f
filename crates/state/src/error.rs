use bytes::Bytes;
use perihelion_abci::AppError;
use perihelion_certify::HistoryError;
use perihelion_store::StoreError;
use perihelion_types::{BlockId, Height, InvalidError};
use thiserror::Error;

use crate::{ProposalFault, ValidationError};

/// A certified block was not applied. Whatever the case, no peer is to blame, nothing of the block
/// counts as applied, and the executor takes no further block: the node stops, and what is stored
/// is brought to one height again at its next start.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The block is final and does not follow from our state, so our state is wrong: another
    /// application, other rules than the chain's, or a damaged store.
    #[error("block {height} ({}) is final and does not fit our state: {fault}", block.hash)]
    LocalFault {
        /// The block's height.
        height: Height,
        /// The block's id.
        block: Box<BlockId>,
        /// What does not fit; names both hashes where it is about a hash.
        fault: Box<ValidationError>,
    },
    /// The application failed, panicked or gave an answer that breaks a rule.
    #[error(transparent)]
    Application(#[from] AppError),
    /// The store cannot be read or written.
    #[error("block {height}: {source}")]
    Storage {
        /// The block's height.
        height: Height,
        /// What the store said.
        source: Box<StoreError>,
    },
    /// The chain's history, which the block's evidence is judged by, cannot be read.
    #[error("block {height}: {source}")]
    History {
        /// The block's height.
        height: Height,
        /// What cannot be read.
        source: HistoryError,
    },
    /// What consensus wants to be proposed does not fit the state: a fault of this program.
    #[error("block {height} cannot be proposed: {fault}")]
    Proposal {
        /// The height to propose for.
        height: Height,
        /// What does not fit.
        fault: ProposalFault,
    },
    /// An earlier block was not applied.
    #[error("block {height} is not applied: the executor stopped at block {stopped}")]
    Stopped {
        /// The block's height.
        height: Height,
        /// The height at which it stopped.
        stopped: Height,
    },
}

/// State and application cannot be brought to one height.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store holds the state of another chain.
    #[error(
        "the data is of chain {stored:?}, the genesis of {genesis:?}: give the right genesis.json, or another home"
    )]
    OtherChain {
        /// The chain of the stored state.
        stored: String,
        /// The chain of the genesis.
        genesis: String,
    },
    /// The genesis describes no valid set of validators.
    #[error("genesis: {0}")]
    Genesis(#[from] InvalidError),
    /// Nobody validates.
    #[error("neither the genesis nor the application's answer to InitChain names a validator")]
    NoValidators,
    /// The application failed, panicked or gave an answer that breaks a rule.
    #[error(transparent)]
    Application(#[from] AppError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The operating system grants no thread.
    #[error("no thread that syncs the store can be started: {0}; raise the limit of threads")]
    Thread(#[source] std::io::Error),
    /// The application has executed blocks that are not stored here.
    #[error(
        "the application is at height {app} (app hash {app_hash}), above the last stored block {store} (state at {state}, app hash {state_hash}): restart it if it has run since before this node, as it may tell a block that it executed and never committed; else it belongs to other data: give it the data of this home, or this node the home that it was run with",
        app_hash = shown(.app_hash), state_hash = shown(.state_hash)
    )]
    AppAhead {
        /// The application's height.
        app: Height,
        /// Its app hash.
        app_hash: Bytes,
        /// The last stored block.
        store: Height,
        /// The state's height.
        state: Height,
        /// The state's app hash.
        state_hash: Bytes,
    },
    /// The blocks that the application lacks were pruned.
    #[error(
        "the application is at height {app} (app hash {app_hash}), the state at {state} (app hash {state_hash}), and the blocks between are gone: the first one stored is {base}; restore the application from a snapshot, or sync again",
        app_hash = shown(.app_hash), state_hash = shown(.state_hash)
    )]
    AppTooFarBehind {
        /// The application's height.
        app: Height,
        /// Its app hash.
        app_hash: Bytes,
        /// The first stored block; 0 when there is none.
        base: Height,
        /// The state's height.
        state: Height,
        /// The state's app hash.
        state_hash: Bytes,
    },
    /// Both are at one height and disagree.
    #[error(
        "at height {height} the application has the app hash {app_hash}, the chain {chain_hash}: another version of the application, or its data was changed",
        app_hash = shown(.app_hash), chain_hash = shown(.chain_hash)
    )]
    AppHash {
        /// The height after whose block the hashes differ.
        height: Height,
        /// The application's.
        app_hash: Bytes,
        /// The state's, or that of the block above.
        chain_hash: Bytes,
    },
    /// Blocks and state are further apart than a crash can leave them.
    #[error(
        "the last stored block is {store}, the state is at {state}: the data folder is damaged or was put together from two; restore it, or remove it and sync again"
    )]
    StoreAndState {
        /// The last stored block.
        store: Height,
        /// The state's height.
        state: Height,
    },
    /// Something that must be stored is not.
    #[error(
        "{what} of height {height} is not stored: the data folder is damaged; restore it, or remove it and sync again"
    )]
    Missing {
        /// What is missing.
        what: &'static str,
        /// Its height.
        height: Height,
    },
    /// What is stored cannot be decoded.
    #[error("{what} of height {height} cannot be read: {reason}")]
    Unreadable {
        /// What it is.
        what: &'static str,
        /// Its height.
        height: Height,
        /// What is wrong with it.
        reason: String,
    },
    /// A stored block cannot be applied again.
    #[error(transparent)]
    Apply(Box<ApplyError>),
    /// The caller wanted no more.
    #[error("stopped while replaying block {height}")]
    Interrupted {
        /// The next height to be replayed.
        height: Height,
    },
}

/// An application's hash for people: upper-case hexadecimal.
pub(crate) fn shown(app_hash: &Bytes) -> String {
    if app_hash.is_empty() {
        "(empty)".to_owned()
    } else {
        format!("{app_hash:X}")
    }
}

impl From<ApplyError> for StartError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Application(error) => Self::Application(error),
            error => Self::Apply(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_app_hash_is_shown_as_such() {
        let error = StartError::AppHash {
            height: Height::new(5),
            app_hash: Bytes::new(),
            chain_hash: Bytes::from_static(&[0xab, 1]),
        };
        let text = error.to_string();
        assert!(
            text.contains("the app hash (empty), the chain AB01:"),
            "{text}"
        );
    }
}
