use std::io;

use perihelion_crypto::NodeId;
use thiserror::Error;

use crate::{
    HandshakeError, MConnectionError,
    frame::FrameError,
    node_info::{Incompatible, NodeInfoError},
};

/// Why a peer was removed. The log and `/net_info` show its text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DisconnectReason {
    /// The peer closed the connection.
    #[error("closed by the peer")]
    ClosedByPeer,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Io(io::ErrorKind),
    /// A frame could not be opened or sealed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Packets or messages that break the protocol, or a peer that answers no ping.
    #[error(transparent)]
    MConnection(#[from] MConnectionError),
    /// A large message on a channel of answers, and nothing was asked.
    #[error("a large message on channel {0:#04x} that was not asked for")]
    Unasked(u8),
    /// A reactor found fault with what the peer sent.
    #[error("{reactor}: {fault}")]
    Misbehaviour {
        /// The reactor.
        reactor: &'static str,
        /// What the peer did.
        fault: String,
    },
    /// A reactor needs the connection for another peer; the peer did nothing wrong.
    #[error("{reactor}: dropped to make room ({why})")]
    Replaced {
        /// The reactor.
        reactor: &'static str,
        /// What spoke for another peer.
        why: String,
    },
    /// The peer was banned.
    #[error("banned: {0}")]
    Banned(String),
    /// This node could not send the rest of a message; the peer did nothing wrong.
    #[error("the rest of a message on channel {0:#04x} could not be sent")]
    Unfinished(u8),
    /// This node stops.
    #[error("this node shuts down")]
    Shutdown,
    /// What the peer sent was not wanted then and is wanted now: it sends that again over a new
    /// connection only. It did nothing wrong.
    #[error("{0}: what was passed over while this node caught up is to be sent again")]
    PassedOver(&'static str),
    /// A reactor of this node is gone; the peer did nothing wrong.
    #[error("the {0} reactor of this node has stopped")]
    ReactorStopped(&'static str),
}

impl DisconnectReason {
    /// Whether the peer is to blame: such a peer is dialled again only after a growing pause,
    /// however long the connection had held.
    #[must_use]
    pub const fn is_peers_fault(&self) -> bool {
        match self {
            Self::Frame(_)
            | Self::MConnection(_)
            | Self::Unasked(_)
            | Self::Misbehaviour { .. }
            | Self::Banned(_) => true,
            Self::ClosedByPeer
            | Self::Io(_)
            | Self::Replaced { .. }
            | Self::Unfinished(_)
            | Self::PassedOver(_)
            | Self::Shutdown
            | Self::ReactorStopped(_) => false,
        }
    }
}

impl From<io::Error> for DisconnectReason {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::ClosedByPeer,
            kind => Self::Io(kind),
        }
    }
}

/// Why a connection did not become a peer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RejectReason {
    /// The address did not answer in `dial_timeout`, or refused.
    #[error("cannot be reached: {0}")]
    Dial(io::ErrorKind),
    /// The name could not be resolved; what the resolver said.
    #[error("host name cannot be resolved: {0}")]
    Resolve(String),
    /// The handshake took longer than `handshake_timeout`.
    #[error("handshake not done within the handshake timeout")]
    HandshakeTimeout,
    /// The connection ended during the handshake.
    #[error("connection lost during the handshake: {0}")]
    HandshakeIo(io::ErrorKind),
    /// The peer broke the handshake's rules.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Another node than the dialled one answered.
    #[error("{actual} answered instead of {dialled}")]
    WrongId {
        /// Who was dialled.
        dialled: NodeId,
        /// Who answered.
        actual: NodeId,
    },
    /// The peer's information names another id than its key has.
    #[error("{claimed:?} is claimed with the key of {actual}")]
    ClaimedId {
        /// The id that the peer's information names.
        claimed: String,
        /// The id of its key.
        actual: NodeId,
    },
    /// The peer's information is not acceptable.
    #[error(transparent)]
    NodeInfo(#[from] NodeInfoError),
    /// The peer belongs to another network or speaks another protocol.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// It is this node itself.
    #[error("the address is this node's own")]
    Myself,
    /// A peer of that id is connected already.
    #[error("a peer of this id is connected already")]
    DuplicateId,
    /// A peer of that IP address is connected already.
    #[error("a peer of this IP address is connected already (`allow_duplicate_ip` is off)")]
    DuplicateIp,
    /// All inbound places are taken.
    #[error("all {0} inbound places are taken (`max_num_inbound_peers`)")]
    InboundFull(usize),
    /// All outbound places are taken.
    #[error("all {0} outbound places are taken (`max_num_outbound_peers`)")]
    OutboundFull(usize),
    /// Others of its network, a /24 or a /64, have as many inbound places as one network gets.
    #[error("its network has {0} inbound places already")]
    NetworkFull(usize),
    /// Too many have come from its network within a minute.
    #[error("too many new peers from its network")]
    NetworkCrowded,
    /// The peer, or its address, is banned.
    #[error("banned: {0}")]
    Banned(String),
    /// A filter refused it.
    #[error("refused by a filter: {0}")]
    Filtered(String),
    /// Too many connections had not yet authenticated, and this one was the oldest.
    #[error("dropped for newer connections before it had authenticated")]
    Crowded,
    /// This node stops.
    #[error("this node shuts down")]
    Shutdown,
}

impl RejectReason {
    /// What an operator can do about a configured peer that is refused for this reason again and
    /// again; `None` where it may pass by itself.
    #[must_use]
    pub const fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Incompatible(Incompatible::Network { .. }) => Some(
                "take it out of p2p.persistent_peers, or give this node the genesis.json of its network",
            ),
            Self::Incompatible(
                Incompatible::BlockProtocol { .. } | Incompatible::NoCommonChannel,
            )
            | Self::Handshake(_)
            | Self::ClaimedId { .. }
            | Self::NodeInfo(_) => {
                Some("take it out of p2p.persistent_peers, or let it run CometBFT v0.38 to v0.40")
            }
            Self::WrongId { .. } => Some(
                "write into p2p.persistent_peers the id that `show-node-id` prints at that address",
            ),
            Self::Resolve(_) => Some("correct the host name in p2p.persistent_peers"),
            Self::Dial(_)
            | Self::HandshakeTimeout
            | Self::HandshakeIo(_)
            | Self::Myself
            | Self::DuplicateId
            | Self::DuplicateIp
            | Self::InboundFull(_)
            | Self::OutboundFull(_)
            | Self::NetworkFull(_)
            | Self::NetworkCrowded
            | Self::Banned(_)
            | Self::Filtered(_)
            | Self::Crowded
            | Self::Shutdown => None,
        }
    }
}
