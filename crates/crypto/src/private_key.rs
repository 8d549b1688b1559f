use bytes::Bytes;
use k256::{
    U256,
    ecdsa::{self, signature::hazmat::PrehashSigner},
};
use rand::Rng;
use zeroize::{Zeroize, Zeroizing};

use crate::{KeyError, KeyType, PublicKey, Signature, sha256};

/// A private key. Its bytes are wiped when dropped and never printed.
#[derive(Clone)]
pub enum PrivateKey {
    /// The 32-byte seed; files hold seed and public key, 64 bytes.
    Ed25519(ed25519_dalek::SigningKey),
    /// The 32-byte scalar.
    Secp256k1(ecdsa::SigningKey),
}

impl PrivateKey {
    /// A new ed25519 key from the operating system's randomness.
    #[must_use]
    pub fn generate_ed25519() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rand::rng().fill_bytes(&mut seed[..]);
        Self::ed25519_from_seed(&seed)
    }

    /// The ed25519 key of a 32-byte seed.
    #[must_use]
    pub fn ed25519_from_seed(seed: &[u8; 32]) -> Self {
        Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The ed25519 key whose seed is SHA-256 of `secret`, as CometBFT's `GenPrivKeyFromSecret`.
    #[must_use]
    pub fn ed25519_from_secret(secret: &[u8]) -> Self {
        Self::ed25519_from_seed(&Zeroizing::new(sha256(secret)))
    }

    /// The secp256k1 key of a secret, as CometBFT's `GenPrivKeySecp256k1`: SHA-256 of the secret,
    /// reduced to the scalars from 1 to the group's order minus 1.
    #[must_use]
    pub fn secp256k1_from_secret(secret: &[u8]) -> Self {
        /// The group's order minus 1.
        const LARGEST: U256 =
            U256::from_be_hex("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364140");
        let hash = Zeroizing::new(sha256(secret));
        let mut scalar = U256::from_be_slice(&hash[..]);
        if scalar >= LARGEST {
            scalar = scalar.wrapping_sub(&LARGEST);
        }
        scalar = scalar.wrapping_add(&U256::ONE);
        let bytes = Zeroizing::new(<[u8; 32]>::from(scalar.to_be_bytes()));
        scalar.zeroize();
        Self::Secp256k1(
            ecdsa::SigningKey::from_slice(&bytes[..]).expect("between 1 and the order minus 1"),
        )
    }

    /// A key from the bytes that files hold: 64 for ed25519 (seed, then public key), 32 for
    /// secp256k1.
    ///
    /// # Errors
    /// When the length is not the type's, the halves of an ed25519 key do not belong together, the
    /// scalar is out of range, or keys of this type are not signed with.
    pub fn from_bytes(key_type: KeyType, bytes: &[u8]) -> Result<Self, KeyError> {
        let length = KeyError::Length {
            key_type,
            length: bytes.len(),
        };
        let malformed = KeyError::Malformed(key_type);
        match key_type {
            KeyType::Ed25519 => {
                let bytes: &[u8; 64] = bytes.try_into().map_err(|_| length)?;
                ed25519_dalek::SigningKey::from_keypair_bytes(bytes)
                    .map(Self::Ed25519)
                    .map_err(|_| malformed)
            }
            KeyType::Secp256k1 => {
                let bytes: &[u8; 32] = bytes.try_into().map_err(|_| length)?;
                ecdsa::SigningKey::from_slice(bytes)
                    .map(Self::Secp256k1)
                    .map_err(|_| malformed)
            }
            KeyType::Bls12381 | KeyType::MlDsa65 | KeyType::Secp256k1Eth => Err(KeyError::Json(
                format!("this node cannot sign with {} keys", key_type.name()),
            )),
        }
    }

    /// The bytes that files hold, to be wiped after use (see [`from_bytes`](Self::from_bytes)).
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Ed25519(key) => Zeroizing::new(key.to_keypair_bytes()).to_vec(),
            Self::Secp256k1(key) => Zeroizing::new(<[u8; 32]>::from(key.to_bytes())).to_vec(),
        })
    }

    /// The key's type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match self {
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Secp256k1(_) => KeyType::Secp256k1,
        }
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Ed25519(key) => PublicKey::Ed25519(key.verifying_key().to_bytes()),
            Self::Secp256k1(key) => PublicKey::Secp256k1(
                key.verifying_key()
                    .to_sec1_point(true)
                    .as_bytes()
                    .try_into()
                    .expect("a compressed point has 33 bytes"),
            ),
        }
    }

    /// Signs `message`: 64 bytes. Deterministic for both kinds (RFC 8032; RFC 6979 with low S).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        match self {
            Self::Ed25519(key) => {
                use ed25519_dalek::Signer;
                Bytes::copy_from_slice(&key.sign(message).to_bytes())
            }
            Self::Secp256k1(key) => {
                let signature: ecdsa::Signature = key
                    .sign_prehash(&sha256(message))
                    .expect("a hash of 32 bytes can be signed");
                Bytes::copy_from_slice(&signature.normalize_s().to_bytes())
            }
        }
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
