//! Who hears what, and when.

use std::time::Duration;

use perihelion_consensus::Message;
use perihelion_types::Height;

use super::{Event, World};
use crate::{
    chain::Built,
    sim::{
        gossip::{self, Payload},
        rng::Rng,
    },
};

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, payload: Payload) {
        let cut = self.healed.is_none() && self.groups[from] != self.groups[to];
        if cut || to >= self.honest || self.is_blind(to, &payload) {
            return;
        }
        let (loss, longest) = match self.healed {
            None => (self.plan.loss, self.plan.delay_ms),
            Some(_) => (0, 20),
        };
        if self.rng.chance(loss, 100) {
            return;
        }
        let copies = 1 + u64::from(self.rng.chance(self.plan.duplicates, 100));
        for _ in 0..copies {
            let payload = payload.clone();
            self.after_ms(1..longest, Event::Deliver { to, from, payload });
        }
    }

    /// Whether `to` never sees this vote before the network heals.
    pub(super) fn is_blind(&self, to: usize, payload: &Payload) -> bool {
        let Payload::Message(Message::Vote(vote)) = payload else {
            return false;
        };
        let place = [
            to as u64,
            vote.height.get().unsigned_abs(),
            vote.round.get().unsigned_abs().into(),
            vote.vote_type.to_i32().unsigned_abs().into(),
            vote.validator_index.unsigned_abs().into(),
        ];
        let mut mixed = self.blindness;
        for number in place {
            mixed = Rng::new(mixed ^ number).next();
        }
        self.healed.is_none() && Rng::new(mixed).chance(self.plan.blind, 100)
    }

    pub(super) fn broadcast(&mut self, from: usize, message: &Message) {
        for to in 0..self.honest {
            if to != from {
                self.send(from, to, Payload::Message(message.clone()));
            }
        }
    }

    pub(super) fn deliver(&mut self, to: usize, from: usize, payload: Payload) {
        let now = self.now(to);
        let peer = self.nodes[from].peer;
        let Some(core) = &mut self.nodes[to].core else {
            return;
        };
        match payload {
            Payload::Message(message) => core.handle_message(now, peer, message),
            Payload::Claim(claim) => core.handle_maj23(peer, &claim),
        }
        self.drain(to);
    }

    pub(super) fn gossip(&mut self, node: usize) {
        for to in 0..self.honest {
            let Some(core) = &self.nodes[to].core else {
                continue;
            };
            if to != node {
                for payload in gossip::news(&self.nodes[node], core) {
                    self.send(node, to, payload);
                }
            }
        }
        if self.rng.chance(1, 8) {
            let now = self.now(node);
            if let Some(core) = &mut self.nodes[node].core {
                core.handle_txs_available(now);
                self.drain(node);
            }
        }
        self.after_ms(20..60, Event::Gossip { node });
    }

    pub(super) fn evil(&mut self) {
        let victim = self.rng.index(self.honest);
        let time = self.now(victim).time;
        if let Some(core) = &self.nodes[victim].core {
            let known = self.known.get(&core.height());
            let known = known.map_or(&[][..], |known| &known[..]);
            let turn = self.adversary.act(&mut self.rng, core, known, time);
            let height = core.height();
            for block in turn.blocks {
                self.remember(height, block);
            }
            for sent in turn.sent {
                if let (Payload::Message(message), true) = (&sent.payload, sent.is_signed) {
                    let key = self.nodes[sent.from].key.public_key();
                    self.memo.made(&key, message);
                }
                for to in 0..self.honest {
                    if sent.half & (1 << to) != 0 {
                        let (from, payload) = (sent.from, sent.payload.clone());
                        let wait = Duration::from_millis(sent.delay_ms + 1);
                        self.at(self.time + wait, Event::Deliver { to, from, payload });
                    }
                }
            }
        }
        self.after_ms(20..140, Event::Evil);
    }

    pub(super) fn remember(&mut self, height: Height, block: Built) {
        self.proposed.insert(block.id());
        let known = self.known.entry(height).or_default();
        if known.len() < 8 && known.iter().all(|known| known.id() != block.id()) {
            known.push(block);
        }
    }

    pub(super) fn partition(&mut self) {
        if self.healed.is_some() {
            return;
        }
        self.stats.partitions += 1;
        let groups = self.rng.within(1..4);
        for node in 0..self.groups.len() {
            self.groups[node] = self.rng.within(0..groups);
        }
        let groups = self.groups.clone();
        self.trace(|| format!("partition {groups:?}"));
        self.after_ms(100..1500, Event::Partition);
    }
}
