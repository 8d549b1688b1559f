use bytes::Bytes;

use crate::{Address, BlockId, Height, InvalidError, Round, Time};

/// What a signed message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum SignedMsgType {
    Unknown(i32),
    Prevote,
    Precommit,
    Proposal,
}

/// A prevote or precommit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Vote {
    pub vote_type: SignedMsgType,
    pub height: Height,
    pub round: Round,
    /// Nil when the vote is for no block.
    pub block_id: BlockId,
    pub timestamp: Time,
    /// 20 bytes once `validate_basic` has passed.
    pub validator_address: Bytes,
    pub validator_index: i32,
    pub signature: Bytes,
    pub extension: Bytes,
    pub extension_signature: Bytes,
}

impl Vote {
    /// The bytes that are signed, with their length prefix.
    #[must_use]
    pub fn sign_bytes(&self, _chain_id: &str) -> Vec<u8> {
        todo!()
    }

    /// The bytes that the extension's signature covers, with their length prefix.
    #[must_use]
    pub fn extension_sign_bytes(&self, _chain_id: &str) -> Vec<u8> {
        todo!()
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        todo!()
    }

    /// The voter's address, when it has the right length.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        Address::try_from(&self.validator_address[..]).ok()
    }
}
