//! Whose turn it is to propose: weighted round robin by priorities.

use super::{PRIORITY_WINDOW_FACTOR, Proposer, ValidatorSet, invalid};
use crate::{InvalidError, Validator};

impl ValidatorSet {
    /// Rotates `times` rounds on: priorities are scaled into their window and centred once, then
    /// in each round every priority rises by the member's power and the highest one, the
    /// proposer's, falls by the total.
    ///
    /// # Errors
    /// When the set is empty or has an address twice, or `times` is not positive; the set is
    /// unchanged then.
    pub fn increment_proposer_priority(&mut self, times: i32) -> Result<(), InvalidError> {
        if self.is_empty() {
            return Err(invalid("an empty set has no proposer"));
        }
        if times <= 0 {
            return Err(invalid(format!("cannot rotate {times} times")));
        }
        self.require_unique()?;
        rescale(
            &mut self.validators,
            PRIORITY_WINDOW_FACTOR * self.total_voting_power,
        )?;
        centre(&mut self.validators);
        for _ in 0..times {
            let proposer = rotate(&mut self.validators, self.total_voting_power);
            self.proposer = Proposer::Member(proposer);
        }
        Ok(())
    }

    /// The set as it was stored, advanced by `heights` in one call, as CometBFT loads the set of a
    /// height that lies above the one at which the set last changed. Not the same as advancing one
    /// by one: priorities are scaled and centred once. 0 leaves the set as it is.
    ///
    /// # Errors
    /// When `heights` is negative or above `i32::MAX`, or the set cannot rotate.
    pub fn load_rotated(mut self, heights: i64) -> Result<Self, InvalidError> {
        if heights != 0 {
            let times = i32::try_from(heights)
                .map_err(|_| invalid(format!("cannot rotate {heights} times")))?;
            self.increment_proposer_priority(times)?;
        }
        Ok(self)
    }

    /// Divides the priorities, toward zero, so that they lie within a window of `window`; leaves
    /// them alone when they do already, or when `window` is not positive.
    ///
    /// # Errors
    /// When the set is empty, or the sum of distance and window overflows to a divisor of 0.
    pub fn rescale_priorities(&mut self, window: i64) -> Result<(), InvalidError> {
        if self.is_empty() {
            return Err(invalid("an empty set has no priorities"));
        }
        rescale(&mut self.validators, window)
    }

    /// Index of the member that would propose now: highest priority, of equals the lowest address.
    pub(super) fn highest_priority(&self) -> Option<usize> {
        (0..self.validators.len()).reduce(|best, index| {
            if self.validators[index].proposes_before(&self.validators[best]) {
                index
            } else {
                best
            }
        })
    }

    /// Index of the member that proposed last: lowest priority, of equals the highest address.
    pub(super) fn lowest_priority(&self) -> Option<usize> {
        (0..self.validators.len()).reduce(|worst, index| {
            if self.validators[worst].proposes_before(&self.validators[index]) {
                index
            } else {
                worst
            }
        })
    }
}

/// One round on `validators`, not empty; returns the proposer's index.
fn rotate(validators: &mut [Validator], total_voting_power: i64) -> usize {
    let mut proposer = 0;
    for index in 0..validators.len() {
        let validator = &mut validators[index];
        validator.proposer_priority = validator
            .proposer_priority
            .saturating_add(validator.voting_power);
        if validators[index].proposes_before(&validators[proposer]) {
            proposer = index;
        }
    }
    let priority = &mut validators[proposer].proposer_priority;
    *priority = priority.saturating_sub(total_voting_power);
    proposer
}

/// Scales the priorities of `validators`, not empty, into `window`. Distances wrap around as
/// 64-bit integers do in CometBFT, which matters only for priorities that no rotation reaches.
pub(super) fn rescale(validators: &mut [Validator], window: i64) -> Result<(), InvalidError> {
    if window <= 0 {
        return Ok(());
    }
    let priorities = validators.iter().map(|v| v.proposer_priority);
    let (low, high) = priorities.fold((i64::MAX, i64::MIN), |(low, high), priority| {
        (low.min(priority), high.max(priority))
    });
    let distance = high.wrapping_sub(low).wrapping_abs();
    if distance <= window {
        return Ok(());
    }
    let ratio = distance.wrapping_add(window).wrapping_sub(1) / window;
    if ratio == 0 {
        return Err(invalid("priorities too far apart to be scaled"));
    }
    for validator in validators {
        validator.proposer_priority = validator.proposer_priority.wrapping_div(ratio);
    }
    Ok(())
}

/// Moves the priorities so that their average, rounded down, becomes 0.
pub(super) fn centre(validators: &mut [Validator]) {
    let count = validators.len() as i128;
    let sum: i128 = validators
        .iter()
        .map(|v| i128::from(v.proposer_priority))
        .sum();
    let Some(average) = sum.checked_div_euclid(count) else {
        return;
    };
    let average = i64::try_from(average).expect("an average lies between the priorities");
    for validator in validators {
        validator.proposer_priority = validator.proposer_priority.saturating_sub(average);
    }
}
