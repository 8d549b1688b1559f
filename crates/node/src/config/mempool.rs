//! `[mempool]`: transactions that wait for a block.

use std::time::Duration;

use super::{
    value::Choice,
    visit::{Key, Section, Visitor},
};

/// Who keeps transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MempoolType {
    /// This node, passing them on to its peers.
    #[default]
    Flood,
    /// Nobody: the application finds its own.
    Nop,
    /// v0.40: the application, passed on by the node.
    App,
}

impl Choice for MempoolType {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Flood, "flood"),
        (Self::Nop, "nop"),
        (Self::App, "app"),
        // Files from before the key existed.
        (Self::Flood, ""),
    ];
}

/// Transactions that wait for a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Who keeps them. Default `flood`.
    pub kind: MempoolType,
    /// Whether the application checks what is left again after each block. Default true.
    pub recheck: bool,
    /// How long its answers are awaited then; what is left is not proposed before a later block's
    /// turn. Default 1s.
    pub recheck_timeout: Duration,
    /// Whether they are passed on to peers. Default true.
    pub broadcast: bool,
    /// Folder of a log of them; empty for none. Default empty.
    pub wal_dir: String,
    /// Transactions at most. Default 5000.
    pub size: u64,
    /// Bytes of all at most. Default 1 GiB.
    pub max_txs_bytes: u64,
    /// Transactions remembered, so that none is checked twice. Default 10000.
    pub cache_size: u64,
    /// Whether refused ones are remembered too. Default false.
    pub keep_invalid_txs_in_cache: bool,
    /// Bytes of one at most; while the application does not keep up, messages of 64 times as much, and
    /// of 256 MiB at least, may wait for it. Default 1 MiB (4 MiB in v0.40).
    pub max_tx_bytes: u64,
    /// Without effect, as in CometBFT. Default 0.
    pub max_batch_bytes: i64,
    /// Persistent peers that are sent transactions; 0 for all. Default 0.
    pub experimental_max_gossip_connections_to_persistent_peers: u64,
    /// Other peers that are sent transactions; 0 for all. Default 0.
    pub experimental_max_gossip_connections_to_non_persistent_peers: u64,
    /// `app` only: transactions remembered. Default 100000.
    pub seen_cache_size: u64,
    /// `app` only: bytes asked for at once; 0 for no bound. Default 0.
    pub reap_max_bytes: u64,
    /// `app` only: gas asked for at once; 0 for no bound. Default 0.
    pub reap_max_gas: u64,
    /// `app` only: pause between two askings. Default 500ms.
    pub reap_interval: Duration,
    /// `app` only: when a transaction may be checked again. Default 5s.
    pub check_tx_retry_delay: Duration,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            kind: MempoolType::Flood,
            recheck: true,
            recheck_timeout: Duration::from_secs(1),
            broadcast: true,
            wal_dir: String::new(),
            size: 5000,
            max_txs_bytes: 1 << 30,
            cache_size: 10_000,
            keep_invalid_txs_in_cache: false,
            max_tx_bytes: 1 << 20,
            max_batch_bytes: 0,
            experimental_max_gossip_connections_to_persistent_peers: 0,
            experimental_max_gossip_connections_to_non_persistent_peers: 0,
            seen_cache_size: 100_000,
            reap_max_bytes: 0,
            reap_max_gas: 0,
            reap_interval: Duration::from_millis(500),
            check_tx_retry_delay: Duration::from_secs(5),
        }
    }
}

impl MempoolConfig {
    fn visit_app(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::quiet("seen_cache_size", "type app: transactions remembered."),
            &mut self.seen_cache_size,
        );
        v.key(
            Key::quiet(
                "reap_max_bytes",
                "type app: bytes asked for at once; 0: no bound.",
            ),
            &mut self.reap_max_bytes,
        );
        v.key(
            Key::quiet(
                "reap_max_gas",
                "type app: gas asked for at once; 0: no bound.",
            ),
            &mut self.reap_max_gas,
        );
        v.key(
            Key::quiet("reap_interval", "type app: pause between two askings."),
            &mut self.reap_interval,
        );
        v.key(
            Key::quiet(
                "check_tx_retry_delay",
                "type app: when a transaction may be checked again.",
            ),
            &mut self.check_tx_retry_delay,
        );
    }
}

impl Section for MempoolConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "type",
                "flood: kept here and passed on to peers; nop: the application finds its own.",
            ),
            &mut self.kind,
        );
        v.key(
            Key::new(
                "recheck",
                "Let the application check what is left after each block.",
            ),
            &mut self.recheck,
        );
        v.key(
            Key::new("recheck_timeout", "How long its answers are awaited then."),
            &mut self.recheck_timeout,
        );
        v.key(
            Key::new("broadcast", "Pass transactions on to peers."),
            &mut self.broadcast,
        );
        v.key(
            Key::new("wal_dir", "Folder of a log of transactions; empty: none."),
            &mut self.wal_dir,
        );
        v.key(Key::new("size", "Transactions at most."), &mut self.size);
        v.key(
            Key::new("max_txs_bytes", "Bytes of all transactions at most."),
            &mut self.max_txs_bytes,
        );
        v.key(
            Key::new(
                "cache_size",
                "Transactions remembered, so that none is checked twice.",
            ),
            &mut self.cache_size,
        );
        v.key(
            Key::new(
                "keep-invalid-txs-in-cache",
                "Remember refused ones too: right only where none can become valid later.",
            ),
            &mut self.keep_invalid_txs_in_cache,
        );
        v.key(
            Key::new(
                "max_tx_bytes",
                "Bytes of one transaction at most. Above 4 MiB, 64 of them may wait in memory.",
            ),
            &mut self.max_tx_bytes,
        );
        v.key(
            Key::new("max_batch_bytes", "Without effect."),
            &mut self.max_batch_bytes,
        );
        v.key(
            Key::new(
                "experimental_max_gossip_connections_to_persistent_peers",
                "How many persistent, and how many other, peers are sent transactions; 0: all.",
            ),
            &mut self.experimental_max_gossip_connections_to_persistent_peers,
        );
        v.key(
            Key::new(
                "experimental_max_gossip_connections_to_non_persistent_peers",
                "",
            ),
            &mut self.experimental_max_gossip_connections_to_non_persistent_peers,
        );
        self.visit_app(v);
    }
}
