//! CometBFT's JSON forms of keys: `{"type":"tendermint/PubKeyEd25519","value":"base64"}`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use crate::{KeyError, KeyType, PrivateKey, PublicKey};

/// The names of a key's public and private halves.
const fn names(key_type: KeyType) -> (&'static str, &'static str) {
    match key_type {
        KeyType::Ed25519 => ("tendermint/PubKeyEd25519", "tendermint/PrivKeyEd25519"),
        KeyType::Secp256k1 => ("tendermint/PubKeySecp256k1", "tendermint/PrivKeySecp256k1"),
        KeyType::Bls12381 => ("cometbft/PubKeyBls12_381", "cometbft/PrivKeyBls12_381"),
        KeyType::MlDsa65 => ("cometbft/PubKeyMlDsa65", "cometbft/PrivKeyMlDsa65"),
        KeyType::Secp256k1Eth => (
            "tendermint/PubKeySecp256k1eth",
            "tendermint/PrivKeySecp256k1eth",
        ),
    }
}

/// Every kind.
const KINDS: [KeyType; 5] = [
    KeyType::Ed25519,
    KeyType::Secp256k1,
    KeyType::Bls12381,
    KeyType::MlDsa65,
    KeyType::Secp256k1Eth,
];

#[derive(Serialize)]
struct Form<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    value: &'a str,
}

#[derive(Deserialize)]
struct Parsed {
    #[serde(rename = "type")]
    name: String,
    value: String,
}

impl Parsed {
    /// The kind whose public (or private) name this is, and the bytes.
    fn decode(self, private: bool) -> Result<(KeyType, Zeroizing<Vec<u8>>), KeyError> {
        let key_type = KINDS
            .into_iter()
            .find(|kind| {
                let (public_name, private_name) = names(*kind);
                self.name == if private { private_name } else { public_name }
            })
            .ok_or_else(|| {
                let name: String = self.name.chars().take(64).collect();
                KeyError::Json(format!("unknown type {name:?}"))
            })?;
        let value = Zeroizing::new(self.value);
        let bytes = STANDARD
            .decode(value.as_bytes())
            .map_err(|_| KeyError::Json("the value is not base64".into()))?;
        Ok((key_type, Zeroizing::new(bytes)))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Form {
            name: names(self.key_type()).0,
            value: &STANDARD.encode(self.as_bytes()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer)?
            .decode(false)
            .and_then(|(key_type, bytes)| Self::from_bytes(key_type, &bytes))
            .map_err(D::Error::custom)
    }
}

/// Writes the secret: for key files only.
impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Form {
            name: names(self.key_type()).1,
            value: &Zeroizing::new(STANDARD.encode(&*self.to_bytes())),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer)?
            .decode(true)
            .and_then(|(key_type, bytes)| Self::from_bytes(key_type, &bytes))
            .map_err(D::Error::custom)
    }
}
