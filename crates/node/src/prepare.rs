//! What `start` checks before anything runs. Nothing on disk changes here, so that a node that
//! cannot start leaves its home as it was.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use perihelion_abci::AppAddress;
use perihelion_crypto::PrivateKey;
use perihelion_types::Genesis;
use rustix::fs::Access;
use thiserror::Error;

use crate::{
    config::{Config, ConfigError, Indexer, MempoolType, host_and_port},
    files::{FileError, SignState, ValidatorKey, genesis_id, load_genesis, load_node_key},
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
    /// A setting that this version does not offer.
    #[error("{key} = {value:?} is not offered by this version: {remedy}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// Everything that a node starts with.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration.
    pub config: Config,
    /// The genesis.
    pub genesis: Genesis,
    /// What tells the genesis from others, for the store to be bound to: see [`genesis_id`].
    pub genesis_id: [u8; 32],
    /// The key of the node's identity: ed25519.
    pub node_key: PrivateKey,
    /// The key that signs votes; `None` where a remote signer has it.
    pub validator: Option<ValidatorKey>,
    /// What it signed last; `None` where a remote signer knows.
    pub sign_state: Option<SignState>,
    /// Databases of CometBFT beside ours, to be told of and left alone.
    pub foreign_data: Vec<PathBuf>,
}

/// Checks all that can be checked before a node runs, and binds its addresses.
///
/// # Errors
/// Names the first thing that is wrong, and the remedy.
pub fn prepare(config: Config, genesis_hash: Option<[u8; 32]>) -> Result<Prepared, PrepareError> {
    let genesis_file = config.genesis_file();
    let (genesis, found_hash) = load_genesis(&genesis_file)?;
    if let Some(expected) = genesis_hash.filter(|expected| *expected != found_hash) {
        return Err(PrepareError::GenesisHash {
            path: genesis_file,
            expected: hexadecimal(&expected),
            found: hexadecimal(&found_hash),
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
    check_supported(&config)?;
    check_folders(&config)?;
    // Only whether they are free: their servers bind them again when everything else is ready.
    drop(listen("p2p.laddr", &config.p2p.laddr)?);
    if config.rpc.laddr.starts_with("unix://") {
        perihelion_rpc::check_address(&config.rpc.laddr)?;
    } else if !config.rpc.laddr.is_empty() {
        drop(listen("rpc.laddr", &config.rpc.laddr)?);
    }
    if let Some(files) = config.rpc_server().tls {
        perihelion_rpc::check_tls(&files)?;
    }
    let foreign_data = foreign_data(&config.data_dir());
    Ok(Prepared {
        config,
        genesis_id: genesis_id(&genesis),
        genesis,
        node_key,
        validator,
        sign_state,
        foreign_data,
    })
}

/// The settings of CometBFT that this version does not offer.
fn check_supported(config: &Config) -> Result<(), PrepareError> {
    let application = &config.base.proxy_app;
    let refused = |key, value: &str, remedy| {
        Err(PrepareError::Unsupported {
            key,
            value: value.to_owned(),
            remedy,
        })
    };
    if !BUILT_IN.contains(&application.as_str()) && application.parse::<AppAddress>().is_err() {
        return refused(
            "proxy_app",
            application,
            "use tcp://HOST:PORT or unix://PATH of an application, or kvstore, persistent_kvstore or noop",
        );
    }
    if config.state_sync.enable {
        return refused(
            "statesync.enable",
            "true",
            "set it to false to sync by blocks",
        );
    }
    if config.p2p.libp2p.enabled {
        return refused(
            "p2p.libp2p.enabled",
            "true",
            "set it to false: peers of v0.38 to v0.40 speak the classic protocol",
        );
    }
    if config.tx_index.indexer == Indexer::Psql {
        return refused("tx_index.indexer", "psql", "use kv or null");
    }
    if config.mempool.kind == MempoolType::App {
        return refused("mempool.type", "app", "use flood or nop");
    }
    if !config.base.priv_validator_laddr.is_empty() {
        return refused(
            "priv_validator_laddr",
            &config.base.priv_validator_laddr,
            "leave it empty: this version signs with the key in priv_validator_key_file only",
        );
    }
    Ok(())
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

/// CometBFT's databases in a data folder.
#[must_use]
pub fn foreign_data(data: &Path) -> Vec<PathBuf> {
    ["blockstore.db", "state.db"]
        .iter()
        .map(|name| data.join(name))
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .collect()
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
