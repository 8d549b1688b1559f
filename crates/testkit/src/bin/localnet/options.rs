//! What can be set.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// The folder where none is named: removed at the end, unless something went wrong.
const FOLDER: &str = "localnet";

/// Validators and late full nodes on loopback, as real processes.
#[derive(Debug, Parser)]
#[command(name = "localnet")]
pub(crate) struct Options {
    /// What to do.
    #[arg(value_enum, default_value_t = Action::Run)]
    pub(crate) action: Action,
    /// Validators, of equal power.
    #[arg(long, env = "VALIDATORS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) validators: u16,
    /// Nodes that are no validators and start late.
    #[arg(long, env = "FULL_NODES", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub(crate) full_nodes: u16,
    /// Seconds before they start.
    #[arg(long, env = "LATE", default_value_t = 30)]
    pub(crate) late: u64,
    /// Blocks that must be there too before they start.
    #[arg(long, env = "BLOCKS", default_value_t = 1)]
    pub(crate) blocks: u32,
    /// Node k (0, 1, …; validators first) listens for peers on this port plus 10 k, for clients one
    /// above, and serves metrics two above.
    #[arg(long, env = "BASE_PORT", default_value_t = 26_656)]
    pub(crate) base_port: u16,
    /// A folder that is not there yet; kept at the end [default: ./localnet, removed at the end].
    #[arg(long, env = "LOCALNET_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The application: a built-in one, or an address: node k's is at the port plus k, or at the
    /// Unix socket's path with `.k` behind.
    #[arg(long, env = "APP", default_value = "kvstore")]
    pub(crate) app: String,
    /// Transactions a second.
    #[arg(long, env = "LOAD", default_value_t = 2)]
    pub(crate) load: u32,
    /// How many of the validators, the last ones, are a real CometBFT.
    #[arg(long, env = "COMETBFT_VALIDATORS", default_value_t = 0)]
    pub(crate) cometbft_validators: u16,
    /// CometBFT's binary, of v0.38 to v0.40.
    #[arg(long, env = "COMETBFT")]
    pub(crate) cometbft: Option<PathBuf>,
    /// The node's binary [default: perihelion beside this program].
    #[arg(long, env = "PERIHELION")]
    pub(crate) perihelion: Option<PathBuf>,
    /// 1: end when the late nodes are in consensus and all hashes were compared.
    #[arg(long, env = "ONCE", default_value = "0")]
    pub(crate) once: String,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Run a network until Ctrl-C.
    Run,
    /// Stop the network of the folder.
    Down,
    /// Remove the folder of a network that has ended.
    Clean,
}

impl Options {
    /// Where the homes are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| FOLDER.into())
    }

    /// Whether the folder is kept at the end: one that was named is.
    pub(crate) fn is_kept(&self) -> bool {
        self.dir.is_some()
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> u16 {
        self.validators + self.full_nodes
    }

    /// Whether to end when all is well.
    pub(crate) fn is_once(&self) -> bool {
        self.once == "1"
    }
}
