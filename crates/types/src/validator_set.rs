//! Validator sets and whose turn it is to propose.

use std::sync::{Arc, OnceLock};

use perihelion_proto::tendermint::types as pb;

use crate::{Address, DecodeError, Hash, InvalidError, Validator, bounds::MAX_SIGNATURES, merkle};

mod rotation;
mod update;

/// Validators ordered by voting power (falling), then address, with the proposer's rotation.
///
/// Invariant: the total power is the sum of the members' and at most [`MAX_TOTAL_VOTING_POWER`].
/// A set made by [`ValidatorSet::new`] and [`ValidatorSet::update`] has unique addresses and is
/// ordered; one that was decoded has the order, and the repetitions, of its bytes.
///
/// The field for the proposer follows a member while the set itself has chosen it
/// ([`ValidatorSet::increment_proposer_priority`]): its priority moves with the member's. It is a
/// value of its own, which stays as it is until the next rotation, in a set that was decoded or
/// cloned, and when a change replaces or removes the proposer. This is what CometBFT's encoded sets
/// hold, where the priority of the proposer field can lag behind the member's.
#[derive(Debug)]
pub struct ValidatorSet {
    validators: Vec<Validator>,
    proposer: Proposer,
    total_voting_power: i64,
    by_address: AddressIndex,
    hash: OnceLock<Hash>,
}

/// Largest total voting power of a set: an eighth of the largest integer, so that no priority
/// overflows while it rotates.
pub const MAX_TOTAL_VOTING_POWER: i64 = i64::MAX / 8;

/// Priorities lie at most this many times the total power apart; beyond it they are scaled down.
pub const PRIORITY_WINDOW_FACTOR: i64 = 2;

/// What the field for the proposer holds.
#[derive(Debug)]
enum Proposer {
    /// Nothing: the set is empty or has not rotated since it was.
    Unset,
    /// The member at this index.
    Member(usize),
    /// A validator as it was at some moment before.
    Apart(Validator),
}

/// Indexes of the members, ordered by address; of equal addresses the first member comes first.
#[derive(Debug, Clone)]
struct AddressIndex {
    order: Arc<[u32]>,
    unique: bool,
}

impl AddressIndex {
    fn of(validators: &[Validator]) -> Self {
        let count = u32::try_from(validators.len()).expect("sets are bounded far below 2^32");
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by_key(|&index| (validators[index as usize].address, index));
        let unique = order.windows(2).all(|pair| {
            validators[pair[0] as usize].address != validators[pair[1] as usize].address
        });
        Self {
            order: order.into(),
            unique,
        }
    }

    fn find(&self, validators: &[Validator], address: &Address) -> Option<usize> {
        let at = self
            .order
            .partition_point(|&index| validators[index as usize].address < *address);
        let index = *self.order.get(at)? as usize;
        (validators[index].address == *address).then_some(index)
    }
}

impl ValidatorSet {
    /// A set of `validators`, as CometBFT's `NewValidatorSet`: ordered, priorities centred, one
    /// rotation made. Their own priorities do not count.
    ///
    /// # Errors
    /// When they are not a valid set (powers, duplicates, total).
    pub fn new(validators: Vec<Validator>) -> Result<Self, InvalidError> {
        let mut set = Self::empty();
        if !validators.is_empty() {
            set.apply_changes(validators, update::Removals::Refused)?;
            set.increment_proposer_priority(1)?;
        }
        Ok(set)
    }

    /// The set without members, which stands for "none yet".
    #[must_use]
    pub fn empty() -> Self {
        Self::assemble(Vec::new(), Proposer::Unset, 0)
    }

    /// A set of `validators` with the priorities that they have, ordered, as it is rebuilt from a
    /// list that somebody else gave out; the proposer is the one of lowest priority, who proposed
    /// last (CometBFT's `ValidatorSetFromExistingValidators`).
    ///
    /// # Errors
    /// When the list is empty, a validator is invalid, an address is there twice, or the total
    /// power is too large.
    pub fn from_existing(mut validators: Vec<Validator>) -> Result<Self, InvalidError> {
        if validators.is_empty() {
            return Err(invalid("no validators"));
        }
        for validator in &validators {
            validator.validate_basic()?;
        }
        let total = total_power(&validators)?;
        validators.sort_by(update::set_order);
        let mut set = Self::assemble(validators, Proposer::Unset, total);
        set.require_unique()?;
        set.proposer = set
            .lowest_priority()
            .map_or(Proposer::Unset, Proposer::Member);
        Ok(set)
    }

    /// A set as somebody else encoded it: order and priorities are kept, the total is computed,
    /// `validate_basic` is applied.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn from_parts(
        validators: Vec<Validator>,
        proposer: Validator,
    ) -> Result<Self, InvalidError> {
        let total = total_power(&validators)?;
        let set = Self::assemble(validators, Proposer::Apart(proposer), total);
        set.validate_basic()?;
        Ok(set)
    }

    fn assemble(validators: Vec<Validator>, proposer: Proposer, total_voting_power: i64) -> Self {
        Self {
            by_address: AddressIndex::of(&validators),
            validators,
            proposer,
            total_voting_power,
            hash: OnceLock::new(),
        }
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

    /// The member with `address`, and its index; the first one where an address is there twice.
    /// Takes time logarithmic in the set's size.
    #[must_use]
    pub fn by_address(&self, address: &Address) -> Option<(usize, &Validator)> {
        let index = self.by_address.find(&self.validators, address)?;
        Some((index, &self.validators[index]))
    }

    /// Sum of all powers.
    #[must_use]
    pub fn total_voting_power(&self) -> i64 {
        self.total_voting_power
    }

    /// Whether all keys are of one type; true of an empty set. Commits of mixed sets are never
    /// verified in a batch.
    #[must_use]
    pub fn keys_have_one_type(&self) -> bool {
        self.validators
            .windows(2)
            .all(|pair| pair[0].pub_key.key_type() == pair[1].pub_key.key_type())
    }

    /// Merkle root over the members' keys and powers. Computed once for a set and its clones made
    /// afterwards; rotations do not change it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        *self.hash.get_or_init(|| {
            let leaves: Vec<_> = self
                .validators
                .iter()
                .map(Validator::hashed_bytes)
                .collect();
            merkle::root(&leaves)
        })
    }

    /// The proposer as the set has it; computed from the priorities where it has none.
    #[must_use]
    pub fn proposer(&self) -> Option<&Validator> {
        if self.validators.is_empty() {
            return None;
        }
        self.proposer_field()
            .or_else(|| self.highest_priority().map(|index| &self.validators[index]))
    }

    /// What the encoded set's field holds.
    fn proposer_field(&self) -> Option<&Validator> {
        match &self.proposer {
            Proposer::Unset => None,
            Proposer::Member(index) => self.validators.get(*index),
            Proposer::Apart(validator) => Some(validator),
        }
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        if self.validators.is_empty() {
            return Err(invalid("no validators"));
        }
        for validator in &self.validators {
            validator.validate_basic()?;
        }
        let proposer = self
            .proposer_field()
            .ok_or_else(|| invalid("no proposer"))?;
        proposer.validate_basic()?;
        self.by_address(&proposer.address)
            .map(|_| ())
            .ok_or_else(|| invalid(format!("proposer {} is no member", proposer.address)))
    }

    fn require_unique(&self) -> Result<(), InvalidError> {
        if self.by_address.unique {
            Ok(())
        } else {
            Err(invalid("an address is there twice"))
        }
    }
}

fn invalid(reason: impl Into<String>) -> InvalidError {
    InvalidError::new("validator set", reason)
}

/// Sum of the powers, or an error where it passes the bound.
fn total_power(validators: &[Validator]) -> Result<i64, InvalidError> {
    let mut total: i64 = 0;
    for validator in validators {
        total = total.saturating_add(validator.voting_power);
        if total > MAX_TOTAL_VOTING_POWER {
            return Err(invalid(format!(
                "total voting power {total} exceeds {MAX_TOTAL_VOTING_POWER}"
            )));
        }
    }
    Ok(total)
}

/// The proposer of a clone is a value of its own: changes to the clone do not move it before its
/// next rotation.
impl Clone for ValidatorSet {
    fn clone(&self) -> Self {
        Self {
            validators: self.validators.clone(),
            proposer: self.proposer_field().map_or(Proposer::Unset, |proposer| {
                Proposer::Apart(proposer.clone())
            }),
            total_voting_power: self.total_voting_power,
            by_address: self.by_address.clone(),
            hash: self.hash.clone(),
        }
    }
}

/// Equal when they encode to the same bytes.
impl PartialEq for ValidatorSet {
    fn eq(&self, other: &Self) -> bool {
        self.validators == other.validators && self.proposer_field() == other.proposer_field()
    }
}

impl Eq for ValidatorSet {}

impl TryFrom<pb::ValidatorSet> for ValidatorSet {
    type Error = DecodeError;

    /// Keeps order and priorities, computes the total itself and applies `validate_basic`.
    fn try_from(set: pb::ValidatorSet) -> Result<Self, DecodeError> {
        if set.validators.len() > MAX_SIGNATURES {
            return Err(DecodeError::TooMany {
                what: "validators",
                count: set.validators.len(),
                max: MAX_SIGNATURES,
            });
        }
        let validators = set
            .validators
            .into_iter()
            .map(Validator::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        let proposer = set.proposer.ok_or(DecodeError::Missing("proposer"))?;
        Ok(Self::from_parts(validators, proposer.try_into()?)?)
    }
}

/// Members and proposer; the total is left out (0), as CometBFT leaves it out.
impl From<&ValidatorSet> for pb::ValidatorSet {
    fn from(set: &ValidatorSet) -> Self {
        if set.is_empty() {
            return Self::default();
        }
        Self {
            validators: set.validators.iter().map(Into::into).collect(),
            proposer: set.proposer().map(Into::into),
            total_voting_power: 0,
        }
    }
}
