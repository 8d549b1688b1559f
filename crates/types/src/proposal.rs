use bytes::Bytes;

use crate::{BlockId, Height, InvalidError, Round, Time};

/// A proposer's proposal of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Proposal {
    /// `SignedMsgType::Proposal` once `validate_basic` has passed.
    pub proposal_type: crate::SignedMsgType,
    pub height: Height,
    pub round: Round,
    /// The round of the proof of lock, or -1.
    pub pol_round: Round,
    pub block_id: BlockId,
    pub timestamp: Time,
    pub signature: Bytes,
}

impl Proposal {
    /// The bytes that are signed, with their length prefix.
    #[must_use]
    pub fn sign_bytes(&self, _chain_id: &str) -> Vec<u8> {
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
