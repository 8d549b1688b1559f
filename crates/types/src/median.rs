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
    Ok(weighted_median(&mut weighted, total).unwrap_or(Time::ZERO))
}

/// The first time at which the powers up to it are half of `total` or more (rounded down), those of
/// equal times in any order. No power is negative and `total` is their sum. `None` of nothing.
///
/// Times are put in order only as far as needed: those before a place and those behind it, then
/// the side that has the median.
fn weighted_median(mut weighted: &mut [(Time, i64)], total: i64) -> Option<Time> {
    let mut rest = total / 2;
    // Where all have the same power, this is the median's place.
    let first = i128::from((rest - 1).max(0)) * weighted.len() as i128 / i128::from(total.max(1));
    let mut place = first as usize;
    while !weighted.is_empty() {
        let (before, (time, power), behind) =
            weighted.select_nth_unstable_by_key(place, |(time, _)| *time);
        let powers = before.iter().map(|(_, power)| *power);
        let below = powers.fold(0, i64::saturating_add);
        if rest <= below && !before.is_empty() {
            weighted = before;
        } else if rest - below <= *power {
            return Some(*time);
        } else {
            rest -= below + *power;
            weighted = behind;
        }
        place = weighted.len() / 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// As CometBFT does: all in order, and counted from the first on.
    fn by_sorting(weighted: &mut [(Time, i64)], total: i64) -> Option<Time> {
        weighted.sort_unstable();
        let mut rest = total / 2;
        for (time, power) in weighted {
            if rest <= *power {
                return Some(*time);
            }
            rest -= *power;
        }
        None
    }

    /// Many times are equal; powers are all the same, small ones, or of all sizes.
    fn weighted() -> impl Strategy<Value = Vec<(Time, i64)>> {
        let power = prop::sample::select(vec![0..1, 1..2, 10..11, 0..3, 1..5, 0..i64::MAX / 8]);
        let times = prop_oneof![0..12_i64, 0..1000_i64];
        let many = prop_oneof![0..12_usize, 0..400_usize];
        (power, many).prop_flat_map(move |(power, many)| {
            vec((times.clone().prop_map(|at| Time::new(at, 7)), power), many)
        })
    }

    proptest! {
        #[test]
        fn the_median_is_that_of_all_in_order(mut weighted in weighted()) {
            let powers = weighted.iter().map(|(_, power)| *power);
            let total = powers.fold(0, i64::saturating_add);
            let expected = by_sorting(&mut weighted.clone(), total);
            prop_assert_eq!(weighted_median(&mut weighted, total), expected);
        }
    }
}
