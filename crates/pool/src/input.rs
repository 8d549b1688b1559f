use std::sync::Arc;

use bytes::Bytes;
use perihelion_schedule::Fault;
use perihelion_state::Executor;
use perihelion_types::{Height, HeightRange, Hold, PeerId, State};

/// One connection of a peer, told apart from its earlier ones: what was meant for one of those, or
/// came from it, says nothing of this one. Whoever tells of connections numbers them, never the
/// same twice for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the reactor tells the pool, and the owner of consensus.
#[derive(Debug)]
pub enum PoolInput {
    /// A peer is connected.
    PeerAdded {
        /// Who.
        peer: PeerId,
        /// Its connection; whatever else is told of the peer until it is gone came over this one.
        connection: ConnectionId,
    },
    /// A peer that has come was let go of lately, because it sent a block slowly while others waited.
    Slow {
        /// Who.
        peer: PeerId,
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
    /// A peer told a range that contradicts itself.
    ImpossibleStatus {
        /// Who.
        peer: PeerId,
        /// The base that it claims.
        base: Height,
        /// The height that it claims.
        height: Height,
    },
    /// Bytes of a large block came in from a peer: it is alive though the block is not here yet.
    Bytes {
        /// Who.
        peer: PeerId,
        /// Since the last time.
        bytes: u64,
    },
    /// The byte budget is spent, and has been in a standstill.
    Starved,
    /// Nothing is read from a peer for now: there is no room for what it sends.
    HeldBack {
        /// Who.
        peer: PeerId,
    },
    /// Peers have waited for room for seconds in which no block was stored: answered with
    /// [`Command::Admit`] for those that owe what everything waits for.
    Standstill,
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
    /// Consensus has applied a block; the state after it. Of several in a row the last one may be told
    /// alone.
    Decided(Arc<State>),
    /// Consensus gives the executor back: on by blocksync.
    Executor(Box<Executor>),
}

/// What the pool asks of the reactor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a BlockRequest.
    Request {
        /// To whom.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// Which block.
        height: Height,
        /// A block of it was applied, and it is to be relied on now: it goes before others.
        proven: bool,
    },
    /// Send a StatusRequest.
    AskStatus {
        /// To whom.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
    },
    /// Let one message of a peer that waits for room pass.
    Admit {
        /// Of whom.
        peer: PeerId,
        /// Over which connection.
        connection: ConnectionId,
        /// A block of it was applied: it goes before others.
        proven: bool,
    },
    /// Disconnect a peer.
    Punish {
        /// Whom.
        peer: PeerId,
        /// Which of its connections is to end; a ban ends any.
        connection: ConnectionId,
        /// What for.
        fault: Fault,
        /// And refuse it for a while.
        ban: bool,
    },
}
