//! `[storage]`, `[tx_index]`, `[instrumentation]`, and our own `[perihelion]`.

use std::time::Duration;

use super::{
    value::{Choice, Refused, Row, Value},
    visit::{Key, Section, Visitor},
};

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorageConfig {
    /// Whether results of blocks are thrown away, the last excepted. Default false.
    pub discard_abci_responses: bool,
}

impl Section for StorageConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "discard_abci_responses",
                "Throw the results of blocks away: saves space, and ends /block_results and re-indexing.",
            ),
            &mut self.discard_abci_responses,
        );
    }
}

/// Where transactions are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Indexer {
    /// In our own database.
    #[default]
    Kv,
    /// Nowhere.
    Null,
    /// In PostgreSQL.
    Psql,
}

impl Choice for Indexer {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::Kv, "kv"), (Self::Null, "null"), (Self::Psql, "psql")];
}

/// The index of transactions and blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxIndexConfig {
    /// Where it is. Default `kv`.
    pub indexer: Indexer,
    /// Connection to PostgreSQL, for `psql`. Default empty.
    pub psql_conn: String,
}

impl Section for TxIndexConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new("indexer", "kv: in our database; null: no index."),
            &mut self.indexer,
        );
        v.key(
            Key::new(
                "psql-conn",
                "Connection to PostgreSQL, for the indexer psql.",
            ),
            &mut self.psql_conn,
        );
    }
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstrumentationConfig {
    /// Whether they are served at `/metrics`. Default false.
    pub prometheus: bool,
    /// Address to serve them on. Default `:26660`.
    pub prometheus_listen_addr: String,
    /// Connections at once; 0 for no bound. Default 3.
    pub max_open_connections: u64,
    /// Prefix of their names. Default `cometbft`.
    pub namespace: String,
}

impl Default for InstrumentationConfig {
    fn default() -> Self {
        Self {
            prometheus: false,
            prometheus_listen_addr: ":26660".to_owned(),
            max_open_connections: 3,
            namespace: "cometbft".to_owned(),
        }
    }
}

impl Section for InstrumentationConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "prometheus",
                "Serve metrics at /metrics of the address below.",
            ),
            &mut self.prometheus,
        );
        v.key(
            Key::new("prometheus_listen_addr", ""),
            &mut self.prometheus_listen_addr,
        );
        v.key(
            Key::new("max_open_connections", "Connections at once; 0: no bound."),
            &mut self.max_open_connections,
        );
        v.key(
            Key::new("namespace", "Prefix of the metrics' names."),
            &mut self.namespace,
        );
    }
}

/// Whose rule for the median time of a commit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MedianTime {
    /// v0.38: votes for the block and nil votes count.
    #[default]
    V038,
    /// v0.40: only votes for the block count.
    V040,
}

impl Choice for MedianTime {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::V038, "v0.38"), (Self::V040, "v0.40")];
}

/// From which height on a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MedianTimeRule {
    /// The first height of a block whose time follows the rule; at least 1.
    pub from_height: u64,
    /// The rule.
    pub rule: MedianTime,
}

impl Row for MedianTimeRule {
    const EXPECTED: &'static str =
        "a list of { from_height = 1, rule = \"v0.38\" or \"v0.40\" }, heights ascending";

    fn field(&mut self, key: &str) -> Option<&mut dyn Value> {
        Some(match key {
            "from_height" => &mut self.from_height,
            "rule" => &mut self.rule,
            _ => return None,
        })
    }

    fn check(&self) -> Result<(), Refused> {
        if self.from_height == 0 {
            return Err(Refused::expecting("from_height to be 1 or more"));
        }
        Ok(())
    }

    fn to_inline(&self) -> String {
        format!(
            "{{ from_height = {}, rule = {} }}",
            self.from_height,
            self.rule.to_toml()
        )
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProgressDisplay {
    /// A live line on a terminal, log lines elsewhere.
    #[default]
    Auto,
    /// Log lines always.
    Log,
    /// Not at all.
    None,
}

impl Choice for ProgressDisplay {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Auto, "auto"),
        (Self::Log, "log"),
        (Self::None, "none"),
    ];
}

/// What only this node knows. CometBFT passes the table by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerihelionConfig {
    /// Rules of the median time by height, ascending from height 1. Default v0.38 from 1.
    pub median_time: Vec<MedianTimeRule>,
    /// How progress is shown. Default `auto`.
    pub progress: ProgressDisplay,
    /// Bytes of the database's cache, at least 1 MiB. Default 64 MiB.
    pub store_cache_bytes: u64,
    /// Entries of the index that one search may look at, at least 1,000. Default 1,000,000.
    pub search_entries: u64,
    /// How long one search may take with its page, at least 100 ms. Default 2 s.
    pub search_timeout: Duration,
}

impl Default for PerihelionConfig {
    fn default() -> Self {
        Self {
            median_time: vec![MedianTimeRule {
                from_height: 1,
                rule: MedianTime::V038,
            }],
            progress: ProgressDisplay::Auto,
            store_cache_bytes: 64 << 20,
            search_entries: 1_000_000,
            search_timeout: Duration::from_secs(2),
        }
    }
}

impl Section for PerihelionConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "median_time",
                "Which rule the time of a block follows from which height on: v0.38 counts nil votes,\nv0.40 does not. A chain that was upgraded has both, from the height of the upgrade.",
            ),
            &mut self.median_time,
        );
        v.key(
            Key::new(
                "progress",
                "auto: a live line on a terminal, a log line each ten seconds elsewhere; log; none.",
            ),
            &mut self.progress,
        );
        v.key(
            Key::new(
                "store_cache_bytes",
                "Bytes of the database's cache (1 MiB or more).",
            ),
            &mut self.store_cache_bytes,
        );
        v.key(
            Key::new(
                "search_entries",
                "Entries of the index that one search over RPC may look at (1000 or more).",
            ),
            &mut self.search_entries,
        );
        v.key(
            Key::new(
                "search_timeout",
                "How long one search over RPC may take with its page (100ms or more).",
            ),
            &mut self.search_timeout,
        );
    }
}
