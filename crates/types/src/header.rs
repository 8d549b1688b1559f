use bytes::Bytes;

use crate::{BlockId, Hash, Height, InvalidError, Time};

/// Protocol versions that a header commits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Block protocol, 11.
    pub block: u64,
    /// The application's own version.
    pub app: u64,
}

/// A block's header.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub version: Version,
    pub chain_id: String,
    pub height: Height,
    pub time: Time,
    pub last_block_id: BlockId,
    pub last_commit_hash: Hash,
    pub data_hash: Hash,
    pub validators_hash: Hash,
    pub next_validators_hash: Hash,
    pub consensus_hash: Hash,
    /// The application's, of any length.
    pub app_hash: Bytes,
    pub last_results_hash: Hash,
    pub evidence_hash: Hash,
    /// 20 bytes once `validate_basic` has passed.
    pub proposer_address: Bytes,
}

impl Header {
    /// The header's hash: Merkle root over its encoded fields; empty while there is no validators
    /// hash, as in CometBFT.
    #[must_use]
    pub fn hash(&self) -> Hash {
        todo!()
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        todo!()
    }
}
