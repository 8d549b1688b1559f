//! The time of the next block: the median of the times in a commit, weighted by power.

use thiserror::Error;

use crate::{Address, BlockIdFlag, Commit, Rules, Time, ValidatorSet};

/// Whose times count. The versions differ, so the rule of a chain depends on what its validators
/// ran at the height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MedianTimeRule {
    /// v0.38: precommits for the block and for nil.
    V038,
    /// v0.40: precommits for the block only.
    V040,
}

impl From<Rules> for MedianTimeRule {
    fn from(rules: Rules) -> Self {
        if rules == Rules::V038 {
            Self::V038
        } else {
            Self::V040
        }
    }
}

/// A place of the commit that counts is of no member of the set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("commit of {}, who is no validator", hex::encode_upper(address))]
pub struct MedianTimeError {
    /// The address in the commit, of any length.
    pub address: Vec<u8>,
}

/// The power of the member with `address`, whose place is most likely `index`.
fn power_of(address: &[u8], index: usize, set: &ValidatorSet) -> Option<i64> {
    if let Some(member) = set.validators().get(index)
        && member.address.as_bytes()[..] == *address
    {
        return Some(member.voting_power);
    }
    let address = Address::try_from(address).ok()?;
    let (_, member) = set.by_address(&address)?;
    Some(member.voting_power)
}

/// The median of `commit`'s times by the powers of `set`, the validators of the commit's height:
/// half of the power or more (rounded down) lies at or before it. As long as less than a third of
/// the power is faulty, it lies between times of honest validators. The zero time when nothing
/// counts.
///
/// # Errors
/// When a place that counts has an address outside of the set.
pub fn median_time(
    commit: &Commit,
    set: &ValidatorSet,
    rule: MedianTimeRule,
) -> Result<Time, MedianTimeError> {
    let mut weighted = Vec::with_capacity(commit.signatures.len());
    let mut total: i64 = 0;
    for (index, place) in commit.signatures.iter().enumerate() {
        let counts = match rule {
            MedianTimeRule::V038 => place.block_id_flag != BlockIdFlag::Absent,
            MedianTimeRule::V040 => place.block_id_flag == BlockIdFlag::Commit,
        };
        if !counts {
            continue;
        }
        let power =
            power_of(&place.validator_address, index, set).ok_or_else(|| MedianTimeError {
                address: place.validator_address.to_vec(),
            })?;
        total = total.saturating_add(power);
        weighted.push((place.timestamp, power));
    }
    weighted.sort_unstable();
    let mut rest = total / 2;
    for (time, power) in weighted {
        if rest <= power {
            return Ok(time);
        }
        rest -= power;
    }
    Ok(Time::ZERO)
}
