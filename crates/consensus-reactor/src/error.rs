use std::{io, path::PathBuf, sync::Arc};

use perihelion_consensus::{Halt, StartError};
use perihelion_state::ApplyError;
use perihelion_store::StoreError;
use perihelion_types::Height;
use thiserror::Error;

use crate::{privval::DoubleSignRisk, wal::WalError};

/// Consensus cannot be entered, or has ended. No peer is to blame for any of these; the node stops,
/// and the message says what to look at.
#[derive(Debug, Clone, Error)]
pub enum ConsensusError {
    /// The log cannot be used.
    #[error(transparent)]
    Wal(Arc<WalError>),
    /// The log knows of blocks that the store does not have.
    #[error(
        "the consensus log {} has the end of height {log}, and the last applied block is {last}: \
         the data is older than the log. What this validator signed up to height {log} may stand \
         in it. Restore the newest data; or wait until the chain is above the height in \
         priv_validator_state.json, keep that file, move the folder of the log away, and start \
         again",
        path.display()
    )]
    WalAhead {
        /// The head of the log.
        path: PathBuf,
        /// The highest end of a height in it.
        log: Height,
        /// The last applied block.
        last: Height,
    },
    /// To sign now would risk signing twice.
    #[error(transparent)]
    DoubleSign(Arc<DoubleSignRisk>),
    /// The last block's commit is missing or does not hold.
    #[error("consensus cannot begin at height {height}: {source}")]
    Start {
        /// The height that was to be decided.
        height: Height,
        /// What is missing or wrong.
        source: StartError,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// A block could not be stored or applied, or the application failed.
    #[error(transparent)]
    Apply(Arc<ApplyError>),
    /// The state machine has stopped.
    #[error("consensus has halted: {0}")]
    Halted(Halt),
    /// A thread cannot be started.
    #[error("the thread {name} cannot be started: {source}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// A thread has ended without saying why: it panicked.
    #[error("the thread {0} is gone")]
    ThreadGone(&'static str),
    /// It was entered already.
    #[error("consensus has the executor already")]
    AlreadyEntered,
    /// It was not entered.
    #[error("consensus does not have the executor")]
    NotEntered,
    /// This node stops.
    #[error("this node shuts down")]
    Stopped,
}

impl From<WalError> for ConsensusError {
    fn from(error: WalError) -> Self {
        Self::Wal(Arc::new(error))
    }
}

impl From<DoubleSignRisk> for ConsensusError {
    fn from(error: DoubleSignRisk) -> Self {
        match error {
            DoubleSignRisk::Store(error) => error.into(),
            risk => Self::DoubleSign(Arc::new(risk)),
        }
    }
}

impl From<StoreError> for ConsensusError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
