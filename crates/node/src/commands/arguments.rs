//! The grammar of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, builder::styling::Styles};

use super::start_flags::StartFlags;

/// Arguments that a command passes by, as CometBFT's do.
#[derive(Debug, Args)]
pub(super) struct Ignored {
    #[arg(hide = true)]
    _extra: Vec<String>,
}

/// A validator node that speaks CometBFT's protocols and catches up fast.
#[derive(Debug, Parser)]
#[command(
    name = "perihelion",
    bin_name = "perihelion",
    version,
    styles = Styles::plain(),
    disable_version_flag = true,
    after_help = "The home of CometBFT v0.38 to v0.40 is a home of perihelion, and the other way round. It is \
        --home, else $PERIHELION_HOME, else $CMTHOME, else ~/.cometbft.\n\
        Every key of config.toml can be set by the environment: CMT_P2P_LADDR or PERIHELION_P2P_LADDR \
        is p2p.laddr. A flag wins over the environment, the environment over the file."
)]
pub(super) struct Arguments {
    /// Folder of configuration and data [default: $PERIHELION_HOME, $CMTHOME or ~/.cometbft]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// debug, info, warn, error or none, or by module such as p2p:debug,*:error
    #[arg(long = "log_level", global = true, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
    /// Accepted for CometBFT's sake
    #[arg(long, global = true, hide = true, default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(super) trace: bool,
    /// Print the version
    #[arg(long, short = 'v', action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the files of a new home: configuration, keys, and the genesis of a new chain
    Init(Ignored),
    /// Run the node
    #[command(visible_alias = "run", alias = "node")]
    Start(Box<StartFlags>),
    /// Show or watch how far a running node is
    Status(Status),
    /// Print this node's id
    #[command(alias = "show_node_id")]
    ShowNodeId(ShowNodeId),
    /// Make a node key and print its id
    #[command(alias = "gen_node_key")]
    GenNodeKey(Ignored),
    /// Print this validator's public key
    #[command(alias = "show_validator")]
    ShowValidator(Ignored),
    /// Make a validator key and print it, without writing it anywhere
    #[command(alias = "gen_validator")]
    GenValidator(Ignored),
    /// (unsafe) Remove the data folder and the address book, set the validator's state to nothing signed
    #[command(alias = "unsafe_reset_all")]
    UnsafeResetAll(ResetAll),
    /// (unsafe) Set the validator's state to nothing signed
    #[command(alias = "unsafe_reset_priv_validator")]
    UnsafeResetPrivValidator(Ignored),
    /// Remove blocks, state, index and consensus log; an application's data and the validator's state stay
    #[command(alias = "reset_state")]
    ResetState(Ignored),
    /// Make the homes of a network of several nodes
    Testnet(Testnet),
    /// Look at the configuration
    Config(ConfigOptions),
    /// Serve a built-in application to nodes in other processes
    Abci(Abci),
    /// Measure this machine's stages, and predict how fast it syncs
    Bench(Bench),
    /// Print the version
    Version(Version),
    /// Print a script that completes commands in a shell
    Completion(Completion),
}

#[derive(Debug, Args)]
pub(super) struct Abci {
    #[command(subcommand)]
    pub(super) application: AbciApplication,
}

#[derive(Debug, Subcommand)]
pub(super) enum AbciApplication {
    /// The key-value application, equal to CometBFT's
    Kvstore(AbciKvStore),
}

#[derive(Debug, Args)]
pub(super) struct AbciKvStore {
    /// Address to listen on: tcp://HOST:PORT or unix://PATH
    #[arg(long, value_name = "ADDR", default_value = "tcp://127.0.0.1:26658")]
    pub(super) address: perihelion_abci::AppAddress,
    /// How nodes reach it: socket or grpc
    #[arg(long, value_name = "TRANSPORT", default_value = "socket")]
    pub(super) abci: AbciProtocol,
    /// Folder of its state; without one it begins anew each time
    #[arg(long, value_name = "DIR")]
    pub(super) persist: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum AbciProtocol {
    Socket,
    Grpc,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Go on showing it, each second
    #[arg(long, short)]
    pub(super) watch: bool,
    /// Address of the node's RPC [default: the home's rpc.laddr]
    #[arg(long, value_name = "ADDR")]
    pub(super) rpc: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ShowNodeId {
    /// v0.40's experimental transport: not offered
    #[arg(long, hide = true, default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(super) libp2p: bool,
    #[command(flatten)]
    _ignored: Ignored,
}

#[derive(Debug, Args)]
pub(super) struct ResetAll {
    /// Keep the address book
    #[arg(long, default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(super) keep_addr_book: bool,
    #[command(flatten)]
    _ignored: Ignored,
}

/// Homes in folders `node0`, `node1` and so on; validators first. Addresses need not be routable
/// there, and several nodes may share an IP.
#[derive(Debug, Args)]
pub(super) struct Testnet {
    /// Validators
    #[arg(long = "v", default_value_t = 4, value_name = "NUMBER")]
    pub(super) validators: u32,
    /// Other nodes
    #[arg(long = "n", default_value_t = 0, value_name = "NUMBER")]
    pub(super) others: u32,
    /// Folder of all homes
    #[arg(long = "o", default_value = "./mytestnet", value_name = "DIR")]
    pub(super) output: PathBuf,
    /// A config.toml to begin with
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "FILE"
    )]
    pub(super) config: String,
    /// Beginning of the homes' names
    #[arg(long, default_value = "node", value_name = "TEXT")]
    pub(super) node_dir_prefix: String,
    /// Height of the first block; 0 is 1
    #[arg(long, default_value_t = 0, value_name = "HEIGHT")]
    pub(super) initial_height: u64,
    /// Make all nodes persistent peers of one another
    #[arg(long, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(super) populate_persistent_peers: bool,
    /// Beginning of the host names: `node` for node0, node1, …
    #[arg(long, default_value = "node", value_name = "TEXT")]
    pub(super) hostname_prefix: String,
    /// End of the host names: `.example.com` for node0.example.com, …
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(super) hostname_suffix: String,
    /// IPv4 address of the first node instead of host names; the next ones count up
    #[arg(long, default_value = "", hide_default_value = true, value_name = "IP")]
    pub(super) starting_ip_address: String,
    /// Host name of a node, once for each
    #[arg(long, value_name = "NAME")]
    pub(super) hostname: Vec<String>,
    /// Port of all peers
    #[arg(long, default_value_t = 26656, value_name = "PORT")]
    pub(super) p2p_port: u16,
    /// Name the nodes at random
    #[arg(long, default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(super) random_monikers: bool,
    #[command(flatten)]
    _ignored: Ignored,
}

#[derive(Debug, Args)]
pub(super) struct ConfigOptions {
    #[command(subcommand)]
    pub(super) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say all that is wrong with config.toml, the environment and the files it names
    Check,
    /// Print every key with its default
    Defaults,
}

/// Makes blocks of a shape, takes each stage of a sync through them, and adds up what bounds its
/// speed. Without flags: three shapes, in less than a minute.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Shapes: a (4 validators, 1 transaction of 100 bytes), b (100; 36 of 250), c (175; 160 of 250)
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "a,b,c",
        conflicts_with_all = ["validators", "txs", "tx_bytes"]
    )]
    pub(super) shapes: Vec<ShapeName>,
    /// Instead a shape with so many validators, 1 to 1000 [default: 4]
    #[arg(long, value_name = "NUMBER")]
    pub(super) validators: Option<u32>,
    /// Instead a shape with so many transactions a block [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub(super) txs: Option<u32>,
    /// Instead a shape with so many bytes a transaction, at least 40 [default: 100]
    #[arg(long, value_name = "BYTES")]
    pub(super) tx_bytes: Option<u32>,
    /// One commit for a run of blocks, or every commit, as blocksync.verify
    #[arg(long, value_name = "MODE", default_value = "pinned")]
    pub(super) verify: VerifyMode,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Where stores are made, on the disk that is meant; they are removed again [default: the
    /// system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum ShapeName {
    A,
    B,
    C,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum VerifyMode {
    Pinned,
    Every,
}

#[derive(Debug, Args)]
pub(super) struct Version {
    /// Protocol versions too
    #[arg(long, short, default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(super) verbose: bool,
    #[command(flatten)]
    _ignored: Ignored,
}

#[derive(Debug, Args)]
pub(super) struct Completion {
    /// The shell
    #[arg(value_enum, default_value_t = clap_complete::Shell::Bash)]
    pub(super) shell: clap_complete::Shell,
    /// As CometBFT says it
    #[arg(long, hide = true, default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub(super) zsh: bool,
}
