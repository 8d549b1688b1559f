use std::time::Duration;

use perihelion_types::{Rules, State};

/// Who keeps transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MempoolKind {
    /// This node, passing them on to its peers.
    #[default]
    Flood,
    /// Nobody: the application finds its own.
    Nop,
}

/// `[mempool]`, as far as it takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Who keeps transactions. Default `Flood`.
    pub kind: MempoolKind,
    /// Whether the application checks what is left again after each block. Default true.
    pub recheck: bool,
    /// How long it may take for that; what it has not got to by then waits unchecked, and is not
    /// proposed before a later block's turn has come to it. Default 1 s.
    pub recheck_timeout: Duration,
    /// Whether transactions are passed on to peers. Default true.
    pub broadcast: bool,
    /// Transactions at most. Default 5,000.
    pub size: usize,
    /// Bytes of all at most. Default 1 GiB.
    pub max_txs_bytes: u64,
    /// Transactions remembered, so that none is checked twice; 0 for none. Default 10,000.
    pub cache_size: usize,
    /// Whether refused ones are remembered too. Default false.
    pub keep_invalid_txs_in_cache: bool,
    /// Bytes of one at most. Default 1 MiB.
    pub max_tx_bytes: usize,
    /// Persistent peers that are sent transactions at a time; 0 for all. Default 0.
    pub max_gossip_to_persistent_peers: usize,
    /// Other peers that are sent transactions at a time; 0 for all. Default 0.
    pub max_gossip_to_other_peers: usize,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            kind: MempoolKind::Flood,
            recheck: true,
            recheck_timeout: Duration::from_secs(1),
            broadcast: true,
            size: 5_000,
            max_txs_bytes: 1 << 30,
            cache_size: 10_000,
            keep_invalid_txs_in_cache: false,
            max_tx_bytes: 1 << 20,
            max_gossip_to_persistent_peers: 0,
            max_gossip_to_other_peers: 0,
        }
    }
}

/// What the chain allows one transaction: it would otherwise wait for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxLimits {
    /// Bytes of a transaction as a block's data holds it: with its tag and length.
    pub max_data_bytes: i64,
    /// Gas it may want; negative for no bound.
    pub max_gas: i64,
}

impl TxLimits {
    /// No bounds but those of the configuration.
    pub const NONE: Self = Self {
        max_data_bytes: i64::MAX,
        max_gas: -1,
    };

    /// What the block after `state` has room for. Where not even header and commit have room,
    /// nothing fits.
    #[must_use]
    pub fn of(state: &State, rules: Rules) -> Self {
        Self {
            max_data_bytes: state.max_data_bytes(0, rules).unwrap_or(0),
            max_gas: state.consensus_params.block.max_gas,
        }
    }
}
