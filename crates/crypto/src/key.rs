use bytes::Bytes;
use perihelion_proto::tendermint::crypto as pb;
use thiserror::Error;

use crate::{Address, NodeId};

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// 32-byte keys; the only kind of consensus and node keys in v0.38 that can be batched.
    Ed25519,
    /// 33-byte compressed keys.
    Secp256k1,
    /// v0.40, special builds only; never verified here.
    Bls12381,
    /// v0.40; never verified here.
    MlDsa65,
    /// v0.40; never verified here.
    Secp256k1Eth,
}

/// A key cannot be used or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// No case of the `PublicKey` oneof is set.
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
    /// A kind that v0.40 added: carried, never verified.
    Other(KeyType, Bytes),
}

/// A private key. Its bytes are wiped when dropped and never printed.
#[derive(Clone)]
pub enum PrivateKey {
    /// The 32-byte seed; files hold seed and public key, 64 bytes.
    Ed25519(ed25519_dalek::SigningKey),
    /// The 32-byte scalar.
    Secp256k1(k256::ecdsa::SigningKey),
}

impl PublicKey {
    /// The key's type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        todo!()
    }

    /// The key's bytes, without a type.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        todo!()
    }

    /// The address of a validator with this key.
    #[must_use]
    pub fn address(&self) -> Address {
        todo!()
    }

    /// The node id of a node with this key: the same 20 bytes as its address.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::new(*self.address().as_bytes())
    }

    /// Verifies one signature: ZIP-215 for ed25519, low S for secp256k1.
    ///
    /// # Errors
    /// When the signature is wrong or of another length, or the type cannot be verified.
    pub fn verify(&self, _message: &[u8], _signature: &[u8]) -> Result<(), SignatureError> {
        todo!()
    }
}

impl TryFrom<pb::PublicKey> for PublicKey {
    type Error = KeyError;

    fn try_from(_key: pb::PublicKey) -> Result<Self, KeyError> {
        todo!()
    }
}

impl From<&PublicKey> for pb::PublicKey {
    fn from(_key: &PublicKey) -> Self {
        todo!()
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}({})",
            self.key_type(),
            hex::encode_upper(self.as_bytes())
        )
    }
}

impl PrivateKey {
    /// A new ed25519 key from the operating system's randomness.
    #[must_use]
    pub fn generate_ed25519() -> Self {
        todo!()
    }

    /// The ed25519 key of a 32-byte seed.
    #[must_use]
    pub fn ed25519_from_seed(seed: &[u8; 32]) -> Self {
        Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The ed25519 key whose seed is SHA-256 of `secret`, as CometBFT's `GenPrivKeyFromSecret`.
    #[must_use]
    pub fn ed25519_from_secret(secret: &[u8]) -> Self {
        Self::ed25519_from_seed(&crate::sha256(secret))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        todo!()
    }

    /// Signs `message`: 64 bytes.
    #[must_use]
    pub fn sign(&self, _message: &[u8]) -> Signature {
        todo!()
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
// JSON: serde for both, as `{"type":"tendermint/PubKeyEd25519","value":"base64"}` and so on.
