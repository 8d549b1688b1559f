//! What is looked at again and again: who gives way to others, and whether blocks on their way hold up
//! one another.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use perihelion_p2p::{Arrival, PeerHandle, Standing};
use perihelion_types::Height;
use tokio::{sync::Notify, time::Instant};

use crate::slow::Slow;

/// How long one block may be arriving while others wait for room in the byte budget, at a rate that is
/// neither slow nor [quick](Arrival::is_quick). Shorter, and a large block on an ordinary link would not get
/// through; longer, and a few that send as slowly as is allowed would hold everybody up for that long.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How long no block may be stored while peers wait for the byte budget, before those that owe the next
/// blocks get one message through each. Shorter, and a slow application would stretch the budget;
/// longer, and a node whose budget is held by blocks that wait for another one would stand still for
/// that long.
const STANDSTILL: Duration = Duration::from_secs(2);

/// Whether there is nothing to look at, until a block is asked for.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    is_calm: AtomicBool,
    end: Notify,
}

impl Calm {
    pub(crate) fn begin(&self) {
        self.is_calm.store(true, Ordering::SeqCst);
    }

    /// It has not begun after all.
    pub(crate) fn forget(&self) {
        self.is_calm.store(false, Ordering::SeqCst);
    }

    /// A block is asked for.
    pub(crate) fn end(&self) {
        if self.is_calm.load(Ordering::SeqCst) && self.is_calm.swap(false, Ordering::SeqCst) {
            self.end.notify_one();
        }
    }

    /// Waits until it is over.
    pub(crate) async fn ended(&self) {
        self.end.notified().await;
    }
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    pub(crate) standstill: Standstill,
    pub(crate) slow: Slow,
    /// The stored height.
    pub(crate) stored: Option<Height>,
}

/// How many peers wait for room in the byte budget.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    proven: usize,
    unknown: usize,
    /// That were let go of as slow themselves.
    behind: usize,
}

impl Waiting {
    /// One more waits.
    pub(crate) const fn count(&mut self, standing: Standing) {
        *self.of(standing) += 1;
    }

    /// The same without one of them.
    const fn without(mut self, standing: Standing) -> Self {
        let count = self.of(standing);
        *count = count.saturating_sub(1);
        self
    }

    const fn of(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Proven => &mut self.proven,
            Standing::Unknown => &mut self.unknown,
            Standing::Behind => &mut self.behind,
        }
    }

    fn anybody(self) -> bool {
        self != Self::default()
    }

    /// Whether any of them stands better.
    const fn better(self, standing: Standing) -> bool {
        match standing {
            Standing::Proven => false,
            Standing::Unknown => self.proven > 0,
            Standing::Behind => self.proven + self.unknown > 0,
        }
    }

    /// Whether any of them stands as well. Those that were slow themselves do not count.
    const fn as_good(self, standing: Standing) -> bool {
        match standing {
            Standing::Proven => self.proven > 0,
            Standing::Unknown | Standing::Behind => self.proven + self.unknown > 0,
        }
    }
}

/// The peer of those that were looked at that gives way to who waits: the one of whose block the least
/// came of late.
pub(crate) struct Slowest {
    now: Instant,
    found: Option<(usize, PeerHandle)>,
    /// A connection is ending: what its block had will be there.
    is_ending: bool,
}

/// Whether a block may be let go of for the sake of others that wait. If it is slow, for anybody's. If it
/// lasts long and is not quick, for that of peers that stand as well and have not been slow themselves: so
/// one of 100 MB that is quick lasts 100 seconds at the most, honest peers that all are slow do not let go
/// of one another's for ever, and strangers stop nobody of whom blocks were applied. If it waits
/// itself for long, for that of peers that stand better: they get the reserve before it, so that
/// it would hold its part of the budget without ever having to send.
fn gives_way(arrival: &Arrival, peer: &PeerHandle, waiting: Waiting, now: Instant) -> bool {
    let now = now.into_std();
    let standing = peer.standing();
    let (waits, others) = match peer.waits_for_room() {
        true => (arrival.waits(now), waiting.without(standing)),
        false => (Duration::ZERO, waiting),
    };
    let lasts_long = arrival.lasts(now) >= ARRIVAL && !arrival.is_quick(now);
    (arrival.is_slow(now) && others.anybody())
        || (lasts_long && others.as_good(standing))
        || (waits >= ARRIVAL && others.better(standing))
}

impl Slowest {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            now,
            found: None,
            is_ending: false,
        }
    }

    /// Looks at what is arriving from a peer while those wait.
    pub(crate) fn look(&mut self, peer: &PeerHandle, arrival: &Arrival, waiting: Waiting) {
        self.is_ending |= peer.is_closing();
        let recent = arrival.recent(self.now.into_std());
        let mut known = self.found.iter();
        let is_slowest = known.all(|(other, _)| recent < *other);
        if is_slowest && gives_way(arrival, peer, waiting, self.now) {
            self.found = Some((recent, peer.clone()));
        }
    }

    /// Nobody while a connection is ending: those that wait may find its room.
    pub(crate) fn found(self) -> Option<PeerHandle> {
        let found = self.found.filter(|_| !self.is_ending);
        found.map(|(_, peer)| peer)
    }
}

/// Notices that blocks hold the budget which the block that they wait for needs.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    /// The stored height and since when it has not moved while somebody waited.
    since: Option<(Height, Instant)>,
}

impl Standstill {
    /// Whether it is time to let peers that wait get one message through.
    pub(crate) fn check(&mut self, now: Instant, waiting: bool, stored: Height) -> bool {
        match self.since {
            Some((height, since)) if waiting && height == stored => {
                let due = now.duration_since(since) >= STANDSTILL;
                if due {
                    self.since = Some((stored, now));
                }
                due
            }
            _ => {
                self.since = waiting.then_some((stored, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_noticed_only_while_somebody_waits_and_nothing_is_stored() {
        let (start, height) = (Instant::now(), Height::new(5));
        let at = |millis| start + Duration::from_millis(millis);
        let mut standstill = Standstill::default();
        assert!(!standstill.check(at(0), true, height));
        assert!(!standstill.check(at(1900), true, height));
        assert!(standstill.check(at(2000), true, height));
        // Once each interval, not each look.
        assert!(!standstill.check(at(2100), true, height));
        assert!(standstill.check(at(4000), true, height));
        // A stored block, or nobody waiting, begins anew.
        assert!(!standstill.check(at(6100), true, height.next()));
        assert!(!standstill.check(at(8000), false, height.next()));
        assert!(!standstill.check(at(8100), true, height.next()));
        assert!(standstill.check(at(10_100), true, height.next()));
    }
}
