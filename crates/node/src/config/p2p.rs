//! `[p2p]`: the connections among nodes.

use std::time::Duration;

use super::{
    libp2p::LibP2pConfig,
    visit::{Key, Section, Visitor},
};

/// The connections among nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P2pConfig {
    /// Address to listen on. Default `tcp://0.0.0.0:26656`.
    pub laddr: String,
    /// Address that peers are told to dial; empty to derive it from `laddr`. Default empty.
    pub external_address: String,
    /// Seed nodes, `ID@HOST:PORT` with commas. Default empty.
    pub seeds: String,
    /// Peers to keep connected, `ID@HOST:PORT` with commas. Default empty.
    pub persistent_peers: String,
    /// The address book. Default `config/addrbook.json`.
    pub addr_book_file: String,
    /// Whether only addresses that can be routed are kept. Default true.
    pub addr_book_strict: bool,
    /// Inbound peers at most. Default 40.
    pub max_num_inbound_peers: u64,
    /// Outbound peers to look for, persistent ones aside. Default 10.
    pub max_num_outbound_peers: u64,
    /// Node ids that no limit applies to, with commas. Default empty.
    pub unconditional_peer_ids: String,
    /// Longest pause between dials of a persistent peer; 0 for exponential back-off. Default 0s.
    pub persistent_peers_max_dial_period: Duration,
    /// How long written bytes may wait for more. Default 100ms.
    pub flush_throttle_timeout: Duration,
    /// Bytes of payload in one packet. Default 1024.
    pub max_packet_msg_payload_size: u64,
    /// Bytes a second sent to one peer. Default 5,120,000.
    pub send_rate: u64,
    /// Bytes a second received from one peer. Default 5,120,000.
    pub recv_rate: u64,
    /// Whether peers' addresses are exchanged. Default true.
    pub pex: bool,
    /// Whether this node only crawls and answers for addresses. Default false.
    pub seed_mode: bool,
    /// Node ids that are told to nobody, with commas. Default empty.
    pub private_peer_ids: String,
    /// Whether several peers may come from one IP. Default false.
    pub allow_duplicate_ip: bool,
    /// Deadline of a handshake. Default 20s.
    pub handshake_timeout: Duration,
    /// Deadline of a dial. Default 3s.
    pub dial_timeout: Duration,
    /// Without effect: failing dials for CometBFT's own tests. Default false.
    pub test_dial_fail: bool,
    /// Without effect: broken connections for CometBFT's own tests. Default false.
    pub test_fuzz: bool,
    /// v0.40's experimental transport.
    pub libp2p: LibP2pConfig,
}

impl Default for P2pConfig {
    fn default() -> Self {
        Self {
            laddr: "tcp://0.0.0.0:26656".to_owned(),
            external_address: String::new(),
            seeds: String::new(),
            persistent_peers: String::new(),
            addr_book_file: "config/addrbook.json".to_owned(),
            addr_book_strict: true,
            max_num_inbound_peers: 40,
            max_num_outbound_peers: 10,
            unconditional_peer_ids: String::new(),
            persistent_peers_max_dial_period: Duration::ZERO,
            flush_throttle_timeout: Duration::from_millis(100),
            max_packet_msg_payload_size: 1024,
            send_rate: 5_120_000,
            recv_rate: 5_120_000,
            pex: true,
            seed_mode: false,
            private_peer_ids: String::new(),
            allow_duplicate_ip: false,
            handshake_timeout: Duration::from_secs(20),
            dial_timeout: Duration::from_secs(3),
            test_dial_fail: false,
            test_fuzz: false,
            libp2p: LibP2pConfig::default(),
        }
    }
}

impl P2pConfig {
    fn visit_peers(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new("laddr", "Address to listen on for peers."),
            &mut self.laddr,
        );
        v.key(
            Key::new(
                "external_address",
                "Address that peers are told to dial, HOST:PORT; empty: derived from laddr.",
            ),
            &mut self.external_address,
        );
        v.key(
            Key::new(
                "seeds",
                "Seed nodes: ID@HOST:PORT, with commas between them.",
            ),
            &mut self.seeds,
        );
        v.key(
            Key::new(
                "persistent_peers",
                "Peers to stay connected to: ID@HOST:PORT, with commas between them.",
            ),
            &mut self.persistent_peers,
        );
        v.key(
            Key::new("addr_book_file", "The address book."),
            &mut self.addr_book_file,
        );
        v.key(
            Key::new(
                "addr_book_strict",
                "Keep only addresses that the internet routes; false for private networks.",
            ),
            &mut self.addr_book_strict,
        );
        v.key(
            Key::new(
                "max_num_inbound_peers",
                "Peers that may dial in; a quarter of them from one /24 or /64.",
            ),
            &mut self.max_num_inbound_peers,
        );
        v.key(
            Key::new(
                "max_num_outbound_peers",
                "Peers to dial, persistent ones aside.",
            ),
            &mut self.max_num_outbound_peers,
        );
        v.key(
            Key::new(
                "unconditional_peer_ids",
                "Node ids that no limit applies to, with commas between them.",
            ),
            &mut self.unconditional_peer_ids,
        );
        v.key(
            Key::new(
                "persistent_peers_max_dial_period",
                "Longest pause between two dials of a persistent peer; 0s: exponential back-off.",
            ),
            &mut self.persistent_peers_max_dial_period,
        );
    }
}

impl Section for P2pConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        self.visit_peers(v);
        v.key(
            Key::new(
                "flush_throttle_timeout",
                "Without effect: what is written waits for nothing.",
            ),
            &mut self.flush_throttle_timeout,
        );
        v.key(
            Key::new(
                "max_packet_msg_payload_size",
                "Bytes of payload in one packet.",
            ),
            &mut self.max_packet_msg_payload_size,
        );
        v.key(
            Key::new("send_rate", "Bytes a second sent to one peer."),
            &mut self.send_rate,
        );
        v.key(
            Key::new(
                "recv_rate",
                "Bytes a second received from one peer. It bounds how fast one peer can be synced from.",
            ),
            &mut self.recv_rate,
        );
        v.key(
            Key::new("pex", "Exchange addresses with peers."),
            &mut self.pex,
        );
        v.key(
            Key::new(
                "seed_mode",
                "Only crawl the network and answer for addresses; needs pex.",
            ),
            &mut self.seed_mode,
        );
        v.key(
            Key::new(
                "private_peer_ids",
                "Node ids whose addresses are told to nobody, with commas between them.",
            ),
            &mut self.private_peer_ids,
        );
        v.key(
            Key::new(
                "allow_duplicate_ip",
                "Allow several peers from one IP address.",
            ),
            &mut self.allow_duplicate_ip,
        );
        v.key(
            Key::new(
                "handshake_timeout",
                "Deadlines of a handshake and of a dial.",
            ),
            &mut self.handshake_timeout,
        );
        v.key(Key::new("dial_timeout", ""), &mut self.dial_timeout);
        v.key(
            Key::quiet("test_dial_fail", "Without effect."),
            &mut self.test_dial_fail,
        );
        v.key(
            Key::quiet("test_fuzz", "Without effect."),
            &mut self.test_fuzz,
        );
        v.table(
            "libp2p",
            "CometBFT v0.40's experimental transport.",
            &mut self.libp2p,
        );
    }
}
