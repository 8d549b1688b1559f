use crate::{Address, Hash, InvalidError, Validator};

/// Validators ordered by voting power (falling), then address, with the proposer's rotation.
///
/// Invariant: addresses are unique, the total power is at most `i64::MAX / 8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorSet {
    validators: Vec<Validator>,
    proposer: Option<Validator>,
    total_voting_power: i64,
}

/// Largest total voting power of a set.
pub const MAX_TOTAL_VOTING_POWER: i64 = i64::MAX / 8;

impl ValidatorSet {
    /// A set of `validators`, as CometBFT's `NewValidatorSet`: ordered, priorities centred, one
    /// rotation made.
    ///
    /// # Errors
    /// When the changes are not a valid set (powers, duplicates, total).
    pub fn new(_validators: Vec<Validator>) -> Result<Self, InvalidError> {
        todo!()
    }

    /// The members, in the set's order.
    #[must_use]
    pub fn validators(&self) -> &[Validator] {
        &self.validators
    }

    /// How many members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.validators.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.validators.is_empty()
    }

    /// The member at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Validator> {
        self.validators.get(index)
    }

    /// The member with `address`, and its index.
    #[must_use]
    pub fn by_address(&self, _address: &Address) -> Option<(usize, &Validator)> {
        todo!()
    }

    /// Sum of all powers.
    #[must_use]
    pub fn total_voting_power(&self) -> i64 {
        self.total_voting_power
    }

    /// Merkle root over the members' keys and powers.
    #[must_use]
    pub fn hash(&self) -> Hash {
        todo!()
    }

    /// The proposer as the set has it; computed from the priorities where it has none.
    #[must_use]
    pub fn proposer(&self) -> Option<&Validator> {
        todo!()
    }

    /// Rotates `times` (positive) rounds on.
    pub fn increment_proposer_priority(&mut self, _times: i32) {
        todo!()
    }

    /// Applies an application's changes: power 0 removes.
    ///
    /// # Errors
    /// When a change is invalid; the set is unchanged then.
    pub fn update(&mut self, _changes: Vec<Validator>) -> Result<(), InvalidError> {
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
