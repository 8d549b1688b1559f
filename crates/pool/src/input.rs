use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;
use perihelion_schedule::Fault;
use perihelion_types::{Height, HeightRange, PeerId};

/// Something that is kept for as long as a block is: its share of the byte budget.
#[derive(Clone)]
pub struct Hold(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// What the reactor tells the pool.
#[derive(Debug)]
pub enum PoolInput {
    /// A peer is connected.
    PeerAdded {
        /// Who.
        peer: PeerId,
        /// Whether the configuration names it as a persistent peer.
        persistent: bool,
    },
    /// A peer is gone.
    PeerRemoved {
        /// Who.
        peer: PeerId,
    },
    /// A peer told its range.
    Status {
        /// Who.
        peer: PeerId,
        /// Which heights it claims to serve.
        range: HeightRange,
    },
    /// A peer sent a block, still encoded.
    Block {
        /// Who.
        peer: PeerId,
        /// `tendermint.types.Block`.
        block: Bytes,
        /// `tendermint.types.ExtendedCommit`.
        extended_commit: Option<Bytes>,
        /// Released when the block is.
        hold: Option<Hold>,
    },
    /// A peer has no such block.
    NoBlock {
        /// Who.
        peer: PeerId,
        /// Which.
        height: Height,
    },
}

/// What the pool asks of the reactor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a BlockRequest.
    Request {
        /// To whom.
        peer: PeerId,
        /// Which block.
        height: Height,
    },
    /// Send a StatusRequest.
    AskStatus {
        /// To whom.
        peer: PeerId,
    },
    /// Disconnect a peer.
    Punish {
        /// Whom.
        peer: PeerId,
        /// What for.
        fault: Fault,
        /// And refuse it for a while.
        ban: bool,
    },
}
