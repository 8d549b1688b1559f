//! What a peer lacks of what is here: one message at a time, the most useful first.

use std::sync::Arc;

use perihelion_consensus::{BitArray, HeightVoteSet, Maj23, Step};
use perihelion_types::{Height, PartSet, SignedMsgType, Vote};

use super::{
    state::PeerState,
    view::{Stored, View, VotesView},
};
use crate::wire::{PeerMessage, ProposalPol, VoteSetBits};

/// How often [`PeerState::next_data`] finds that a peer which lags has not said which block it
/// collects, before it is taken to collect the one that was decided. A peer drops parts that come
/// before it has seen the commit, and says what it collects when it has; only where that message
/// was lost must it be guessed. Smaller, and parts would be sent in vain.
pub const IDLE_POLLS_BEFORE_HEADER: u32 = 20;

impl PeerState {
    /// The next proposal, proof of lock or block part that the peer lacks. To be recorded by
    /// [`sent`](Self::sent) once it is on its way; until then it is not asked again.
    pub fn next_data(&mut self, view: &View, stored: &dyn Stored) -> Option<PeerMessage> {
        if self.height == view.height() {
            self.next_part(view).or_else(|| self.next_proposal(view))
        } else if view.has_stored(self.height) {
            self.next_stored_part(stored)
        } else {
            None
        }
    }

    /// A part of the block that both collect, in whatever round.
    fn next_part(&mut self, view: &View) -> Option<PeerMessage> {
        let (ours, theirs) = (view.parts()?, self.parts.as_ref()?);
        if ours.header() != theirs.header {
            return None;
        }
        let lacking = ours.bits().minus(&theirs.bits);
        let index = u32::try_from(self.picks.pick(&lacking)?).ok()?;
        Some(PeerMessage::Part {
            height: view.height(),
            round: view.round(),
            part: Arc::clone(ours.part(index)?),
        })
    }

    /// The proposal, and behind it which prevotes of its proof of lock are here.
    fn next_proposal(&mut self, view: &View) -> Option<PeerMessage> {
        let proposal = view.proposal()?;
        if self.round != view.round() {
            return None;
        }
        if !self.has_proposal {
            return Some(PeerMessage::Proposal(Arc::clone(proposal)));
        }
        if self.has_pol || self.pol_round != Some(proposal.pol_round) {
            return None;
        }
        let prevotes = view.prevotes(proposal.pol_round)?;
        Some(PeerMessage::ProposalPol(ProposalPol {
            height: view.height(),
            pol_round: proposal.pol_round,
            prevotes: prevotes.bits().clone(),
        }))
    }

    /// A part of the block that was decided at the peer's height.
    fn next_stored_part(&mut self, stored: &dyn Stored) -> Option<PeerMessage> {
        match &self.parts {
            Some(parts) if parts.bits.is_full() => return None,
            Some(_) => {}
            None if self.step == Some(Step::Commit) => {}
            None => {
                self.idle_polls = self.idle_polls.saturating_add(1);
                if self.idle_polls < IDLE_POLLS_BEFORE_HEADER {
                    return None;
                }
            }
        }
        let header = stored.header(self.height)?;
        if self.parts.is_none() {
            self.expect_parts(header);
        }
        // It collects another block until it has seen the commit: nothing is loaded for it.
        let theirs = self.parts.as_ref().filter(|parts| parts.header == header)?;
        let lacking = all(theirs.bits.size()).minus(&theirs.bits);
        let block: Arc<PartSet> = stored.parts(self.height)?;
        let index = u32::try_from(self.picks.pick(&lacking)?).ok()?;
        Some(PeerMessage::Part {
            height: self.height,
            round: self.round,
            part: Arc::new(block.part(index)?.clone()),
        })
    }

    /// The next vote that the peer lacks. To be recorded by [`sent`](Self::sent).
    pub fn next_vote(&mut self, view: &View, stored: &dyn Stored) -> Option<PeerMessage> {
        let vote = if self.height == view.height() {
            self.next_vote_here(view)
        } else if self.height.is_positive() && self.height.next() == view.height() {
            self.pick_vote(view.last_commit()?)
        } else if view.has_stored(self.height) {
            self.pick_vote(&*stored.commit(self.height)?)
        } else {
            None
        };
        vote.map(PeerMessage::Vote)
    }

    /// Votes of the height that both decide, in the order in which they help.
    fn next_vote_here(&mut self, view: &View) -> Option<Arc<Vote>> {
        let (round, step) = (self.round, self.step?);
        let prevotes = view.prevotes(round);
        let pol = self.pol_round.and_then(|round| view.prevotes(round));
        let commit = view.commit();
        let sets = [
            // It can still put them into its next block.
            view.last_commit().filter(|_| step == Step::NewHeight),
            // Without the proof of lock it cannot prevote the proposal.
            pol.filter(|_| step <= Step::Propose),
            prevotes.filter(|_| step <= Step::PrevoteWait),
            view.precommits(round)
                .filter(|_| step <= Step::PrecommitWait),
            // A late polka still makes the block valid.
            prevotes,
            pol,
            // Decided in another round than the peer is in.
            commit.filter(|_| step != Step::Commit),
        ];
        sets.into_iter()
            .flatten()
            .find_map(|votes| self.pick_vote(votes))
    }

    fn pick_vote(&mut self, votes: &VotesView) -> Option<Arc<Vote>> {
        if votes.is_commit() {
            self.keep_commit_round(votes.height(), votes.round());
        }
        let place = (votes.height(), votes.round(), votes.vote_type());
        let theirs = self.bits_mut(place, votes.size())?;
        let lacking = votes.bits().minus(theirs);
        let index = self.picks.pick(&lacking)?;
        votes.vote(index).cloned()
    }

    /// The majorities that the peer should hear of, for the sake of validators that vote twice: it
    /// counts second votes only for a block that somebody claims. To be sent every two seconds or
    /// so, not faster. Never two different claims for one place, which would disconnect us.
    #[must_use]
    pub fn next_maj23(&self, view: &View, stored: &dyn Stored) -> Vec<PeerMessage> {
        let mut claims: Vec<Maj23> = Vec::new();
        if self.height == view.height() {
            let pol = self.pol_round.and_then(|round| view.prevotes(round));
            let commit = view.commit();
            let sets = [
                view.prevotes(self.round),
                view.precommits(self.round),
                pol,
                commit,
            ];
            claims.extend(sets.into_iter().flatten().filter_map(|set| claim(set)));
        } else if self.height.next() == view.height() {
            claims.extend(view.last_commit().and_then(|set| claim(set)));
        } else if view.has_stored(self.height) {
            let commit = stored.commit(self.height);
            claims.extend(commit.and_then(|set| claim(&set)));
        }
        claims.dedup();
        claims.into_iter().map(PeerMessage::Maj23).collect()
    }
}

/// The answer to a peer's claim, once the state machine has taken it: whose votes for that block
/// are here. `None` for another height.
#[must_use]
pub fn answer_maj23(votes: &HeightVoteSet, claim: &Maj23) -> Option<PeerMessage> {
    let is_vote = matches!(
        claim.vote_type,
        SignedMsgType::Prevote | SignedMsgType::Precommit
    );
    if claim.height != votes.height() || !is_vote {
        return None;
    }
    let ours = votes
        .votes(claim.round, claim.vote_type)
        .and_then(|set| set.bits_for(&claim.block_id));
    Some(PeerMessage::VoteSetBits(VoteSetBits {
        height: claim.height,
        round: claim.round,
        vote_type: claim.vote_type,
        block_id: claim.block_id,
        votes: ours.unwrap_or_else(|| BitArray::new(0)),
    }))
}

fn claim(set: &VotesView) -> Option<Maj23> {
    let height: Height = set.height();
    Some(Maj23 {
        height,
        round: set.round(),
        vote_type: set.vote_type(),
        block_id: set.maj23()?,
    })
}

fn all(size: usize) -> BitArray {
    let mut bits = BitArray::new(size);
    (0..size).for_each(|index| bits.set(index, true));
    bits
}
