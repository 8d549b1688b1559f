//! RFC 6962 Merkle trees as CometBFT builds them, and proofs.

use bytes::Bytes;

use crate::Hash;

/// Root over `leaves`; SHA-256 of nothing when there is none.
#[must_use]
pub fn root<L: AsRef<[u8]>>(_leaves: &[L]) -> Hash {
    todo!()
}

/// Membership of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Proof {
    pub total: i64,
    pub index: i64,
    pub leaf_hash: Bytes,
    pub aunts: Vec<Bytes>,
}
