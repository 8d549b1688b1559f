//! `priv_validator_key.json` and `priv_validator_state.json`: what a validator signs with, and what
//! it signed last.

use std::{fs, io, path::Path};

use perihelion_crypto::{PrivateKey, PublicKey};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{FileError, Kind, must_not_exist, write_atomically};

const KEY: Kind = Kind {
    what: "validator key",
    missing: "`perihelion init` makes one; an existing validator's comes from a copy",
    damaged: "restore it from a copy",
};

const STATE: Kind = Kind {
    what: "validator state",
    missing: "`perihelion init` makes one for a new key",
    damaged: "it prevents double signing: restore the newest copy, and never one that is older than the last signature",
};

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
        let text = serde_json::to_string_pretty(&self.form()).expect("a key has a JSON form");
        write_atomically(path, Zeroizing::new(text).as_bytes(), 0o600)
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
        Zeroizing::new(serde_json::to_string(&both).expect("a key has a JSON form"))
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

/// What a validator signed last. Signing refuses whatever is not after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SignState {
    /// Its height; 0 when nothing was signed yet.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub height: i64,
    /// Its round.
    pub round: i32,
    /// 1 a proposal, 2 a prevote, 3 a precommit; 0 when nothing was signed yet.
    pub step: i8,
    /// The signature, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// What was signed, in upper-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signbytes: Option<String>,
}

impl SignState {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing, cannot be read or is damaged.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let bytes = STATE.read(path)?;
        let state: Self = STATE.parse(path, &bytes)?;
        let numbers = state.height >= 0 && state.round >= 0 && (0..=3).contains(&state.step);
        let base64 = |text: &String| {
            text.len().is_multiple_of(4)
                && text
                    .trim_end_matches('=')
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
        };
        let hexadecimal = |text: &String| {
            text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        if !numbers {
            return Err(STATE.damaged(path, "height, round or step is out of range"));
        }
        if !state.signature.as_ref().is_none_or(base64) {
            return Err(STATE.damaged(path, "signature is not base64"));
        }
        if !state.signbytes.as_ref().is_none_or(hexadecimal) {
            return Err(STATE.damaged(path, "signbytes are not hexadecimal"));
        }
        if state.signature.is_some() != state.signbytes.is_some() {
            return Err(STATE.damaged(path, "of signature and signbytes one is missing"));
        }
        Ok(state)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_string_pretty(self).expect("a state has a JSON form");
        write_atomically(path, text.as_bytes(), 0o600)
    }

    /// Whether the file is there.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn exists(path: &Path) -> Result<bool, FileError> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(FileError::Read {
                what: STATE.what,
                path: path.to_owned(),
                source,
            }),
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_text<S: Serializer>(height: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(height)
}

fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}
