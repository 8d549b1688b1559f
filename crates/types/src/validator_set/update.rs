//! Changes to a set, as an application asks for them.

use std::{cmp::Ordering, collections::HashSet, sync::OnceLock};

use super::{
    AddressIndex, MAX_TOTAL_VOTING_POWER, PRIORITY_WINDOW_FACTOR, Proposer, ValidatorSet, invalid,
    rotation, total_power,
};
use crate::{Address, InvalidError, Validator};

/// Whether a change may have power 0, which removes a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Removals {
    Allowed,
    Refused,
}

/// The order of a set: power falling, then address rising.
pub(super) fn set_order(a: &Validator, b: &Validator) -> Ordering {
    b.voting_power
        .cmp(&a.voting_power)
        .then_with(|| a.address.cmp(&b.address))
}

impl ValidatorSet {
    /// Applies an application's changes, one a validator: power 0 removes, any other sets the
    /// power. A newcomer starts behind all others, at -1.125 times the total power, so that leaving
    /// and joining again wins nothing. Priorities are scaled and centred, without a rotation; the
    /// changes' own priorities do not count.
    ///
    /// # Errors
    /// When a change is invalid: an address twice, a power below 0 or above
    /// [`MAX_TOTAL_VOTING_POWER`], a removal of no member, too large a total (the total before
    /// removals may pass the bound), an empty set as the result. The set is unchanged then.
    pub fn update(&mut self, changes: Vec<Validator>) -> Result<(), InvalidError> {
        self.apply_changes(changes, Removals::Allowed)
    }

    pub(super) fn apply_changes(
        &mut self,
        changes: Vec<Validator>,
        removals: Removals,
    ) -> Result<(), InvalidError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.require_unique()?;
        let (mut updates, removed) = split(changes)?;
        if removals == Removals::Refused && !removed.is_empty() {
            return Err(invalid("a member cannot have voting power 0"));
        }
        let newcomers = updates
            .iter()
            .filter(|update| self.by_address(&update.address).is_none())
            .count();
        if newcomers == 0 && removed.len() == self.len() {
            return Err(invalid("the changes leave no validator"));
        }
        let removed_power = self.removed_power(&removed)?;
        let before_removals = self.power_before_removals(&updates, removed_power)?;
        for update in &mut updates {
            update.proposer_priority = match self.by_address(&update.address) {
                Some((_, member)) => member.proposer_priority,
                None => -(before_removals + (before_removals >> 3)),
            };
        }
        self.replace(updates, &removed)
    }

    /// The power that removing `removed` takes away.
    fn removed_power(&self, removed: &[Address]) -> Result<i64, InvalidError> {
        removed.iter().try_fold(0, |power, address| {
            let (_, member) = self
                .by_address(address)
                .ok_or_else(|| invalid(format!("{address} is no member, cannot be removed")))?;
            Ok(power + member.voting_power)
        })
    }

    /// The total power with `updates` applied and nothing removed; below twice the bound. The
    /// total after removals is kept within the bound while the updates are applied one by one,
    /// those that take power away first.
    fn power_before_removals(
        &self,
        updates: &[Validator],
        removed_power: i64,
    ) -> Result<i64, InvalidError> {
        let mut differences: Vec<i64> = updates
            .iter()
            .map(|update| {
                let power = self
                    .by_address(&update.address)
                    .map_or(0, |(_, member)| member.voting_power);
                update.voting_power - power
            })
            .collect();
        differences.sort_unstable();
        let mut total = self.total_voting_power - removed_power;
        for difference in differences {
            total += difference;
            if total > MAX_TOTAL_VOTING_POWER {
                return Err(invalid(format!(
                    "total voting power would exceed {MAX_TOTAL_VOTING_POWER}"
                )));
            }
        }
        Ok(total + removed_power)
    }

    /// Puts `updates` into the set, takes `removed` out, scales and centres.
    fn replace(
        &mut self,
        updates: Vec<Validator>,
        removed: &[Address],
    ) -> Result<(), InvalidError> {
        let changed: HashSet<Address> = updates
            .iter()
            .map(|update| update.address)
            .chain(removed.iter().copied())
            .collect();
        let stays = |validator: &Validator| !changed.contains(&validator.address);
        let mut validators: Vec<Validator> = self
            .validators
            .iter()
            .filter(|v| stays(v))
            .cloned()
            .collect();
        validators.extend(updates);
        let total = total_power(&validators)?;
        rotation::rescale(&mut validators, PRIORITY_WINDOW_FACTOR * total)?;
        rotation::centre(&mut validators);
        validators.sort_by(set_order);

        let by_address = AddressIndex::of(&validators);
        if let Proposer::Member(index) = self.proposer {
            let member = &self.validators[index];
            self.proposer = if stays(member) {
                by_address
                    .find(&validators, &member.address)
                    .map_or(Proposer::Unset, Proposer::Member)
            } else {
                Proposer::Apart(member.clone())
            };
        }
        self.validators = validators;
        self.by_address = by_address;
        self.total_voting_power = total;
        self.hash = OnceLock::new();
        Ok(())
    }
}

/// Checks the changes one by one; returns the updates and the addresses to remove.
fn split(mut changes: Vec<Validator>) -> Result<(Vec<Validator>, Vec<Address>), InvalidError> {
    changes.sort_by_key(|change| change.address);
    for pair in changes.windows(2) {
        if pair[0].address == pair[1].address {
            return Err(invalid(format!("{} is changed twice", pair[0].address)));
        }
    }
    for change in &changes {
        if !(0..=MAX_TOTAL_VOTING_POWER).contains(&change.voting_power) {
            return Err(invalid(format!(
                "voting power {} of {} is not within 0..={MAX_TOTAL_VOTING_POWER}",
                change.voting_power, change.address
            )));
        }
    }
    let (updates, removed): (Vec<_>, Vec<_>) = changes
        .into_iter()
        .partition(|change| change.voting_power > 0);
    Ok((
        updates,
        removed.iter().map(|change| change.address).collect(),
    ))
}
