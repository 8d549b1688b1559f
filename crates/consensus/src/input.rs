use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use perihelion_types::{
    Block, BlockId, Commit, ExtendedCommit, Height, Proposal, PublicKey, Round, Rules,
    SignedMsgType, State, Time, Vote,
};

/// The moment of an input, by both clocks: deadlines go by the one that never jumps, votes carry
/// the time of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub instant: Instant,
    /// For votes and proposals.
    pub time: Time,
}

/// What consensus starts from: the state after the last applied block.
#[derive(Debug, Clone)]
pub struct Start {
    /// The state after the last applied block.
    pub state: Arc<State>,
    /// The rules that judge the next block.
    pub rules: Rules,
    /// The key that this node signs with, if it is a validator's.
    pub own_key: Option<PublicKey>,
    /// What made the last applied block final, from our own store; needed for the next proposal.
    pub last_commit: LastCommit,
    /// The application's hash in the last applied block's header: where the state's differs, the
    /// next block is made without waiting for transactions. `None` when the block is not stored.
    pub last_header_app_hash: Option<Bytes>,
}

/// The precommits for the last applied block.
#[derive(Debug, Clone)]
pub enum LastCommit {
    /// There is no block yet.
    None,
    /// At a height without vote extensions.
    Plain(Commit),
    /// At a height with vote extensions.
    Extended(ExtendedCommit),
}

/// Names a question or an order of the state machine. Never used twice by one [`Consensus`].
///
/// [`Consensus`]: crate::Consensus
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

impl RequestId {
    /// The id with this number: for who answers without a state machine to ask.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The id as a number, for logs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// An answer to [`Effect::Ask`], [`Effect::Sign`] or [`Effect::Apply`].
///
/// [`Effect::Ask`]: crate::Effect::Ask
/// [`Effect::Sign`]: crate::Effect::Sign
/// [`Effect::Apply`]: crate::Effect::Apply
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Ask::MakeBlock`](crate::Ask::MakeBlock): the block to propose.
    Block(Box<Block>),
    /// To [`Ask::MakeBlock`](crate::Ask::MakeBlock): none could be made; nothing is proposed.
    NoBlock,
    /// To [`Ask::ProcessProposal`](crate::Ask::ProcessProposal) and
    /// [`Ask::ValidateBlock`](crate::Ask::ValidateBlock).
    Verdict(BlockVerdict),
    /// To [`Ask::ExtendVote`](crate::Ask::ExtendVote): the extension.
    Extension(Bytes),
    /// To [`Ask::VerifyExtension`](crate::Ask::VerifyExtension): whether the application accepts it.
    ExtensionAccepted(bool),
    /// To [`SignRequest::Vote`](crate::SignRequest::Vote): the vote with its signatures, and with
    /// the time of an earlier signature where the signer gave that one again.
    SignedVote(Box<Vote>),
    /// To [`SignRequest::Proposal`](crate::SignRequest::Proposal): likewise.
    SignedProposal(Box<Proposal>),
    /// The signer refused or failed: this node stays silent here.
    NotSigned,
    /// To [`Effect::Apply`](crate::Effect::Apply): the block is applied.
    Applied {
        /// The state after it.
        state: Arc<State>,
        /// The rules that judge the next block.
        rules: Rules,
    },
}

/// What the node found a block to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockVerdict {
    /// It follows from the state, and the application accepts it (where it was asked).
    Accepted,
    /// It follows from the state, and the application rejects it.
    Rejected,
    /// It does not follow from the state; the reason is for people.
    Invalid(String),
    /// Its time is too far ahead of this node's clock; the reason is for people. It is not voted
    /// for, but nothing is known of the block: where others vote for it, it is judged without the
    /// clock.
    Early(String),
}

/// A peer's claim that more than 2/3 of the power voted for a block (`VoteSetMaj23`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maj23 {
    /// At this height.
    pub height: Height,
    /// In this round.
    pub round: Round,
    /// By prevotes or precommits.
    pub vote_type: SignedMsgType,
    /// For this block, or nil.
    pub block_id: BlockId,
}
