//! Peers over TCP: the classic p2p stack of CometBFT, client and server.
//!
//! From the wire up: [`frame`] seals and opens the frames of a secret connection,
//! [`secret_connection`] shakes hands, [`mconnection`] carries the messages of several channels,
//! [`node_info`] decides whether two nodes belong together, and the [`Switch`] listens, dials,
//! bounds and bans. Reactors hear of their peers by [`PeerEvent`]s and answer by [`PeerHandle`]s.
//!
//! [`frame`], [`secret_connection`], [`mconnection`] and [`node_info`] are pure: no socket, task,
//! clock or global randomness. Bytes, moments and random numbers come in as arguments, bytes and
//! events go out as values.
//!
//! What a peer can make this node hold is bounded: 16 KiB before it has authenticated; then one
//! read's worth, one message per channel up to the channel's bound, and one message that waits for
//! its reactor. Large messages of channels with a [`ByteBudget`] wait for room in it, MiB by MiB,
//! before they are buffered; meanwhile nothing is read from that peer, which is not blamed for it.

mod address;
mod budget;
mod channel;
mod config;
mod connection;
mod flow;
pub mod frame;
mod log_limit;
pub mod mconnection;
pub mod node_info;
mod node_key;
mod peer;
mod reason;
pub mod secret_connection;
mod switch;

pub use address::{AddressError, PeerAddress};
pub use budget::{ByteBudget, Permit};
pub use channel::ChannelDescriptor;
pub use config::P2pConfig;
pub use connection::MIN_UNHANDLED_BYTES;
pub use flow::FlowStatus;
pub use log_limit::LogLimit;
pub use mconnection::{Arrival, MConnectionConfig, MConnectionError};
pub use node_info::{Incompatible, NodeInfo, NodeInfoError, ProtocolVersion};
pub use node_key::{NodeKey, NodeKeyError};
pub use peer::{
    ChannelStats, MessageInParts, PeerEvent, PeerHandle, PeerStats, SendError, Standing,
};
pub use perihelion_crypto::NodeId;
pub use reason::{DisconnectReason, RejectReason};
pub use secret_connection::HandshakeError;
pub use switch::{
    DialOrder, Disconnected, OrderError, PeerFilter, PeerSnapshot, Remote, Switch, SwitchError,
    SwitchHandle, SwitchSetup,
};
