//! A simulated network around the pure scheduler: an event heap, hand-advanced time, peers of
//! every kind, virtual verification workers that call the real certification, and a virtual
//! executor that knows the chain.
//!
//! The same seed gives the same log. After every step the invariants are checked: the schedule's
//! books agree, no honest peer is punished, what is applied is the chain's block, and every bound
//! holds.

mod consensus;
mod effects;
mod outcome;
mod peer;
mod peers;
mod random;
mod setup;
mod workers;
mod world;

pub use consensus::{Consensus, Switch};
pub use outcome::Outcome;
pub use peer::{Kind, PeerSpec};
pub use random::Random;
pub use setup::Setup;
pub use world::World;
