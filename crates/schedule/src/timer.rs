use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use perihelion_types::PeerId;

/// What a deadline is for. The order breaks ties between equal instants, so that a run of the
/// schedule is the same each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Missing blocks near the apply height are due to be asked of a second peer.
    Hedge,
    /// Linked blocks have waited long enough for others to join their run.
    Run,
    /// Heights that nobody could serve are offered to all peers once more.
    Retry,
    /// A condition of being caught up lapses.
    CaughtUp,
    /// A claim has stood long enough to be looked into while consensus decides blocks.
    Lookout,
    /// Nothing was applied for long enough that the reason must be told.
    Stall,
    /// A peer's oldest request is overdue.
    Peer(PeerId),
    /// A peer is due to be asked for its status.
    Status(PeerId),
}

/// Every deadline of the schedule: at most one instant for each [`Timer`]; the next one is the
/// minimum.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_timer: BTreeMap<Timer, Instant>,
    by_instant: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(old) = self.by_timer.insert(timer, at) {
            if old == at {
                return;
            }
            self.by_instant.remove(&(old, timer));
        }
        self.by_instant.insert((at, timer));
    }

    /// Sets a deadline unless an earlier one is set already.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.get(timer).is_none_or(|old| at < old) {
            self.set(timer, at);
        }
    }

    /// Removes a deadline, if it is set.
    pub(crate) fn stop(&mut self, timer: Timer) {
        if let Some(old) = self.by_timer.remove(&timer) {
            self.by_instant.remove(&(old, timer));
        }
    }

    /// When a deadline is due, if it is set.
    pub(crate) fn get(&self, timer: Timer) -> Option<Instant> {
        self.by_timer.get(&timer).copied()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_instant.first().map(|&(at, _)| at)
    }

    /// Takes the earliest deadline out if it is due.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.by_instant.first()?;
        if at > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }

    /// Whether both views hold the same deadlines.
    pub(crate) fn is_consistent(&self) -> bool {
        self.by_timer.len() == self.by_instant.len()
            && self
                .by_timer
                .iter()
                .all(|(&timer, &at)| self.by_instant.contains(&(at, timer)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
    fn the_next_deadline_is_the_minimum_and_expires_once() {
        let start = Instant::now();
        let mut timers = Timers::default();
        timers.set(Timer::Run, start + Duration::from_secs(2));
        timers.set(Timer::Hedge, start + Duration::from_secs(1));
        timers.set(Timer::Run, start);
        timers.set_earlier(Timer::Run, start + Duration::from_secs(5));
        assert_eq!(timers.next(), Some(start));
        assert_eq!(timers.expire(start), Some(Timer::Run));
        assert_eq!(timers.expire(start), None);
        timers.stop(Timer::Hedge);
        assert_eq!(timers.next(), None);
        assert!(timers.is_consistent());
    }
}
