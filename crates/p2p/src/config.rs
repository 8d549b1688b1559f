use std::{path::PathBuf, time::Duration};

use perihelion_crypto::NodeId;

use crate::PeerAddress;

/// The `[p2p]` table of CometBFT's `config.toml`, with the same keys and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P2pConfig {
    /// Where to listen for peers. Default `tcp://0.0.0.0:26656`; an empty text: do not listen.
    pub laddr: String,
    /// What to tell peers about where to dial this node. Default empty: the listener's address.
    pub external_address: String,
    /// Nodes to ask for addresses. Default none.
    pub seeds: Vec<PeerAddress>,
    /// Peers to stay connected to. Default none.
    pub persistent_peers: Vec<PeerAddress>,
    /// The address book, below the home. Default `config/addrbook.json`.
    pub addr_book_file: PathBuf,
    /// Whether private and local addresses are kept out of the address book. Default true.
    pub addr_book_strict: bool,
    /// Inbound peers at most, unconditional ones not counted. Default 40. Public addresses of one /24
    /// or /64 get a quarter of them, and 30 new peers a minute, unless `allow_duplicate_ip` is set.
    pub max_num_inbound_peers: usize,
    /// Outbound peers at most, persistent and unconditional ones not counted. Default 10.
    pub max_num_outbound_peers: usize,
    /// Ids that no limit of peers applies to. Default none.
    pub unconditional_peer_ids: Vec<NodeId>,
    /// Longest pause between two dials of a persistent peer. Default 0: the switch's own bound.
    pub persistent_peers_max_dial_period: Duration,
    /// Payload of a packet at most, in bytes. Default 1024. Peers refuse longer packets than their
    /// own setting allows.
    pub max_packet_msg_payload_size: usize,
    /// Bytes a second sent to one peer at most. Default 5,120,000; 0: no limit.
    pub send_rate: u64,
    /// Bytes a second read from one peer at most. Default 5,120,000; 0: no limit.
    pub recv_rate: u64,
    /// Whether to exchange addresses with peers. Default true.
    pub pex: bool,
    /// Whether to only hand out addresses. Default false.
    pub seed_mode: bool,
    /// Ids whose addresses are told to nobody. Default none.
    pub private_peer_ids: Vec<NodeId>,
    /// Whether several peers may come from one IP address. Default false. Persistent and
    /// unconditional peers may in any case.
    pub allow_duplicate_ip: bool,
    /// From the first byte to both nodes' information, in all. Default 20 s.
    pub handshake_timeout: Duration,
    /// To establish a TCP connection. Default 3 s.
    pub dial_timeout: Duration,
}

impl Default for P2pConfig {
    fn default() -> Self {
        Self {
            laddr: "tcp://0.0.0.0:26656".to_owned(),
            external_address: String::new(),
            seeds: Vec::new(),
            persistent_peers: Vec::new(),
            addr_book_file: PathBuf::from("config/addrbook.json"),
            addr_book_strict: true,
            max_num_inbound_peers: 40,
            max_num_outbound_peers: 10,
            unconditional_peer_ids: Vec::new(),
            persistent_peers_max_dial_period: Duration::ZERO,
            max_packet_msg_payload_size: 1024,
            send_rate: 5_120_000,
            recv_rate: 5_120_000,
            pex: true,
            seed_mode: false,
            private_peer_ids: Vec::new(),
            allow_duplicate_ip: false,
            handshake_timeout: Duration::from_secs(20),
            dial_timeout: Duration::from_secs(3),
        }
    }
}
