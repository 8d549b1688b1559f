//! Evidence of misbehaviour, as blocks carry it.

use perihelion_proto::tendermint::types::{self as pb, evidence::Sum};
use prost::Message;

use crate::{
    DecodeError, Hash, Height, InvalidError, LightBlock, Rules, Time, Validator, Vote, merkle, wire,
};

/// Proof that a validator misbehaved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "blocks carry few, and matching on plain variants reads better than on boxes"
)]
pub enum Evidence {
    /// Two votes of one validator at one height, round and type.
    DuplicateVote(DuplicateVoteEvidence),
    /// A forged header with a commit.
    LightClientAttack(LightClientAttackEvidence),
}

/// Two votes of one validator at one height, round and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateVoteEvidence {
    /// The vote whose block id's key is the lower.
    pub vote_a: Vote,
    /// The other vote.
    pub vote_b: Vote,
    /// The validator set's total power at the votes' height.
    pub total_voting_power: i64,
    /// The validator's power in it.
    pub validator_power: i64,
    /// The time of the block at the votes' height.
    pub timestamp: Time,
}

/// A light block that conflicts with the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LightClientAttackEvidence {
    /// The forged header, its commit and validators.
    pub conflicting_block: LightBlock,
    /// The last height at which forged and true chain agree.
    pub common_height: Height,
    /// Members of the common height's set that signed the forgery.
    pub byzantine_validators: Vec<Validator>,
    /// The total power of the common height's set.
    pub total_voting_power: i64,
    /// The time of the block at the common height.
    pub timestamp: Time,
}

impl Evidence {
    /// The evidence's hash. For an attack it covers the forged header and the common height alone,
    /// so that another choice of signatures is the same evidence.
    #[must_use]
    pub fn hash(&self) -> Hash {
        match self {
            Self::DuplicateVote(_) => Hash::of(&self.hashed_bytes()),
            Self::LightClientAttack(attack) => {
                let header = attack.conflicting_block.signed_header.header.hash();
                // 31 bytes of the header's hash, a zero, the height as a zig-zag varint.
                let mut bytes = vec![0; 32];
                let hash = header.as_bytes();
                let length = hash.len().min(31);
                bytes[..length].copy_from_slice(&hash[..length]);
                let height = attack.common_height.get();
                wire::put_varint(&mut bytes, ((height << 1) ^ (height >> 63)).cast_unsigned());
                Hash::of(&bytes)
            }
        }
    }

    /// The bytes that a block's evidence hash covers: the encoded evidence, without the wrapper
    /// that names its kind.
    #[must_use]
    pub fn hashed_bytes(&self) -> Vec<u8> {
        match self {
            Self::DuplicateVote(evidence) => {
                pb::DuplicateVoteEvidence::from(evidence).encode_to_vec()
            }
            Self::LightClientAttack(evidence) => {
                pb::LightClientAttackEvidence::from(evidence).encode_to_vec()
            }
        }
    }

    /// The height of the misbehaviour (of the common block for an attack).
    #[must_use]
    pub fn height(&self) -> Height {
        match self {
            Self::DuplicateVote(evidence) => evidence.vote_a.height,
            Self::LightClientAttack(evidence) => evidence.common_height,
        }
    }

    /// The time that it records.
    #[must_use]
    pub fn time(&self) -> Time {
        match self {
            Self::DuplicateVote(evidence) => evidence.timestamp,
            Self::LightClientAttack(evidence) => evidence.timestamp,
        }
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
        match self {
            Self::DuplicateVote(evidence) => evidence.validate_basic(rules),
            Self::LightClientAttack(evidence) => evidence.validate_basic(rules),
        }
    }

    /// The evidence of a message, with the stateless rules of `rules`.
    ///
    /// # Errors
    /// When CometBFT would refuse it.
    pub fn from_proto(evidence: pb::Evidence, rules: Rules) -> Result<Self, DecodeError> {
        let evidence = Self::from_proto_unchecked(evidence, rules)?;
        evidence.validate_basic_by(rules)?;
        Ok(evidence)
    }

    /// The evidence of a message, without the rules of the evidence itself.
    pub(crate) fn from_proto_unchecked(
        evidence: pb::Evidence,
        rules: Rules,
    ) -> Result<Self, DecodeError> {
        match evidence.sum.ok_or(DecodeError::Missing("evidence"))? {
            Sum::DuplicateVoteEvidence(evidence) => evidence.try_into().map(Self::DuplicateVote),
            Sum::LightClientAttackEvidence(evidence) => {
                LightClientAttackEvidence::from_proto_unchecked(evidence, rules)
                    .map(Self::LightClientAttack)
            }
        }
    }
}

impl DuplicateVoteEvidence {
    fn validate_basic(&self, rules: Rules) -> Result<(), InvalidError> {
        self.vote_a.validate_basic_by(rules)?;
        self.vote_b.validate_basic_by(rules)?;
        if self.vote_a.block_id.key() >= self.vote_b.block_id.key() {
            return Err(InvalidError::new(
                "duplicate vote evidence",
                "votes are not in the order of their block ids",
            ));
        }
        Ok(())
    }
}

impl LightClientAttackEvidence {
    fn validate_basic(&self, rules: Rules) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("light client attack", reason));
        let header = &self.conflicting_block.signed_header.header;
        if self.total_voting_power <= 0 {
            return invalid(format!("total voting power {}", self.total_voting_power));
        }
        if !self.common_height.is_positive() {
            return invalid(format!("common height {}", self.common_height));
        }
        if self.common_height > header.height {
            return invalid(format!(
                "common height {} above the header's {}",
                self.common_height, header.height
            ));
        }
        self.conflicting_block
            .validate_basic(&header.chain_id, rules)
    }

    fn from_proto_unchecked(
        evidence: pb::LightClientAttackEvidence,
        rules: Rules,
    ) -> Result<Self, DecodeError> {
        let block = evidence
            .conflicting_block
            .ok_or(DecodeError::Missing("conflicting block"))?;
        Ok(Self {
            conflicting_block: LightBlock::from_proto(block, rules)?,
            common_height: Height::new(evidence.common_height),
            byzantine_validators: evidence
                .byzantine_validators
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            total_voting_power: evidence.total_voting_power,
            timestamp: evidence.timestamp.try_into()?,
        })
    }
}

/// Merkle root over a block's evidence.
#[must_use]
pub fn hash_list(evidence: &[Evidence]) -> Hash {
    let leaves: Vec<_> = evidence.iter().map(Evidence::hashed_bytes).collect();
    merkle::root(&leaves)
}

/// Bytes of the encoded list, which count against a block's size.
#[must_use]
pub fn list_bytes(evidence: &[Evidence]) -> usize {
    list_message(evidence).encoded_len()
}

pub(crate) fn list_message(evidence: &[Evidence]) -> pb::EvidenceList {
    pb::EvidenceList {
        evidence: evidence.iter().map(Into::into).collect(),
    }
}

/// Without the stateless rules.
impl TryFrom<pb::DuplicateVoteEvidence> for DuplicateVoteEvidence {
    type Error = DecodeError;

    fn try_from(evidence: pb::DuplicateVoteEvidence) -> Result<Self, DecodeError> {
        let vote = |vote: Option<pb::Vote>| vote.ok_or(DecodeError::Missing("vote"))?.try_into();
        Ok(Self {
            vote_a: vote(evidence.vote_a)?,
            vote_b: vote(evidence.vote_b)?,
            total_voting_power: evidence.total_voting_power,
            validator_power: evidence.validator_power,
            timestamp: evidence.timestamp.try_into()?,
        })
    }
}

impl From<&DuplicateVoteEvidence> for pb::DuplicateVoteEvidence {
    fn from(evidence: &DuplicateVoteEvidence) -> Self {
        Self {
            vote_a: Some((&evidence.vote_a).into()),
            vote_b: Some((&evidence.vote_b).into()),
            total_voting_power: evidence.total_voting_power,
            validator_power: evidence.validator_power,
            timestamp: Some(evidence.timestamp.into()),
        }
    }
}

impl From<&LightClientAttackEvidence> for pb::LightClientAttackEvidence {
    fn from(evidence: &LightClientAttackEvidence) -> Self {
        Self {
            conflicting_block: Some((&evidence.conflicting_block).into()),
            common_height: evidence.common_height.get(),
            byzantine_validators: evidence
                .byzantine_validators
                .iter()
                .map(Into::into)
                .collect(),
            total_voting_power: evidence.total_voting_power,
            timestamp: Some(evidence.timestamp.into()),
        }
    }
}

impl TryFrom<pb::Evidence> for Evidence {
    type Error = DecodeError;

    fn try_from(evidence: pb::Evidence) -> Result<Self, DecodeError> {
        Self::from_proto(evidence, Rules::V038)
    }
}

impl From<&Evidence> for pb::Evidence {
    fn from(evidence: &Evidence) -> Self {
        Self {
            sum: Some(match evidence {
                Evidence::DuplicateVote(evidence) => Sum::DuplicateVoteEvidence(evidence.into()),
                Evidence::LightClientAttack(evidence) => {
                    Sum::LightClientAttackEvidence(evidence.into())
                }
            }),
        }
    }
}
