//! Certified blocks go to the executor in order, each with its extended commit where the chain
//! has them.

use std::{sync::Arc, time::Instant};

use perihelion_types::{FetchedBlock, Hash, Height, PeerId, ValidatorSet};

use super::Schedule;
use crate::{
    Effect, Mode, Reception, StallReason,
    slot::{Exclusion, Extended, Slot, Stage},
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
        if let Some(held) = slot.held {
            self.held_bytes -= held.bytes;
            self.applied = (height, held.block.block_id());
        }
        self.applied_at = now;
        self.applying_to = self.applying_to.max(height);
        // Before consensus each signature of the last commit counts, not just 2/3.
        self.last_commit_verified =
            slot.own_commit_in_full || (slot.own_commit && self.config.follow);
        self.last_validators = Some(Arc::clone(&self.anchors.current));
        self.anchors.applied(&applied.next_validators);
        self.advance_anchor();
        self.extensions_from = applied.extensions_from;
        self.own_power = applied.own_power;
        for peer in self.peers.values_mut() {
            while peer
                .refuted
                .first()
                .is_some_and(|&refuted| refuted <= height)
            {
                peer.refuted.pop_first();
            }
        }
        self.blocks_applied.add(now, 1);
        self.totals.applied += 1;
        self.stalled = None;
        self.timers.set(Timer::Stall, now + self.config.stall_after);
        self.check_extended(height.next());
        self.upkeep(now);
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
            self.check_extended(above);
            above = above.next();
        }
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
            slot.extended = if good {
                Extended::Good
            } else {
                Extended::Wanting
            };
            if !good {
                self.lacks_extended(height, from);
            }
        }
        self.note_need(height);
        self.upkeep(now);
    }

    pub(super) fn needs_extended(&self, height: Height) -> bool {
        self.extensions_from.is_some_and(|from| height >= from)
    }

    /// Has the extended commit of a certified block verified, or asks for one.
    pub(super) fn check_extended(&mut self, height: Height) {
        if !self.needs_extended(height) {
            return;
        }
        let ready = |slot: &Slot| {
            slot.extended == Extended::Unknown && matches!(slot.stage, Stage::Certified(_))
        };
        if !self.slot(height).is_some_and(ready) {
            return;
        }
        let Some(held) = self.held(height) else {
            return;
        };
        let (block, from) = (Arc::clone(&held.block), held.from);
        if block.extended_commit().is_none() {
            if let Some(slot) = self.slot_mut(height) {
                slot.extended = Extended::Wanting;
            }
            self.lacks_extended(height, from);
        } else {
            self.verify_extended(height, from, block);
        }
    }

    /// Gives an extended commit to the workers, once its height's set is known.
    fn verify_extended(&mut self, height: Height, from: PeerId, block: Arc<FetchedBlock>) -> bool {
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

    /// A peer's copy has no good extended commit: others are asked.
    fn lacks_extended(&mut self, height: Height, from: PeerId) {
        if let Some(slot) = self.slot_mut(height) {
            slot.exclude(from, Exclusion::SetAside);
        }
        if let Some(known) = self.peers.get_mut(&from) {
            known.set_aside += 1;
        }
        self.note_need(height);
    }

    /// Another copy of a certified block came: its extended commit may be what is missing.
    pub(super) fn offer_extended(&mut self, peer: PeerId, block: Arc<FetchedBlock>) -> Reception {
        let height = block.height();
        let wanting = self
            .slot(height)
            .is_some_and(|slot| slot.extended == Extended::Wanting);
        if !wanting {
            return Reception::Late;
        }
        let same = self
            .held(height)
            .is_some_and(|held| held.block.block_id().hash == block.block_id().hash);
        if same && block.extended_commit().is_some() && self.verify_extended(height, peer, block) {
            return Reception::Wanted;
        }
        self.lacks_extended(height, peer);
        Reception::Refused
    }

    /// Hands certified blocks out, in order, a bounded number ahead of the executor.
    pub(super) fn send_applies(&mut self) {
        if self.halted.is_some() || self.mode == Mode::Consensus {
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
