//! When nothing is left to be learnt from peers.
//!
//! Never from a claim alone, and never because of one: whoever claims more than we have is asked
//! for it, and its claim stands until it says NoBlock, misses its deadline, or delivers what is no
//! block of the chain.
//!
//! Where blocks are made while peers answer, there is always a claim that stands: an honest one of the
//! next block, or that of a liar who delivers each block once it is made. It is the wall clock then that
//! shows that not more than a few can be left ([`Abreast`](crate::abreast::Abreast)).

use std::time::Instant;

use perihelion_types::{Height, PeerId};

use super::{Schedule, runs::Purpose};
use crate::{
    Mode,
    peer::{Ask, Peer},
    slot::{Slot, Stage},
    timer::Timer,
};

/// Heights above the next one from which on the claim of a peer whose blocks were applied says that the
/// end is not near: what was waited for near it is waited for anew. Fewer, and a fast chain would do so
/// with each few blocks; more only forgets later.
const FAR: i64 = 16;

impl Schedule {
    /// Decides whether the chain has been caught up with, and does what the decision waits for.
    pub(super) fn check_caught_up(&mut self, now: Instant) {
        if !matches!(self.mode, Mode::WaitForPeers | Mode::BlockSync) {
            return;
        }
        self.timers.stop(Timer::CaughtUp);
        self.note_near(now);
        self.abreast.note(now);
        if !self.has_executor
            || self.is_verifying()
            || self.is_other_genesis()
            || !self.own_commit_holds()
        {
            return;
        }
        let total = self.anchors.current.total_voting_power();
        let sole = self.own_power > 0 && self.own_power == total;
        if sole || (self.all_configured_told(now) && self.all_claims_refuted(now, total)) {
            self.enter_consensus();
        }
    }

    /// Whether blocks above the last applied one are final, or may be found so.
    fn is_verifying(&self) -> bool {
        let mut closing = self.first().next();
        while self.held(closing).is_some_and(|held| held.no_close) {
            closing = closing.next();
        }
        self.certified_to > self.applied.0
            || !self.runs.is_empty()
            || self.probe.is_some()
            || (self.linked_to >= closing && self.held(closing).is_some())
    }

    /// Whether a configured peer offered a first block that does not fit our genesis.
    fn is_other_genesis(&self) -> bool {
        let offered = |id: &PeerId| self.peers.get(id).is_some_and(|it| it.unfitting.is_some());
        self.first() == self.initial_height && self.persistent.iter().any(offered)
    }

    /// Whether the last applied block's own commit is at hand and verified; if not, it is verified
    /// as soon as the block that holds it is here.
    fn own_commit_holds(&mut self) -> bool {
        if self.last_commit_verified || self.applied.0 < self.initial_height {
            return true;
        }
        if self.needs_extended(self.applied.0) {
            // Consensus begins with the last block's extended commit, and the block above has none.
            return false;
        }
        let next = self.first();
        let linked = self
            .slot(next)
            .is_some_and(|slot| slot.stage == Stage::Linked);
        let held = self
            .held(next)
            .filter(|held| linked && !held.no_close)
            .cloned();
        if let (Some(held), Some(set)) = (held, self.last_validators.clone()) {
            let purpose = Purpose::OwnCommit;
            self.send_probe(next, held.block, held.from, held.content, set, purpose);
        }
        false
    }

    /// Every configured peer has told its status, or has missed its dial deadline.
    fn all_configured_told(&mut self, now: Instant) -> bool {
        let deadline = self.started + self.config.dial_deadline;
        if self.untold.is_empty() || now >= deadline {
            return true;
        }
        self.timers.set_earlier(Timer::CaughtUp, deadline);
        false
    }

    /// Notes since when somebody could serve the next height: who comes soon after is heard too.
    fn note_near(&mut self, now: Instant) {
        let next = self.first();
        let near = |peer: &Peer| peer.range.is_some_and(|range| range.base() <= next);
        if !self.peers.values().any(near) {
            self.near_since = None;
        } else if self.near_since.is_none() {
            self.near_since = Some(now);
        }
    }

    /// A peer could serve the next height, and no claim of more is open, or none can be true.
    fn all_claims_refuted(&mut self, now: Instant, total: i64) -> bool {
        let alone = i128::from(self.own_power) * 3 > i128::from(total) * 2;
        if !alone && self.near_since.is_none() {
            return false;
        }
        if self.is_abreast(now) {
            return true;
        }
        let since = self.applied_at;
        // Where there was nobody before, the first to come are not late.
        let begun = self.near_since.map_or(since, |near| near.max(since));
        let latest = begun + self.config.peer_deadline;
        let counted: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.joined <= latest || self.persistent.contains(id))
            .map(|(&id, _)| id)
            .collect();
        if self.is_more_claimed(now, &counted) {
            return false;
        }
        let mut waits = false;
        for id in counted {
            waits |= self.status_is_stale(now, id, since);
        }
        !waits
    }

    /// Whether the last applied block has been new for so long that a claim of more than a few others
    /// is false.
    fn is_abreast(&mut self, now: Instant) -> bool {
        let Some(at) = self.abreast.certain_at(self.config.peer_deadline) else {
            return false;
        };
        if now < at {
            self.timers.set_earlier(Timer::CaughtUp, at);
        }
        now >= at
    }

    /// Whether somebody claims more than we have and may still deliver it. Once there are peers whose
    /// blocks were applied, all others together keep the sync from ending for one deadline and no
    /// longer, however often they come and go.
    fn is_more_claimed(&mut self, now: Instant, counted: &[PeerId]) -> bool {
        let next = self.first();
        let far = next.plus(FAR);
        let is_far = |peer: &Peer| {
            peer.is_proven() && peer.missed == 0 && peer.serves().is_some_and(|it| it.1 > far)
        };
        if !self.has_proven() || self.peers.values().any(is_far) {
            self.forget_patience();
        }
        let (mut known, mut strange) = (false, false);
        for &id in counted {
            let proven = self.peers.get(&id).is_some_and(Peer::is_proven);
            if self.claim_is_open(now, id) {
                *(if proven { &mut known } else { &mut strange }) = true;
            }
        }
        let wanted = [next, next.next()]
            .into_iter()
            .filter(|it| self.wanted.contains(it));
        for height in wanted.collect::<Vec<_>>() {
            let serves = |peer: &Peer| {
                let range = peer.serves();
                peer.is_proven() && range.is_some_and(|it| it.0 <= height && height <= it.1)
            };
            let has_known = self.peers.values().any(serves);
            *(if has_known { &mut known } else { &mut strange }) = true;
        }
        if known || !strange || !self.has_proven() {
            return known || strange;
        }
        let since = *self.strangers_since.get_or_insert(now);
        let end = since + self.config.peer_deadline;
        if now < end {
            self.timers.set_earlier(Timer::CaughtUp, end);
        }
        now < end
    }

    /// Whether a peer claims a block that would pin the next one, and has not failed to deliver. That
    /// is the block above, or, where the commit in that one fails though it may be final all the
    /// same, the one above that.
    fn claim_is_open(&mut self, now: Instant, id: PeerId) -> bool {
        let mut closing = self.first().next();
        loop {
            if self.claim_is_open_at(now, id, closing) {
                return true;
            }
            if self.held(closing).is_none_or(|held| !held.no_close) {
                return false;
            }
            closing = closing.next();
        }
    }

    /// The same for the block at `closing`. Once nothing else moves, it is asked.
    fn claim_is_open_at(&mut self, now: Instant, id: PeerId, closing: Height) -> bool {
        let next = self.first();
        let Some(peer) = self.peers.get(&id) else {
            return false;
        };
        if peer.refuted.contains(&next) || peer.refuted.contains(&closing) {
            return false;
        }
        // Who missed deadlines is waited for less and less, whatever it claims next.
        let patience = self.config.peer_deadline / (1u32 << peer.missed.min(16));
        let asks = [peer.asks.get(&next), peer.asks.get(&closing)];
        let size = self.block_size.get();
        let due =
            |ask: &Ask| ask.at + patience + peer.excuse(ask, size) + peer.held_back_since(ask);
        if let Some(end) = asks.into_iter().flatten().map(due).max() {
            if peer.missed == 0 {
                return true;
            }
            if now < end {
                self.timers.set_earlier(Timer::CaughtUp, end);
            }
            return now < end;
        }
        if patience < self.config.hedge_after.0 {
            return false;
        }
        let claims = peer
            .range
            .is_some_and(|range| range.base() <= next && range.height() >= closing);
        if !claims {
            return false;
        }
        let mut patience = self.applied_at.max(peer.joined) + self.config.hedge_after.1;
        if self.is_arriving(next) || self.is_arriving(closing) {
            patience = patience.max(now + self.config.hedge_after.0);
        }
        if now < patience {
            self.timers.set_earlier(Timer::CaughtUp, patience);
        } else if peer.asks.len() < self.config.peer_allowance {
            let height = if self.held(next).is_some() {
                closing
            } else {
                next
            };
            self.ask_beyond(now, id, height);
        }
        true
    }

    /// Asks a peer for a height that others may be asked for too.
    pub(super) fn ask_beyond(&mut self, now: Instant, id: PeerId, height: Height) {
        while height >= self.first() && self.index(height).is_none() {
            let end = self.first().plus(self.slots.len() as i64);
            self.slots.push_back(Slot::new());
            self.wanted.insert(end);
        }
        self.ask(now, id, height);
    }

    /// Whether a peer has yet to answer a status request made after `since`, and still may.
    fn status_is_stale(&mut self, now: Instant, id: PeerId, since: Instant) -> bool {
        let deadline = self.config.peer_deadline;
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        if peer.status_answered.is_some_and(|asked| asked >= since) {
            return false;
        }
        // On a chain that does not stand, who answers slowly could keep it from ending for ever.
        let due = peer.status_due(now, deadline);
        if peer.status_owed.is_none() {
            self.ask_status(now, id);
        }
        if now < due {
            self.timers.set_earlier(Timer::CaughtUp, due);
        }
        now < due
    }
}
