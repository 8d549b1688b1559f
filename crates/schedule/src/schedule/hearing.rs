//! Before anybody is convicted of having forged a block, the block above it is heard.
//!
//! A block that is not the final one of its height was forged by its sender, unless more than 2/3 of
//! its validators signed that one too: then the chain itself is broken, and whoever sent either block
//! may be honest. Only the accused one's own next block, which carries that commit, can tell. So it
//! is asked for, and its commit is verified; who has no such block is convicted of nothing, and
//! stays benched.

use std::sync::Arc;

use perihelion_types::{BlockId, FetchedBlock, Hash, Height, PeerId, ValidatorSet};

use super::{Schedule, runs::Purpose};
use crate::{
    CommitFault, Fault,
    slot::{Content, Stage},
};

/// A peer that sent another block than the final one. Each peer has one hearing at a time.
#[derive(Debug)]
pub(super) struct Hearing {
    /// Of both blocks.
    pub(super) height: Height,
    /// The hash of the peer's block.
    pub(super) accused: Hash,
    /// The final one.
    pub(super) ours: BlockId,
    /// What it is convicted of if nobody signed its block.
    pub(super) fault: Fault,
    /// The height's validators, once our own state knows them.
    pub(super) set: Option<Arc<ValidatorSet>>,
    /// The block above the accused one, from the same peer.
    pub(super) answer: Option<Arc<FetchedBlock>>,
    /// Whether it is asked for.
    pub(super) asked: bool,
}

impl Schedule {
    /// A peer sent another block than the final one: nothing more of it is used until its next block
    /// was heard.
    pub(super) fn accuse(&mut self, peer: PeerId, hearing: Hearing) {
        let now = self.now;
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        known.bench(now, self.config.bench);
        self.drop_blocks_of(peer);
        if self.hearings.contains_key(&peer) {
            return;
        }
        // What it sent for the next height may show already that it does not stand behind its block.
        let next = self.slot(hearing.height.next());
        let recants = next.is_some_and(|slot| {
            let mut own = slot.attempts.iter().filter(|other| other.peer == peer);
            own.any(|other| other.content.below != hearing.accused)
        });
        if recants {
            self.convict(peer, hearing.fault);
        } else {
            self.hearings.insert(peer, hearing);
        }
    }

    /// The sender of a copy of a height that is final with another block.
    pub(super) fn accuse_of(&mut self, peer: PeerId, height: Height, content: Content) {
        let Some(ours) = self.id_at(height) else {
            return;
        };
        let hearing = Hearing {
            height,
            accused: content.header,
            ours,
            fault: Fault::Forged { height },
            set: None,
            answer: None,
            asked: false,
        };
        self.accuse(peer, hearing);
    }

    /// A block came: is it the one that its sender is to be heard with?
    pub(super) fn hear(&mut self, peer: PeerId, block: &Arc<FetchedBlock>) {
        let Some(hearing) = self.hearings.get_mut(&peer) else {
            return;
        };
        if hearing.answer.is_some() || block.height() != hearing.height.next() {
            return;
        }
        let fault = hearing.fault;
        if block.block().header.last_block_id.hash == hearing.accused {
            hearing.answer = Some(Arc::clone(block));
        } else {
            self.convict(peer, fault);
        }
    }

    /// A peer does not have the block that it was to be heard with, or did not send it in time. That
    /// convicts nobody: the last block of an honest peer has none above it.
    pub(super) fn hear_nothing(&mut self, peer: PeerId, height: Height) {
        let open = |hearing: &Hearing| hearing.answer.is_none() && hearing.height.next() == height;
        if self.hearings.get(&peer).is_some_and(open) {
            self.hearings.remove(&peer);
        }
    }

    /// Asks for what is to be heard, and has the commits verified, one at a time.
    pub(super) fn advance_hearings(&mut self) {
        let accused: Vec<PeerId> = self.hearings.keys().copied().collect();
        for peer in accused {
            self.find_validators(peer);
            let Some(hearing) = self.hearings.get(&peer) else {
                continue;
            };
            let above = hearing.height.next();
            match (&hearing.answer, &hearing.set) {
                (None, _) if !hearing.asked => self.ask_to_hear(peer, above),
                (Some(block), Some(set)) if self.probe.is_none() => {
                    let (block, set) = (Arc::clone(block), Arc::clone(set));
                    let content = Content::of(&block);
                    self.send_probe(above, block, peer, content, set, Purpose::Hearing);
                }
                _ => {}
            }
        }
    }

    fn ask_to_hear(&mut self, peer: PeerId, height: Height) {
        let now = self.now;
        let most = self.config.peer_allowance;
        let Some(known) = self.peers.get(&peer) else {
            return;
        };
        if !known.asks.contains_key(&height) {
            if known.asks.len() >= most {
                return;
            }
            self.ask_beyond(now, peer, height);
        }
        if let Some(hearing) = self.hearings.get_mut(&peer) {
            hearing.asked = true;
        }
    }

    /// Finds the validators of the height that a hearing is about, as our own state knows them.
    fn find_validators(&mut self, peer: PeerId) {
        let Some(hearing) = self.hearings.get(&peer).filter(|it| it.set.is_none()) else {
            return;
        };
        let height = hearing.height;
        let set = if height == self.applied.0 {
            self.last_validators.clone()
        } else if height == self.anchors.anchor.2 {
            Some(Arc::clone(&self.anchors.anchor.0))
        } else {
            let final_block = self.held(height).filter(|_| height <= self.certified_to);
            let hash = final_block.map(|held| held.block.block().header.validators_hash);
            hash.and_then(|hash| self.anchors.by_hash(hash))
        };
        if let Some(hearing) = self.hearings.get_mut(&peer) {
            hearing.set = set;
        }
    }

    /// The commit for an accused block holds, or it does not.
    pub(super) fn heard(&mut self, peer: PeerId, fault: Option<CommitFault>) {
        let Some(hearing) = self.hearings.remove(&peer) else {
            return;
        };
        let names = hearing
            .answer
            .map(|block| block.block().header.last_block_id);
        match (fault, names) {
            (None, Some(other)) => self.two_certified(hearing.height, hearing.ours, other),
            _ => self.convict(peer, hearing.fault),
        }
    }

    /// Lets go of what a peer sent and that is not certain.
    pub(super) fn drop_blocks_of(&mut self, peer: PeerId) {
        let mut height = self.certified_to.next();
        while height < self.end() {
            let drop = self.slot(height).is_some_and(|slot| {
                matches!(slot.stage, Stage::Here | Stage::Linked)
                    && slot.held.as_ref().is_some_and(|held| held.from == peer)
            });
            if drop {
                self.drop_block(height);
                self.reopen(height);
            }
            height = height.next();
        }
    }
}
