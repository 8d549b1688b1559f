//! This node's own proposals and votes.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_types::{
    BlockId, ExtendedCommit, FetchedBlock, PartSet, Proposal, Round, SignedMsgType, Time, Vote,
};

use super::{
    Consensus,
    answer::{Pending, Question},
    replay::OwnAction,
};
use crate::{Effect, Message, Notice, Now, SignRequest, Step, VoteSet, WalMessage};

/// By how much a vote is later than the block that it is about: blocks' times rise.
const TIME_IOTA_NANOS: i64 = 1_000_000;

impl Consensus {
    /// Lines 14 to 19: proposes, when it is this node's turn.
    pub(super) fn propose(&mut self, now: Now) {
        let is_proposer = match (&self.own, self.proposer()) {
            (Some((address, _)), Some(proposer)) => proposer.address == *address,
            _ => false,
        };
        if is_proposer {
            self.act(now, OwnAction::Propose);
        }
    }

    /// Votes for a block or nil, when this node is a validator.
    pub(super) fn vote(
        &mut self,
        now: Now,
        vote_type: SignedMsgType,
        block: Option<Arc<FetchedBlock>>,
    ) {
        self.act_if_validator(now, OwnAction::Vote { vote_type, block });
    }

    /// What only a validator of this height does.
    pub(super) fn act_if_validator(&mut self, now: Now, action: OwnAction) {
        let is_validator = self
            .own
            .as_ref()
            .is_some_and(|(address, _)| self.rs.validators.by_address(address).is_some());
        if is_validator {
            self.act(now, action);
        }
    }

    /// Does what needs a signature; while the log is replayed, waits for what it has.
    pub(super) fn act(&mut self, now: Now, action: OwnAction) {
        if !self.mode.is_running() {
            self.pending = Some(Pending::Own(action));
            return;
        }
        if self.rs.height <= self.pinned {
            let (height, round) = (self.rs.height, self.rs.round);
            return self.notice(Notice::Withheld { height, round });
        }
        match action {
            OwnAction::Propose => self.make_proposal(now),
            OwnAction::Vote { vote_type, block } => {
                let block_id = block
                    .as_ref()
                    .map_or(BlockId::NIL, |block| block.block_id());
                self.make_vote(now, vote_type, block_id, block);
            }
            OwnAction::PrevoteBound(block_id) => {
                self.make_vote(now, SignedMsgType::Prevote, block_id, None);
            }
        }
    }

    /// Lines 15 to 18: the valid block again, else a new one.
    fn make_proposal(&mut self, now: Now) {
        let rs = &self.rs;
        if let Some(valid) = rs.valid.clone() {
            let block_id = valid.block.block_id();
            return self.sign_proposal(now, block_id, valid.round, valid.parts);
        }
        let last_commit = if rs.height == self.state.initial_height {
            Some(ExtendedCommit {
                height: perihelion_types::Height::ZERO,
                round: Round::ZERO,
                block_id: BlockId::NIL,
                extended_signatures: Vec::new(),
            })
        } else {
            rs.last_commit.as_ref().and_then(VoteSet::extended_commit)
        };
        let (Some(last_commit), Some((proposer, _))) = (last_commit, &self.own) else {
            return self.silent(Step::Propose);
        };
        self.ask(Question::MakeBlock {
            height: rs.height,
            round: rs.round,
            proposer: *proposer,
            last_commit: Box::new(last_commit),
        });
    }

    pub(super) fn sign_proposal(
        &mut self,
        now: Now,
        block_id: BlockId,
        pol_round: Round,
        parts: Arc<PartSet>,
    ) {
        let proposal = Box::new(Proposal {
            proposal_type: SignedMsgType::Proposal,
            height: self.rs.height,
            round: self.rs.round,
            pol_round,
            block_id,
            timestamp: now.time,
            signature: Bytes::new(),
        });
        let request = SignRequest::Proposal(proposal.clone());
        self.sign(request, Question::SignProposal { proposal, parts });
    }

    fn make_vote(
        &mut self,
        now: Now,
        vote_type: SignedMsgType,
        block_id: BlockId,
        block: Option<Arc<FetchedBlock>>,
    ) {
        let Some((address, _)) = &self.own else {
            return;
        };
        let Some((index, _)) = self.rs.validators.by_address(address) else {
            return;
        };
        let vote = Box::new(Vote {
            vote_type,
            height: self.rs.height,
            round: self.rs.round,
            block_id,
            timestamp: self.vote_time(now),
            validator_address: Bytes::copy_from_slice(address.as_bytes()),
            validator_index: i32::try_from(index).expect("sets are bounded far below 2^31"),
            signature: Bytes::new(),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        });
        match block {
            Some(block) if vote_type == SignedMsgType::Precommit && self.extensions_enabled() => {
                let validator = *address;
                self.ask(Question::ExtendVote {
                    vote,
                    block,
                    validator,
                });
            }
            _ => self.sign_vote(vote),
        }
    }

    pub(super) fn sign_vote(&mut self, vote: Box<Vote>) {
        let extension = vote.vote_type == SignedMsgType::Precommit
            && !vote.block_id.is_nil()
            && self.extensions_enabled();
        let request = SignRequest::Vote {
            vote: vote.clone(),
            extension,
        };
        self.sign(request, Question::SignVote(vote));
    }

    /// The log must hold what led here, so that a restart wants the same bytes signed.
    fn sign(&mut self, request: SignRequest, question: Question) {
        let id = self.new_id();
        self.effects.push_back(Effect::SyncWal);
        self.effects.push_back(Effect::Sign { id, request });
        self.pending = Some(Pending::Asked { id, question });
    }

    /// Now, but later than the block that is locked on or proposed: so the median of a commit's
    /// times, the next block's time, is later than the block's.
    fn vote_time(&self, now: Now) -> Time {
        let rs = &self.rs;
        let locked = rs.locked.as_ref().map(|locked| &locked.block);
        locked
            .or(rs.block.as_ref())
            .and_then(|block| {
                let time = block.block().header.time;
                time.checked_add_nanos(TIME_IOTA_NANOS)
            })
            .map_or(now.time, |earliest| now.time.max(earliest))
    }

    /// A vote came back from the signer; the time may be that of an earlier signature.
    pub(super) fn vote_signed(&mut self, wanted: &Vote, signed: Vote) {
        let is_wanted = Vote {
            timestamp: signed.timestamp,
            signature: Bytes::new(),
            extension_signature: Bytes::new(),
            ..signed.clone()
        } == Vote {
            timestamp: signed.timestamp,
            ..wanted.clone()
        };
        if is_wanted {
            self.queue_own(vec![Message::Vote(Arc::new(signed))]);
        } else {
            self.silent(self.rs.step);
        }
    }

    /// A proposal came back from the signer: it goes out with its parts.
    pub(super) fn proposal_signed(&mut self, wanted: &Proposal, signed: Proposal, parts: &PartSet) {
        let is_wanted = (
            signed.height,
            signed.round,
            signed.pol_round,
            signed.block_id,
        ) == (
            wanted.height,
            wanted.round,
            wanted.pol_round,
            wanted.block_id,
        );
        if !is_wanted {
            return self.silent(Step::Propose);
        }
        let (height, round) = (signed.height, signed.round);
        let mut messages = vec![Message::Proposal(Arc::new(signed))];
        messages.extend(
            (0..parts.header().total)
                .filter_map(|index| parts.part(index))
                .map(|part| Message::Part {
                    height,
                    round,
                    part: Arc::new(part.clone()),
                }),
        );
        self.queue_own(messages);
    }

    /// Own messages are synced to the log before they are taken; together, one sync will do.
    fn queue_own(&mut self, messages: Vec<Message>) {
        let last = messages.len().saturating_sub(1);
        for (at, message) in messages.into_iter().enumerate() {
            self.append(
                WalMessage::Message {
                    peer: None,
                    message: message.clone(),
                },
                at == last,
            );
            self.own_messages.push_back(message);
        }
    }
}
