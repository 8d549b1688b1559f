//! Whether what is final is as new as it can be, by the wall clock.
//!
//! The time of a final block cannot be forged: it is the median of when the validators voted for the
//! block below. So who has applied a block of a few block intervals ago is a few blocks behind at the
//! most, whatever peers claim.
//!
//! A wall clock that is wrong must not make an old block new. One that is ahead never does. For one that
//! is late, blocks of just that age look new: a node that catches up comes past them, and does not stay.
//! So it is asked for how long blocks have been new, and the clock must not have been set meanwhile. That
//! also means that the last of them was made after the first was looked at: no earlier run of this
//! validator can have signed at the height above it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use perihelion_types::Time;

/// Blocks whose times tell how far apart blocks are. More take longer to see that the chain has become
/// quicker; of fewer a round or two without a decision would count.
const TIMES: usize = 7;

/// How old the last applied block may be, in intervals between blocks. Three are its age at the chain's
/// end, before the next one is there: its time is that of the votes below it, and it is final by the
/// block above. Fewer would never do; more is that many blocks for consensus to catch up with.
const INTERVALS: u32 = 4;

/// And the time that it takes to hear of a block, to fetch and to apply it: a node near the end asks for
/// statuses once a second, who withholds a block costs two, and clocks differ by two. Shorter, and liars
/// could make each tenth block too old; longer is more blocks behind on a quick chain.
const SLACK: Duration = Duration::from_secs(6);

/// How far the chain's clock may be ahead of ours, and how far ours may be set at once. More would take
/// blocks for new by a clock that is wrong; less would wait for ever where clocks differ by a second.
const TOLERANCE: Duration = Duration::from_secs(2);

/// How the last applied blocks stand to the wall clock.
#[derive(Debug, Default)]
pub(crate) struct Abreast {
    /// What the wall clock showed, and when.
    clock: Option<(Instant, Time)>,
    /// Times of the last blocks applied, the newest last.
    times: VecDeque<Time>,
    /// Since when the newest has been new.
    since: Option<Instant>,
}

impl Abreast {
    /// The wall clock shows `wall`. Where it was set, or this process was suspended, what was known by
    /// it counts no more.
    pub(crate) fn tell(&mut self, now: Instant, wall: Time) {
        let is_set = self.wall(now).is_some_and(|expected| {
            wall.nanos_since(expected).unsigned_abs() > TOLERANCE.as_nanos()
        });
        if is_set {
            self.since = None;
        }
        self.clock = Some((now, wall));
    }

    /// A block of this time was applied.
    pub(crate) fn applied(&mut self, now: Instant, time: Time) {
        // The one before may have become too old unseen.
        self.note(now);
        if self.times.len() == TIMES {
            self.times.pop_front();
        }
        self.times.push_back(time);
    }

    /// Blocks were applied that were not told.
    pub(crate) fn forget(&mut self) {
        self.times.clear();
        self.since = None;
    }

    /// Notes since when the last block has been new.
    pub(crate) fn note(&mut self, now: Instant) {
        let is_new = self.age(now).zip(self.most());
        let is_new = is_new.is_some_and(|(age, most)| {
            let early = i128::try_from(TOLERANCE.as_nanos()).unwrap_or(0);
            let most = i128::try_from(most.as_nanos()).unwrap_or(i128::MAX);
            -early <= age && age <= most
        });
        if is_new {
            self.since.get_or_insert(now);
        } else {
            self.since = None;
        }
    }

    /// When blocks will have been new for long enough: twice `least`, and twice as long as they may be
    /// old. `None` while they are not.
    pub(crate) fn certain_at(&self, least: Duration) -> Option<Instant> {
        Some(self.since? + least.max(self.most()?) * 2)
    }

    /// Nanoseconds since the last block was made; negative when it is of the future.
    pub(crate) fn age(&self, now: Instant) -> Option<i128> {
        Some(self.wall(now)?.nanos_since(*self.times.back()?))
    }

    fn wall(&self, now: Instant) -> Option<Time> {
        let (at, wall) = self.clock?;
        let since = now.saturating_duration_since(at).as_nanos();
        wall.checked_add_nanos(i64::try_from(since).ok()?)
    }

    /// How old the last block may be.
    fn most(&self) -> Option<Duration> {
        if self.times.len() < TIMES {
            return None;
        }
        let later = self.times.iter().skip(1);
        let pairs = self.times.iter().zip(later);
        let between = |(&before, &after): (&Time, &Time)| after.nanos_since(before).unsigned_abs();
        let mut intervals: Vec<u128> = pairs.map(between).collect();
        intervals.sort_unstable();
        let median = u64::try_from(*intervals.get(intervals.len() / 2)?).ok()?;
        let intervals = Duration::from_nanos(median).checked_mul(INTERVALS)?;
        intervals.checked_add(SLACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    /// Four intervals of a second, and what fetching takes.
    const MOST: i64 = 10;

    fn time(seconds: i64) -> Time {
        Time::new(1_700_000_000 + seconds, 0)
    }

    /// At `start` the wall clock shows `time(0)`.
    struct Node {
        start: Instant,
        abreast: Abreast,
    }

    impl Node {
        #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
        fn new() -> Self {
            let mut node = Self {
                start: Instant::now(),
                abreast: Abreast::default(),
            };
            node.abreast.tell(node.start, time(0));
            node
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + SECOND * u32::try_from(seconds).unwrap()
        }

        /// All but the last of the blocks whose times tell how far apart they are.
        fn with_old_blocks() -> Self {
            let mut node = Self::new();
            for second in 1..i64::try_from(TIMES).unwrap() {
                node.abreast.applied(node.start, time(second - 1_000));
            }
            node
        }

        /// Since when it has been abreast, at `seconds`.
        fn since(&mut self, seconds: u64) -> Option<u64> {
            let now = self.at(seconds);
            self.abreast.note(now);
            let at = self.abreast.certain_at(SECOND * 10)?;
            let since = at - SECOND * 20 - self.start;
            Some(since.as_secs())
        }
    }

    #[test]
    fn a_block_is_new_up_to_an_age_and_not_of_the_future() {
        let ages = [(MOST + 1, None), (MOST, Some(0)), (-2, Some(0)), (-3, None)];
        for (age, since) in ages {
            let mut node = Node::with_old_blocks();
            node.abreast.applied(node.start, time(-age));
            assert_eq!(node.since(0), since, "{age} s old");
        }
        // Of too few nothing is known, nor without a clock.
        let mut node = Node::new();
        for _ in 1..TIMES {
            node.abreast.applied(node.start, time(-1));
            assert_eq!(node.since(0), None);
        }
        let mut node = Node::with_old_blocks();
        node.abreast.clock = None;
        node.abreast.applied(node.start, time(-1));
        assert_eq!(node.since(0), None);
    }

    #[test]
    fn each_block_must_have_been_new_for_long_enough() {
        let mut node = Node::with_old_blocks();
        node.abreast.applied(node.start, time(-1));
        assert_eq!(node.since(0), Some(0));
        for second in 1..30 {
            assert_eq!(node.since(second), Some(0), "after {second} s");
            let now = node.at(second);
            node.abreast
                .applied(now, time(i64::try_from(second).unwrap() - 1));
        }
        // None for so long that the last one became too old, which nobody looked at.
        let now = node.at(40);
        node.abreast.applied(now, time(39));
        assert_eq!(node.since(40), Some(40));
        node.abreast.forget();
        assert_eq!(node.since(40), None);
    }

    #[test]
    fn how_old_it_may_be_follows_the_chain() {
        for (spacing, long) in [(0, 12), (1, 20), (5, 52), (60, 492)] {
            let mut node = Node::new();
            let blocks = i64::try_from(TIMES).unwrap();
            for block in 0..blocks {
                // One round or another took longer.
                let late = if block == 3 { 10 * spacing } else { 0 };
                let time = time(spacing * (block - blocks) + late);
                node.abreast.applied(node.start, time);
            }
            node.abreast.note(node.start);
            let at = node.abreast.certain_at(SECOND);
            assert_eq!(at, Some(node.at(long)), "a block in {spacing} s");
        }
    }

    #[test]
    fn a_clock_that_is_set_begins_anew() {
        for (set, since) in [(-3, Some(5)), (-2, Some(0)), (2, Some(0)), (3, Some(5))] {
            let mut node = Node::with_old_blocks();
            node.abreast.applied(node.start, time(0));
            assert_eq!(node.since(0), Some(0));
            let now = node.at(5);
            node.abreast.applied(now, time(3));
            node.abreast.note(now);
            node.abreast.tell(now, time(5 + set));
            assert_eq!(node.since(5), since, "set by {set} s");
        }
    }
}
