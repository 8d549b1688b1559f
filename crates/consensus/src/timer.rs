use std::{collections::BTreeMap, time::Instant};

use crate::{Step, TimeoutInfo};

/// Every deadline of the state machine: at most one for each step that has a timeout.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeMap<Step, (Instant, TimeoutInfo)>);

impl Timers {
    /// Sets or moves the deadline of the timeout's step.
    pub(crate) fn set(&mut self, at: Instant, timeout: TimeoutInfo) {
        self.0.insert(timeout.step, (at, timeout));
    }

    /// Removes all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().map(|(at, _)| *at).min()
    }

    /// Takes the earliest deadline out if it is due; of equal ones the one of the earlier step.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<TimeoutInfo> {
        let (at, timeout) = self.0.values().min_by_key(|(at, _)| *at).copied()?;
        if at > now {
            return None;
        }
        self.0.remove(&timeout.step);
        Some(timeout)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use perihelion_types::{Height, Round};

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
    fn the_next_deadline_is_the_minimum_and_expires_once() {
        let start = Instant::now();
        let timeout = |step| TimeoutInfo {
            duration: Duration::ZERO,
            height: Height::new(1),
            round: Round::ZERO,
            step,
        };
        let mut timers = Timers::default();
        timers.set(start + Duration::from_secs(3), timeout(Step::Propose));
        timers.set(start + Duration::from_secs(2), timeout(Step::PrevoteWait));
        timers.set(start + Duration::from_secs(1), timeout(Step::Propose));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.expire(start), None);
        let later = start + Duration::from_secs(9);
        assert_eq!(timers.expire(later), Some(timeout(Step::Propose)));
        assert_eq!(timers.expire(later), Some(timeout(Step::PrevoteWait)));
        assert_eq!(timers.expire(later), None);
        assert_eq!(timers.next(), None);
    }
}
