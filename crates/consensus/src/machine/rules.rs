//! Which transition the state allows next: the rules of arXiv:1807.04938 by their lines, and those
//! that CometBFT adds. A pure function of what was received, so that it does not matter in which
//! order it came.

use perihelion_types::{BlockId, Round, part_set::MAX_PARTS};

use super::Consensus;
use crate::Step;

/// One transition. Each one makes itself impossible, so that a run of them ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transition {
    /// Lines 11 to 13: `StartRound`.
    StartRound(Round),
    /// Lines 14 to 21: propose, or wait for the proposal.
    Propose,
    /// Lines 22 to 33, and 57 to 60 where the proposal did not come in time.
    Prevote,
    /// Lines 34 and 35.
    WaitForPrevotes,
    /// Lines 42 and 43.
    SetValid,
    /// CometBFT: a block has a polka and is not here; its parts are collected.
    Fetch(BlockId),
    /// CometBFT: a later polka is for something else than the locked block. It implies that no
    /// round up to it decided the locked block, so the lock protects nothing.
    Unlock,
    /// Line 36, `valid(v)`: the block is to be validated before it is locked on or decided.
    Validate,
    /// Lines 37 to 41, 44 to 46, and 61 to 64.
    Precommit,
    /// Lines 47 and 48.
    WaitForPrecommits,
    /// Line 49.
    Commit(Round),
    /// Lines 50 to 54.
    Finalize,
    /// Line 50, `valid(v)` is false: more than 1/3 of the power is faulty, or this node is.
    Stop,
}

impl Consensus {
    /// The next transition, if any.
    pub(super) fn next_transition(&self) -> Option<Transition> {
        if self.rs.step == Step::Commit {
            return self.when_committed();
        }
        self.to_commit()
            .or_else(|| self.to_later_round())
            .or_else(|| self.by_polka())
            .or_else(|| self.within_round())
    }

    /// Line 49: a round, any round, has more than 2/3 of its precommits for one block.
    fn to_commit(&self) -> Option<Transition> {
        let rs = &self.rs;
        let commit_round = rs.votes.commit_round()?;
        // CometBFT joins the round of the commit and precommits in it, so that its vote is there.
        if commit_round > rs.round || (commit_round == rs.round && rs.step == Step::NewHeight) {
            return Some(Transition::StartRound(commit_round));
        }
        if commit_round == rs.round && rs.step < Step::Precommit {
            return self.precommit();
        }
        Some(Transition::Commit(commit_round))
    }

    /// The committed block is waited for, then validated, then final.
    fn when_committed(&self) -> Option<Transition> {
        let rs = &self.rs;
        let block_id = self.committed()?;
        if !rs.has_block(&block_id) {
            // Complete parts that are not this block, or none at all, will never be it.
            let parts = rs.parts.as_ref()?;
            let failed = parts.is_complete() && parts.header() == block_id.part_set_header;
            return failed.then_some(Transition::Stop);
        }
        Some(match self.verdict(&block_id) {
            None => Transition::Validate,
            Some(Ok(())) => Transition::Finalize,
            Some(Err(_)) => Transition::Stop,
        })
    }

    /// Lines 55 and 65, and the end of the wait between heights.
    fn to_later_round(&self) -> Option<Transition> {
        let rs = &self.rs;
        // Line 55; CometBFT wants more than 2/3 of one type of vote where the paper wants 1/3.
        if let Some(ahead) = rs.votes.round_ahead(rs.round) {
            return Some(Transition::StartRound(ahead));
        }
        let precommits = rs.votes.precommits(rs.round);
        if rs.step == Step::NewHeight {
            let skips = self.config.skip_timeout_commit
                && rs.last_commit.as_ref().is_some_and(|last| last.has_all());
            let others_are_done = precommits.is_some_and(|votes| votes.has_two_thirds_any());
            let starts = rs.elapsed.new_height || skips || others_are_done;
            return starts.then_some(Transition::StartRound(Round::ZERO));
        }
        // Line 65: the wait of line 48 is over. CometBFT precommits first where that is open.
        if rs.elapsed.precommit {
            return if rs.step < Step::Precommit {
                self.precommit()
            } else {
                let next = Round::new(rs.round.get().saturating_add(1));
                Some(Transition::StartRound(next))
            };
        }
        None
    }

    /// What a polka alone changes, whatever the step.
    fn by_polka(&self) -> Option<Transition> {
        let rs = &self.rs;
        if let Some(lock) = rs.lock() {
            let mut later = rs.votes.polkas(lock.round, rs.round);
            if later.any(|(_, polka)| polka != lock.block_id) {
                return Some(Transition::Unlock);
            }
        }
        let polka = rs.votes.polka(rs.round).filter(|polka| !polka.is_nil())?;
        let is_new = rs.valid.as_ref().is_none_or(|valid| valid.round < rs.round);
        if rs.has_block(&polka) {
            // Lines 36, 42 and 43.
            let is_valid = !matches!(self.verdict(&polka), Some(Err(_)));
            return (is_new && is_valid).then_some(Transition::SetValid);
        }
        let can_fetch = is_new
            && !rs.collects(polka.part_set_header)
            && polka.part_set_header.total <= MAX_PARTS;
        can_fetch.then_some(Transition::Fetch(polka))
    }

    /// From step to step of one round.
    fn within_round(&self) -> Option<Transition> {
        let rs = &self.rs;
        match rs.step {
            Step::NewRound if rs.elapsed.new_round => return Some(Transition::Propose),
            // Lines 22 and 28. CometBFT does so even while it waits for the height to begin.
            Step::NewHeight | Step::NewRound | Step::Propose if rs.is_proposal_complete() => {
                return Some(Transition::Prevote);
            }
            // Line 57.
            Step::Propose if rs.elapsed.propose => return Some(Transition::Prevote),
            Step::Prevote | Step::PrevoteWait => {
                if let Some(transition) = self.after_prevote() {
                    return Some(transition);
                }
            }
            _ => {}
        }
        let precommits = rs.votes.precommits(rs.round)?;
        if rs.precommit_wait || rs.step == Step::NewHeight || !precommits.has_two_thirds_any() {
            return None;
        }
        // CometBFT precommits before it waits where all is decided for nil.
        if precommits.maj23().is_some() && rs.step < Step::Precommit {
            return self.precommit();
        }
        // Line 47.
        Some(Transition::WaitForPrecommits)
    }

    fn after_prevote(&self) -> Option<Transition> {
        let rs = &self.rs;
        let polka = rs.votes.polka(rs.round);
        // Line 36 and line 44. The proposal's own message adds nothing to a polka for its block.
        let is_ready = polka.is_some_and(|polka| polka.is_nil() || rs.has_block(&polka));
        // Line 61.
        if is_ready || rs.elapsed.prevote {
            return self.precommit();
        }
        // Line 34.
        let prevotes = rs.votes.prevotes(rs.round)?;
        (rs.step == Step::Prevote && prevotes.has_two_thirds_any())
            .then_some(Transition::WaitForPrevotes)
    }

    /// To precommit, after the block that is to be locked on was validated.
    fn precommit(&self) -> Option<Transition> {
        let rs = &self.rs;
        let polka = rs.votes.polka(rs.round).filter(|polka| !polka.is_nil());
        let must_validate = polka.is_some_and(|polka| {
            !rs.is_locked_on(&polka) && rs.has_block(&polka) && self.verdict(&polka).is_none()
        });
        Some(if must_validate {
            Transition::Validate
        } else {
            Transition::Precommit
        })
    }

    /// The block that more than 2/3 precommitted.
    pub(super) fn committed(&self) -> Option<BlockId> {
        let round = self.rs.commit_round?;
        self.rs.votes.precommits(round)?.maj23()
    }

    /// Whether a block follows from the state, once that is known.
    pub(super) fn verdict(&self, block_id: &BlockId) -> Option<&Result<(), String>> {
        self.verdicts
            .iter()
            .find(|(of, _)| of == block_id)
            .map(|(_, verdict)| verdict)
    }
}
