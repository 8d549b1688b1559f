//! What is late, and is asked of a second peer.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use perihelion_types::Height;

use super::Schedule;
use crate::{
    meter::seconds,
    peer::{Ask, Peer},
    slot::Slot,
    timer::Timer,
};

/// How often late blocks are looked for within the shortest time after which one is late.
const LOOKS: u32 = 5;
/// Bytes of a block, in the mean, of which many may be asked of a peer before its first answer.
const SMALL: f64 = 64.0 * 1024.0;
/// Further peers that are asked at once, at the most, for what everything waits for; and how large a
/// share of the window their answers may take, but for one of them.
const CROWD: usize = 8;
const CROWD_SHARE: usize = 32;

impl Schedule {
    /// Sets the clock for late blocks near the apply height, and of peers that have yet to answer
    /// for the first time.
    pub(super) fn watch_frontier(&mut self, now: Instant) {
        if self.timers.get(Timer::Hedge).is_none()
            && (self.near_missing().next().is_some() || self.unproven().next().is_some())
        {
            let next = now + self.config.hedge_after.0 / LOOKS;
            self.timers.set(Timer::Hedge, next);
        }
    }

    /// How many heights count as near the apply height: with large blocks fewer, since each that is
    /// asked twice may come twice.
    fn near(&self) -> usize {
        let blocks = self.config.window_bytes / 8 / self.expected_size();
        blocks.clamp(2, self.config.hedge_depth.max(2))
    }

    /// Heights near the apply height that are asked and not here.
    fn near_missing(&self) -> impl Iterator<Item = (Height, &Slot)> {
        let first = self.first();
        self.slots
            .iter()
            .take(self.near())
            .enumerate()
            .map(move |(index, slot)| (first.plus(index as i64), slot))
            .filter(|(_, slot)| !slot.asks.is_empty() && (slot.held.is_none() || slot.seeks_copy()))
    }

    /// Heights asked of peers that have not answered anything yet, and of nobody else; once there are
    /// proven peers, of any that are not. They may be many when many silent peers join, so these are
    /// not left until everything waits for them.
    fn unproven(&self) -> impl Iterator<Item = (Height, &Slot)> {
        let proven = self.has_proven();
        self.peers
            .values()
            .filter(move |peer| !peer.has_answered() || (proven && !peer.is_proven()))
            .flat_map(|peer| peer.asks.keys())
            .filter_map(|&height| Some((height, self.slot(height)?)))
            .filter(|(_, slot)| slot.asks.len() == 1 && slot.held.is_none())
    }

    /// Whether one of those who were asked for a height may still be expected to answer in time, or
    /// cannot for want of room here.
    pub(super) fn is_timely(&self, height: Height, slot: &Slot) -> bool {
        self.may_come(height, slot, Peer::held_back_since)
    }

    /// The same; being held back is no excuse.
    fn is_on_its_way(&self, height: Height, slot: &Slot) -> bool {
        self.may_come(height, slot, |_, _| Duration::ZERO)
    }

    fn may_come(
        &self,
        height: Height,
        slot: &Slot,
        excuse: impl Fn(&Peer, &Ask) -> Duration,
    ) -> bool {
        let (least, most) = self.config.hedge_after;
        let size = self.block_size.get();
        slot.asks.iter().any(|id| {
            self.peers.get(id).is_some_and(|peer| {
                let usual = seconds(2.0 * peer.latency.get().unwrap_or(0.0));
                let ask = peer.asks.get(&height);
                ask.is_some_and(|ask| {
                    let sending = peer.excuse(ask, size) + excuse(peer, ask);
                    ask.at + usual.clamp(least, most) + sending > self.now
                })
            })
        })
    }

    /// Whether nothing at all comes from those who were asked.
    fn are_silent(&self, slot: &Slot) -> bool {
        let mut asked = slot.asks.iter().filter_map(|id| self.peers.get(id));
        asked.all(|peer| peer.is_silent(self.now, self.config.hedge_after.1))
    }

    /// Whether a large block of this height is on its way, and not late for its size.
    pub(super) fn is_arriving(&self, height: Height) -> bool {
        let Some(slot) = self.slot(height) else {
            return false;
        };
        let size = self.block_size.get();
        let large = |id| {
            let peer: Option<&Peer> = self.peers.get(id);
            let excuse = peer.and_then(|peer| {
                let ask = peer.asks.get(&height)?;
                Some(peer.excuse(ask, size) + peer.held_back_since(ask))
            });
            excuse >= Some(self.config.hedge_after.0)
        };
        slot.held.is_none() && slot.asks.iter().any(large) && self.is_timely(height, slot)
    }

    /// Asks a second peer for what is late near the apply height, and another when that one is late
    /// too.
    pub(super) fn hedge(&mut self, now: Instant) {
        let most = self.config.hedge_after.1;
        for slot in self.slots.iter_mut().take(self.config.hedge_depth) {
            slot.readmit_after(now, most);
        }
        let mut due = BTreeSet::new();
        for (place, (height, slot)) in self.near_missing().enumerate() {
            // At the two lowest, where everything waits, all may be asked in the end.
            let waits = place < 2 && slot.held.is_none();
            let crowd = if waits { usize::MAX } else { 4 };
            // There, who is held back is waited for only as long as nobody else could send it.
            let is_timely = if waits {
                self.is_on_its_way(height, slot)
            } else {
                self.is_timely(height, slot)
            };
            if !is_timely && slot.asks.len() < crowd {
                due.insert(height);
            }
        }
        let are_small = self.block_size.get().is_some_and(|size| size <= SMALL);
        let unproven = self.unproven();
        let late = unproven.filter(|(height, slot)| {
            // A copy of a large block holds up all that comes behind it, where the first one comes too.
            !self.is_timely(*height, slot) && (are_small || self.are_silent(slot))
        });
        due.extend(late.map(|(height, _)| height));
        let waits = self.reserve();
        // While nothing has come, anybody's block tells how large they are.
        let crowd = self.block_size.get().map_or(CROWD, |_| {
            let copies = self.config.window_bytes / CROWD_SHARE / self.expected_size();
            copies.clamp(1, CROWD)
        });
        for height in due {
            let slot = self.slot(height);
            let asked = slot.map(|slot| slot.asks.clone()).unwrap_or_default();
            let is_held_back = slot.is_some_and(|slot| self.is_timely(height, slot));
            // Who withholds what everything waits for must not be asked one by one.
            let missing = slot.is_some_and(|slot| slot.held.is_none());
            let more = if missing && height <= waits {
                asked.len().clamp(1, crowd)
            } else {
                1
            };
            for round in 0..more {
                let present = self.slot(height).map(|slot| slot.asks.clone());
                let present = present.unwrap_or_default();
                let Some(next) = self.second_for(height, &present, is_held_back) else {
                    break;
                };
                for late in asked.iter().filter(|_| round == 0) {
                    if let Some(peer) = self.peers.get_mut(late) {
                        let is_silent = peer.is_silent(now, most);
                        // How far away it is shows with its first answer. Large blocks take their
                        // time anyway, and too many of them on their way cost much.
                        if peer.has_answered() || is_silent || !are_small {
                            peer.shrink(false);
                        }
                        if is_silent {
                            peer.bench(now, self.config.bench);
                        }
                    }
                }
                self.ask(now, next, height);
            }
        }
        self.timers.stop(Timer::Hedge);
        self.watch_frontier(now);
    }
}
