use crate::{Hash, Height, InvalidError, LightBlock, Time, Validator, Vote};

/// Proof that a validator misbehaved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Two votes of one validator at one height, round and type.
    DuplicateVote(DuplicateVoteEvidence),
    /// A forged header with a commit.
    LightClientAttack(LightClientAttackEvidence),
}

/// Two votes of one validator at one height, round and type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DuplicateVoteEvidence {
    pub vote_a: Vote,
    pub vote_b: Vote,
    pub total_voting_power: i64,
    pub validator_power: i64,
    pub timestamp: Time,
}

/// A light block that conflicts with the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LightClientAttackEvidence {
    pub conflicting_block: LightBlock,
    pub common_height: Height,
    pub byzantine_validators: Vec<Validator>,
    pub total_voting_power: i64,
    pub timestamp: Time,
}

impl Evidence {
    /// The evidence's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        todo!()
    }

    /// The height of the misbehaviour (of the common block for an attack).
    #[must_use]
    pub fn height(&self) -> Height {
        todo!()
    }

    /// The time that it records.
    #[must_use]
    pub fn time(&self) -> Time {
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

/// Merkle root over a block's evidence.
#[must_use]
pub fn hash_list(_evidence: &[Evidence]) -> Hash {
    todo!()
}
