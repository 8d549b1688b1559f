use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use perihelion_crypto::{NodeId, PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

const ED25519_PRIVATE: &str = "tendermint/PrivKeyEd25519";

/// The key that a node proves its identity with, kept in `config/node_key.json`.
#[derive(Debug, Clone)]
pub struct NodeKey {
    key: PrivateKey,
}

/// The node key's file cannot be used.
#[derive(Debug, Error)]
pub enum NodeKeyError {
    /// There is no such file.
    #[error("node key {} does not exist: make one with `gen-node-key` or `init`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There already is one; it is never overwritten.
    #[error("node key {} exists already: remove it first if a new identity is wanted", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("node key {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no node key. Its content is not shown, since it is secret.
    #[error(
        "node key {} is damaged ({what}): restore it from a backup, or remove it and run \
         `gen-node-key` for a new identity", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    priv_key: Key,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

impl NodeKey {
    /// A new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            key: PrivateKey::generate_ed25519(),
        }
    }

    /// The identity of a given ed25519 key.
    ///
    /// # Errors
    /// Returns the key when it is of another type: node keys are ed25519 only.
    pub fn from_private_key(key: PrivateKey) -> Result<Self, PrivateKey> {
        match key {
            PrivateKey::Ed25519(_) => Ok(Self { key }),
            other => Err(other),
        }
    }

    /// Reads a key file of CometBFT's form.
    ///
    /// # Errors
    /// When the file is missing, unreadable or no ed25519 key; the error names it and the remedy.
    pub fn load(path: &Path) -> Result<Self, NodeKeyError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NodeKeyError::Missing { path: path.into() });
            }
            Err(source) => {
                return Err(NodeKeyError::Io {
                    path: path.into(),
                    source,
                });
            }
        };
        Self::parse(&text).map_err(|what| NodeKeyError::Malformed {
            path: path.into(),
            what,
        })
    }

    /// Writes a new key file, readable by its owner only, durably.
    ///
    /// # Errors
    /// When a file of that name exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), NodeKeyError> {
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| {
                file.write_all(self.to_json().as_bytes())?;
                file.sync_all()
            });
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(NodeKeyError::Exists { path: path.into() })
            }
            Err(source) => Err(NodeKeyError::Io {
                path: path.into(),
                source,
            }),
        }
    }

    /// Loads the file, or makes it when there is none.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`save`](Self::save).
    pub fn load_or_generate(path: &Path) -> Result<Self, NodeKeyError> {
        match Self::load(path) {
            Err(NodeKeyError::Missing { .. }) => {
                let key = Self::generate();
                key.save(path)?;
                Ok(key)
            }
            result => result,
        }
    }

    /// The node's id: what peers write before `@`.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.public_key().node_id()
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// The private half, for the handshake.
    #[must_use]
    pub const fn private_key(&self) -> &PrivateKey {
        &self.key
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text)
            .map_err(|error| format!("line {} column {}", error.line(), error.column()))?;
        if file.priv_key.kind != ED25519_PRIVATE {
            return Err(format!(
                "key type {:?}, expected {ED25519_PRIVATE:?}",
                file.priv_key.kind.chars().take(64).collect::<String>()
            ));
        }
        let bytes = STANDARD
            .decode(Zeroizing::new(file.priv_key.value).as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| "the value is not base64".to_owned())?;
        let (seed, public) = bytes
            .split_first_chunk::<32>()
            .filter(|(_, public)| public.len() == 32)
            .ok_or_else(|| format!("the value has {} bytes, expected 64", bytes.len()))?;
        let key = PrivateKey::ed25519_from_seed(seed);
        if key.public_key().as_bytes() != public {
            return Err("its public half does not belong to its private half".to_owned());
        }
        Ok(Self { key })
    }

    fn to_json(&self) -> Zeroizing<String> {
        let PrivateKey::Ed25519(key) = &self.key else {
            unreachable!("a node key is made from ed25519 keys only");
        };
        let value = STANDARD.encode(Zeroizing::new(key.to_keypair_bytes()));
        let file = File {
            priv_key: Key {
                kind: ED25519_PRIVATE.to_owned(),
                value,
            },
        };
        Zeroizing::new(serde_json::to_string(&file).expect("two texts always serialize"))
    }
}
