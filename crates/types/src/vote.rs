//! Votes.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;

use crate::{
    Address, BlockId, BlockIdFlag, CommitSig, DecodeError, ExtendedCommitSig, Height, InvalidError,
    Round, Rules, Time, canonical, commit::check_signature,
};

/// What a signed message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignedMsgType {
    /// None of the others; refused by `validate_basic`.
    Unknown(i32),
    /// The first vote of a round.
    Prevote,
    /// The second vote of a round; those for a block make a commit.
    Precommit,
    /// A proposal.
    Proposal,
}

impl SignedMsgType {
    /// The type as the wire has it.
    #[must_use]
    pub const fn to_i32(self) -> i32 {
        match self {
            Self::Unknown(number) => number,
            Self::Prevote => 1,
            Self::Precommit => 2,
            Self::Proposal => 32,
        }
    }
}

impl From<i32> for SignedMsgType {
    fn from(number: i32) -> Self {
        match number {
            1 => Self::Prevote,
            2 => Self::Precommit,
            32 => Self::Proposal,
            number => Self::Unknown(number),
        }
    }
}

/// A prevote or precommit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Prevote or precommit once `validate_basic` has passed.
    pub vote_type: SignedMsgType,
    /// The height voted on.
    pub height: Height,
    /// The round voted in.
    pub round: Round,
    /// Nil when the vote is for no block.
    pub block_id: BlockId,
    /// The voter's time.
    pub timestamp: Time,
    /// 20 bytes once `validate_basic` has passed.
    pub validator_address: Bytes,
    /// The voter's place in the validator set.
    pub validator_index: i32,
    /// Signature over [`sign_bytes`](Self::sign_bytes).
    pub signature: Bytes,
    /// The application's bytes; only in precommits for a block.
    pub extension: Bytes,
    /// Signature over [`extension_sign_bytes`](Self::extension_sign_bytes).
    pub extension_signature: Bytes,
}

impl Vote {
    /// The bytes that are signed, with their length prefix. A time outside of the years 1 to 9999,
    /// which no decoded vote has, is encoded as it is.
    #[must_use]
    pub fn sign_bytes(&self, chain_id: &str) -> Vec<u8> {
        canonical::vote(
            chain_id,
            self.vote_type,
            self.height,
            self.round,
            &self.block_id,
            self.timestamp,
        )
    }

    /// The bytes that the extension's signature covers, with their length prefix.
    #[must_use]
    pub fn extension_sign_bytes(&self, chain_id: &str) -> Vec<u8> {
        canonical::vote_extension(chain_id, self.height, self.round, &self.extension)
    }

    /// The stateless rules, of v0.38.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        self.validate_basic_by(Rules::V038)
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic_by(&self, rules: Rules) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("vote", reason));
        if !matches!(
            self.vote_type,
            SignedMsgType::Prevote | SignedMsgType::Precommit
        ) {
            return invalid(format!("type {}", self.vote_type.to_i32()));
        }
        if !self.height.is_positive() {
            return invalid(format!("height {}", self.height));
        }
        if self.round < Round::ZERO {
            return invalid(format!("round {}", self.round));
        }
        if !self.block_id.is_nil() && !self.block_id.is_complete() {
            return invalid(format!("incomplete block id {}", self.block_id));
        }
        if self.validator_address.len() != 20 {
            return invalid(format!("address of {} bytes", self.validator_address.len()));
        }
        if self.validator_index < 0 {
            return invalid(format!("validator index {}", self.validator_index));
        }
        check_signature("vote", &self.signature, rules)?;
        if self.vote_type == SignedMsgType::Precommit && !self.block_id.is_nil() {
            let length = self.extension_signature.len();
            if length > rules.max_signature_bytes() {
                return invalid(format!("extension signature of {length} bytes"));
            }
            if length == 0 && !self.extension.is_empty() {
                return invalid("extension without a signature".into());
            }
        } else if !self.extension.is_empty() || !self.extension_signature.is_empty() {
            return invalid("extension of a vote that can have none".into());
        }
        Ok(())
    }

    /// The voter's address, when it has the right length.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        Address::try_from(&self.validator_address[..]).ok()
    }

    /// The vote's place in a commit; `None` when its block id is neither nil nor complete.
    #[must_use]
    pub fn commit_sig(&self) -> Option<CommitSig> {
        let block_id_flag = if self.block_id.is_complete() {
            BlockIdFlag::Commit
        } else if self.block_id.is_nil() {
            BlockIdFlag::Nil
        } else {
            return None;
        };
        Some(CommitSig {
            block_id_flag,
            validator_address: self.validator_address.clone(),
            timestamp: self.timestamp,
            signature: self.signature.clone(),
        })
    }

    /// The vote's place in an extended commit, as [`commit_sig`](Self::commit_sig).
    #[must_use]
    pub fn extended_commit_sig(&self) -> Option<ExtendedCommitSig> {
        Some(ExtendedCommitSig {
            commit_sig: self.commit_sig()?,
            extension: self.extension.clone(),
            extension_signature: self.extension_signature.clone(),
        })
    }
}

/// Without the stateless rules, as CometBFT.
impl TryFrom<pb::Vote> for Vote {
    type Error = DecodeError;

    fn try_from(vote: pb::Vote) -> Result<Self, DecodeError> {
        Ok(Self {
            vote_type: vote.r#type.into(),
            height: Height::new(vote.height),
            round: Round::new(vote.round),
            block_id: vote.block_id.unwrap_or_default().try_into()?,
            timestamp: vote.timestamp.try_into()?,
            validator_address: vote.validator_address,
            validator_index: vote.validator_index,
            signature: vote.signature,
            extension: vote.extension,
            extension_signature: vote.extension_signature,
        })
    }
}

impl From<&Vote> for pb::Vote {
    fn from(vote: &Vote) -> Self {
        Self {
            r#type: vote.vote_type.to_i32(),
            height: vote.height.get(),
            round: vote.round.get(),
            block_id: Some((&vote.block_id).into()),
            timestamp: Some(vote.timestamp.into()),
            validator_address: vote.validator_address.clone(),
            validator_index: vote.validator_index,
            signature: vote.signature.clone(),
            extension: vote.extension.clone(),
            extension_signature: vote.extension_signature.clone(),
        }
    }
}
