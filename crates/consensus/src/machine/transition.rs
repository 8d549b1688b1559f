//! What each transition does.

use std::sync::Arc;

use perihelion_types::{BlockId, PartSet, Round, SignedMsgType};

use super::{Consensus, Input, Transition, later};
use crate::{
    Announce, Effect, Halt, Now, Step, TimeoutInfo, WalMessage,
    machine::{
        answer::{Pending, Question},
        replay::OwnAction,
    },
    round_state::Elapsed,
};

impl Consensus {
    pub(super) fn make(&mut self, now: Now, transition: Transition) {
        match transition {
            Transition::StartRound(round) => self.start_round(now, round),
            Transition::Propose => self.enter_propose(now),
            Transition::Prevote => self.enter_prevote(now),
            Transition::WaitForPrevotes => {
                self.rs.step = Step::PrevoteWait;
                self.set_timeout(now, Step::PrevoteWait);
                self.new_step();
            }
            Transition::SetValid => {
                self.rs.valid = self.rs.candidate(self.rs.round);
                self.announce_valid_block();
            }
            Transition::Fetch(block_id) => {
                self.collect(&block_id);
                self.announce_valid_block();
            }
            Transition::Unlock => self.rs.unlock(),
            Transition::Validate => self.validate(),
            Transition::Precommit => self.enter_precommit(now),
            Transition::WaitForPrecommits => {
                self.rs.precommit_wait = true;
                self.set_timeout(now, Step::PrecommitWait);
                self.new_step();
            }
            Transition::Commit(round) => self.enter_commit(now, round),
            Transition::Finalize => self.finalize(),
            Transition::Stop => self.stop_at_commit(),
        }
    }

    /// Lines 11 to 13.
    pub(super) fn start_round(&mut self, now: Now, round: Round) {
        let rs = &mut self.rs;
        let ahead = round.get().saturating_sub(rs.round.get());
        if ahead > 0 {
            let mut validators = (*rs.validators).clone();
            validators
                .increment_proposer_priority(ahead)
                .expect("the state's validators are a valid set, and are not empty");
            rs.validators = Arc::new(validators);
            // What came for round 0 while the height below was ending is still good.
            rs.proposal = None;
            rs.block = None;
            rs.parts = None;
        }
        rs.round = round;
        rs.step = Step::NewRound;
        rs.elapsed = Elapsed::default();
        rs.precommit_wait = false;
        rs.votes.set_round(round);
        self.timers.clear();
        if self.waits_for_txs() {
            if !self.config.create_empty_blocks_interval.is_zero() {
                self.set_timeout(now, Step::NewRound);
            }
            self.propose_what_is_there();
        } else {
            self.rs.elapsed.new_round = true;
        }
    }

    /// Round 0 waits for transactions unless a block must prove the application's new hash.
    fn waits_for_txs(&self) -> bool {
        let rs = &self.rs;
        let must_prove = rs.height == self.state.initial_height
            || self.last_header_app_hash.as_ref() != Some(&self.state.app_hash);
        self.config.waits_for_txs() && rs.round == Round::ZERO && !must_prove
    }

    /// Ends the wait for transactions where there are some: by a timeout of no duration, so that
    /// the log has it.
    pub(super) fn propose_what_is_there(&mut self) {
        let rs = &self.rs;
        let is_waiting = rs.step == Step::NewRound && !rs.elapsed.new_round;
        if is_waiting && self.txs_available && self.mode.is_running() {
            self.txs_available = false;
            self.inputs.push_front(Input::Timeout(TimeoutInfo {
                duration: std::time::Duration::ZERO,
                height: rs.height,
                round: rs.round,
                step: Step::NewRound,
            }));
        }
    }

    /// Lines 14 to 21.
    fn enter_propose(&mut self, now: Now) {
        self.rs.step = Step::Propose;
        self.set_timeout(now, Step::Propose);
        self.new_step();
        self.propose(now);
    }

    /// Lines 22 to 33 and 57 to 60, with CometBFT's choice: the locked block whatever is proposed,
    /// else the proposed block when it is valid and the application accepts it, else nil.
    fn enter_prevote(&mut self, now: Now) {
        self.rs.step = Step::Prevote;
        self.new_step();
        if let Some(locked) = self.rs.locked.clone() {
            return self.vote(now, SignedMsgType::Prevote, Some(locked.block));
        }
        if let Some(bound) = self.rs.bound {
            return self.act_if_validator(now, OwnAction::PrevoteBound(bound.block_id));
        }
        let named = self.rs.proposal.as_ref().map(|proposal| proposal.block_id);
        match self.rs.block.clone() {
            // A proposal that names another hash than its block's is a lie.
            Some(block) if named.is_none_or(|named| named == block.block_id()) => {
                self.ask(Question::ProcessProposal(block));
            }
            _ => self.vote(now, SignedMsgType::Prevote, None),
        }
    }

    /// Lines 37 to 41, 44 to 46, 61 to 64; without a polka for a valid block that is here, nil.
    fn enter_precommit(&mut self, now: Now) {
        let rs = &mut self.rs;
        rs.step = Step::Precommit;
        let polka = rs.votes.polka(rs.round);
        let mut precommitted = None;
        if let Some(polka) = polka.filter(|polka| !polka.is_nil()) {
            let is_valid = !matches!(self.verdict(&polka), Some(Err(_)));
            let rs = &mut self.rs;
            if rs.is_locked_on(&polka) {
                if let Some(locked) = &mut rs.locked {
                    locked.round = rs.round;
                }
            } else if rs.has_block(&polka) && is_valid {
                // Lines 37 to 39.
                rs.bound = None;
                rs.locked = rs.candidate(rs.round);
            } else {
                rs.locked = None;
                // The others may be locked on it now. Who is bound to it is not free of it.
                rs.bound.take_if(|bound| bound.block_id != polka);
                if !rs.has_block(&polka) {
                    self.collect(&polka);
                }
            }
            precommitted = self
                .rs
                .locked
                .as_ref()
                .map(|locked| Arc::clone(&locked.block));
        } else if polka.is_some() {
            // Nil: nothing locked before can have been decided.
            rs.unlock();
        }
        self.new_step();
        self.vote(now, SignedMsgType::Precommit, precommitted);
    }

    /// Line 49: the block is decided as soon as it is here.
    fn enter_commit(&mut self, now: Now, commit_round: Round) {
        let rs = &mut self.rs;
        rs.step = Step::Commit;
        rs.commit_round = Some(commit_round);
        rs.commit_time = Some(now.instant);
        self.timers.clear();
        self.new_step();
        let Some(block_id) = self.committed() else {
            return;
        };
        let rs = &mut self.rs;
        if let Some(locked) = rs.locked.take_if(|l| l.block.block_id() == block_id) {
            rs.block = Some(locked.block);
            rs.parts = Some(locked.parts);
        }
        if rs.has_block(&block_id) {
            return;
        }
        if block_id.part_set_header.total > perihelion_types::part_set::MAX_PARTS {
            let reason = format!("{} parts", block_id.part_set_header.total);
            let height = rs.height;
            return self.halt(Halt::CommittedUndecodable {
                height,
                block_id,
                reason,
            });
        }
        if !self.collect(&block_id) {
            // Peers are told what is missing.
            self.announce_valid_block();
        }
    }

    /// Collects the parts of `block_id`; whether they were being collected before.
    fn collect(&mut self, block_id: &BlockId) -> bool {
        if self.rs.collects(block_id.part_set_header) {
            return true;
        }
        self.rs.block = None;
        self.rs.parts = PartSet::from_header(block_id.part_set_header)
            .ok()
            .map(Arc::new);
        false
    }

    fn validate(&mut self) {
        if let Some(block) = self.rs.block.clone() {
            self.ask(Question::ValidateBlock(block));
        }
    }

    fn announce_valid_block(&mut self) {
        if let Some(announce) = self.valid_block() {
            self.announce(announce);
        }
    }

    /// A step was entered: for the log and the peers.
    pub(super) fn new_step(&mut self) {
        let (height, round, step) = (self.rs.height, self.rs.round, self.rs.step);
        self.append(
            WalMessage::RoundState {
                height,
                round,
                step,
            },
            false,
        );
        self.announce(Announce::RoundStep(self.round_step()));
    }

    /// Begins the wait of `step` in this round.
    pub(super) fn set_timeout(&mut self, now: Now, step: Step) {
        let (height, round) = (self.rs.height, self.rs.round);
        let duration = match step {
            Step::NewHeight => self.rs.start_time.saturating_duration_since(now.instant),
            Step::NewRound => self.config.create_empty_blocks_interval,
            Step::Propose => self.config.propose(round),
            Step::PrevoteWait => self.config.prevote(round),
            Step::PrecommitWait => self.config.precommit(round),
            Step::Prevote | Step::Precommit | Step::Commit => return,
        };
        let timeout = TimeoutInfo {
            duration,
            height,
            round,
            step,
        };
        self.timers.set(later(now.instant, duration), timeout);
    }

    /// Puts a question; nothing else happens until it is answered.
    pub(super) fn ask(&mut self, question: Question) {
        let id = self.new_id();
        if let Some(ask) = question.ask() {
            self.effects.push_back(Effect::Ask { id, ask });
        }
        self.pending = Some(Pending::Asked { id, question });
    }
}
