//! Which height is asked of whom, and when that is given up.

use std::time::Instant;

use perihelion_types::{Height, HeightRange, PeerId};

use super::Schedule;
use crate::{
    Effect, Mode,
    peer::{Ask, Peer},
    slot::{Exclusion, Stage},
    timer::Timer,
};

/// How many times as large as the mean a block counts at the most. Larger, and one that is made up makes
/// the window small for all others; smaller, and it takes longer until blocks that grew are expected.
const STEP: f64 = 8.0;

/// Peers among which the window is shared out at the most. More, and each one's share would not use up a
/// link that is long and wide: a sixteenth of 64 MiB is 40 MB/s from 100 ms away.
const SHARERS: usize = 16;

impl Schedule {
    /// Whether requests are made at all.
    pub(super) fn is_syncing(&self) -> bool {
        self.mode != Mode::WaitForPeers && self.halted.is_none()
    }

    /// Bytes that a block is expected to take. Above the mean, since sizes vary; before there is one,
    /// what it may take: requests cannot be taken back, and those that turn out to be of blocks that
    /// nobody has room for are in the way of all that come later.
    pub(super) fn expected_size(&self) -> usize {
        let mean = self.block_size.get();
        mean.map_or(self.largest_block, |mean| (mean * 1.25) as usize + 1)
    }

    /// Bytes that are on their way, as far as can be told: what was asked for counts as what blocks were
    /// then, or as what they are now, if that is more.
    pub(super) fn expected_bytes(&self) -> usize {
        let now = self.asked.saturating_mul(self.expected_size());
        now.max(self.expected_then)
    }

    /// Takes a request off the books. Who still owes a height that was applied stands in nobody's way.
    pub(super) fn strike(&mut self, height: Height, ask: Ask) {
        if height >= self.first() {
            self.asked -= 1;
            self.expected_then -= ask.expected;
        }
    }

    /// The same for all requests for a height, which leaves the window as the lowest.
    pub(super) fn strike_all(&mut self, height: Height, asked: &[PeerId]) {
        for peer in asked {
            let ask = self.peers.get(peer).and_then(|peer| peer.asks.get(&height));
            if let Some(&ask) = ask {
                self.strike(height, ask);
            }
        }
    }

    /// A block of so many bytes came, which anybody may have made up: what is expected goes up step by
    /// step.
    pub(super) fn note_size(&mut self, bytes: usize) {
        let most = match self.block_size.get() {
            Some(mean) => mean * STEP + STEP,
            None => self.largest_block as f64,
        };
        self.block_size.add((bytes as f64).min(most));
    }

    /// How many blocks one peer may owe: its share of the window, or two blocks. Of large blocks whoever
    /// comes first would be asked for all that there is room for, and whoever comes later for nothing.
    /// Among those who are relied on it is shared, if there are any.
    fn most_of_one_peer(&self) -> usize {
        let (next, has_proven) = (self.first(), self.has_proven());
        let shares = self.peers.values().filter(|peer| {
            // Whoever has not told yet is about to.
            let serves = peer
                .serves()
                .map_or(peer.range.is_none(), |(_, top)| top >= next);
            serves && !peer.is_benched(self.now) && (peer.is_proven() || !has_proven)
        });
        let share = self.config.window_bytes / shares.take(SHARERS).count().max(1);
        (share / self.expected_size()).max(2)
    }

    /// Whether there is room in the window for one more block.
    pub(super) fn has_room(&self) -> bool {
        let expected = self.expected_bytes().saturating_add(self.expected_size());
        self.held_bytes.saturating_add(expected) <= self.config.window_bytes
    }

    /// Gives every peer with room the lowest height that it can serve, the quickest first of those
    /// whose blocks were applied, and those last that are asked only for what nobody else can be
    /// asked for. The others are asked for little, all together, once there are proven ones.
    pub(super) fn fill(&mut self, now: Instant) {
        let looks_out = self.mode == Mode::Consensus;
        if !self.is_syncing() || (looks_out && !self.is_someone_ahead(now)) {
            return;
        }
        let noticed_by = now.checked_sub(self.config.lookout_after);
        self.ask_for_the_next(now);
        let mut idle: Vec<PeerId> = Vec::new();
        let has_proven = self.has_proven();
        let most = self.most_of_one_peer();
        loop {
            let size = self.expected_size() as f64;
            let are_strangers_busy =
                has_proven && self.asked_of_strangers() >= self.config.first_allowance;
            let candidate = self
                .peers
                .iter()
                .filter(|(id, peer)| {
                    let known = peer.is_proven() || !are_strangers_busy;
                    let open = !looks_out || peer.is_ahead_since(noticed_by);
                    known
                        && open
                        && peer.has_room(most)
                        && peer.serves().is_some()
                        && !idle.contains(id)
                })
                .map(|(&id, peer)| {
                    let rank = (peer.is_benched(now), !peer.is_proven());
                    (rank, peer.cost(size), id)
                })
                .min_by(|a, b| {
                    let rank = a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
                    rank.then(a.2.cmp(&b.2))
                });
            let Some(((benched, _), _, peer)) = candidate else {
                break;
            };
            let found = if benched {
                self.find_forsaken(now, peer)
            } else {
                self.find_height(peer)
            };
            match found {
                Some(height) => self.ask(now, peer, height),
                None => idle.push(peer),
            }
        }
        self.park();
        self.watch_frontier(now);
    }

    /// What everything waits for is asked at once of the best peer, whatever its allowance; not
    /// again of one that still owes it.
    fn ask_for_the_next(&mut self, now: Instant) {
        let reserve = self.reserve();
        let next: Vec<Height> = self.wanted.range(..=reserve).copied().collect();
        for height in next {
            let owing = |peer: &Peer| peer.overdue.contains_key(&height);
            let owing = self.peers.iter().filter(|(_, peer)| owing(peer));
            let owing: Vec<PeerId> = owing.map(|(&id, _)| id).collect();
            if let Some(peer) = self.second_for(height, &owing, false) {
                self.ask(now, peer, height);
            }
        }
    }

    /// The height above the window.
    pub(super) fn end(&self) -> Height {
        self.first().plus(self.slots.len() as i64)
    }

    /// Up to this height requests are made whatever the budget: the block that is applied next and
    /// the one whose commit certifies it.
    pub(super) fn reserve(&self) -> Height {
        self.certified_to.plus(2)
    }

    /// Asks one peer for one height.
    pub(super) fn ask(&mut self, now: Instant, peer: PeerId, height: Height) {
        let is_known = self.block_size.get().is_some();
        let expected = if is_known { self.expected_size() } else { 0 };
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        known.ask(now, height, expected);
        self.asked += 1;
        self.expected_then += expected;
        self.after_answer(peer);
        if let Some(slot) = self.slot_mut(height) {
            slot.asks.push(peer);
            if slot.stage == Stage::Wanted {
                slot.stage = Stage::Asked;
            }
        }
        self.wanted.remove(&height);
        self.parked.remove(&height);
        self.effects.push_back(Effect::Request { peer, height });
    }

    /// Heights below what is asked that no peer may be asked for are set apart, so that they are
    /// not looked at again at every input; they come back with a new peer or status, or after a
    /// while.
    fn park(&mut self) {
        let mut parked = Vec::new();
        for &height in self.wanted.iter().take(16) {
            let served = self.slot(height).is_some_and(|slot| {
                self.peers.iter().any(|(&id, peer)| {
                    peer.serves()
                        .is_some_and(|(base, top)| base <= height && height <= top)
                        && !slot.is_excluded(id)
                })
            });
            if !served {
                parked.push(height);
            }
        }
        for height in parked {
            self.wanted.remove(&height);
            self.parked.insert(height);
            self.timers
                .set_earlier(Timer::Retry, self.now + self.config.retry_after);
        }
    }

    /// Heights that nobody could serve are offered to everybody again: peers that were late once
    /// may be the only ones that have them.
    pub(super) fn retry(&mut self) {
        let parked = std::mem::take(&mut self.parked);
        for height in parked {
            if let Some(slot) = self.slot_mut(height) {
                slot.excluded.retain(|&(_, why)| why == Exclusion::NoBlock);
            }
            self.note_need(height);
        }
    }

    /// A peer's range moved: what it lacked before it may have now.
    pub(super) fn readmit(&mut self, peer: PeerId, range: HeightRange) {
        for slot in &mut self.slots {
            if !slot.excluded.is_empty() {
                slot.excluded
                    .retain(|&(other, why)| other != peer || why != Exclusion::NoBlock);
            }
        }
        let back: Vec<Height> = self
            .parked
            .range(range.base()..=range.height())
            .copied()
            .collect();
        for height in back {
            self.parked.remove(&height);
            self.note_need(height);
        }
    }

    /// A request did not bring a block: the height is asked of others.
    pub(super) fn give_up(&mut self, peer: PeerId, height: Height, why: Exclusion) {
        if let Some(slot) = self.slot_mut(height) {
            slot.unask(peer);
            slot.exclude(peer, why);
        }
        self.hear_nothing(peer, height);
        self.note_need(height);
    }

    /// The peer's deadline follows its oldest request.
    pub(super) fn after_answer(&mut self, peer: PeerId) {
        match self.deadline_of(peer) {
            Some(at) => self.timers.set(Timer::Peer(peer), at),
            None => self.timers.stop(Timer::Peer(peer)),
        }
    }

    /// When a peer's oldest request is overdue.
    pub(super) fn deadline_of(&self, peer: PeerId) -> Option<Instant> {
        let known = self.peers.get(&peer)?;
        known.deadline(self.config.peer_deadline, self.config.hedge_after.0)
    }

    /// A peer's deadline has passed. All that it owes is asked of others; it may still answer.
    pub(super) fn peer_is_late(&mut self, now: Instant, peer: PeerId) {
        match self.deadline_of(peer) {
            Some(at) if at > now => {
                self.timers.set(Timer::Peer(peer), at);
                return;
            }
            Some(_) => {}
            None => return,
        }
        let deadline = self.config.peer_deadline;
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        let late = known.late(now, deadline);
        known.stalls += 1;
        known.missed += u32::from(known.is_silent(now, deadline));
        known.shrink(known.is_silent(now, deadline));
        known.bench(now, self.config.bench);
        for height in late {
            let Some(known) = self.peers.get_mut(&peer) else {
                return;
            };
            if let Some(ask) = known.give_up(now, height, deadline * 30) {
                self.strike(height, ask);
            }
            self.give_up(peer, height, Exclusion::Late);
        }
        self.after_answer(peer);
    }

    /// Forgets a peer and everything that it owes.
    pub(super) fn remove_peer(&mut self, peer: PeerId) {
        let Some(known) = self.peers.remove(&peer) else {
            return;
        };
        self.hearings.remove(&peer);
        self.timers.stop(Timer::Peer(peer));
        self.timers.stop(Timer::Status(peer));
        for slot in &mut self.slots {
            slot.forget(peer);
        }
        for (height, ask) in known.asks {
            self.strike(height, ask);
            self.note_need(height);
        }
    }

    /// Where the held bytes are above the budget, the farthest blocks that nothing was built on
    /// yet go, and are asked for again later.
    pub(super) fn shed(&mut self, arrived: Height) {
        if self.held_bytes <= self.config.window_bytes {
            return;
        }
        let reserve = self.reserve();
        let mut height = self.first().plus(self.slots.len() as i64 - 1);
        while self.held_bytes > self.config.window_bytes && height > reserve {
            let stage = self.slot(height).map(|slot| slot.stage);
            let farther = height >= arrived || height > self.linked_to;
            if farther && matches!(stage, Some(Stage::Here | Stage::Linked)) {
                self.drop_block(height);
                self.totals.shed += 1;
            }
            height = height.prev();
        }
        self.trim();
    }

    /// The permits for bytes on their way are spent, and the next block cannot come in: half of
    /// what is held far from the apply height goes.
    pub fn handle_starved(&mut self, now: Instant) {
        self.tick(now);
        let goal = self.held_bytes / 2;
        let reserve = self.reserve();
        let mut height = self.first().plus(self.slots.len() as i64 - 1);
        while self.held_bytes > goal && height > reserve {
            let stage = self.slot(height).map(|slot| slot.stage);
            if matches!(stage, Some(Stage::Here)) {
                self.drop_block(height);
                self.totals.shed += 1;
            }
            height = height.prev();
        }
        self.trim();
        self.upkeep(now);
    }

    /// Who was asked, lately or long ago, for a block that everything waits for, and may still send it:
    /// those first that are to be relied on most.
    #[must_use]
    pub fn who_owes_the_next(&self) -> Vec<PeerId> {
        let next = self.first()..=self.reserve().max(self.first());
        let is_missing = |height: &Height| {
            let slot = self.slot(*height);
            slot.is_none_or(|slot| slot.held.is_none() || slot.seeks_copy())
        };
        let owes = |peer: &Peer| {
            let asked = peer.asks.range(next.clone()).map(|(height, _)| height);
            let overdue = peer.overdue.range(next.clone()).map(|(height, _)| height);
            asked.chain(overdue).any(is_missing)
        };
        let mut owing: Vec<_> = self.peers.iter().filter(|(_, peer)| owes(peer)).collect();
        owing.sort_by_key(|(_, peer)| peer.standing(self.now));
        owing.into_iter().map(|(&id, _)| id).collect()
    }

    /// Cuts wanted heights off the far end of the window; they come back as it advances.
    fn trim(&mut self) {
        while self.slots.back().is_some_and(|slot| {
            slot.stage == Stage::Wanted && slot.attempts.is_empty() && slot.expected.is_none()
        }) {
            let height = self.first().plus(self.slots.len() as i64 - 1);
            self.slots.pop_back();
            self.wanted.remove(&height);
            self.parked.remove(&height);
        }
    }

    /// Asks a peer for its status now, and sets the next time.
    pub(super) fn ask_status(&mut self, now: Instant, peer: PeerId) {
        let interval = self.status_interval(peer);
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        known.status_owed.get_or_insert(now);
        self.effects.push_back(Effect::AskStatus { peer });
        self.timers.set(Timer::Status(peer), now + interval);
    }

    /// Seldom while the peer's claim is far above what is here, often near its end.
    fn status_interval(&self, peer: PeerId) -> std::time::Duration {
        let claimed = self.peers.get(&peer).and_then(|known| known.range);
        let behind = self.certified_to > self.applied.0;
        let near = claimed.is_none_or(|range| range.height() <= self.linked_to.plus(16));
        match self.mode {
            Mode::Consensus if behind => self.config.near_interval,
            Mode::BlockSync if near => self.config.near_interval,
            _ => self.config.status_interval,
        }
    }
}
