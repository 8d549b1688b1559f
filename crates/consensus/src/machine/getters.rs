//! What the state machine tells.

use std::{sync::Arc, time::Instant};

use perihelion_types::{
    FetchedBlock, Height, PartSet, Proposal, Round, State, Validator, ValidatorSet,
};

use super::Consensus;
use crate::{Announce, Candidate, Halt, HeightVoteSet, RoundStep, Step, VoteSet};

impl Consensus {
    /// The height that is being decided.
    #[must_use]
    pub fn height(&self) -> Height {
        self.rs.height
    }

    /// Its round.
    #[must_use]
    pub fn round(&self) -> Round {
        self.rs.round
    }

    /// The step of the round.
    #[must_use]
    pub fn step(&self) -> Step {
        self.rs.step
    }

    /// When round 0 begins or began.
    #[must_use]
    pub fn start_time(&self) -> Instant {
        self.rs.start_time
    }

    /// The round whose precommits decided, while the block is waited for or applied.
    #[must_use]
    pub fn commit_round(&self) -> Option<Round> {
        self.rs.commit_round
    }

    /// When the last block was decided: this height's, or else the one below. `None` before the
    /// first that is decided since the start.
    #[must_use]
    pub fn commit_time(&self) -> Option<Instant> {
        self.rs.commit_time
    }

    /// Whether the wait for more precommits has begun in this round.
    #[must_use]
    pub fn has_awaited_precommits(&self) -> bool {
        self.rs.precommit_wait
    }

    /// The state after the last applied block.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The validators of the height, with the priorities of the round.
    #[must_use]
    pub fn validators(&self) -> &Arc<ValidatorSet> {
        &self.rs.validators
    }

    /// Who proposes in this round.
    #[must_use]
    pub fn proposer(&self) -> Option<&Validator> {
        self.rs.validators.proposer()
    }

    /// The round's proposal.
    #[must_use]
    pub fn proposal(&self) -> Option<&Arc<Proposal>> {
        self.rs.proposal.as_ref()
    }

    /// The block that the parts make, once they are complete.
    #[must_use]
    pub fn block(&self) -> Option<&Arc<FetchedBlock>> {
        self.rs.block.as_ref()
    }

    /// The parts that are being collected, or are complete.
    #[must_use]
    pub fn parts(&self) -> Option<&Arc<PartSet>> {
        self.rs.parts.as_ref()
    }

    /// The block locked on.
    #[must_use]
    pub fn locked(&self) -> Option<&Candidate> {
        self.rs.locked.as_ref()
    }

    /// The last block that had a polka while it was here; proposed again.
    #[must_use]
    pub fn valid(&self) -> Option<&Candidate> {
        self.rs.valid.as_ref()
    }

    /// The votes of the height.
    #[must_use]
    pub fn votes(&self) -> &HeightVoteSet {
        &self.rs.votes
    }

    /// The precommits for the block below; `None` at the initial height.
    #[must_use]
    pub fn last_commit(&self) -> Option<&VoteSet> {
        self.rs.last_commit.as_ref()
    }

    /// What `NewRoundStep` tells a peer.
    #[must_use]
    pub fn round_step(&self) -> RoundStep {
        let rs = &self.rs;
        RoundStep {
            height: rs.height,
            round: rs.round,
            step: rs.step,
            start_time: rs.start_time,
            last_commit_round: rs
                .last_commit
                .as_ref()
                .map_or(Round::new(-1), VoteSet::round),
        }
    }

    /// What `NewValidBlock` tells a peer, while parts are collected or complete.
    #[must_use]
    pub fn valid_block(&self) -> Option<Announce> {
        let rs = &self.rs;
        Some(Announce::ValidBlock {
            height: rs.height,
            round: rs.round,
            header: rs.parts.as_ref()?.header(),
            parts: rs.part_bits(),
            is_commit: rs.step == Step::Commit,
        })
    }

    /// Whether the log was replayed and [`start`](Self::start) called.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.mode.is_running()
    }

    /// The height up to which nothing is signed, because a final block is held.
    #[must_use]
    pub fn pinned(&self) -> Height {
        self.pinned
    }

    /// How many inputs were dropped because too many came while an answer was awaited.
    #[must_use]
    pub fn dropped_inputs(&self) -> u64 {
        self.dropped_inputs
    }

    /// Why nothing more is done, if so.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }
}
