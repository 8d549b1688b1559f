//! Proofs of misbehaviour that wait for a block.
//!
//! [`EvidencePool`] verifies them, keeps them in the store, gives them to proposers and forgets
//! them once a block has them or they are too old; [`EvidenceReactor`] exchanges them with peers on
//! channel 0x38. [`wire`] is that channel's message.
//!
//! Two votes of one validator come from our own consensus, which sees them before the time of their
//! block is decided: they wait until it is. Everything else comes from peers and clients.

mod copies;
mod error;
mod gossip;
mod pool;
mod queue;
mod reactor;
mod reported;
pub mod wire;

pub use error::{AddError, is_senders_fault};
pub use gossip::PeerHeights;
pub use pool::{
    Added, EvidencePool, MAX_PENDING, MAX_PENDING_BYTES, MAX_PENDING_OF_ONE_VOTER, Updated,
};
pub use reactor::{EvidenceReactor, channel};
pub use reported::{MAX_REPORTED, MAX_REPORTED_OF_ONE_VOTER};
