//! `genesis.json`: how the chain begins.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use perihelion_consensus_reactor::files::FileKind;
use perihelion_crypto::sha256;
use perihelion_types::{
    ConsensusParams, Genesis, GenesisDefaults, GenesisError, GenesisValidator, Height, Time,
};

use super::FileError;

const KIND: FileKind = FileKind {
    what: "genesis",
    missing: "put the genesis of your chain there, or let `perihelion init` make one for a new chain",
    damaged: "fetch the genesis of your chain again",
};

/// A genesis file that was read.
#[derive(Debug, Clone)]
pub struct GenesisFile {
    /// What it says; one without `genesis_time` begins at the moment of reading.
    pub genesis: Genesis,
    /// SHA-256 of the file.
    pub hash: [u8; 32],
    /// What tells the genesis from others: [`genesis_id`] of what the file itself says, the same
    /// whenever it is read.
    pub id: [u8; 32],
}

/// Reads and checks a genesis.
///
/// # Errors
/// When it is missing, cannot be read, is damaged or breaks a rule.
pub fn read_genesis(path: &Path) -> Result<GenesisFile, FileError> {
    let bytes = KIND.read(path)?;
    let parse = |time| {
        let defaults = GenesisDefaults {
            time,
            consensus_params: ConsensusParams::default_v038(),
        };
        Genesis::from_json(&bytes, &defaults).map_err(|error| match error {
            GenesisError::Json(error) => KIND.damaged(path, error.to_string()),
            GenesisError::Invalid(error) => KIND.damaged(path, error.to_string()),
        })
    };
    Ok(GenesisFile {
        genesis: parse(now())?,
        hash: sha256(&bytes),
        id: genesis_id(&parse(UNSAID)?),
    })
}

/// Stands for the time of a genesis that tells none, where it must be the same each time.
const UNSAID: Time = Time::new(0, 0);

/// Reads and checks a genesis; the second value is SHA-256 of the file.
///
/// # Errors
/// As [`read_genesis`].
pub fn load_genesis(path: &Path) -> Result<(Genesis, [u8; 32]), FileError> {
    read_genesis(path).map(|file| (file.genesis, file.hash))
}

/// A genesis of a new chain that begins now.
#[must_use]
pub fn new_genesis(
    chain_id: String,
    initial_height: Height,
    validators: Vec<GenesisValidator>,
) -> Genesis {
    Genesis {
        genesis_time: now(),
        chain_id,
        initial_height,
        consensus_params: ConsensusParams::default_v038(),
        validators,
        app_hash: bytes::Bytes::new(),
        app_state: bytes::Bytes::new(),
    }
}

/// The content of the file.
#[must_use]
pub fn genesis_json(genesis: &Genesis) -> String {
    genesis
        .to_json()
        .expect("the application's state was read as JSON")
}

/// What tells this genesis from others, whatever spaces and line ends its file has: SHA-256 of its
/// canonical, compact JSON.
#[must_use]
pub fn genesis_id(genesis: &Genesis) -> [u8; 32] {
    sha256(perihelion_types::json::compact(&genesis_json(genesis)).as_bytes())
}

/// Letters and digits chosen at random.
#[must_use]
pub fn random_text(length: usize) -> String {
    const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    (0..length)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect()
}

/// The present moment.
fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Time::new(seconds, i32::try_from(since.subsec_nanos()).unwrap_or(0))
}
