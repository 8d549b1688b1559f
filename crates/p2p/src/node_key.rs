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

    /// The identity of a given ed25519 key; none for a key of another type.
    #[must_use]
    pub fn from_private_key(key: PrivateKey) -> Option<Self> {
        matches!(key, PrivateKey::Ed25519(_)).then_some(Self { key })
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_saved_key_is_the_same_when_loaded_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node_key.json");
        assert!(matches!(
            NodeKey::load(&path),
            Err(NodeKeyError::Missing { .. })
        ));
        let key = NodeKey::load_or_generate(&path).unwrap();
        assert_eq!(NodeKey::load(&path).unwrap().id(), key.id());
        assert_eq!(NodeKey::load_or_generate(&path).unwrap().id(), key.id());
        let error = NodeKey::generate().save(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn vector_a_key_file_of_cometbft_is_written_the_same() {
        let mut homes = 0;
        for version in fs::read_dir(perihelion_test_support::folder().join("config")).unwrap() {
            let path = version.unwrap().path().join("node_key.json");
            let text = fs::read_to_string(&path).unwrap();
            let key = NodeKey::load(&path).unwrap();
            assert_eq!(*key.to_json(), text.trim_end(), "{}", path.display());
            homes += 1;
        }
        assert!(homes > 0, "no home in the vectors");
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_remedy_and_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node_key.json");
        let good = NodeKey::generate().to_json();
        let value = good.split('"').nth(9).unwrap().to_owned();
        for bad in [
            String::new(),
            "{}".to_owned(),
            good.replace("Ed25519", "Secp256k1"),
            good.replace(&value, "AAAA"),
            good.replace(&value, "!"),
            good.replace(&value, &STANDARD.encode([7; 64])),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = NodeKey::load(&path).unwrap_err().to_string();
            assert!(error.contains("gen-node-key"), "{error}");
            assert!(!error.contains(&value), "{error}");
        }
    }
}
