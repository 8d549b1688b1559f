//! Who lied: decided when a height is final, by comparing what was delivered for it.

use perihelion_types::{BlockId, Height, PeerId};

use super::Schedule;
use crate::{
    CommitFault, Effect, Fault, StallReason,
    slot::{Content, Exclusion},
};

impl Schedule {
    /// Disconnects a peer and forgets it. Blocks that it delivered and that are not certain yet go
    /// when it lied.
    pub(super) fn punish(&mut self, peer: PeerId, fault: Fault, ban: bool) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        self.remove_peer(peer);
        self.effects.push_back(Effect::Punish { peer, fault, ban });
    }

    /// A peer lied about a block: it is banned, and nothing of it that is not certain is kept.
    pub(super) fn convict(&mut self, peer: PeerId, fault: Fault) {
        self.punish(peer, fault, true);
        self.drop_blocks_of(peer);
    }

    /// The copy that was held for a height is known to be wrong: those who had their own set aside
    /// for its sake may be asked again.
    pub(super) fn reopen(&mut self, height: Height) {
        if let Some(slot) = self.slot_mut(height) {
            slot.excluded.retain(|&(_, why)| why != Exclusion::SetAside);
        }
        self.parked.remove(&height);
        self.note_need(height);
    }

    /// A copy is not used; its height is asked of others. With a fault it is a suspect: guilty if
    /// other content becomes final here.
    pub(super) fn set_aside(
        &mut self,
        height: Height,
        peer: PeerId,
        content: Content,
        fault: Option<CommitFault>,
    ) {
        if let Some(slot) = self.slot_mut(height) {
            slot.exclude(peer, Exclusion::SetAside);
            if let Some(fault) = fault {
                slot.suspect(content, fault);
            }
        }
        let now = self.now;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.set_aside += 1;
            if fault.is_some() {
                known.bench(now, self.config.bench);
            }
        }
        self.note_need(height);
    }

    /// The last commit of a held block failed. The block stays, for it may be final all the same
    /// (its header does not cover all of the commit), and another copy is asked for.
    pub(super) fn doubt(&mut self, height: Height, fault: CommitFault) {
        let unconfirmed = height.prev() <= self.initial_height;
        let now = self.now;
        let Some(slot) = self.slot_mut(height) else {
            return;
        };
        let Some(held) = slot.held.as_mut() else {
            return;
        };
        held.no_close = true;
        let (from, content) = (held.from, held.content);
        slot.doubt(now);
        let fault = (!unconfirmed).then_some(fault);
        self.set_aside(height, from, content, fault);
        self.refute(height, from);
    }

    /// A peer counts as having failed a height: what it sent cannot pin the one below, whatever else
    /// comes.
    pub(super) fn refute(&mut self, height: Height, peer: PeerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.refuted.insert(height);
        }
    }

    /// The block at `height` is final: every other copy that was delivered for it is judged.
    pub(super) fn judge(&mut self, height: Height) {
        let initial = height <= self.initial_height;
        let Some(slot) = self.slot_mut(height) else {
            return;
        };
        let Some(content) = slot.held.as_ref().map(|held| held.content) else {
            return;
        };
        let attempts = std::mem::take(&mut slot.attempts);
        for attempt in attempts {
            let forged = attempt.content.header != content.header;
            match attempt.suspect {
                Some(fault) if attempt.content != content => {
                    self.convict(attempt.peer, Fault::ForgedCommit { height, fault });
                }
                _ if forged && !initial => self.accuse_of(attempt.peer, height, attempt.content),
                _ => self.clear(attempt.peer, attempt.suspect.is_some()),
            }
        }
    }

    /// A suspect turned out to have delivered the final block.
    fn clear(&mut self, peer: PeerId, suspect: bool) {
        if suspect && let Some(known) = self.peers.get_mut(&peer) {
            known.set_aside = known.set_aside.saturating_sub(1);
            known.unbench();
        }
    }

    /// A verified commit stands behind another block than the final one. Nobody here is to blame.
    pub(super) fn two_certified(&mut self, height: Height, ours: BlockId, other: BlockId) {
        self.halt(StallReason::TwoCertified {
            height,
            ours,
            other,
        });
    }

    /// Stops for good.
    pub(super) fn halt(&mut self, reason: StallReason) {
        if self.halted.is_none() {
            self.halted = Some(reason.clone());
            self.set_mode(crate::Mode::Halted, crate::ModeReason::Halted);
            self.effects.push_back(Effect::Halt { reason });
        }
    }
}
