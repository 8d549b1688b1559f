//! Proposals, parts and votes, from peers and from this node itself.

use std::sync::Arc;

use perihelion_types::{
    FetchedBlock, Height, Part, PartSet, PeerId, Proposal, Round, SignedMsgType, Vote,
    merkle::ProofError,
    part_set::{MAX_PARTS, PART_SIZE, PartError},
};

use super::{Consensus, answer::Question};
use crate::{
    Announce, Effect, Fault, Message, Notice, Now, Step,
    votes::{Checked, VoteError},
};

impl Consensus {
    /// Takes one message; `peer` is `None` for this node's own.
    pub(super) fn take_message(&mut self, _now: Now, peer: Option<PeerId>, message: Message) {
        match message {
            Message::Proposal(proposal) => self.take_proposal(peer, proposal),
            Message::Part {
                height,
                round: _,
                part,
            } => self.take_part(peer, height, &part),
            Message::Vote(vote) => self.take_vote(peer, &vote),
        }
    }

    /// Whether a peer's proposal would be taken. The first proposal of this round that its proposer
    /// signed counts. One of other rounds, for a block that is too large, or that another one signed
    /// may come from an honest peer and is ignored: who proposes follows from priorities, which a
    /// CometBFT node has otherwise when it skipped other rounds or took its validators from an RPC.
    ///
    /// # Errors
    /// What its sender is to blame for.
    pub fn check_proposal(&self, proposal: &Proposal) -> Result<bool, Fault> {
        let rs = &self.rs;
        let is_here = (proposal.height, proposal.round) == (rs.height, rs.round);
        if rs.proposal.is_some() || !is_here {
            return Ok(false);
        }
        let (pol_round, round) = (proposal.pol_round, proposal.round);
        if pol_round < Round::new(-1) || pol_round >= round {
            return Err(Fault::PolRound { pol_round, round });
        }
        let Some(proposer) = rs.validators.proposer() else {
            return Ok(false);
        };
        let message = proposal.sign_bytes(&self.chain_id);
        if !self
            .verify
            .verify(&proposer.pub_key, &message, &proposal.signature)
        {
            return Ok(false);
        }
        let total = proposal.block_id.part_set_header.total;
        Ok(total <= MAX_PARTS && usize::try_from(total).is_ok_and(|n| n <= self.most_parts()))
    }

    fn take_proposal(&mut self, peer: Option<PeerId>, proposal: Arc<Proposal>) {
        match self.check_proposal(&proposal) {
            Ok(true) => {}
            Ok(false) => return,
            Err(fault) => return self.punish(peer, fault),
        }
        // Parts of a block with a polka are collected already, whatever is proposed.
        if self.rs.parts.is_none() {
            self.rs.parts = PartSet::from_header(proposal.block_id.part_set_header)
                .ok()
                .map(Arc::new);
        }
        self.rs.proposal = Some(Arc::clone(&proposal));
        self.announce(Announce::Proposal(proposal));
    }

    fn max_block_bytes(&self) -> usize {
        usize::try_from(self.state.consensus_params.max_block_bytes()).unwrap_or(0)
    }

    fn most_parts(&self) -> usize {
        self.max_block_bytes().saturating_sub(1) / PART_SIZE + 1
    }

    /// A part counts for the block that is being collected, in whatever round it was sent. Parts
    /// of other blocks of this height are sent by honest peers too.
    fn take_part(&mut self, peer: Option<PeerId>, height: Height, part: &Arc<Part>) {
        if height != self.rs.height {
            return;
        }
        let Some(parts) = &mut self.rs.parts else {
            return;
        };
        if parts.is_complete() {
            return;
        }
        match Arc::make_mut(parts).add_part(Part::clone(part)) {
            Ok(true) => {}
            Err(PartError::Proof(ProofError::Leaf)) => {
                // Not even the proof that came with it is for these bytes.
                let index = part.index;
                return self.punish(peer, Fault::Part { index });
            }
            Ok(false) | Err(_) => return,
        }
        let is_complete = parts.is_complete();
        let (height, round) = (self.rs.height, self.rs.round);
        self.announce(Announce::Part {
            height,
            round,
            part: Arc::clone(part),
        });
        if is_complete {
            self.complete_block();
        }
    }

    /// All parts are here: they make a block of this height, or nothing.
    fn complete_block(&mut self) {
        let Some(parts) = &self.rs.parts else {
            return;
        };
        // What more than 2/3 precommitted is not refused for its size.
        if parts.byte_size() > self.max_block_bytes() && self.rs.step != Step::Commit {
            return;
        }
        let block = FetchedBlock::from_parts(parts, self.rules);
        self.rs.block = block
            .ok()
            .filter(|block| block.height() == self.rs.height)
            .map(Arc::new);
    }

    fn take_vote(&mut self, peer: Option<PeerId>, vote: &Arc<Vote>) {
        let is_late_precommit =
            vote.height.next() == self.rs.height && vote.vote_type == SignedMsgType::Precommit;
        if is_late_precommit {
            self.take_late_precommit(peer, vote);
        } else if vote.height == self.rs.height {
            match self.rs.votes.check(vote, peer, &*self.verify) {
                Ok(Checked::New) if self.needs_application(vote) => {
                    // Else one validator could have it judge a vote of each round that there is.
                    self.rs.votes.open(vote.round, peer);
                    let vote = Arc::clone(vote);
                    self.ask(Question::VerifyExtension { vote, peer });
                }
                Ok(Checked::New) => self.add_vote(vote, peer),
                Ok(Checked::Known) => {}
                Err(error) => self.refuse_vote(peer, error),
            }
        }
    }

    /// The application judges the extensions of others.
    fn needs_application(&self, vote: &Vote) -> bool {
        vote.vote_type == SignedMsgType::Precommit
            && !vote.block_id.is_nil()
            && self.extensions_enabled()
            && !self.is_own(vote)
    }

    /// A precommit for the block below: it may go into the next block while that has not begun.
    fn take_late_precommit(&mut self, peer: Option<PeerId>, vote: &Arc<Vote>) {
        if self.rs.step != Step::NewHeight {
            return;
        }
        let Some(last_commit) = &mut self.rs.last_commit else {
            return;
        };
        match last_commit.add(vote, &*self.verify) {
            Ok(added) => {
                if let Some(first) = added.conflict {
                    self.report(first, vote);
                }
                if added.added {
                    self.announce(Announce::Vote(Arc::clone(vote)));
                }
            }
            // The height below may have been decided in another round than the peer saw.
            Err(VoteError::Misplaced) => {}
            Err(error) => self.refuse_vote(peer, error),
        }
    }

    /// Adds a vote that was checked.
    pub(super) fn add_vote(&mut self, vote: &Arc<Vote>, peer: Option<PeerId>) {
        let added = self.rs.votes.add_checked(vote, peer);
        if let Some(first) = added.conflict {
            self.report(first, vote);
        }
        if added.added {
            self.announce(Announce::Vote(Arc::clone(vote)));
        }
        if peer.is_none() {
            self.relock(vote);
        }
    }

    fn refuse_vote(&mut self, peer: Option<PeerId>, error: VoteError) {
        if let Some(fault) = error.fault() {
            self.punish(peer, fault);
        }
    }

    /// Two votes in one place: evidence, unless the key is this node's own.
    fn report(&mut self, first: Arc<Vote>, second: &Arc<Vote>) {
        if self.is_own(second) {
            let (height, round) = (second.height, second.round);
            self.notice(Notice::OwnVoteConflict { height, round });
        } else {
            let second = Arc::clone(second);
            self.effects.push_back(Effect::Report { first, second });
        }
    }
}
