//! What becomes of a copy of a block: held, kept instead of another, or left.

use std::{sync::Arc, time::Instant};

use perihelion_types::{FetchedBlock, Height, PeerId};

use super::{Schedule, link};
use crate::{
    CommitFault, Fault, Reception,
    slot::{Content, Extended, Held, Stage},
};

impl Schedule {
    /// A block came from a peer: the books of the request are closed. `None` when it was never
    /// asked for, `false` when the height is not in the window any more.
    pub(super) fn take_delivery(
        &mut self,
        now: Instant,
        peer: PeerId,
        height: Height,
        bytes: usize,
    ) -> Option<bool> {
        let most = self.config.peer_allowance;
        let Some(known) = self.peers.get_mut(&peer) else {
            return Some(false);
        };
        let ask = known.take_ask(height);
        // Asked twice, it may answer twice.
        if ask.is_none() && !known.take_overdue(height) {
            self.punish(peer, Fault::Unsolicited { height }, false);
            return None;
        }
        if let Some(ask) = ask {
            known.answered(now, ask, true, most);
        }
        known.delivered(now, bytes);
        known.delivered_to = known.delivered_to.max(height);
        known.refuted.remove(&height);
        if let Some(ask) = ask {
            self.strike(height, ask);
        }
        self.note_size(bytes);
        self.bytes_received.add(now, bytes as u64);
        self.totals.blocks_received += 1;
        self.totals.bytes_received += bytes as u64;
        self.after_answer(peer);
        let Some(slot) = self.slot_mut(height) else {
            return Some(false);
        };
        slot.unask(peer);
        Some(true)
    }

    /// Takes a copy of a height in the window, or leaves it.
    pub(super) fn place(&mut self, peer: PeerId, block: Arc<FetchedBlock>) -> Reception {
        let height = block.height();
        let content = Content::of(&block);
        let Some(slot) = self.slot_mut(height) else {
            return Reception::Late;
        };
        slot.remember(peer, content);
        let open = !matches!(slot.stage, Stage::Certified(_) | Stage::Applying(_));
        if open && self.hearings.contains_key(&peer) {
            self.set_aside(height, peer, content, None);
            return Reception::Refused;
        }
        let Some(slot) = self.slot_mut(height) else {
            return Reception::Late;
        };
        let reception = match slot.stage {
            Stage::Wanted | Stage::Asked => self.accept(peer, block, content),
            Stage::Here | Stage::Linked if slot.seek => self.replace(peer, block, content),
            Stage::Here | Stage::Linked | Stage::Certifying(_) => self.offer_extended(peer, block),
            Stage::Certified(_) | Stage::Applying(_) => {
                self.judge(height);
                self.offer_extended(peer, block)
            }
        };
        self.note_need(height);
        reception
    }

    /// Holds a block at a height that has none.
    pub(super) fn accept(
        &mut self,
        peer: PeerId,
        block: Arc<FetchedBlock>,
        content: Content,
    ) -> Reception {
        let height = block.height();
        let block = match self.fit(peer, block) {
            Ok(block) => block,
            Err(reception) => return reception,
        };
        if height > self.initial_height && !link::commit_fits(block.block()) {
            self.set_aside(height, peer, content, Some(CommitFault::DoesNotFit));
            self.refute(height, peer);
            return Reception::Refused;
        }
        let validators = block.block().header.validators_hash;
        if height == self.initial_height && validators != self.anchors.anchor.1 {
            // Whoever connects can send this: it is held against nobody but the sender.
            if let Some(known) = self.peers.get_mut(&peer) {
                known.unfitting = Some(validators);
            }
            self.set_aside(height, peer, content, None);
            self.refute(height, peer);
            return Reception::Refused;
        }
        let bytes = block.memory();
        self.held_bytes += bytes;
        if let Some(slot) = self.slot_mut(height) {
            slot.held = Some(Held {
                block,
                from: peer,
                bytes,
                content,
                no_close: false,
            });
            slot.stage = Stage::Here;
            slot.seek = false;
            slot.reencoded = false;
            slot.probed = false;
            slot.extended = Extended::Unknown;
            slot.spare = false;
        }
        if self.is_benched(peer) {
            self.want_spare(height, peer);
        }
        self.shed(height);
        if self.held(height).is_some() {
            Reception::Wanted
        } else {
            Reception::Late
        }
    }

    /// A second copy of a height whose first one is in doubt: another content takes the first one's
    /// place. The same one from somebody else ends the doubt, unless its last commit has failed:
    /// then the next peer is asked.
    fn replace(&mut self, peer: PeerId, block: Arc<FetchedBlock>, content: Content) -> Reception {
        let height = block.height();
        if let Some(held) = self.held(height)
            && held.content == content
        {
            if held.no_close {
                self.refute(height, peer);
            } else if held.from != peer {
                self.confirm(height);
            }
            return Reception::Late;
        }
        self.drop_block(height);
        self.accept(peer, block, content)
    }

    /// Lets go of a block that is not final; its height is wanted again. Runs that it is part of are
    /// taken back.
    pub(super) fn drop_block(&mut self, height: Height) {
        if height <= self.certified_to {
            return;
        }
        if self
            .slot(height)
            .is_some_and(|slot| matches!(slot.stage, Stage::Certifying(_)))
        {
            self.cancel_runs();
        }
        let Some(slot) = self.slot_mut(height) else {
            return;
        };
        let Some(held) = slot.held.take() else {
            return;
        };
        slot.stage = if slot.asks.is_empty() {
            Stage::Wanted
        } else {
            Stage::Asked
        };
        slot.probed = false;
        self.held_bytes -= held.bytes;
        self.unlink(height);
        self.note_need(height);
    }
}
