use std::io;

use perihelion_state::{ApplyError, StartError};
use perihelion_store::StoreError;
use thiserror::Error;

use crate::BadShape;

/// What keeps a stage from being measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The shape has contradictions.
    #[error(transparent)]
    Shape(#[from] BadShape),
    /// The folder cannot be written, or loopback is not there.
    #[error("{what}: {source}")]
    System {
        /// What was done.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The application failed at the start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A block that was made could not be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A block that was made is not as a stage wants it: a fault of this program.
    #[error("the blocks that were made do not hold: {0}")]
    Chain(String),
    /// It was told to stop.
    #[error("stopped before it was done")]
    Stopped,
}

impl BenchError {
    /// Names what the system refused.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// A fault of what was made.
    pub(crate) fn chain(error: impl std::fmt::Display) -> Self {
        Self::Chain(error.to_string())
    }
}
