//! Recovery from the write-ahead log.

use std::sync::Arc;

use perihelion_types::{BlockId, FetchedBlock, Height, Round, SignedMsgType, Vote};

use super::{Consensus, Input, answer::Pending};
use crate::{Message, Now, Step, WalMessage};

/// Whether the log is being replayed.
#[derive(Debug)]
pub(super) enum Mode {
    /// Nothing is signed or appended. `unanswered` is the last thing that this node wanted to sign
    /// and the log does not have.
    Replaying {
        unanswered: Option<(Height, Round, OwnAction)>,
    },
    /// Inputs come from peers and clocks.
    Running,
}

/// What needs a signature of this node.
#[derive(Debug, Clone)]
pub(super) enum OwnAction {
    /// A proposal for this round.
    Propose,
    /// A vote in this round.
    Vote {
        /// Prevote or precommit.
        vote_type: SignedMsgType,
        /// For which block; `None` for nil.
        block: Option<Arc<FetchedBlock>>,
    },
    /// A prevote in this round for the block that is locked on and not here.
    PrevoteBound(BlockId),
}

impl OwnAction {
    /// The type of vote; `None` for a proposal.
    fn vote_type(&self) -> Option<SignedMsgType> {
        match self {
            Self::Propose => None,
            Self::Vote { vote_type, .. } => Some(*vote_type),
            Self::PrevoteBound(_) => Some(SignedMsgType::Prevote),
        }
    }
}

impl Mode {
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }
}

impl Consensus {
    /// Takes one record of the log's current height, in order, before [`start`](Self::start).
    /// Questions are asked as they were; nothing is signed or appended, but for the end of a
    /// height that the log does not have. Records of other heights are ignored, and so is
    /// everything once it has started.
    ///
    /// Where this node wanted a signature, the next record tells whether it had it: its own
    /// message, or anything else when it stayed silent.
    ///
    /// The owner makes sure that the log has the end of the last applied height, synced, before
    /// anything is appended: a crash may have come before it, and what is appended now would not be
    /// found at the next start.
    pub fn replay(&mut self, now: Now, record: WalMessage) {
        if !self.mode.is_running() {
            self.inputs.push_back(Input::Replayed(record));
            self.run(now);
        }
    }

    /// Ends the replay of the log and begins. What was to be signed where the log ends is asked
    /// for now; the signer gives its old signature again where it had signed already.
    pub fn start(&mut self, now: Now) {
        let Mode::Replaying { unanswered } = std::mem::replace(&mut self.mode, Mode::Running)
        else {
            return;
        };
        if self.rs.step == Step::NewHeight {
            self.set_timeout(now, Step::NewHeight);
        }
        self.new_step();
        let awaited = match self.pending.take() {
            Some(Pending::Own(action)) => Some(action),
            asked => {
                self.pending = asked;
                unanswered
                    .filter(|(height, round, action)| {
                        let is_here = (*height, *round) == (self.rs.height, self.rs.round);
                        is_here && self.pending.is_none() && self.is_open(action)
                    })
                    .map(|(_, _, action)| action)
            }
        };
        if let Some(action) = awaited {
            self.act(now, action);
        }
        self.run(now);
    }

    /// Whether the round can still have this node's message.
    fn is_open(&self, action: &OwnAction) -> bool {
        let rs = &self.rs;
        match action.vote_type() {
            None => rs.step == Step::Propose && rs.proposal.is_none(),
            Some(vote_type) => {
                let cast = rs.votes.votes(rs.round, vote_type);
                let is_due = match vote_type {
                    SignedMsgType::Precommit => rs.step == Step::Precommit,
                    _ => matches!(rs.step, Step::Prevote | Step::PrevoteWait),
                };
                is_due && !cast.is_some_and(|votes| votes.votes().any(|vote| self.is_own(vote)))
            }
        }
    }

    /// Where the log is to tell whether this node had its signature: takes the next record.
    /// `false` when something else is awaited, or there is no record yet.
    pub(super) fn resume_replay(&mut self, now: Now) -> bool {
        let Some(Pending::Own(action)) = &self.pending else {
            return false;
        };
        let action = action.clone();
        let Some(input) = self.inputs.pop_front() else {
            return false;
        };
        if let Input::Replayed(WalMessage::RoundState { .. }) = input {
            return true;
        }
        self.pending = None;
        let fits = match &input {
            Input::Replayed(WalMessage::Message {
                peer: None,
                message,
            }) => self.fits(&action, message),
            _ => false,
        };
        let here = (self.rs.height, self.rs.round);
        if let Mode::Replaying { unanswered } = &mut self.mode {
            *unanswered = (!fits).then_some((here.0, here.1, action));
        }
        self.take(now, input);
        true
    }

    /// Whether `message` is what `action` would have made.
    fn fits(&self, action: &OwnAction, message: &Message) -> bool {
        let is_here = (message.height(), message.round()) == (self.rs.height, self.rs.round);
        is_here
            && match message {
                Message::Proposal(_) => action.vote_type().is_none(),
                Message::Vote(vote) => action.vote_type() == Some(vote.vote_type),
                Message::Part { .. } => false,
            }
    }

    pub(super) fn take_record(&mut self, now: Now, record: WalMessage) {
        match record {
            WalMessage::Message { peer, message } => {
                if message.height() == self.rs.height {
                    if peer.is_none() {
                        self.adopt(now, &message);
                    }
                    self.take_message(now, peer, message);
                } else if let Message::Vote(vote) = &message
                    && vote.height.next() == self.rs.height
                {
                    self.take_message(now, peer, message);
                }
            }
            WalMessage::Timeout(timeout) => self.take_timeout(timeout),
            WalMessage::RoundState { .. } | WalMessage::EndHeight(_) => {}
        }
    }

    /// This node's own message in the log proves that it was in that round and step, even where
    /// what led there cannot be counted again. So nothing is ever wanted signed once more.
    fn adopt(&mut self, now: Now, message: &Message) {
        if message.round() > self.rs.round {
            self.start_round(now, message.round());
        }
        let step = match message {
            Message::Proposal(_) | Message::Part { .. } => Step::Propose,
            Message::Vote(vote) if vote.vote_type == SignedMsgType::Precommit => Step::Precommit,
            Message::Vote(_) => Step::Prevote,
        };
        if message.round() == self.rs.round && self.rs.step < step {
            self.rs.step = step;
            self.set_timeout(now, step);
        }
    }

    /// This node's own precommit in the log proves that it was locked on the block, even where the
    /// polka that led to it cannot be counted again: claims of majorities, which let conflicting
    /// prevotes count, are not in the log.
    pub(super) fn relock(&mut self, vote: &Vote) {
        let is_precommit = vote.vote_type == SignedMsgType::Precommit && !vote.block_id.is_nil();
        if self.mode.is_running() || !is_precommit || !self.is_own(vote) {
            return;
        }
        self.rs.bind(vote.round, vote.block_id);
    }

    /// Tells of a lock that the log may not lead to, as the signer's memory proves it: this node may
    /// have precommitted `block_id` at this height, in `round` at the latest. Until more than 2/3
    /// prevote something else in a later round it prevotes that block and no other, whether or not
    /// the block is here: so does whoever is locked on a block. To be called behind the replay,
    /// before [`start`](Self::start); a lock of that round or a later one stays.
    pub fn bind(&mut self, round: Round, block_id: BlockId) {
        self.rs.bind(round, block_id);
    }
}
