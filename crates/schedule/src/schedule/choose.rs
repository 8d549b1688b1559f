//! Which height a peer is asked for, and which peer a height is asked of.
//!
//! A peer whose answers were of no use is benched: for a while it is asked only for what nobody else
//! can be asked for, so that each lie costs the liar its place and us one request. What somebody
//! failed to deliver goes to a peer whose blocks were applied, if there is one, and so does what is
//! needed soon: anybody can connect and be silent, again and again. All others together are asked
//! for little until a block of theirs is applied. Nothing of this blames anybody: an honest peer may
//! lack a block, or hold a bad extended commit.

use std::time::Instant;

use perihelion_types::{Height, PeerId};

use super::Schedule;
use crate::{
    peer::{MAX_OVERDUE, Peer},
    slot::Slot,
};

/// Wanted heights, the lowest first, among which one is looked for that a peer may be asked for. More
/// cost time at every input; the lowest are what everything waits for.
const SCAN: usize = 64;

impl Schedule {
    /// The lowest height that a peer may be asked for, within the window and its budgets.
    pub(super) fn find_height(&mut self, peer: PeerId) -> Option<Height> {
        let (base, top) = self.peers.get(&peer)?.serves()?;
        let room = self.has_room();
        let reserve = self.reserve();
        let allowed = |height: Height| room || height <= reserve;
        let proven = self.peers.get(&peer).is_some_and(Peer::is_proven);
        let near = self.wanted.range(base..=top).take(SCAN);
        let open = near.copied().find(|&height| {
            self.slot(height)
                .is_some_and(|slot| !slot.is_excluded(peer) && (proven || !self.is_kept(height)))
        });
        if let Some(height) = open {
            return allowed(height).then_some(height);
        }
        // Nothing open within the window: it grows, if it may.
        let (mut end, most) = (self.end(), self.window_blocks());
        while end <= top && self.slots.len() < most && allowed(end) {
            self.slots.push_back(Slot::new());
            self.wanted.insert(end);
            if end >= base && (proven || !self.is_kept(end)) {
                return Some(end);
            }
            end = end.next();
        }
        None
    }

    /// Whether a height is left to peers whose blocks were applied: others failed to deliver it, or it
    /// is needed soon and one of them can have it here soon.
    fn is_kept(&self, height: Height) -> bool {
        let near = self.first().plus(self.config.hedge_depth as i64);
        self.slot(height).is_some_and(|slot| {
            let failed = !slot.excluded.is_empty();
            (failed && self.is_proven_with(height, slot, f64::INFINITY))
                || (height < near && {
                    let soon = self.config.hedge_after.1.as_secs_f64();
                    self.is_proven_with(height, slot, soon)
                })
        })
    }

    /// Whether a block of a peer was applied, and it is to be relied on now.
    #[must_use]
    pub fn relies_on(&self, peer: PeerId) -> bool {
        let known = self.peers.get(&peer);
        known.is_some_and(|known| known.standing(self.now) == 0)
    }

    /// Whether there is a peer whose blocks were applied.
    pub(super) fn has_proven(&self) -> bool {
        let relied_on = |peer: &Peer| peer.is_proven() && !peer.is_benched(self.now);
        self.peers.values().any(relied_on)
    }

    /// Requests to peers of whom no block was applied.
    pub(super) fn asked_of_strangers(&self) -> usize {
        let strangers = self.peers.values().filter(|peer| !peer.is_proven());
        strangers.map(|peer| peer.asks.len()).sum()
    }

    /// The lowest height that a benched peer may be asked for: one that nobody else can be.
    pub(super) fn find_forsaken(&mut self, now: Instant, peer: PeerId) -> Option<Height> {
        let (base, top) = self.peers.get(&peer)?.serves()?;
        let end = self.end();
        let forsaken = |height: &Height| {
            let slot = self.slot(*height);
            !slot.is_some_and(|slot| slot.is_excluded(peer)) && !self.is_trusted_with(now, *height)
        };
        let near = self.wanted.range(base..=top).take(SCAN);
        let open = near.copied().find(|height| forsaken(height));
        if let Some(height) = open {
            return (self.has_room() || height <= self.reserve()).then_some(height);
        }
        let may_grow = self.wanted.is_empty() && end <= top && forsaken(&end);
        may_grow.then(|| self.find_height(peer)).flatten()
    }

    /// Whether a peer that is not benched may be asked for a height.
    pub(super) fn is_trusted_with(&self, now: Instant, height: Height) -> bool {
        let slot = self.slot(height);
        self.peers.iter().any(|(&id, peer)| {
            !peer.is_benched(now)
                && !slot.is_some_and(|slot| slot.is_excluded(id))
                && peer
                    .serves()
                    .is_some_and(|(base, top)| base <= height && height <= top)
        })
    }

    /// Whether a peer whose blocks were applied may be asked for a height, and is likely to have it
    /// here within so many seconds.
    fn is_proven_with(&self, height: Height, slot: &Slot, soon: f64) -> bool {
        let size = self.expected_size() as f64;
        self.peers.iter().any(|(&id, peer)| {
            peer.is_proven()
                && peer.cost(size) < soon
                && peer.overdue.len() < MAX_OVERDUE
                && !peer.is_benched(self.now)
                && !slot.is_excluded(id)
                && peer
                    .serves()
                    .is_some_and(|(base, top)| base <= height && height <= top)
        })
    }

    /// The best peer that may be asked for a height besides those that are. The head of the
    /// window is worth one request beyond a peer's allowance. Of nobody who is held back himself, if
    /// `with_room`.
    pub(super) fn second_for(
        &self,
        height: Height,
        asked: &[PeerId],
        with_room: bool,
    ) -> Option<PeerId> {
        let slot = self.slot(height)?;
        let size = self.expected_size() as f64;
        let is_full = |peer: &Peer| with_room && peer.waits_for_room(self.now);
        self.peers
            .iter()
            .filter(|(id, peer)| {
                !asked.contains(id)
                    && !slot.is_excluded(**id)
                    && peer.asks.len() < self.config.peer_allowance
                    && peer.overdue.len() < MAX_OVERDUE
                    && !is_full(peer)
                    && !peer.asks.contains_key(&height)
                    && peer
                        .serves()
                        .is_some_and(|(base, top)| base <= height && height <= top)
            })
            .map(|(&id, peer)| (peer.standing(self.now), peer.cost(size), id))
            .min_by(|a, b| {
                let rank = a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
                rank.then(a.2.cmp(&b.2))
            })
            .map(|(_, _, id)| id)
    }

    pub(super) fn is_benched(&self, peer: PeerId) -> bool {
        let known = self.peers.get(&peer);
        known.is_some_and(|known| known.is_benched(self.now))
    }
}
