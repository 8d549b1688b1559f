//! The blocksync reactor on channel 0x40: the bridge between peers and the pool.
//!
//! Two tasks share the table of peers. The inbound one takes what peers say: blocks and statuses go
//! to the pool (`add_block`), requests to the peer's server (`respond_to_peer`). The outbound one
//! carries out what the pool asks for. Neither waits for the other, so a busy pool holds back
//! reading from peers and never the requests that it makes.

mod allowance;
mod ask;
mod look;
mod reactor;
mod room;
mod serve;
mod slow;
pub mod wire;

pub use reactor::{BlocksyncReactor, Peers, channel};
pub use room::ServeLimits;
