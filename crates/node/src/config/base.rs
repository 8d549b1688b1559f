//! The keys above all tables.

use super::{
    value::Choice,
    visit::{Key, Section, Visitor},
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Plain,
    /// One JSON object a line.
    Json,
}

impl Choice for LogFormat {
    const NAMES: &'static [(Self, &'static str)] = &[(Self::Plain, "plain"), (Self::Json, "json")];
}

/// How the application is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AbciTransport {
    /// The socket protocol.
    #[default]
    Socket,
    /// gRPC.
    Grpc,
}

impl Choice for AbciTransport {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Self::Socket, "socket"), (Self::Grpc, "grpc")];
}

/// The keys above all tables. Paths are relative to the home, or absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseConfig {
    /// Version of the software that wrote the file, `0.38.25`: read, and never acted on.
    pub version: String,
    /// Address of the application, or `kvstore`, `persistent_kvstore` or `noop`. Default
    /// `tcp://127.0.0.1:26658`.
    pub proxy_app: String,
    /// Name of this node for people. Default: the machine's name.
    pub moniker: String,
    /// CometBFT's database. Accepted for its sake: the database here is always RocksDB. Default
    /// `goleveldb`.
    pub db_backend: String,
    /// Folder of all data. Default `data`.
    pub db_dir: String,
    /// Level of the log, or a list such as `p2p:debug,*:error`. Default `info`.
    pub log_level: String,
    /// Form of the log. Default `plain`.
    pub log_format: LogFormat,
    /// The genesis. Default `config/genesis.json`.
    pub genesis_file: String,
    /// The validator's key. Default `config/priv_validator_key.json`.
    pub priv_validator_key_file: String,
    /// What the validator signed last. Default `data/priv_validator_state.json`.
    pub priv_validator_state_file: String,
    /// Address to wait on for a remote signer; empty for the key file. Default empty.
    pub priv_validator_laddr: String,
    /// The key of the node's identity. Default `config/node_key.json`.
    pub node_key_file: String,
    /// How `proxy_app` is reached. Default `socket`.
    pub abci: AbciTransport,
    /// Whether the application is asked about each new peer. Default false.
    pub filter_peers: bool,
    /// Events that the event bus holds before publishers wait. Default 0.
    pub event_bus_buffer_capacity: u64,
}

impl Default for BaseConfig {
    fn default() -> Self {
        Self {
            version: super::COMETBFT_VERSION.to_owned(),
            proxy_app: "tcp://127.0.0.1:26658".to_owned(),
            moniker: super::default_moniker(),
            db_backend: "goleveldb".to_owned(),
            db_dir: "data".to_owned(),
            log_level: "info".to_owned(),
            log_format: LogFormat::Plain,
            genesis_file: "config/genesis.json".to_owned(),
            priv_validator_key_file: "config/priv_validator_key.json".to_owned(),
            priv_validator_state_file: "data/priv_validator_state.json".to_owned(),
            priv_validator_laddr: String::new(),
            node_key_file: "config/node_key.json".to_owned(),
            abci: AbciTransport::Socket,
            filter_peers: false,
            event_bus_buffer_capacity: 0,
        }
    }
}

impl Section for BaseConfig {
    fn visit(&mut self, v: &mut dyn Visitor) {
        v.key(
            Key::new(
                "version",
                "The CometBFT version whose file this is. Never acted on.",
            ),
            &mut self.version,
        );
        v.key(
            Key::new(
                "proxy_app",
                "The application: tcp://HOST:PORT or unix://PATH of its ABCI server,\nor a built-in one: kvstore, persistent_kvstore, noop.",
            ),
            &mut self.proxy_app,
        );
        v.key(
            Key::new("moniker", "A name for this node, for people."),
            &mut self.moniker,
        );
        v.key(
            Key::new(
                "db_backend",
                "CometBFT's database. Kept so that the file serves both; Perihelion always uses RocksDB.",
            ),
            &mut self.db_backend,
        );
        v.key(Key::new("db_dir", "Folder of the data."), &mut self.db_dir);
        v.key(
            Key::new(
                "log_level",
                "debug, info, warn, error or none; or by module: \"p2p:debug,blocksync:info,*:error\".",
            ),
            &mut self.log_level,
        );
        v.key(
            Key::new("log_format", "plain or json."),
            &mut self.log_format,
        );
        v.key(
            Key::new("genesis_file", "The chain's genesis."),
            &mut self.genesis_file,
        );
        v.key(
            Key::new("priv_validator_key_file", "The key that signs votes."),
            &mut self.priv_validator_key_file,
        );
        v.key(
            Key::new(
                "priv_validator_state_file",
                "What was signed last. Never restore an old copy of it: it prevents double signing.",
            ),
            &mut self.priv_validator_state_file,
        );
        v.key(
            Key::new(
                "priv_validator_laddr",
                "Address to wait on for a remote signer. Empty: sign with the key file.",
            ),
            &mut self.priv_validator_laddr,
        );
        v.key(
            Key::new(
                "node_key_file",
                "The key of this node's identity among its peers.",
            ),
            &mut self.node_key_file,
        );
        v.key(
            Key::new("abci", "How proxy_app is reached: socket or grpc."),
            &mut self.abci,
        );
        v.key(
            Key::new(
                "filter_peers",
                "Ask the application whether a new peer may stay: queries for\n/p2p/filter/addr/IP:PORT and /p2p/filter/id/ID; code 0 lets it in.",
            ),
            &mut self.filter_peers,
        );
        v.key(
            Key::new(
                "event_bus_buffer_capacity",
                "Without effect: publishers of events wait for nobody.",
            ),
            &mut self.event_bus_buffer_capacity,
        );
    }
}
