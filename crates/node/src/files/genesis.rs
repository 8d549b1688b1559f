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

/// Reads and checks a genesis; the second value is SHA-256 of the file.
///
/// # Errors
/// When it is missing, cannot be read, is damaged or breaks a rule.
pub fn load_genesis(path: &Path) -> Result<(Genesis, [u8; 32]), FileError> {
    let bytes = KIND.read(path)?;
    let defaults = GenesisDefaults {
        time: now(),
        consensus_params: ConsensusParams::default_v038(),
    };
    match Genesis::from_json(&bytes, &defaults) {
        Ok(genesis) => Ok((genesis, sha256(&bytes))),
        Err(GenesisError::Json(error)) => Err(KIND.damaged(path, error.to_string())),
        Err(GenesisError::Invalid(error)) => Err(KIND.damaged(path, error.to_string())),
    }
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
