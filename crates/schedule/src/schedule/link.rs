//! What links to what, and what to do where two blocks do not.

use std::{sync::Arc, time::Instant};

use perihelion_types::{Block, BlockId, FetchedBlock, Height, PeerId};

use super::{
    Schedule,
    hearing::Hearing,
    runs::{Probe, Purpose},
};
use crate::{
    CommitFault, Effect, Fault, ProbeRequest, Reception,
    slot::{Content, Exclusion, Stage},
};

/// Whether a block's last commit is for the block that its header names as the one before. The
/// header does not cover the commit's height and block id.
pub(super) fn commit_fits(block: &Block) -> bool {
    block.last_commit.as_ref().is_some_and(|commit| {
        commit.height == block.header.height.prev() && commit.block_id == block.header.last_block_id
    })
}

impl Schedule {
    /// Moves `linked_to` on while blocks name the one before.
    pub(super) fn link(&mut self, now: Instant) {
        loop {
            let height = self.linked_to.next();
            let Some(slot) = self.slot(height) else {
                return;
            };
            if slot.stage != Stage::Here {
                return;
            }
            let (Some(held), Some(before)) = (slot.held.as_ref(), self.id_at(height.prev())) else {
                return;
            };
            let names = held.block.block().header.last_block_id;
            if names == before {
                if let Some(slot) = self.slot_mut(height) {
                    slot.stage = Stage::Linked;
                    // What it was in doubt for, unless its commit failed, was the block below.
                    slot.seek = slot.held.as_ref().is_some_and(|held| held.no_close);
                }
                self.note_need(height);
                self.confirm(height.prev());
                self.linked_to = height;
                self.last_linked = now;
                self.waiting_since.get_or_insert(now);
            } else if !self.reencode(height.prev(), names) && !self.broken(height) {
                return;
            }
        }
    }

    /// The block above `height` links to the one that is held there, whose own commit has not failed:
    /// no other copy is looked for.
    pub(super) fn confirm(&mut self, height: Height) {
        if let Some(slot) = self.slot_mut(height)
            && slot.seek
            && slot.held.as_ref().is_some_and(|held| !held.no_close)
        {
            slot.seek = false;
            self.note_need(height);
        }
    }

    /// The block at `height` and above are linked no more.
    pub(super) fn unlink(&mut self, height: Height) {
        if self.linked_to < height {
            return;
        }
        let mut above = height;
        while above <= self.linked_to {
            if let Some(slot) = self.slot_mut(above)
                && slot.stage == Stage::Linked
            {
                slot.stage = Stage::Here;
            }
            above = above.next();
        }
        self.linked_to = height.prev();
    }

    /// Makes the block at `height` the one that the block above it names, if it is that when it is
    /// encoded canonically. That says nothing about its sender, nor about who is right: should the
    /// block above be forged, this one is asked for again.
    fn reencode(&mut self, height: Height, names: BlockId) -> bool {
        if height <= self.certified_to {
            return false;
        }
        let Some(slot) = self.slot_mut(height) else {
            return false;
        };
        let Some(held) = slot.held.as_mut() else {
            return false;
        };
        let waits = matches!(slot.stage, Stage::Here | Stage::Linked);
        if !waits || slot.reencoded || held.block.block_id().hash != names.hash {
            return false;
        }
        slot.reencoded = true;
        let canonical = held.block.reencoded();
        let Some(canonical) = canonical.filter(|it| it.block_id() == names) else {
            return false;
        };
        let bytes = canonical.memory();
        held.block = Arc::new(canonical);
        let before = std::mem::replace(&mut held.bytes, bytes);
        self.held_bytes = self.held_bytes + bytes - before;
        true
    }

    /// The block at `height` names another one than we hold below it. Says whether to look again.
    fn broken(&mut self, height: Height) -> bool {
        if height.prev() <= self.certified_to {
            return self.contradicts(height);
        }
        // Neither side is certain: what is below is verified without waiting for more, another
        // copy is asked for, and once the frontier is here the commit decides.
        let certain = self.certified_to.next() == height.prev();
        let now = self.now;
        if let Some(slot) = self.slot_mut(height)
            && slot.attempts.len() < 2
        {
            slot.doubt(now);
            self.note_need(height);
        }
        if certain {
            self.probe_frontier(height);
        }
        false
    }

    /// The block below is final and this one names another: forged, unless more than 2/3 stand
    /// behind it, and then the chain itself is broken.
    fn contradicts(&mut self, height: Height) -> bool {
        let Some(held) = self.held(height).cloned() else {
            return false;
        };
        let (below, names) = (height.prev(), held.block.block().header.last_block_id);
        let ours = self.id_at(below);
        self.drop_block(height);
        self.reopen(height);
        if let Some(slot) = self.slot_mut(height) {
            slot.exclude(held.from, Exclusion::SetAside);
        }
        self.refute(height, held.from);
        self.drop_descendants(height, held.block.block_id());
        // At the initial height nothing is certain enough to convict.
        if height > self.initial_height
            && let Some(ours) = ours
        {
            let hearing = Hearing {
                height: below,
                accused: names.hash,
                ours,
                fault: Fault::Forged { height },
                set: None,
                answer: Some(held.block),
                asked: true,
            };
            self.accuse(held.from, hearing);
        }
        true
    }

    /// The block `id` at `height` is not final: nor is any that goes back to it. They are asked of
    /// others than their senders, who are judged once other blocks are final there.
    fn drop_descendants(&mut self, height: Height, mut id: BlockId) {
        let mut above = height.next();
        while let Some(held) = self.held(above) {
            if held.block.block().header.last_block_id != id {
                return;
            }
            id = held.block.block_id();
            let from = held.from;
            self.drop_block(above);
            self.reopen(above);
            if let Some(slot) = self.slot_mut(above) {
                slot.exclude(from, Exclusion::SetAside);
            }
            if let Some(known) = self.peers.get_mut(&from) {
                known.bench(self.now, self.config.bench);
            }
            self.note_need(above);
            above = above.next();
        }
    }

    /// Has the last commit of `height` verified against the set of the height below, which is the
    /// lowest that is not certified.
    pub(super) fn probe_frontier(&mut self, height: Height) {
        let exact = self.anchors.anchor.2 == height.prev();
        if !exact || self.probe.is_some() || !self.runs.is_empty() {
            return;
        }
        let Some(held) = self.held(height).cloned() else {
            return;
        };
        if self.slot(height).is_none_or(|slot| slot.probed) {
            return;
        }
        let set = Arc::clone(&self.anchors.anchor.0);
        let purpose = Purpose::Frontier;
        self.send_probe(height, held.block, held.from, held.content, set, purpose);
    }

    /// Gives one commit to the workers.
    pub(super) fn send_probe(
        &mut self,
        height: Height,
        closing: Arc<FetchedBlock>,
        from: PeerId,
        content: Content,
        set: Arc<perihelion_types::ValidatorSet>,
        purpose: Purpose,
    ) {
        let id = self.new_run_id();
        self.probe = Some(Probe {
            id,
            height,
            from,
            content,
            names: closing.block().header.last_block_id,
            purpose,
        });
        self.effects.push_back(Effect::Probe(ProbeRequest {
            id,
            set,
            closing,
            in_full: purpose == Purpose::OwnCommit,
        }));
    }

    /// A commit was probed: it holds, or it does not.
    pub(super) fn probed(&mut self, probe: Probe, fault: Option<CommitFault>) {
        match (probe.purpose, fault) {
            (Purpose::OwnCommit, None) if probe.height.prev() == self.applied.0 => {
                self.last_commit_verified = true;
            }
            (Purpose::OwnCommit, None) => {}
            (Purpose::OwnCommit, Some(fault)) => {
                if self
                    .held(probe.height)
                    .is_some_and(|held| held.content == probe.content)
                {
                    self.doubt(probe.height, fault);
                }
            }
            (Purpose::Hearing, fault) => self.heard(probe.from, fault),
            (Purpose::Frontier, None) => self.vouched(&probe),
            (Purpose::Frontier, Some(fault)) => self.not_vouched(&probe, fault),
        }
    }

    /// The commit in `probe.height` makes the block below final, and it is not the one held.
    fn vouched(&mut self, probe: &Probe) {
        let below = probe.height.prev();
        if below != self.certified_to.next() {
            return;
        }
        if let Some(slot) = self.slot_mut(below) {
            slot.expected = Some(probe.names);
        }
        if let Some(slot) = self.slot_mut(probe.height) {
            slot.seek = false;
        }
        self.note_need(probe.height);
        let held = self.held(below).cloned();
        if held.as_ref().map(|held| held.block.block_id()) == Some(probe.names) {
            self.confirm(below);
            return;
        }
        self.drop_block(below);
        self.reopen(below);
        let Some(held) = held else {
            return;
        };
        self.accept(held.from, held.block, held.content);
        self.note_need(below);
    }

    /// The commit in `probe.height` does not hold: that block is set aside, and since the one
    /// below may be wrong all the same, another copy of it is asked for too.
    fn not_vouched(&mut self, probe: &Probe, fault: CommitFault) {
        let still = self
            .held(probe.height)
            .is_some_and(|held| held.content == probe.content);
        if !still {
            return;
        }
        self.drop_block(probe.height);
        let unconfirmed = probe.height.prev() <= self.initial_height;
        let fault = (!unconfirmed).then_some(fault);
        self.set_aside(probe.height, probe.from, probe.content, fault);
        self.refute(probe.height, probe.from);
        self.seek_other(probe.height.prev());
    }

    /// Asks for another copy of a held block, while keeping it.
    pub(super) fn seek_other(&mut self, height: Height) {
        let now = self.now;
        let Some(slot) = self.slot_mut(height) else {
            return;
        };
        if !matches!(slot.stage, Stage::Here | Stage::Linked) {
            return;
        }
        slot.doubt(now);
        self.note_need(height);
    }

    /// Holds a block against the id that a verified commit names for its height, if one does.
    pub(super) fn fit(
        &mut self,
        peer: PeerId,
        block: Arc<FetchedBlock>,
    ) -> Result<Arc<FetchedBlock>, Reception> {
        let height = block.height();
        let Some(expected) = self.slot(height).and_then(|slot| slot.expected) else {
            return Ok(block);
        };
        if block.block_id() == expected {
            return Ok(block);
        }
        if block.block_id().hash != expected.hash {
            if height > self.initial_height {
                let hearing = Hearing {
                    height,
                    accused: block.block_id().hash,
                    ours: expected,
                    fault: Fault::Forged { height },
                    set: None,
                    answer: None,
                    asked: false,
                };
                self.accuse(peer, hearing);
            }
        } else if let Some(canonical) = block.reencoded()
            && canonical.block_id() == expected
        {
            return Ok(Arc::new(canonical));
        }
        self.set_aside(height, peer, Content::of(&block), None);
        self.refute(height, peer);
        Err(Reception::Refused)
    }
}
