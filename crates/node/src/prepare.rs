//! What `start` checks before anything runs. Nothing on disk changes here, so that a node that
//! cannot start leaves its home as it was.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use perihelion_abci::AppAddress;
use perihelion_consensus_reactor::wal::{self, WalError};
use perihelion_crypto::PrivateKey;
use perihelion_store::{StoreError, check_store, lock_store};
use perihelion_types::{Genesis, Hash};
use rustix::fs::Access;
use thiserror::Error;

use crate::{
    cometbft::{self, CometBftError, CometBftLocks},
    config::{
        BaseConfig, Config, ConfigError, Indexer, MempoolType, Place, host_and_port, is_dialled,
    },
    files::{FileError, GenesisFile, SignState, ValidatorKey, load_node_key, read_genesis},
    home::DATABASE,
};

/// Applications that are built in.
const BUILT_IN: [&str; 5] = [
    "kvstore",
    "kvstore_connsync",
    "persistent_kvstore",
    "persistent_kvstore_connsync",
    "noop",
];

/// A node cannot start.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the home cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The genesis file is not the one that `--genesis_hash` names.
    #[error("--genesis_hash={expected} does not match {}, whose hash is {found}: fetch the genesis of your chain again", path.display())]
    GenesisHash {
        /// The file.
        path: PathBuf,
        /// The hash that was asked for, in upper-case hexadecimal.
        expected: String,
        /// The hash of the file.
        found: String,
    },
    /// The RPC server cannot speak TLS, or not listen at its Unix socket.
    #[error(transparent)]
    Rpc(#[from] perihelion_rpc::ServeError),
    /// A folder cannot be used.
    #[error("the folder {} cannot be {verb}: {source}: let the user who runs the node own it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("{key} = {address:?} cannot be listened on: {source}{remedy}")]
    Listen {
        /// The key.
        key: &'static str,
        /// Its value.
        address: String,
        /// Why.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// Two servers are to listen at one address.
    #[error("rpc.laddr = {rpc:?} and p2p.laddr = {p2p:?} have one port: give each its own")]
    SamePort {
        /// The address for clients.
        rpc: String,
        /// The address for peers.
        p2p: String,
    },
    /// The store cannot be opened, or not for this chain.
    #[error("{error}{}", store_remedy(.error, .home))]
    Store {
        /// What is wrong with it.
        error: StoreError,
        /// The home.
        home: PathBuf,
    },
    /// The consensus log is damaged.
    #[error(transparent)]
    Log(#[from] WalError),
    /// A CometBFT node runs on this home, or that cannot be told.
    #[error(transparent)]
    CometBft(#[from] CometBftError),
    /// A setting that this version does not offer, or that nobody could use.
    #[error("{} = {value:?} {why}: {remedy}", at(.place, .key))]
    Refused {
        /// Where it stands.
        place: Place,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
        /// What to do.
        remedy: &'static str,
    },
}

/// Why a setting is refused that CometBFT has.
const NOT_OFFERED: &str = "is not offered by this version";

/// The key, with the place where it is set.
fn at(place: &Place, key: &str) -> String {
    match place {
        Place::Default => key.to_owned(),
        place => place.of(key),
    }
}

/// Everything that a node starts with.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration.
    pub config: Config,
    /// The genesis.
    pub genesis: Genesis,
    /// What tells the genesis from others, for the store to be bound to: see [`GenesisFile::id`].
    pub genesis_id: Hash,
    /// The key of the node's identity: ed25519.
    pub node_key: PrivateKey,
    /// The key that signs votes; `None` where a remote signer has it.
    pub validator: Option<ValidatorKey>,
    /// What it signed last; `None` where a remote signer knows.
    pub sign_state: Option<SignState>,
    /// Whether a built-in application may stand in for the one of `proxy_app`, which has the address
    /// that every new home has, while the genesis speaks to no application. Whoever knows that the
    /// address was chosen clears it.
    pub may_stand_in: bool,
    /// Databases of CometBFT beside ours, to be told of and left alone.
    pub foreign_data: Vec<PathBuf>,
    /// Keeps CometBFT from starting on this home while this node runs there: where it never ran, once
    /// [`CometBftLocks::keep_out`] was called.
    pub cometbft: CometBftLocks,
}

/// Checks all that can be checked before a node runs, and binds its addresses.
///
/// # Errors
/// Names the first thing that is wrong, and the remedy.
pub fn prepare(config: Config, genesis_hash: Option<[u8; 32]>) -> Result<Prepared, PrepareError> {
    let genesis_file = config.genesis_file();
    let GenesisFile { genesis, hash, id } = read_genesis(&genesis_file)?;
    if let Some(expected) = genesis_hash.filter(|expected| *expected != hash) {
        return Err(PrepareError::GenesisHash {
            path: genesis_file,
            expected: hexadecimal(&expected),
            found: hexadecimal(&hash),
        });
    }
    let node_key = load_node_key(&config.node_key_file())?;
    let (validator, sign_state) = if config.base.priv_validator_laddr.is_empty() {
        let key = ValidatorKey::load(&config.priv_validator_key_file())?;
        let state_file = config.priv_validator_state_file();
        let state = SignState::load(&state_file)?;
        state.check_key(&state_file, &key.public_key())?;
        (Some(key), Some(state))
    } else {
        (None, None)
    };
    if let Some(refused) = refused(&config).into_iter().next() {
        return Err(refused);
    }
    check_folders(&config)?;
    // Before the addresses: a node that runs on this home has them too, and it is what to name.
    let genesis_id = Hash::new(id);
    check_store(&config.data_dir(), &genesis_id)
        .map_err(|error| PrepareError::store(error, &config))?;
    // Behind the store: a Perihelion that runs has these locked too.
    let locks = CometBftLocks::of_a_node(&config.data_dir())?;
    check_addresses(&config)?;
    if let Some(files) = config.rpc_server().tls {
        perihelion_rpc::check_tls(&files)?;
    }
    let foreign_data = cometbft::databases(&config.data_dir());
    let may_stand_in =
        config.base.proxy_app == BaseConfig::default().proxy_app && has_no_app_state(&genesis);
    Ok(Prepared {
        may_stand_in,
        config,
        genesis_id,
        genesis,
        node_key,
        validator,
        sign_state,
        foreign_data,
        cometbft: locks,
    })
}

impl PrepareError {
    /// The store of a home cannot be opened.
    pub(crate) fn store(error: StoreError, config: &Config) -> Self {
        let home = config.home().to_owned();
        Self::Store { error, home }
    }
}

/// The command that helps when a store is lost.
fn store_remedy(error: &StoreError, home: &Path) -> String {
    if error.is_lost() {
        format!(
            " (`perihelion reset-state --home {}` removes it, and no key)",
            home.display()
        )
    } else {
        String::new()
    }
}

/// Whether the genesis tells an application nothing: where one is needed, it begins with what stands
/// there.
fn has_no_app_state(genesis: &Genesis) -> bool {
    let text = String::from_utf8_lossy(&genesis.app_state);
    let text: String = text.split_whitespace().collect();
    ["", "null", "{}", "\"\""].contains(&text.as_str())
}

/// Whether peers and clients would meet at one port.
fn same_port(config: &Config) -> Option<PrepareError> {
    let (rpc, p2p) = (&config.rpc.laddr, &config.p2p.laddr);
    let cut = |address: &str| {
        let bare = address.strip_prefix("tcp://").unwrap_or(address);
        host_and_port(bare).map(|(host, port)| (host.to_owned(), port))
    };
    let ((for_clients, port), (for_peers, other)) = (cut(rpc)?, cut(p2p)?);
    let is_any = |host: &str| ["", "0.0.0.0", "::"].contains(&host);
    let meet = for_clients == for_peers || is_any(&for_clients) || is_any(&for_peers);
    (port == other && port > 0 && meet).then(|| PrepareError::SamePort {
        rpc: rpc.clone(),
        p2p: p2p.clone(),
    })
}

/// What `start` would refuse of the configuration, its folders and its store, all of it; whether a
/// node runs there counts for nothing.
pub(crate) fn findings(config: &Config) -> Vec<PrepareError> {
    let mut found = refused(config);
    found.extend(same_port(config));
    found.extend(check_folders(config).err());
    if let Ok(genesis) = read_genesis(&config.genesis_file()) {
        match check_store(&config.data_dir(), &Hash::new(genesis.id)) {
            Ok(()) | Err(StoreError::Locked { .. }) => {}
            Err(error) => found.push(PrepareError::store(error, config)),
        }
    }
    // While a node runs there it writes to the log.
    if let Ok(_lock) = lock_store(&config.data_dir()) {
        found.extend(wal::check(&config.wal_file()).err().map(Into::into));
    }
    if let Some(files) = config.rpc_server().tls {
        found.extend(perihelion_rpc::check_tls(&files).err().map(Into::into));
    }
    found
}

/// The settings that this version does not offer, and those that nobody could use.
fn refused(config: &Config) -> Vec<PrepareError> {
    let application = &config.base.proxy_app;
    let signer = &config.base.priv_validator_laddr;
    let external = &config.p2p.external_address;
    [
        (
            !BUILT_IN.contains(&application.as_str())
                && application.parse::<AppAddress>().is_err(),
            "proxy_app",
            application.as_str(),
            "is no application",
            "use tcp://HOST:PORT or unix://PATH of an application, or kvstore, persistent_kvstore or noop",
        ),
        (
            config.state_sync.enable,
            "statesync.enable",
            "true",
            NOT_OFFERED,
            "set it to false to sync by blocks",
        ),
        (
            config.p2p.libp2p.enabled,
            "p2p.libp2p.enabled",
            "true",
            NOT_OFFERED,
            "set it to false: peers of v0.38 to v0.40 speak the classic protocol",
        ),
        (
            config.tx_index.indexer == Indexer::Psql,
            "tx_index.indexer",
            "psql",
            NOT_OFFERED,
            "use kv or null",
        ),
        (
            config.mempool.kind == MempoolType::App,
            "mempool.type",
            "app",
            NOT_OFFERED,
            "use flood or nop",
        ),
        (
            !signer.is_empty(),
            "priv_validator_laddr",
            signer,
            NOT_OFFERED,
            "leave it empty: this version signs with the key in priv_validator_key_file only",
        ),
        (
            !external.is_empty() && !is_dialled(external),
            "p2p.external_address",
            external,
            "is no address",
            "write HOST:PORT where peers reach this node, or leave it empty",
        ),
    ]
    .into_iter()
    .filter(|(refused, ..)| *refused)
    .map(|(_, key, value, why, remedy)| PrepareError::Refused {
        place: config.place(key),
        key,
        value: value.to_owned(),
        why,
        remedy,
    })
    .collect()
}

/// The folders must be usable: those that are there can be entered and written to, those that are
/// not can be made.
fn check_folders(config: &Config) -> Result<(), PrepareError> {
    let mut folders = vec![config.home().to_owned(), config.data_dir()];
    let database = config.data_dir().join(DATABASE);
    if database.exists() {
        folders.push(database);
    }
    for file in [config.addr_book_file(), config.priv_validator_state_file()] {
        folders.extend(file.parent().map(Path::to_owned));
    }
    for folder in folders {
        check_folder(&folder)?;
    }
    Ok(())
}

fn check_folder(folder: &Path) -> Result<(), PrepareError> {
    let mut existing = folder;
    while !existing.exists() {
        match existing
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Some(parent) => existing = parent,
            None => break,
        }
    }
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(existing, access).map_err(|error| PrepareError::Folder {
        path: existing.to_owned(),
        verb: "written",
        source: error.into(),
    })?;
    if !existing.is_dir() {
        return Err(PrepareError::Folder {
            path: existing.to_owned(),
            verb: "used",
            source: io::ErrorKind::NotADirectory.into(),
        });
    }
    Ok(())
}

/// Whether the addresses differ and are free, all at once; their servers bind them again when
/// everything else is ready.
fn check_addresses(config: &Config) -> Result<(), PrepareError> {
    if let Some(error) = same_port(config) {
        return Err(error);
    }
    let (p2p, rpc) = (&config.p2p.laddr, &config.rpc.laddr);
    let for_peers = listen("p2p.laddr", p2p)?;
    let metrics = &config.instrumentation;
    let _for_metrics = if metrics.prometheus {
        let key = "instrumentation.prometheus_listen_addr";
        Some(listen(key, &metrics.prometheus_listen_addr)?)
    } else {
        None
    };
    if rpc.is_empty() {
        return Ok(());
    }
    if rpc.starts_with("unix://") {
        return Ok(perihelion_rpc::check_address(rpc)?);
    }
    match listen("rpc.laddr", rpc) {
        Err(PrepareError::Listen { source, .. })
            if source.kind() == io::ErrorKind::AddrInUse
                && for_peers.local_addr().ok().map(|bound| bound.port()) == port(rpc) =>
        {
            Err(PrepareError::SamePort {
                rpc: rpc.clone(),
                p2p: p2p.clone(),
            })
        }
        listening => listening.map(drop),
    }
}

fn port(address: &str) -> Option<u16> {
    host_and_port(address.strip_prefix("tcp://").unwrap_or(address)).map(|(_, port)| port)
}

/// Listens on `[tcp://]HOST:PORT`.
fn listen(key: &'static str, address: &str) -> Result<TcpListener, PrepareError> {
    let bare = address.strip_prefix("tcp://").unwrap_or(address);
    bind(bare).map_err(|source| PrepareError::Listen {
        key,
        address: address.to_owned(),
        remedy: match source.kind() {
            io::ErrorKind::AddrInUse => ": stop the program that has the port, or choose another",
            io::ErrorKind::PermissionDenied => ": choose a port above 1023",
            _ => ": write the address of one of this machine's interfaces",
        },
        source,
    })
}

fn bind(address: &str) -> io::Result<TcpListener> {
    let (host, port) = host_and_port(address)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no HOST:PORT"))?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    TcpListener::bind(addresses.as_slice())
}

/// What to say of CometBFT's databases beside ours.
#[must_use]
pub fn foreign_data_message(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    format!(
        "{} belong to CometBFT: they are not read and stay as they are. Perihelion syncs the chain \
         into {DATABASE} beside them; never run both nodes on one validator key. When CometBFT is no \
         longer needed, remove them to save space",
        names.join(" and ")
    )
}

/// Upper-case hexadecimal.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
