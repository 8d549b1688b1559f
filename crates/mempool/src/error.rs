use std::fmt;

use perihelion_abci::AppError;
use thiserror::Error;

/// A transaction was not checked. The texts are CometBFT's, which clients know.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckTxError {
    /// It was seen lately.
    #[error("tx already exists in cache")]
    InCache,
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Excess),
    /// It is larger than any may be.
    #[error("Tx too large. Max size is {max}, but got {size}")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// No block has room for it.
    #[error("tx pre check: tx size is too big: {size}, max: {max}")]
    PreCheck {
        /// Its bytes in a block's data.
        size: u64,
        /// What a block has room for.
        max: i64,
    },
    /// Nothing is kept here.
    #[error("not allowed with `nop` mempool")]
    NotAllowed,
    /// The application failed; the node stops.
    #[error(transparent)]
    App(#[from] AppError),
}

/// A mempool without room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// Transactions in it.
    pub txs: usize,
    /// Transactions at most.
    pub max_txs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes at most.
    pub max_bytes: u64,
}

impl std::error::Error for Excess {}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mempool is full: number of txs {} (max: {}), total txs bytes {} (max: {})",
            self.txs, self.max_txs, self.bytes, self.max_bytes
        )
    }
}
