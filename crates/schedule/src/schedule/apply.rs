//! Certified blocks go to the executor in order, each with its extended commit where the chain
//! has them.

use std::{sync::Arc, time::Instant};

use perihelion_types::{ExtendedCommit, FetchedBlock, Hash, Height, PeerId, Rules, ValidatorSet};

use super::Schedule;
use crate::{
    Effect, Reception, StallReason,
    slot::{Exclusion, Extended, Stage},
    timer::Timer,
};

/// A block was applied: what of the new state the schedule needs.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its height.
    pub height: Height,
    /// The set of the height two above, as the new state has it.
    pub next_validators: Arc<ValidatorSet>,
    /// From which height on blocks need extended commits, by the new state's parameters.
    pub extensions_from: Option<Height>,
    /// Our own voting power in the set of the height above.
    pub own_power: i64,
}

impl Schedule {
    /// The executor applied the next block.
    pub fn handle_applied(&mut self, now: Instant, applied: Applied) {
        self.tick(now);
        let height = applied.height;
        if height != self.first() {
            return;
        }
        let Some(slot) = self.slots.pop_front() else {
            return;
        };
        self.wanted.remove(&height);
        self.parked.remove(&height);
        self.strike_all(height, &slot.asks);
        if let Some(held) = slot.held {
            self.held_bytes -= held.bytes;
            self.applied = (height, held.block.block_id());
            self.abreast.applied(now, held.block.block().header.time);
            if let Some(sender) = self.peers.get_mut(&held.from) {
                sender.redeem();
            }
        }
        self.applied_at = now;
        self.applying_to = self.applying_to.max(height);
        // Before consensus each signature of the last commit counts, not just 2/3.
        self.last_commit_verified = self.needs_extended(height) && slot.extended == Extended::Good;
        self.last_validators = Some(Arc::clone(&self.anchors.current));
        self.anchors.applied(&applied.next_validators);
        self.advance_anchor();
        self.extensions_from = applied.extensions_from;
        self.own_power = applied.own_power;
        self.unchecked.remove(&height);
        self.forget_refuted(height);
        self.blocks_applied.add(now, 1);
        self.totals.applied += 1;
        self.stalled = None;
        self.timers.set(Timer::Stall, now + self.config.stall_after);
        self.check_extended();
        self.upkeep(now);
    }

    /// What peers failed to serve up to `height` is of no interest any more.
    pub(super) fn forget_refuted(&mut self, height: Height) {
        for peer in self.peers.values_mut() {
            while peer.refuted.first().is_some_and(|&it| it <= height) {
                peer.refuted.pop_first();
            }
        }
    }

    /// The executor could not apply a final block: a local fault, which blames nobody. With both
    /// hashes where they differ.
    pub fn handle_apply_failed(
        &mut self,
        now: Instant,
        height: Height,
        hashes: Option<(Hash, Hash)>,
    ) {
        self.tick(now);
        self.halt(match hashes {
            Some((ours, theirs)) => StallReason::LocalFault {
                height,
                ours,
                theirs,
            },
            None => StallReason::ApplyFailed { height },
        });
    }

    /// A block was handed out for applying without an extended commit, and the parameters just
    /// before its height say that it needs one: it and those above wait until one is verified.
    pub fn handle_extension_required(&mut self, now: Instant, height: Height) {
        self.tick(now);
        self.extensions_from = Some(self.extensions_from.map_or(height, |from| from.min(height)));
        let mut above = height;
        while above <= self.applying_to {
            if let Some(slot) = self.slot_mut(above)
                && let Stage::Applying(run) = slot.stage
            {
                slot.stage = Stage::Certified(run);
            }
            above = above.next();
        }
        self.applying_to = self.applying_to.min(height.prev());
        let mut above = height;
        while above <= self.certified_to {
            self.unchecked.insert(above);
            above = above.next();
        }
        self.check_extended();
        self.upkeep(now);
    }

    /// An extended commit was verified in full, or failed. A bad one costs its sender nothing but
    /// the request: an honest server may hold one.
    pub fn handle_extended_commit_verdict(
        &mut self,
        now: Instant,
        height: Height,
        from: PeerId,
        good: bool,
    ) {
        self.tick(now);
        let Some(slot) = self.slot_mut(height) else {
            return;
        };
        if slot.extended == Extended::Checking(from) {
            if good {
                slot.extended = Extended::Good;
                slot.spare = false;
            } else {
                self.lacks_extended(height, from);
            }
        }
        self.note_need(height);
        self.upkeep(now);
    }

    pub(super) fn needs_extended(&self, height: Height) -> bool {
        self.extensions_from.is_some_and(|from| height >= from)
    }

    /// Has the extended commits of certified blocks verified, or asks for some, in the order of
    /// heights up to the first one whose validators our state does not know yet.
    pub(super) fn check_extended(&mut self) {
        while let Some(&height) = self.unchecked.first() {
            let needed = self.needs_extended(height);
            let open = self.slot(height).is_some_and(|slot| {
                slot.extended == Extended::Unknown && matches!(slot.stage, Stage::Certified(_))
            });
            if needed && open && !self.verify_extended(height) {
                return;
            }
            self.unchecked.remove(&height);
        }
    }

    /// Gives the extended commit that came with a certified block to the workers; `false` when its
    /// height's validators are not known yet.
    fn verify_extended(&mut self, height: Height) -> bool {
        let Some(held) = self.held(height) else {
            return true;
        };
        let (block, from) = (Arc::clone(&held.block), held.from);
        if block.extended_commit().is_none() {
            self.lacks_extended(height, from);
            return true;
        }
        let set = if height == self.first() {
            Some(Arc::clone(&self.anchors.current))
        } else {
            self.anchors.by_hash(block.block().header.validators_hash)
        };
        let Some(set) = set else {
            return false;
        };
        if let Some(slot) = self.slot_mut(height) {
            slot.extended = Extended::Checking(from);
        }
        self.effects.push_back(Effect::VerifyExtended {
            height,
            from,
            block,
            set,
        });
        true
    }

    /// A peer's copy has no good extended commit: others are asked, for this height and for all
    /// others whose extended commit is from the same peer and was not looked at yet.
    fn lacks_extended(&mut self, height: Height, from: PeerId) {
        if let Some(slot) = self.slot_mut(height) {
            slot.extended = Extended::Wanting;
            slot.exclude(from, Exclusion::SetAside);
        }
        self.note_need(height);
        let Some(known) = self.peers.get_mut(&from) else {
            return;
        };
        known.set_aside += 1;
        if known.bench(self.now, self.config.bench) {
            let mut above = height.next();
            while above < self.end() {
                self.want_spare(above, from);
                above = above.next();
            }
        }
    }

    /// Asks for another extended commit than that of `from`, if the one that is here is from it.
    pub(super) fn want_spare(&mut self, height: Height, from: PeerId) {
        let open = self.needs_extended(height)
            && self.slot(height).is_some_and(|slot| {
                let held = slot.held.as_ref();
                slot.extended == Extended::Unknown
                    && !slot.spare
                    && held.is_some_and(|held| held.from == from)
            });
        if open && self.is_trusted_with(self.now, height) {
            if let Some(slot) = self.slot_mut(height) {
                slot.spare = true;
                slot.exclude(from, Exclusion::SetAside);
            }
            self.note_need(height);
        }
    }

    /// Another copy of a held block came: its extended commit takes the place of the one that is
    /// wanting, or in doubt.
    pub(super) fn offer_extended(&mut self, peer: PeerId, block: Arc<FetchedBlock>) -> Reception {
        let height = block.height();
        let Some(slot) = self.slot_mut(height) else {
            return Reception::Late;
        };
        let wanting = slot.extended == Extended::Wanting;
        let doubtful = slot.spare && slot.extended == Extended::Unknown;
        if !wanting && !doubtful {
            return Reception::Late;
        }
        let Some(held) = slot.held.as_mut() else {
            return Reception::Late;
        };
        let same = held.block.block_id().hash == block.block_id().hash;
        let copy = if held.block.block_id() == block.block_id() {
            block.extended_commit().is_some().then_some(block)
        } else {
            // The block is held in its own encoding already. What is kept shares no memory with
            // the copy, which nothing counts.
            let own = block.extended_commit().filter(|_| same);
            let own =
                own.and_then(|own| ExtendedCommit::decode_by(own.encode(), Rules::STORED).ok());
            own.map(|own| Arc::new(held.block.with_extended_commit(own)))
        };
        let Some(copy) = copy else {
            slot.spare = false;
            if wanting {
                self.lacks_extended(height, peer);
            }
            return Reception::Refused;
        };
        held.block = copy;
        held.from = peer;
        let bytes = held.block.memory();
        let before = std::mem::replace(&mut held.bytes, bytes);
        slot.extended = Extended::Unknown;
        slot.spare = false;
        self.held_bytes = self.held_bytes + bytes - before;
        if height <= self.certified_to {
            self.unchecked.insert(height);
            self.check_extended();
        }
        if self.is_benched(peer) {
            self.want_spare(height, peer);
        }
        Reception::Wanted
    }

    /// Hands certified blocks out, in order, a bounded number ahead of the executor.
    pub(super) fn send_applies(&mut self) {
        if self.halted.is_some() || !self.has_executor {
            return;
        }
        let end = self.applied.0.plus(self.config.applying as i64);
        while self.applying_to < end {
            let height = self.applying_to.next();
            let extended = self.needs_extended(height);
            let Some(slot) = self.slot_mut(height) else {
                return;
            };
            let Stage::Certified(run) = slot.stage else {
                return;
            };
            if extended && slot.extended != Extended::Good {
                return;
            }
            slot.stage = Stage::Applying(run);
            self.applying_to = height;
            self.effects.push_back(Effect::Apply {
                height,
                run,
                extended,
            });
        }
    }
}
