use std::{sync::Arc, time::Instant};

use perihelion_certify::{CertifiedBlock, CommitError};
use perihelion_types::{
    Address, BlockId, ExtendedCommit, FetchedBlock, Height, Part, PartSetHeader, PeerId, Proposal,
    Round, Vote,
};
use thiserror::Error;

use crate::{BitArray, RequestId, Step, WalMessage};

/// What the owner of the state machine is to do, strictly in the order given: a record stands in
/// the log before what follows from it leaves the node.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Append a record to the write-ahead log.
    Append {
        /// The record.
        message: WalMessage,
        /// Whether the log must survive a power cut up to this record before the next effect:
        /// this node's own messages and the end of a height.
        sync: bool,
    },
    /// The log must survive a power cut before the next effect: it comes before each signature,
    /// so that a restart decides the same again.
    SyncWal,
    /// Sign; the answer is `SignedVote`, `SignedProposal` or `NotSigned`.
    Sign {
        /// To be given back.
        id: RequestId,
        /// What to sign.
        request: SignRequest,
    },
    /// Ask the executor or the application; the answer goes to `handle_answer`.
    Ask {
        /// To be given back.
        id: RequestId,
        /// The question.
        ask: Ask,
    },
    /// Tell the peers.
    Announce(Announce),
    /// Store a decided block with its commit, or extended commit where vote extensions are enabled,
    /// so that both survive a power cut. The end of the height is appended next.
    Commit(Arc<CertifiedBlock>),
    /// Have the decided block executed; the answer is `Applied`.
    Apply {
        /// To be given back.
        id: RequestId,
        /// The block of [`Effect::Commit`].
        block: Arc<CertifiedBlock>,
    },
    /// A validator signed two votes in one place: tell the evidence pool. Once for each validator,
    /// round and type of vote.
    Report {
        /// The vote that came first.
        first: Arc<Vote>,
        /// The vote that contradicts it.
        second: Arc<Vote>,
    },
    /// Disconnect a peer: no honest one could have sent this.
    Punish {
        /// Whom.
        peer: PeerId,
        /// What for.
        fault: Fault,
    },
    /// Something that an operator may want to read.
    Notice(Notice),
    /// Nothing more will be done; the reason names what to look at. Nobody is blamed.
    Halt(Halt),
}

/// What is to be signed. The signatures in it are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignRequest {
    /// A vote.
    Vote {
        /// With the extension in its place.
        vote: Box<Vote>,
        /// Whether the extension is to be signed too, an empty one included.
        extension: bool,
    },
    /// A proposal.
    Proposal(Box<Proposal>),
}

/// A question to the executor and the application. Blocks come with the parts that they were made
/// of, whose bytes are the block's.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Make the block to propose: evidence, the transactions of PrepareProposal, and a header out
    /// of the state. The answer is `Block` or `NoBlock`.
    MakeBlock {
        /// The height to propose for.
        height: Height,
        /// The round to propose in.
        round: Round,
        /// This node's address.
        proposer: Address,
        /// The precommits for the block below: its commit goes into the block, its extensions to
        /// PrepareProposal. Without any signature, and of height 0, at the initial height.
        last_commit: Box<ExtendedCommit>,
    },
    /// Validate the block against the state, with its last commit, then ask ProcessProposal. The
    /// answer is `Verdict`.
    ProcessProposal {
        /// The proposed block.
        block: Arc<FetchedBlock>,
    },
    /// Validate the block against the state, with its last commit; the application is not asked.
    /// The answer is `Verdict`.
    ValidateBlock {
        /// A block that others voted for.
        block: Arc<FetchedBlock>,
    },
    /// Ask ExtendVote for the precommit that is about to be signed. The answer is `Extension`.
    ExtendVote {
        /// The block that is precommitted.
        block: Arc<FetchedBlock>,
        /// In which round.
        round: Round,
        /// This node's address.
        validator: Address,
    },
    /// Ask VerifyVoteExtension; both signatures of the vote hold. The answer is
    /// `ExtensionAccepted`.
    VerifyExtension {
        /// A precommit of another validator.
        vote: Arc<Vote>,
    },
}

/// News for the peers. Gossip of what they lack reads the getters of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announce {
    /// A step was entered (`NewRoundStep`).
    RoundStep(RoundStep),
    /// The block that has more than 2/3 of the round's prevotes or of the precommits, and which of
    /// its parts are here (`NewValidBlock`).
    ValidBlock {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// Count and root of the parts.
        header: PartSetHeader,
        /// Which are here.
        parts: BitArray,
        /// Whether the block is decided.
        is_commit: bool,
    },
    /// A proposal was accepted.
    Proposal(Arc<Proposal>),
    /// A part was accepted.
    Part {
        /// The block's height.
        height: Height,
        /// The round that this node is in.
        round: Round,
        /// The part.
        part: Arc<Part>,
    },
    /// A vote was accepted: `HasVote` to all, the vote to those who lack it.
    Vote(Arc<Vote>),
}

/// Where this node is, as `NewRoundStep` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundStep {
    /// The height that is being decided.
    pub height: Height,
    /// Its round.
    pub round: Round,
    /// The step of the round.
    pub step: Step,
    /// When round 0 of the height begins or began; the message tells the whole seconds since then.
    pub start_time: Instant,
    /// The round in which the block below was decided; -1 when there is none.
    pub last_commit_round: Round,
}

/// What no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// A proposal whose proof of lock is not of an earlier round.
    #[error("proposal with a proof of lock of round {pol_round} in round {round}")]
    PolRound {
        /// As the proposal has it.
        pol_round: Round,
        /// The proposal's.
        round: Round,
    },
    /// A part whose bytes are not those that its own proof is for.
    #[error("part {index} is not what its proof is for")]
    Part {
        /// The part's index.
        index: u32,
    },
    /// A vote of an index that the validator set does not have.
    #[error("vote of validator {index}, there are {validators}")]
    VoteIndex {
        /// As the vote has it.
        index: i32,
        /// How many there are.
        validators: usize,
    },
    /// A vote whose address is not its index's.
    #[error("vote of validator {index} with another's address")]
    VoteAddress {
        /// As the vote has it.
        index: i32,
    },
    /// A vote that its validator did not sign.
    #[error("vote of validator {index} with a wrong signature")]
    VoteSignature {
        /// As the vote has it.
        index: i32,
    },
    /// Two different claims of more than 2/3 for one round's votes.
    #[error("claims two majorities in round {round}")]
    Maj23 {
        /// The round of both.
        round: Round,
    },
}

/// Something that an operator may want to read; none is repeated at a peer's will for ever.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Notice {
    /// This node's key has signed another vote elsewhere.
    #[error(
        "another vote of this node's own key at height {height}, round {round}: does a second node \
         run with it?"
    )]
    OwnVoteConflict {
        /// Of both votes.
        height: Height,
        /// Of both votes.
        round: Round,
    },
    /// Nil is prevoted because the proposed block does not follow from the state.
    #[error("the block proposed at height {height}, round {round} is invalid: {reason}")]
    InvalidProposal {
        /// Of the proposal.
        height: Height,
        /// Of the proposal.
        round: Round,
        /// The rule that it breaks.
        reason: String,
    },
    /// Nil is prevoted because the application rejects the proposed block.
    #[error("the application rejects the block proposed at height {height}, round {round}")]
    RejectedProposal {
        /// Of the proposal.
        height: Height,
        /// Of the proposal.
        round: Round,
    },
    /// The signer refused or failed.
    #[error("nothing was signed at height {height}, round {round}, step {step}")]
    NotSigned {
        /// At this height.
        height: Height,
        /// In this round.
        round: Round,
        /// `Propose`, `Prevote` or `Precommit`.
        step: Step,
    },
    /// No vote is cast: a pinned block of this height is held.
    #[error("no vote at height {height}, round {round}: a final block of this height is here")]
    Withheld {
        /// At this height.
        height: Height,
        /// In this round.
        round: Round,
    },
}

/// Why nothing more is done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Halt {
    /// More than 2/3 of the power precommitted a block that does not follow from our state.
    #[error(
        "block {height} ({block_id}) has more than 2/3 of the precommits and is invalid here: \
         {reason}"
    )]
    CommittedInvalid {
        /// The block's height.
        height: Height,
        /// The block.
        block_id: BlockId,
        /// The rule that it breaks.
        reason: String,
    },
    /// More than 2/3 of the power precommitted parts that are no block.
    #[error(
        "the parts of block {height} ({block_id}) have more than 2/3 of the precommits and do not \
         decode: {reason}"
    )]
    CommittedUndecodable {
        /// The block's height.
        height: Height,
        /// The block.
        block_id: BlockId,
        /// What is wrong.
        reason: String,
    },
    /// The precommits that were counted make no commit that verifies: a fault of this program.
    #[error("the precommits for block {height} make no valid commit: {fault}")]
    CommitFault {
        /// The block's height.
        height: Height,
        /// What the verification found.
        fault: CommitError,
    },
    /// The state after a block is not of its height.
    #[error("block {height} was applied, but the state is of height {got}")]
    WrongState {
        /// The height that was decided.
        height: Height,
        /// The height of the state given.
        got: Height,
    },
}
