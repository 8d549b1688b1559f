use std::{sync::Arc, time::Instant};

use perihelion_types::{
    BlockId, FetchedBlock, Height, PartSet, PartSetHeader, Proposal, Round, ValidatorSet,
};

use crate::{BitArray, HeightVoteSet, Step, VoteSet};

/// A block that a round left behind: the one locked on, or the last that could have been decided.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The round in which it had more than 2/3 of the prevotes (`lockedRound`, `validRound`).
    pub round: Round,
    /// The block (`lockedValue`, `validValue`).
    pub block: Arc<FetchedBlock>,
    /// Its parts, complete.
    pub parts: Arc<PartSet>,
}

/// A block that this node may have precommitted, and does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The last round in which it can have been locked on.
    pub(crate) round: Round,
    /// Its id.
    pub(crate) block_id: BlockId,
}

/// Which of the current round's timeouts have run out, and what they led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Elapsed {
    /// `timeout_commit` of the height below.
    pub(crate) new_height: bool,
    /// The wait for transactions; set from the start where there is none.
    pub(crate) new_round: bool,
    /// The wait for the proposal.
    pub(crate) propose: bool,
    /// The wait for prevotes.
    pub(crate) prevote: bool,
    /// The wait for precommits.
    pub(crate) precommit: bool,
}

/// Where a height stands: the paper's variables, and what was received.
#[derive(Debug)]
pub(crate) struct RoundState {
    /// `h_p`.
    pub(crate) height: Height,
    /// `round_p`.
    pub(crate) round: Round,
    /// `step_p`.
    pub(crate) step: Step,
    /// When round 0 begins.
    pub(crate) start_time: Instant,
    /// When the block was decided; until it is, when the one below was.
    pub(crate) commit_time: Option<Instant>,
    /// The validators with the priorities of this round.
    pub(crate) validators: Arc<ValidatorSet>,
    /// The round's proposal.
    pub(crate) proposal: Option<Arc<Proposal>>,
    /// The block that `parts` make, once they are complete and decode.
    pub(crate) block: Option<Arc<FetchedBlock>>,
    /// The parts of the proposed block; of the block with a polka or a commit where that is
    /// another one.
    pub(crate) parts: Option<Arc<PartSet>>,
    /// `lockedRound_p`, `lockedValue_p`.
    pub(crate) locked: Option<Candidate>,
    /// A lock on a block that is not here, where what led to it was not in the log: the block is
    /// prevoted by its id. `locked` is `None` beside it.
    pub(crate) bound: Option<Bound>,
    /// `validRound_p`, `validValue_p`.
    pub(crate) valid: Option<Candidate>,
    /// All votes of the height.
    pub(crate) votes: HeightVoteSet,
    /// The round whose precommits decide.
    pub(crate) commit_round: Option<Round>,
    /// The precommits for the block below.
    pub(crate) last_commit: Option<VoteSet>,
    /// The timeouts of this round that have run out.
    pub(crate) elapsed: Elapsed,
    /// Whether the wait for precommits was begun in this round.
    pub(crate) precommit_wait: bool,
}

impl RoundState {
    /// The id of the block that is complete, if any.
    pub(crate) fn block_id(&self) -> Option<BlockId> {
        self.block.as_ref().map(|block| block.block_id())
    }

    /// Whether `block_id` is that of the complete block.
    pub(crate) fn has_block(&self, block_id: &BlockId) -> bool {
        self.block_id().as_ref() == Some(block_id)
    }

    /// Whether the parts collected are those of `header`.
    pub(crate) fn collects(&self, header: PartSetHeader) -> bool {
        self.parts
            .as_ref()
            .is_some_and(|parts| parts.header() == header)
    }

    /// Whether the block locked on is `block_id`.
    pub(crate) fn is_locked_on(&self, block_id: &BlockId) -> bool {
        self.locked
            .as_ref()
            .is_some_and(|locked| locked.block.block_id() == *block_id)
    }

    /// The round and the block of the lock, whether or not the block is here.
    pub(crate) fn lock(&self) -> Option<Bound> {
        let locked = self.locked.as_ref().map(|locked| Bound {
            round: locked.round,
            block_id: locked.block.block_id(),
        });
        locked.or(self.bound)
    }

    /// Locks on nothing.
    pub(crate) fn unlock(&mut self) {
        self.locked = None;
        self.bound = None;
    }

    /// Locks on a block in `round`, unless it is locked on one of that round or a later one. Where
    /// the block is not here its id is kept.
    pub(crate) fn bind(&mut self, round: Round, block_id: BlockId) {
        if self.lock().is_some_and(|lock| lock.round >= round) {
            return;
        }
        if self.is_locked_on(&block_id) {
            if let Some(locked) = &mut self.locked {
                locked.round = round;
            }
            return;
        }
        self.unlock();
        if self.has_block(&block_id) {
            self.locked = self.candidate(round);
        } else {
            self.bound = Some(Bound { round, block_id });
        }
    }

    /// The complete block as a candidate of `round`.
    pub(crate) fn candidate(&self, round: Round) -> Option<Candidate> {
        Some(Candidate {
            round,
            block: Arc::clone(self.block.as_ref()?),
            parts: Arc::clone(self.parts.as_ref()?),
        })
    }

    /// Whether the proposal can be prevoted: it is here with its block and, where it names a proof
    /// of lock, the polka of that round is for its block (lines 22 and 28).
    pub(crate) fn is_proposal_complete(&self) -> bool {
        let Some(proposal) = &self.proposal else {
            return false;
        };
        self.has_block(&proposal.block_id)
            && (proposal.pol_round < Round::ZERO
                || self.votes.polka(proposal.pol_round) == Some(proposal.block_id))
    }

    /// Which parts are here.
    pub(crate) fn part_bits(&self) -> BitArray {
        let Some(parts) = &self.parts else {
            return BitArray::new(0);
        };
        let total = parts.header().total;
        let mut bits = BitArray::new(total as usize);
        for index in 0..total {
            bits.set(index as usize, parts.part(index).is_some());
        }
        bits
    }
}
