//! Questions that are open, and what their answers lead to.

use std::sync::Arc;

use perihelion_types::{
    Address, Block, BlockId, ExtendedCommit, FetchedBlock, Height, PartSet, PeerId, Proposal,
    Round, SignedMsgType, Vote,
};

use super::{Consensus, MAX_VERDICTS, replay::OwnAction};
use crate::{Answer, Ask, BlockVerdict, Notice, Now, RequestId, Step};

/// What nothing goes on without.
#[derive(Debug)]
pub(super) enum Pending {
    /// An answer of the shell.
    Asked {
        /// The name of the question.
        id: RequestId,
        /// The question.
        question: Question,
    },
    /// While replaying: the log's next record may be this node's own message.
    Own(OwnAction),
}

/// What the shell was asked.
#[derive(Debug)]
pub(super) enum Question {
    MakeBlock {
        height: Height,
        round: Round,
        proposer: Address,
        last_commit: Box<ExtendedCommit>,
    },
    ProcessProposal(Arc<FetchedBlock>),
    ValidateBlock(Arc<FetchedBlock>),
    ExtendVote {
        vote: Box<Vote>,
        block: Arc<FetchedBlock>,
        validator: Address,
    },
    VerifyExtension {
        vote: Arc<Vote>,
        peer: Option<PeerId>,
    },
    SignVote(Box<Vote>),
    SignProposal {
        proposal: Box<Proposal>,
        parts: Arc<PartSet>,
    },
    Apply(Arc<FetchedBlock>),
}

impl Pending {
    /// Whether the shell is to answer.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self, Self::Asked { .. })
    }
}

impl Question {
    /// The question as the shell gets it; `None` for what has an effect of its own.
    pub(super) fn ask(&self) -> Option<Ask> {
        Some(match self {
            Self::MakeBlock {
                height,
                round,
                proposer,
                last_commit,
            } => Ask::MakeBlock {
                height: *height,
                round: *round,
                proposer: *proposer,
                last_commit: last_commit.clone(),
            },
            Self::ProcessProposal(block) => Ask::ProcessProposal {
                block: Arc::clone(block),
            },
            Self::ValidateBlock(block) => Ask::ValidateBlock {
                block: Arc::clone(block),
            },
            Self::ExtendVote {
                vote,
                block,
                validator,
            } => Ask::ExtendVote {
                block: Arc::clone(block),
                round: vote.round,
                validator: *validator,
            },
            Self::VerifyExtension { vote, .. } => Ask::VerifyExtension {
                vote: Arc::clone(vote),
            },
            Self::SignVote(_) | Self::SignProposal { .. } | Self::Apply(_) => return None,
        })
    }
}

impl Consensus {
    /// Takes the answer to the question that is open. Answers to others, which a state machine
    /// before this one may have asked, and answers of another kind are ignored.
    pub fn handle_answer(&mut self, now: Now, id: RequestId, answer: Answer) {
        match self.pending.take() {
            Some(Pending::Asked { id: open, question }) if open == id => {
                if let Some(question) = self.answered(now, question, answer) {
                    self.pending = Some(Pending::Asked { id, question });
                }
            }
            other => self.pending = other,
        }
        self.run(now);
    }

    /// Goes on after an answer; gives the question back when the answer does not fit it.
    fn answered(&mut self, now: Now, question: Question, answer: Answer) -> Option<Question> {
        match (question, answer) {
            (Question::MakeBlock { .. }, Answer::Block(block)) => self.block_made(now, &block),
            (Question::MakeBlock { .. }, Answer::NoBlock) => self.silent(Step::Propose),
            (Question::ProcessProposal(block), Answer::Verdict(verdict)) => {
                self.processed(now, block, verdict);
            }
            (Question::ValidateBlock(block), Answer::Verdict(verdict)) => {
                self.record(block.block_id(), verdict);
            }
            (Question::ExtendVote { mut vote, .. }, Answer::Extension(extension)) => {
                vote.extension = extension;
                self.sign_vote(vote);
            }
            (Question::VerifyExtension { vote, peer }, Answer::ExtensionAccepted(accepted)) => {
                if accepted {
                    self.add_vote(&vote, peer);
                }
            }
            (Question::SignVote(wanted), Answer::SignedVote(vote)) => {
                self.vote_signed(&wanted, *vote);
            }
            (Question::SignVote(vote), Answer::NotSigned) => self.silent(step_of(vote.vote_type)),
            (Question::SignProposal { proposal, parts }, Answer::SignedProposal(signed)) => {
                self.proposal_signed(&proposal, *signed, &parts);
            }
            (Question::SignProposal { .. }, Answer::NotSigned) => self.silent(Step::Propose),
            (Question::Apply(block), Answer::Applied { state, rules }) => {
                self.applied(now, &block, state, rules);
            }
            (question, _) => return Some(question),
        }
        None
    }

    /// The block to propose is there: cut into parts, and proposed.
    fn block_made(&mut self, now: Now, block: &Block) {
        let parts = PartSet::from_data(block.encode());
        let block_id = BlockId {
            hash: block.hash(),
            part_set_header: parts.header(),
        };
        self.sign_proposal(now, block_id, Round::new(-1), Arc::new(parts));
    }

    /// The proposed block was judged: lines 23 to 26.
    fn processed(&mut self, now: Now, block: Arc<FetchedBlock>, verdict: BlockVerdict) {
        let (height, round) = (self.rs.height, self.rs.round);
        let accepted = verdict == BlockVerdict::Accepted;
        match &verdict {
            BlockVerdict::Accepted => {}
            BlockVerdict::Rejected => self.notice(Notice::RejectedProposal { height, round }),
            BlockVerdict::Invalid(reason) | BlockVerdict::Early(reason) => {
                let reason = reason.clone();
                self.notice(Notice::InvalidProposal {
                    height,
                    round,
                    reason,
                });
            }
        }
        self.record(block.block_id(), verdict);
        self.vote(now, SignedMsgType::Prevote, accepted.then_some(block));
    }

    /// Remembers whether a block follows from the state.
    fn record(&mut self, block_id: BlockId, verdict: BlockVerdict) {
        let verdict = match verdict {
            BlockVerdict::Accepted | BlockVerdict::Rejected => Ok(()),
            BlockVerdict::Invalid(reason) => Err(reason),
            BlockVerdict::Early(_) => return,
        };
        self.verdicts.retain(|(of, _)| *of != block_id);
        if self.verdicts.len() == MAX_VERDICTS {
            self.verdicts.pop_front();
        }
        self.verdicts.push_back((block_id, verdict));
    }

    pub(super) fn silent(&mut self, step: Step) {
        let (height, round) = (self.rs.height, self.rs.round);
        self.notice(Notice::NotSigned {
            height,
            round,
            step,
        });
    }
}

fn step_of(vote_type: SignedMsgType) -> Step {
    if vote_type == SignedMsgType::Precommit {
        Step::Precommit
    } else {
        Step::Prevote
    }
}
