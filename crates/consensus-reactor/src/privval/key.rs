//! `priv_validator_key.json`: what a validator signs with.

use std::path::Path;

use perihelion_crypto::{PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::SignState;
use crate::files::{FileError, FileKind, must_not_exist, write_atomically};

const KEY: FileKind = FileKind {
    what: "validator key",
    missing: "`perihelion init` makes one; an existing validator's comes from a copy",
    damaged: "restore it from a copy",
};

/// Room for a key's JSON, so that no part of it is left behind in memory by growing.
const JSON_BYTES: usize = 1024;

/// The key that signs votes.
#[derive(Debug, Clone)]
pub struct ValidatorKey {
    /// The key.
    pub key: PrivateKey,
}

#[derive(Serialize, Deserialize)]
struct KeyForm {
    /// In upper-case hexadecimal.
    address: String,
    pub_key: PublicKey,
    priv_key: PrivateKey,
}

impl ValidatorKey {
    /// A new ed25519 key.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            key: PrivateKey::generate_ed25519(),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing, cannot be read or is damaged, or when its parts do not belong together.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let bytes = KEY.read(path)?;
        let form: KeyForm = KEY.parse(path, &bytes)?;
        let public = form.priv_key.public_key();
        if public != form.pub_key {
            return Err(KEY.damaged(path, "pub_key is not that of priv_key"));
        }
        if !form
            .address
            .eq_ignore_ascii_case(&public.address().to_string())
        {
            return Err(KEY.damaged(path, "address is not that of pub_key"));
        }
        Ok(Self { key: form.priv_key })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When there is one already, or it cannot be written.
    pub fn save_new(&self, path: &Path) -> Result<(), FileError> {
        must_not_exist(KEY.what, path)?;
        let mut text = Zeroizing::new(Vec::with_capacity(JSON_BYTES));
        serde_json::to_writer_pretty(&mut *text, &self.form()).expect("a key has a JSON form");
        write_atomically(path, &text, 0o600)
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    /// What `gen-validator` prints: key and fresh state on one line. A secret.
    #[must_use]
    pub fn to_json_with_state(&self) -> Zeroizing<String> {
        #[derive(Serialize)]
        struct Both {
            #[serde(rename = "Key")]
            key: KeyForm,
            #[serde(rename = "LastSignState")]
            state: SignState,
        }
        let both = Both {
            key: self.form(),
            state: SignState::default(),
        };
        let mut text = Vec::with_capacity(JSON_BYTES);
        serde_json::to_writer(&mut text, &both).expect("a key has a JSON form");
        Zeroizing::new(String::from_utf8(text).expect("JSON is text"))
    }

    fn form(&self) -> KeyForm {
        let pub_key = self.public_key();
        KeyForm {
            address: pub_key.address().to_string(),
            pub_key,
            priv_key: self.key.clone(),
        }
    }
}
