//! What nodes want done, and what must hold of it.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{
    Announce, Answer, Ask, BlockVerdict, Consensus, Effect, Message, RequestId, Verify,
    votes::{MAX_CATCHUP_ROUNDS, MAX_MAJ23_CLAIMS},
};
use perihelion_types::{Commit, FetchedBlock, PartSet, Proposal, Rules, State, Vote};

use super::{Event, HEALS_AT, World};
use crate::{
    chain::{self, Built, CHAIN_ID},
    sim::memo::Memo,
};

impl World {
    pub(super) fn restart(&mut self, node: usize) {
        let now = self.now(node);
        let memo: Arc<dyn Verify> = self.memo.clone();
        let booted = self.nodes[node].boot(now, &self.plan.config, memo);
        let records = match booted {
            Ok(records) => records,
            Err(error) => return self.fail(format!("{node} cannot start: {error}")),
        };
        self.trace(|| format!("{node} starts, {} records", records.len()));
        let life = self.nodes[node].life;
        for record in records {
            self.stats.replayed += 1;
            self.trace(|| format!("{node} replays {record:?}"));
            if let Some(core) = self.core(node, life) {
                core.replay(now, record);
                self.drain(node);
            }
            if self.core(node, life).is_some_and(|core| core.is_waiting()) {
                return self.fail(format!("{node} waits while it replays"));
            }
        }
        if let Some(core) = self.core(node, life) {
            core.start(now);
            self.drain(node);
        }
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.stats.crashes += 1;
        let disk = &self.nodes[node].disk;
        let unsynced = disk.wal.len() - disk.synced;
        let kept = self.rng.index(unsynced + 1);
        self.nodes[node].crash(kept);
        self.trace(|| format!("{node} crashes"));
        self.after_ms(10..800, Event::Restart { node });
    }

    /// Does what a node wants, in order; it may crash between any two effects.
    pub(super) fn drain(&mut self, node: usize) {
        while let Some(core) = &mut self.nodes[node].core {
            let Some(effect) = core.poll_effect() else {
                break;
            };
            self.perform(node, effect);
            let every = self.plan.crash_every;
            if self.healed.is_none() && every > 0 && self.rng.chance(1, every) {
                return self.crash(node);
            }
        }
        self.check_bounds(node);
        let life = self.nodes[node].life;
        let deadline = self.nodes[node]
            .core
            .as_ref()
            .and_then(Consensus::poll_deadline);
        if let Some(at) = deadline {
            let at = at.saturating_duration_since(self.origin).max(self.time);
            self.at(at, Event::Deadline { node, life });
        }
    }

    pub(super) fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Append { message, sync } => {
                let disk = &mut self.nodes[node].disk;
                disk.wal.push(message);
                if sync {
                    disk.synced = disk.wal.len();
                }
            }
            Effect::SyncWal => {
                let disk = &mut self.nodes[node].disk;
                disk.synced = disk.wal.len();
            }
            Effect::Sign { id, request } => {
                self.trace(|| format!("{node} wants signed {request:?}"));
                let shell = &mut self.nodes[node];
                let answer = shell.disk.signed.sign(&shell.key, request);
                let key = shell.key.public_key();
                match &answer {
                    Answer::SignedVote(vote) => {
                        let vote = Arc::new(Vote::clone(vote));
                        self.memo.made(&key, &Message::Vote(vote));
                    }
                    Answer::SignedProposal(proposal) => {
                        let proposal = Arc::new(Proposal::clone(proposal));
                        self.memo.made(&key, &Message::Proposal(proposal));
                    }
                    _ => {}
                }
                if !self.ledger.admits(node, &answer) {
                    self.fail(format!("{node} signs twice: {answer:?}"));
                }
                self.answer(node, id, answer);
            }
            Effect::Ask { id, ask } => {
                let answer = self.asked(node, &ask);
                self.answer(node, id, answer);
            }
            Effect::Announce(announce) => self.announced(node, announce),
            Effect::Commit(block) => self.committed(node, block),
            Effect::Apply { id, block } => {
                let disk = &mut self.nodes[node].disk;
                disk.state = Arc::new(chain::execute(&disk.state, block.fetched()));
                let state = Arc::clone(&disk.state);
                let rules = Rules::V038;
                self.answer(node, id, Answer::Applied { state, rules });
            }
            Effect::Report { first, second } => {
                self.stats.reports += 1;
                let honest = &self.nodes[..self.honest];
                let address = &first.validator_address;
                if honest
                    .iter()
                    .any(|n| n.key.public_key().address().as_bytes()[..] == address[..])
                    || first.block_id == second.block_id
                {
                    self.fail(format!(
                        "{node} reports an honest one: {first:?} {second:?}"
                    ));
                }
            }
            Effect::Punish { peer, fault } => {
                self.stats.punished += 1;
                if self.nodes[..self.honest]
                    .iter()
                    .any(|node| node.peer == peer)
                {
                    self.fail(format!("{node} punishes the honest {peer}: {fault}"));
                }
            }
            Effect::Notice(_) => {}
            Effect::Halt(halt) => self.fail(format!("{node} halts: {halt}")),
        }
    }

    /// Answers at once, or late while it runs.
    pub(super) fn answer(&mut self, node: usize, id: RequestId, answer: Answer) {
        let now = self.now(node);
        let life = self.nodes[node].life;
        let Some(core) = &mut self.nodes[node].core else {
            return;
        };
        let replaying = core.poll_deadline().is_none() && !core.is_waiting();
        if !replaying && self.started(node) && self.rng.chance(1, self.plan.slow_answers) {
            let answer = Box::new(answer);
            return self.after_ms(
                1..60,
                Event::Answer {
                    node,
                    life,
                    id,
                    answer,
                },
            );
        }
        if let Some(core) = &mut self.nodes[node].core {
            core.handle_answer(now, id, answer);
        }
    }

    /// Whether the log was replayed.
    pub(super) fn started(&self, node: usize) -> bool {
        self.nodes[node]
            .core
            .as_ref()
            .is_some_and(Consensus::is_started)
    }

    pub(super) fn asked(&mut self, node: usize, ask: &Ask) -> Answer {
        match ask {
            Ask::MakeBlock {
                proposer,
                last_commit,
                height,
                ..
            } => {
                // Never the same twice, like a mempool.
                self.txs += 1;
                let mut txs = vec![format!("tx {}", self.txs)];
                if self.rng.chance(1, 4) {
                    let number = self.plan.byzantine + self.rng.index(self.honest);
                    let base = self.plan.powers.get(number).copied().unwrap_or(1);
                    let power = base + self.rng.within(0..5) as i64;
                    txs.push(format!("power:{number}:{power}"));
                }
                txs.truncate(self.rng.index(3));
                let txs: Vec<&[u8]> = txs.iter().map(|tx| tx.as_bytes()).collect();
                let state = Arc::clone(&self.nodes[node].disk.state);
                let block = chain::raw_block(&state, last_commit.to_commit(), &txs, *proposer);
                self.remember(*height, Built::of(&block));
                Answer::Block(Box::new(block))
            }
            Ask::ProcessProposal { block } => Answer::Verdict(self.judged(node, block)),
            Ask::ValidateBlock { block } => {
                let verdict = match self.judged(node, block) {
                    BlockVerdict::Rejected => BlockVerdict::Accepted,
                    verdict => verdict,
                };
                Answer::Verdict(verdict)
            }
            Ask::ExtendVote { round, .. } => {
                Answer::Extension(Bytes::from(format!("{node} in {round}")))
            }
            Ask::VerifyExtension { vote } => Answer::ExtensionAccepted(!vote.extension.is_empty()),
        }
    }

    pub(super) fn judged(&mut self, node: usize, block: &FetchedBlock) -> BlockVerdict {
        let state = Arc::clone(&self.nodes[node].disk.state);
        let memo = Arc::clone(&self.memo);
        let verdict = chain::validate(&state, block.block(), |commit| holds(&state, commit, &memo));
        match verdict {
            Err(reason) => {
                self.stats.invalid += 1;
                BlockVerdict::Invalid(reason)
            }
            Ok(()) if chain::accepts(block.block()) => BlockVerdict::Accepted,
            Ok(()) => BlockVerdict::Rejected,
        }
    }

    /// What is this node's own goes to all at once; the rest is gossiped.
    pub(super) fn announced(&mut self, node: usize, announce: Announce) {
        let address = self.nodes[node].key.public_key().address();
        let address = &address.as_bytes()[..];
        let Some(core) = &self.nodes[node].core else {
            return;
        };
        let proposes = core
            .proposer()
            .is_some_and(|p| p.address.as_bytes()[..] == *address);
        let message = match announce {
            Announce::Vote(vote) if vote.validator_address[..] == *address => Message::Vote(vote),
            Announce::Proposal(proposal) if proposes => {
                if proposal.pol_round.get() >= 0 {
                    self.stats.reproposed += 1;
                }
                Message::Proposal(proposal)
            }
            Announce::Part {
                height,
                round,
                part,
            } if proposes => Message::Part {
                height,
                round,
                part,
            },
            Announce::RoundStep(step) => {
                return self
                    .trace(|| format!("{node} {}/{}/{}", step.height, step.round, step.step));
            }
            _ => return,
        };
        self.trace(|| format!("{node} says {message:?}"));
        self.broadcast(node, &message);
    }

    /// Agreement and validity.
    pub(super) fn committed(&mut self, node: usize, block: Arc<CertifiedBlock>) {
        let (height, id) = (block.height(), block.block_id());
        self.trace(|| format!("{node} decides {height} {id}"));
        let first = *self.decided.entry(height).or_insert(id);
        if first != id {
            self.fail(format!(
                "{node} decides {id} at {height}, another decided {first}"
            ));
        }
        if self.judged(node, block.fetched()) != BlockVerdict::Accepted {
            self.fail(format!("{node} decides the invalid block {id} at {height}"));
        }
        if !self.proposed.contains(&id) {
            self.fail(format!(
                "{node} decides {id} at {height}, which nobody proposed"
            ));
        }
        let disk = &mut self.nodes[node].disk;
        if height.get() != disk.blocks.len() as i64 + 1 {
            return self.fail(format!("{node} decides {height} out of order"));
        }
        let extensions = disk.state.consensus_params.vote_extensions_enabled(height);
        if block.extended_commit().is_some() != extensions || block.commit().is_none() {
            return self.fail(format!("{node} decides {height} without its commit"));
        }
        let commit = block.commit().expect("checked");
        self.stats.late_rounds += u64::from(commit.round.get() > 0);
        let evil = block.block().data.iter().any(|tx| tx.starts_with(b"evil"));
        self.stats.evil_decided += u64::from(evil);
        let raw = block.fetched().raw().clone();
        disk.parts.push(PartSet::from_data(raw));
        disk.blocks.push(block);
        if height.get() >= HEALS_AT {
            self.heal();
        }
    }

    pub(super) fn check_bounds(&mut self, node: usize) {
        let Some(core) = &self.nodes[node].core else {
            return;
        };
        let votes = core.votes();
        let validators = votes.validators().len();
        let rounds = usize::try_from(core.round().get()).unwrap() + 2 + MAX_CATCHUP_ROUNDS;
        let mut within = core.dropped_inputs() == 0
            && votes.catchup_rounds() <= MAX_CATCHUP_ROUNDS
            && votes.rounds().count() <= rounds;
        let round = core.round();
        for set in [votes.prevotes(round), votes.precommits(round)]
            .into_iter()
            .flatten()
        {
            let (held, claims) = set.held();
            within &= claims <= MAX_MAJ23_CLAIMS && held <= validators * (1 + claims);
        }
        if !within {
            self.fail(format!("{node} keeps more than it may"));
        }
    }
}

/// Whether the signatures of a last commit hold, remembered for all nodes.
fn holds(state: &State, commit: &Commit, memo: &Memo) -> bool {
    let set = &state.last_validators;
    let bytes = commit.sign_bytes(CHAIN_ID);
    let mut power = 0;
    for (place, validator) in commit.signatures.iter().zip(set.validators()) {
        if place.signature.is_empty() {
            continue;
        }
        let Some(message) = bytes.of(place) else {
            return false;
        };
        if !memo.verify(&validator.pub_key, &message, &place.signature) {
            return false;
        }
        if place.block_id_flag == perihelion_types::BlockIdFlag::Commit {
            power += validator.voting_power;
        }
    }
    commit.signatures.len() == set.len() && power * 3 > set.total_voting_power() * 2
}
