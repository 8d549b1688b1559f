//! The configuration of a node: CometBFT's `config.toml` of v0.38 and v0.40, key by key, and our
//! own keys beside them.
//!
//! Every key is described once, in the `visit` of its section: reading, checking and writing all
//! go over that description, so they cannot disagree. A flag wins over the environment, the
//! environment over the file, the file over the default.

mod base;
mod consensus;
mod duration;
mod libp2p;
mod mempool;
mod other;
mod p2p;
mod problem;
mod read;
mod rpc;
mod rules;
mod sync;
#[cfg(test)]
mod tests;
mod value;
mod visit;
mod write;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

pub use base::{AbciTransport, BaseConfig, LogFormat};
pub use consensus::ConsensusConfig;
pub use duration::{format_duration, parse_duration};
pub use libp2p::{BootstrapPeer, LibP2pConfig, LimitsConfig, ScalerConfig, ScalerOverride};
pub use mempool::{MempoolConfig, MempoolType};
pub use other::{
    Indexer, InstrumentationConfig, MedianTime, MedianTimeRule, PerihelionConfig, ProgressDisplay,
    StorageConfig, TxIndexConfig,
};
pub use p2p::P2pConfig;
pub use problem::{ConfigError, Place, Problem};
pub use read::{Flag, Overrides, Reading, read, variable};
pub use rpc::RpcConfig;
pub(crate) use rules::{host_and_port, is_dialled};
pub use sync::{BlockSyncConfig, StateSyncConfig, Verify};
pub use value::{Choice, CommaList, Quoted, Refused, Row, Value};
pub use visit::{Key, Section, Visitor};
pub use write::{all_keys, write};

/// The CometBFT version whose files and behaviour we have.
pub const COMETBFT_VERSION: &str = "0.38.25";

/// The file within the home.
const FILE: &str = "config/config.toml";

/// Where values came from, by the path of their key: nothing that tells two configurations apart.
#[derive(Debug, Clone, Default)]
struct Places(BTreeMap<String, Place>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Places {}

/// The configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    home: PathBuf,
    places: Places,
    /// The keys above all tables.
    pub base: BaseConfig,
    /// `[rpc]`
    pub rpc: RpcConfig,
    /// `[p2p]`
    pub p2p: P2pConfig,
    /// `[mempool]`
    pub mempool: MempoolConfig,
    /// `[statesync]`
    pub state_sync: StateSyncConfig,
    /// `[blocksync]`
    pub block_sync: BlockSyncConfig,
    /// `[consensus]`
    pub consensus: ConsensusConfig,
    /// `[storage]`
    pub storage: StorageConfig,
    /// `[tx_index]`
    pub tx_index: TxIndexConfig,
    /// `[instrumentation]`
    pub instrumentation: InstrumentationConfig,
    /// `[perihelion]`
    pub perihelion: PerihelionConfig,
}

impl Config {
    /// The defaults, for the home at `home`.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            places: Places::default(),
            base: BaseConfig::default(),
            rpc: RpcConfig::default(),
            p2p: P2pConfig::default(),
            mempool: MempoolConfig::default(),
            state_sync: StateSyncConfig::default(),
            block_sync: BlockSyncConfig::default(),
            consensus: ConsensusConfig::default(),
            storage: StorageConfig::default(),
            tx_index: TxIndexConfig::default(),
            instrumentation: InstrumentationConfig::default(),
            perihelion: PerihelionConfig::default(),
        }
    }

    /// Reads the configuration of the home at `home`, with all that is wrong with it. A file that
    /// is missing counts as an empty one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn inspect(home: &Path, overrides: &Overrides) -> Result<Reading, ConfigError> {
        let path = home.join(FILE);
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        Ok(read(home, &path, &text, overrides))
    }

    /// Reads the configuration of the home at `home`; the second value are the problems that do
    /// not keep a node from starting, to be logged.
    ///
    /// # Errors
    /// When the file cannot be read, or a value in it cannot be used.
    pub fn load(home: &Path, overrides: &Overrides) -> Result<(Self, Vec<Problem>), ConfigError> {
        let reading = Self::inspect(home, overrides)?;
        let (warnings, wrong): (Vec<_>, Vec<_>) =
            reading.problems.into_iter().partition(Problem::is_warning);
        if wrong.is_empty() {
            Ok((reading.config, warnings))
        } else {
            Err(ConfigError::Wrong(wrong))
        }
    }

    /// Where the value of the key at `path` came from.
    #[must_use]
    pub fn place(&self, path: &str) -> Place {
        self.places.0.get(path).cloned().unwrap_or(Place::Default)
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The same configuration for another home.
    #[must_use]
    pub fn with_home(&self, home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            ..self.clone()
        }
    }

    /// `config/config.toml` of the home.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.home.join(FILE)
    }

    /// A path of a key: relative to the home, or absolute.
    #[must_use]
    pub fn path(&self, value: &str) -> PathBuf {
        self.home.join(value)
    }

    /// The genesis.
    #[must_use]
    pub fn genesis_file(&self) -> PathBuf {
        self.path(&self.base.genesis_file)
    }

    /// The validator's key.
    #[must_use]
    pub fn priv_validator_key_file(&self) -> PathBuf {
        self.path(&self.base.priv_validator_key_file)
    }

    /// What the validator signed last.
    #[must_use]
    pub fn priv_validator_state_file(&self) -> PathBuf {
        self.path(&self.base.priv_validator_state_file)
    }

    /// The node's key.
    #[must_use]
    pub fn node_key_file(&self) -> PathBuf {
        self.path(&self.base.node_key_file)
    }

    /// The address book.
    #[must_use]
    pub fn addr_book_file(&self) -> PathBuf {
        self.path(&self.p2p.addr_book_file)
    }

    /// The folder of all data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.path(&self.base.db_dir)
    }

    /// The write-ahead log of consensus.
    #[must_use]
    pub fn wal_file(&self) -> PathBuf {
        self.path(&self.consensus.wal_file)
    }
}

impl Section for Config {
    fn visit(&mut self, v: &mut dyn Visitor) {
        self.base.visit(v);
        v.table("rpc", "The server for clients", &mut self.rpc);
        v.table("p2p", "Connections among nodes", &mut self.p2p);
        v.table(
            "mempool",
            "Transactions that wait for a block",
            &mut self.mempool,
        );
        v.table(
            "statesync",
            "Starting from a snapshot",
            &mut self.state_sync,
        );
        v.table(
            "blocksync",
            "Catching up block by block",
            &mut self.block_sync,
        );
        v.table(
            "consensus",
            "Rounds and their timeouts",
            &mut self.consensus,
        );
        v.table("storage", "What is kept", &mut self.storage);
        v.table(
            "tx_index",
            "The index of transactions and blocks",
            &mut self.tx_index,
        );
        v.table("instrumentation", "Metrics", &mut self.instrumentation);
        v.table(
            "perihelion",
            "What only Perihelion knows; CometBFT passes it by",
            &mut self.perihelion,
        );
    }
}

/// The machine's name, else `anonymous`.
fn default_moniker() -> String {
    moniker_of(&rustix::system::uname().nodename().to_string_lossy())
}

/// The moniker of a machine: its name, where peers take that.
fn moniker_of(machine: &str) -> String {
    if rules::is_printable(machine) && !machine.trim().is_empty() {
        machine.to_owned()
    } else {
        "anonymous".to_owned()
    }
}
