//! Proposals.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;

use crate::{
    BlockId, DecodeError, Height, InvalidError, Round, Rules, SignedMsgType, Time, canonical,
    commit::check_signature,
};

/// A proposer's proposal of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// `SignedMsgType::Proposal` once `validate_basic` has passed.
    pub proposal_type: SignedMsgType,
    /// The height proposed for.
    pub height: Height,
    /// The round proposed in.
    pub round: Round,
    /// The round of the proof of lock, or -1.
    pub pol_round: Round,
    /// The block proposed.
    pub block_id: BlockId,
    /// The proposer's time.
    pub timestamp: Time,
    /// Signature over [`sign_bytes`](Self::sign_bytes).
    pub signature: Bytes,
}

impl Proposal {
    /// The bytes that are signed, with their length prefix. A time outside of the years 1 to 9999,
    /// which no decoded proposal has, is encoded as it is.
    #[must_use]
    pub fn sign_bytes(&self, chain_id: &str) -> Vec<u8> {
        canonical::proposal(chain_id, self)
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
        let invalid = |reason: String| Err(InvalidError::new("proposal", reason));
        if self.proposal_type != SignedMsgType::Proposal {
            return invalid(format!("type {}", self.proposal_type.to_i32()));
        }
        if self.height < Height::ZERO {
            return invalid(format!("height {}", self.height));
        }
        if self.round < Round::ZERO {
            return invalid(format!("round {}", self.round));
        }
        if self.pol_round < Round::new(-1) {
            return invalid(format!("round {} of the proof of lock", self.pol_round));
        }
        if !self.block_id.is_complete() {
            return invalid(format!("incomplete block id {}", self.block_id));
        }
        check_signature("proposal", &self.signature, rules)
    }

    /// The proposal of a message, without the stateless rules.
    ///
    /// # Errors
    /// When a hash or the time cannot be represented.
    pub fn from_proto_unchecked(proposal: pb::Proposal) -> Result<Self, DecodeError> {
        Ok(Self {
            proposal_type: proposal.r#type.into(),
            height: Height::new(proposal.height),
            round: Round::new(proposal.round),
            pol_round: Round::new(proposal.pol_round),
            block_id: proposal.block_id.unwrap_or_default().try_into()?,
            timestamp: proposal.timestamp.try_into()?,
            signature: proposal.signature,
        })
    }
}

impl TryFrom<pb::Proposal> for Proposal {
    type Error = DecodeError;

    fn try_from(proposal: pb::Proposal) -> Result<Self, DecodeError> {
        let proposal = Self::from_proto_unchecked(proposal)?;
        proposal.validate_basic()?;
        Ok(proposal)
    }
}

impl From<&Proposal> for pb::Proposal {
    fn from(proposal: &Proposal) -> Self {
        Self {
            r#type: proposal.proposal_type.to_i32(),
            height: proposal.height.get(),
            round: proposal.round.get(),
            pol_round: proposal.pol_round.get(),
            block_id: Some((&proposal.block_id).into()),
            timestamp: Some(proposal.timestamp.into()),
            signature: proposal.signature.clone(),
        }
    }
}
