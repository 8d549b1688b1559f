//! What two nodes tell each other about themselves, and when they fit together. Pure.

use std::fmt;

use bytes::Bytes;
use perihelion_crypto::NodeId;
use perihelion_proto::tendermint::p2p as pb;
use prost::Message as _;
use thiserror::Error;

use crate::address::{AddressError, split_host_port, without_scheme};

/// Encoded node information is at most this long, in bytes.
pub const MAX_NODE_INFO: usize = 10_240;
/// Channels that a node may announce at most.
pub const MAX_CHANNELS: usize = 16;

/// The version of the p2p protocol spoken here.
pub const P2P_PROTOCOL: u64 = 8;
/// The version of the block protocol spoken here.
pub const BLOCK_PROTOCOL: u64 = 11;

/// Versions of the protocols that a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolVersion {
    /// Of p2p; told, never compared.
    pub p2p: u64,
    /// Of blocks; must be equal.
    pub block: u64,
    /// Of the application; told, never compared.
    pub app: u64,
}

/// A node as it presents itself. Not trusted before [`validate`](Self::validate).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Versions of the protocols.
    pub protocol_version: ProtocolVersion,
    /// The claimed id, 40 hexadecimal digits.
    pub id: String,
    /// Where the node says that it can be dialled.
    pub listen_addr: String,
    /// The chain id.
    pub network: String,
    /// The version of the software.
    pub version: String,
    /// The ids of the channels that it speaks.
    pub channels: Bytes,
    /// The operator's name for the node.
    pub moniker: String,
    /// `on`, `off` or empty.
    pub tx_index: String,
    /// Where its RPC listens.
    pub rpc_address: String,
}

/// A node's information is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NodeInfoError {
    /// The bytes are no such message.
    #[error("node information cannot be decoded: {0}")]
    Decode(String),
    /// The id is not 40 hexadecimal digits.
    #[error("node id {0:?} is not 40 hexadecimal digits")]
    Id(String),
    /// The address to dial is malformed.
    #[error("listen {0}")]
    ListenAddr(#[from] AddressError),
    /// A text is blank or has other characters than printable ASCII.
    #[error("{field} {text:?} is not printable ASCII text")]
    Text {
        /// Which text.
        field: &'static str,
        /// What it is, cut short.
        text: String,
    },
    /// More channels than allowed.
    #[error("{0} channels, at most {MAX_CHANNELS} are allowed")]
    TooManyChannels(usize),
    /// A channel is named twice.
    #[error("channel {0:#04x} is named twice")]
    DuplicateChannel(u8),
    /// The transaction index is neither on nor off.
    #[error("tx_index {0:?} is neither \"on\", \"off\" nor empty")]
    TxIndex(String),
}

/// Two nodes do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Incompatible {
    /// Another block protocol.
    #[error("the peer speaks block protocol {theirs}, this node {ours}")]
    BlockProtocol {
        /// This node's.
        ours: u64,
        /// The peer's.
        theirs: u64,
    },
    /// Another chain.
    #[error("the peer is on the network {theirs:?}, this node on {ours:?}")]
    Network {
        /// This node's chain id.
        ours: String,
        /// The peer's chain id.
        theirs: String,
    },
    /// Nothing to talk about.
    #[error("the peer has no channel in common with this node")]
    NoCommonChannel,
}

impl NodeInfo {
    /// Decodes a node's information; [`validate`](Self::validate) it before use.
    ///
    /// # Errors
    /// When the bytes are no such message.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeInfoError> {
        let pb = pb::DefaultNodeInfo::decode(bytes)
            .map_err(|error| NodeInfoError::Decode(error.to_string()))?;
        let version = pb.protocol_version.unwrap_or_default();
        let other = pb.other.unwrap_or_default();
        Ok(Self {
            protocol_version: ProtocolVersion {
                p2p: version.p2p,
                block: version.block,
                app: version.app,
            },
            id: pb.default_node_id,
            listen_addr: pb.listen_addr,
            network: pb.network,
            version: pb.version,
            // A copy: the rest of the handshake's buffer need not live as long.
            channels: Bytes::copy_from_slice(&pb.channels),
            moniker: pb.moniker,
            tx_index: other.tx_index,
            rpc_address: other.rpc_address,
        })
    }

    /// The protobuf form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// The protobuf form behind its length, as it is sent.
    #[must_use]
    pub fn encode_delimited(&self) -> Vec<u8> {
        self.to_proto().encode_length_delimited_to_vec()
    }

    fn to_proto(&self) -> pb::DefaultNodeInfo {
        pb::DefaultNodeInfo {
            protocol_version: Some(pb::ProtocolVersion {
                p2p: self.protocol_version.p2p,
                block: self.protocol_version.block,
                app: self.protocol_version.app,
            }),
            default_node_id: self.id.clone(),
            listen_addr: self.listen_addr.clone(),
            network: self.network.clone(),
            version: self.version.clone(),
            channels: self.channels.clone(),
            moniker: self.moniker.clone(),
            other: Some(pb::DefaultNodeInfoOther {
                tx_index: self.tx_index.clone(),
                rpc_address: self.rpc_address.clone(),
            }),
        }
    }

    /// The claimed id. It is not authenticated here: compare it with the key of the connection.
    ///
    /// # Errors
    /// When it is not 40 hexadecimal digits.
    pub fn node_id(&self) -> Result<NodeId, NodeInfoError> {
        self.id
            .parse()
            .map_err(|_| NodeInfoError::Id(shortened(&self.id)))
    }

    /// Checks what a node says of itself, but for its id being its own and its host resolvable.
    ///
    /// # Errors
    /// Names the first field that is not acceptable.
    pub fn validate(&self) -> Result<(), NodeInfoError> {
        self.node_id()?;
        split_host_port(without_scheme(&self.listen_addr))?;
        check_text("version", &self.version, true)?;
        if self.channels.len() > MAX_CHANNELS {
            return Err(NodeInfoError::TooManyChannels(self.channels.len()));
        }
        for (index, channel) in self.channels.iter().enumerate() {
            if self.channels[..index].contains(channel) {
                return Err(NodeInfoError::DuplicateChannel(*channel));
            }
        }
        check_text("moniker", &self.moniker, false)?;
        if !matches!(self.tx_index.as_str(), "" | "on" | "off") {
            return Err(NodeInfoError::TxIndex(shortened(&self.tx_index)));
        }
        check_text("rpc_address", &self.rpc_address, true)
    }

    /// Whether this node can talk with `other`: the same block protocol and network, and a channel
    /// in common (not asked for when this node has none).
    ///
    /// # Errors
    /// What does not fit.
    pub fn compatible_with(&self, other: &Self) -> Result<(), Incompatible> {
        let (ours, theirs) = (self.protocol_version.block, other.protocol_version.block);
        if ours != theirs {
            return Err(Incompatible::BlockProtocol { ours, theirs });
        }
        if self.network != other.network {
            return Err(Incompatible::Network {
                ours: self.network.clone(),
                theirs: shortened(&other.network),
            });
        }
        let common = self.channels.iter().any(|id| other.has_channel(*id));
        if self.channels.is_empty() || common {
            Ok(())
        } else {
            Err(Incompatible::NoCommonChannel)
        }
    }

    /// Whether the node announces a channel.
    #[must_use]
    pub fn has_channel(&self, id: u8) -> bool {
        self.channels.contains(&id)
    }
}

impl fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.id, self.moniker, self.version)
    }
}

fn check_text(field: &'static str, text: &str, may_be_empty: bool) -> Result<(), NodeInfoError> {
    let printable = text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let blank = text.bytes().all(|byte| byte == b' ');
    if printable && (!blank || (text.is_empty() && may_be_empty)) {
        Ok(())
    } else {
        Err(NodeInfoError::Text {
            field,
            text: shortened(text),
        })
    }
}

/// At most 64 characters of what a peer sent, for errors.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
