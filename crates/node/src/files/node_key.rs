//! `node_key.json`: the key of a node's identity.

use std::path::Path;

use perihelion_consensus_reactor::files::{FileKind, must_not_exist};
use perihelion_crypto::PrivateKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{FileError, write_atomically};

const KIND: FileKind = FileKind {
    what: "node key",
    missing: "`perihelion gen-node-key` or `perihelion init` makes one",
    damaged: "restore it from a copy, or remove it and run `perihelion gen-node-key` for a new identity",
};

#[derive(Serialize, Deserialize)]
struct Form {
    priv_key: PrivateKey,
}

/// Reads a node key: ed25519 only.
///
/// # Errors
/// When it is missing, cannot be read, is damaged, or is of another type.
pub fn load_node_key(path: &Path) -> Result<PrivateKey, FileError> {
    let bytes = KIND.read(path)?;
    let form: Form = KIND.parse(path, &bytes)?;
    match form.priv_key {
        key @ PrivateKey::Ed25519(_) => Ok(key),
        PrivateKey::Secp256k1(_) => Err(KIND.damaged(path, "the key is not of type ed25519")),
    }
}

/// Makes and writes a new node key.
///
/// # Errors
/// When there is one already, or it cannot be written.
pub fn generate_node_key(path: &Path) -> Result<PrivateKey, FileError> {
    must_not_exist(KIND.what, path)?;
    let key = PrivateKey::generate_ed25519();
    write_atomically(path, node_key_json(&key).as_bytes(), 0o600)?;
    Ok(key)
}

/// The content of the file: a secret.
#[must_use]
pub fn node_key_json(key: &PrivateKey) -> Zeroizing<String> {
    let form = Form {
        priv_key: key.clone(),
    };
    Zeroizing::new(serde_json::to_string(&form).expect("a key has a JSON form"))
}
