use bytes::Bytes;
use k256::ecdsa::{self, signature::hazmat::PrehashVerifier};
use perihelion_proto::tendermint::crypto as pb;
use ripemd::Ripemd160;
use sha2::Digest;
use sha3::Keccak256;
use thiserror::Error;

use crate::{Address, NodeId, sha256};

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// 32-byte keys; the only kind of consensus and node keys in v0.38 that can be batched.
    Ed25519,
    /// 33-byte compressed keys.
    Secp256k1,
    /// v0.40, special builds only; neither decoded nor verified here, as in ordinary builds.
    Bls12381,
    /// v0.40, 1,952-byte keys; carried, never verified here.
    MlDsa65,
    /// v0.40, 33-byte compressed keys with Ethereum's addresses and hash.
    Secp256k1Eth,
}

impl KeyType {
    /// The name in consensus parameters (`pub_key_types`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Secp256k1 => "secp256k1",
            Self::Bls12381 => "bls12_381",
            Self::MlDsa65 => "ml_dsa_65",
            Self::Secp256k1Eth => "secp256k1eth",
        }
    }

    /// Bytes of a public key; `None` for kinds that are not decoded.
    #[must_use]
    pub const fn public_key_length(self) -> Option<usize> {
        match self {
            Self::Ed25519 => Some(32),
            Self::Secp256k1 | Self::Secp256k1Eth => Some(33),
            Self::MlDsa65 => Some(1952),
            Self::Bls12381 => None,
        }
    }
}

/// A key cannot be used or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No case of the `PublicKey` oneof is set, or one that is not decoded.
    #[error("public key of no known type")]
    Missing,
    /// A key of another length than its type has.
    #[error("{key_type:?} key of {length} bytes")]
    Length {
        /// The type that was named.
        key_type: KeyType,
        /// The bytes given.
        length: usize,
    },
    /// Bytes that are no key of their type.
    #[error("{0:?} key that is malformed")]
    Malformed(KeyType),
    /// JSON that is not `{"type": …, "value": base64}` of a known type.
    #[error("key in JSON: {0}")]
    Json(String),
}

/// A signature does not hold, or its key's type is not verified by this node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The signature is wrong.
    #[error("wrong signature")]
    Wrong,
    /// The key is of a type that this node cannot verify.
    #[error("signatures of {0:?} keys cannot be verified")]
    Unsupported(KeyType),
}

/// A signature as it travels: 64 bytes for ed25519 and secp256k1.
pub type Signature = Bytes;

/// A public key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// Verified by the rules of ZIP-215.
    Ed25519([u8; 32]),
    /// Compressed SEC1 point; signatures are 64 bytes with low S over SHA-256 of the message.
    Secp256k1([u8; 33]),
    /// A kind that v0.40 added, of the length that its kind has. Secp256k1eth is verified
    /// (65 bytes r, s, v with low S over Keccak-256 of the message), the others are carried only.
    Other(KeyType, Bytes),
}

impl PublicKey {
    /// A key of `key_type` from its bytes. That the bytes are a point of the curve is not checked:
    /// signatures of such a key are just wrong, as in CometBFT.
    ///
    /// # Errors
    /// When the length is not the type's, or the type is not decoded.
    pub fn from_bytes(key_type: KeyType, bytes: &[u8]) -> Result<Self, KeyError> {
        let length = KeyError::Length {
            key_type,
            length: bytes.len(),
        };
        match key_type {
            KeyType::Ed25519 => bytes.try_into().map(Self::Ed25519).map_err(|_| length),
            KeyType::Secp256k1 => bytes.try_into().map(Self::Secp256k1).map_err(|_| length),
            KeyType::Bls12381 => Err(KeyError::Missing),
            KeyType::MlDsa65 | KeyType::Secp256k1Eth => {
                if key_type.public_key_length() != Some(bytes.len()) {
                    return Err(length);
                }
                Ok(Self::Other(key_type, Bytes::copy_from_slice(bytes)))
            }
        }
    }

    /// The key's type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match self {
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Secp256k1(_) => KeyType::Secp256k1,
            Self::Other(key_type, _) => *key_type,
        }
    }

    /// The key's bytes, without a type.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(bytes) => bytes,
            Self::Secp256k1(bytes) => bytes,
            Self::Other(_, bytes) => bytes,
        }
    }

    /// The address of a validator with this key: the first 20 bytes of SHA-256 for ed25519 and
    /// ML-DSA, RIPEMD-160 of SHA-256 for secp256k1, the last 20 bytes of Keccak-256 over the
    /// uncompressed point for secp256k1eth (zeros when the bytes are no point).
    #[must_use]
    pub fn address(&self) -> Address {
        let mut address = [0; 20];
        match self {
            Self::Secp256k1(bytes) => {
                address.copy_from_slice(&Ripemd160::digest(sha256(bytes)));
            }
            Self::Other(KeyType::Secp256k1Eth, bytes) => {
                if let Some(key) = secp256k1_point(bytes) {
                    let point = key.to_sec1_point(false);
                    let hash = Keccak256::digest(&point.as_bytes()[1..]);
                    address.copy_from_slice(&hash[12..]);
                }
            }
            Self::Ed25519(_) | Self::Other(..) => {
                address.copy_from_slice(&sha256(self.as_bytes())[..20]);
            }
        }
        Address::new(address)
    }

    /// The node id of a node with this key: the same 20 bytes as its address.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::new(*self.address().as_bytes())
    }

    /// Verifies one signature: ZIP-215 for ed25519, low S for secp256k1 and secp256k1eth.
    ///
    /// # Errors
    /// When the signature is wrong or of another length, or the type cannot be verified.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        match self {
            Self::Ed25519(bytes) => {
                let signature = ed25519_signature(signature).ok_or(SignatureError::Wrong)?;
                ed25519_zebra::VerificationKey::try_from(*bytes)
                    .and_then(|key| key.verify(&signature, message))
                    .map_err(|_| SignatureError::Wrong)
            }
            Self::Secp256k1(bytes) => verify_secp256k1(bytes, &sha256(message), signature),
            Self::Other(KeyType::Secp256k1Eth, bytes) => {
                let signature: &[u8; 65] =
                    signature.try_into().map_err(|_| SignatureError::Wrong)?;
                // The recovery code takes no part in the check, but has two values only.
                if signature[64] > 1 {
                    return Err(SignatureError::Wrong);
                }
                let hash: [u8; 32] = Keccak256::digest(message).into();
                verify_secp256k1(bytes, &hash, &signature[..64])
            }
            Self::Other(key_type, _) => Err(SignatureError::Unsupported(*key_type)),
        }
    }
}

/// A signature of 64 bytes.
pub(crate) fn ed25519_signature(bytes: &[u8]) -> Option<ed25519_zebra::Signature> {
    let bytes: &[u8; 64] = bytes.try_into().ok()?;
    Some(ed25519_zebra::Signature::from_bytes(bytes))
}

/// A compressed point. The curve's library would take other forms of 33 bytes too.
fn secp256k1_point(bytes: &[u8]) -> Option<ecdsa::VerifyingKey> {
    if bytes.len() != 33 || !matches!(bytes[0], 2 | 3) {
        return None;
    }
    ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok()
}

/// Verifies r and s, 64 bytes with low S, over the message's hash.
fn verify_secp256k1(key: &[u8], hash: &[u8; 32], signature: &[u8]) -> Result<(), SignatureError> {
    let check = || {
        let key = secp256k1_point(key)?;
        let signature = ecdsa::Signature::from_slice(signature).ok()?;
        // Both S and the order minus S would hold: only the lower one is accepted.
        (signature.normalize_s() == signature).then_some(())?;
        key.verify_prehash(hash, &signature).ok()
    };
    check().ok_or(SignatureError::Wrong)
}

impl TryFrom<pb::PublicKey> for PublicKey {
    type Error = KeyError;

    fn try_from(key: pb::PublicKey) -> Result<Self, KeyError> {
        use pb::public_key::Sum;
        let (key_type, bytes) = match key.sum.ok_or(KeyError::Missing)? {
            Sum::Ed25519(bytes) => (KeyType::Ed25519, bytes),
            Sum::Secp256k1(bytes) => (KeyType::Secp256k1, bytes),
            Sum::Bls12381(bytes) => (KeyType::Bls12381, bytes),
            Sum::Mldsa65(bytes) => (KeyType::MlDsa65, bytes),
            Sum::Secp256k1eth(bytes) => (KeyType::Secp256k1Eth, bytes),
        };
        Self::from_bytes(key_type, &bytes)
    }
}

impl From<&PublicKey> for pb::PublicKey {
    fn from(key: &PublicKey) -> Self {
        use pb::public_key::Sum;
        let bytes = Bytes::copy_from_slice(key.as_bytes());
        Self {
            sum: Some(match key.key_type() {
                KeyType::Ed25519 => Sum::Ed25519(bytes),
                KeyType::Secp256k1 => Sum::Secp256k1(bytes),
                KeyType::Bls12381 => Sum::Bls12381(bytes),
                KeyType::MlDsa65 => Sum::Mldsa65(bytes),
                KeyType::Secp256k1Eth => Sum::Secp256k1eth(bytes),
            }),
        }
    }
}

/// CometBFT's text: `PubKeyEd25519{hexadecimal}`.
impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.key_type() {
            KeyType::Ed25519 => "PubKeyEd25519",
            KeyType::Secp256k1 => "PubKeySecp256k1",
            KeyType::Bls12381 => "PubKeyBls12_381",
            KeyType::MlDsa65 => "PubKeyMlDsa65",
            KeyType::Secp256k1Eth => "PubKeySecp256k1eth",
        };
        write!(f, "{name}{{{}}}", hex::encode_upper(self.as_bytes()))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
