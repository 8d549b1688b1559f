use std::fmt::Debug;

use perihelion_types::PublicKey;

/// How signatures are verified: a seam, so that a caller can remember verdicts or count the work.
pub trait Verify: Debug + Send + Sync {
    /// Whether `signature` over `message` is by `key`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool;
}

/// Verifies each signature by itself, by the rules of its key's type.
#[derive(Debug, Clone, Copy, Default)]
pub struct EachSignature;

impl Verify for EachSignature {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        key.verify(message, signature).is_ok()
    }
}
