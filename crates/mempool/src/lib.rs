//! Transactions that wait for a block, in the order in which they were accepted.
//!
//! [`Mempool`] has the application check them, keeps the good ones within bounds, and gives them to
//! proposers; [`MempoolReactor`] passes them on to peers on channel 0x30. [`wire`] is that channel's
//! one message.
//!
//! The rules are those of CometBFT's `flood` mempool: first come, first served; one that was seen
//! lately is not checked again; those left after a block are checked again. With
//! [`MempoolKind::Nop`] nothing is kept: the application finds its own.

mod cache;
mod checks;
mod commit;
mod config;
mod error;
mod gate;
mod gossip;
mod incoming;
mod list;
mod mempool;
mod pool;
mod reactor;
mod stats;
pub mod wire;

pub use checks::PendingCheck;
pub use commit::{MempoolLock, Updated};
pub use config::{MempoolConfig, MempoolKind, TxLimits};
pub use error::{CheckTxError, Excess};
pub use gossip::PeerHeights;
pub use mempool::{Checked, Fate, Mempool, TxKey};
pub use reactor::{MempoolReactor, channels};
pub use stats::StatsSnapshot;
