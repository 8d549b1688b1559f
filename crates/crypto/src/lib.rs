//! Keys, addresses, signatures, ZIP-215 batch verification, and hashes and ciphers of many
//! messages at once.
//!
//! Everything that is signed or addressed on a CometBFT chain passes through here: ed25519 (the
//! key type of consensus and of node keys) and secp256k1. Newer key kinds are carried so that
//! decoding never fails on them; those that cannot be verified are refused when a signature is to
//! be.

mod address;
mod aead_group;
mod batch;
mod hash;
mod json;
mod key;
mod private_key;
#[cfg(target_arch = "x86_64")]
mod registers;
mod sha256_each;

pub use address::{Address, NodeId, ParseIdError};
pub use aead_group::{AEAD_GROUP, AEAD_MESSAGE, AEAD_SEALED, AeadGroup, open_group, seal_group};
pub use batch::BatchVerifier;
pub use hash::{sha256, sha256_pair};
pub use key::{KeyError, KeyType, PublicKey, Signature, SignatureError};
pub use private_key::PrivateKey;
pub use sha256_each::{SHA256_GROUP, sha256_each};
