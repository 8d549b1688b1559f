//! Consensus as a node runs it: the round state machine with its log, its signer, its application
//! and its peers.
//!
//! [`start`] begins; the [`ConsensusHandle`] gives the executor to consensus and takes it back.
//! One thread owns the state machine, the log and the signer (`routine`); another one the executor
//! and the application's consensus connection (`app`); a task for each peer knows what that peer
//! has and sends it what it lacks (`reactor`).
//!
//! [`wire`] has the messages of the channels, [`peer`] what each peer has and what to send it next;
//! both are pure. [`wal`] is the write-ahead log, [`privval`] the signer, [`files`] how files of a
//! home are read and written.

mod app;
mod error;
pub mod files;
mod handle;
pub mod peer;
pub mod privval;
mod reactor;
mod routine;
mod shared;
mod standing;
mod stored;
pub mod wal;
pub mod wire;

pub use app::PoolFollower;
pub use error::ConsensusError;
pub use handle::{ConsensusHandle, ConsensusSetup, PeerRound, start};
pub use peer::View;
pub use standing::{Awaits, LostRound, MissingVotes, STANDS_AFTER, Standing, Stay, Tally};
pub use wire::channels;
