//! Why evidence is refused.

use perihelion_types::{Address, BlockId, Height, Round, SignedMsgType, Time};
use thiserror::Error;

use crate::CommitError;

/// The chain's history could not be read: a local fault, no verdict on the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot read {what} of height {height}: {reason}")]
pub struct HistoryError {
    /// What was to be read.
    pub what: &'static str,
    /// Its height.
    pub height: Height,
    /// Why it could not.
    pub reason: String,
}

/// Why evidence does not prove what it claims, or no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(
    missing_docs,
    reason = "the message of a variant tells what its fields are"
)]
pub enum EvidenceError {
    /// Our own history failed us.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// There is no block at the height of the evidence (above the state's height, or pruned).
    #[error("there is no header of height {0}")]
    NoHeader(Height),
    /// The commit for a height is not in the chain yet, or was pruned.
    #[error("there is no commit for height {0}")]
    NoCommit(Height),
    /// The validators of a height are not known.
    #[error("there are no validators of height {0}")]
    NoValidators(Height),
    /// The evidence's time is not that of the block at its height.
    #[error("evidence of time {got:?}, the block has {expected:?}")]
    Time { expected: Time, got: Time },
    /// Too old in blocks and in time.
    #[error("evidence of height {height} is too old")]
    Expired { height: Height },
    /// The chain holds it already.
    #[error("evidence was already committed")]
    AlreadyCommitted,
    /// The same evidence twice in one block.
    #[error("evidence {second} is the same as evidence {first}")]
    Duplicate { first: usize, second: usize },
    /// The voter was no validator at that height.
    #[error("no validator of height {height} has the voter's address")]
    NotAValidator { height: Height },
    /// Height, round or type of the votes differ.
    #[error("the votes are of {}/{}/{:?} and {}/{}/{:?}", a.0, a.1, a.2, b.0, b.1, b.2)]
    VotesDiffer {
        a: (Height, Round, SignedMsgType),
        b: (Height, Round, SignedMsgType),
    },
    /// The votes are of two validators.
    #[error("the votes are of two validators")]
    VotersDiffer,
    /// Both votes are for one block.
    #[error("both votes are for block {}", .0.hash)]
    SameBlock(BlockId),
    /// The key of the validator is not that of its address.
    #[error("the key of validator {0} has another address")]
    KeyAddress(Address),
    /// Not the power that the validator had.
    #[error("evidence gives the validator a power of {got}, it had {expected}")]
    ValidatorPower { expected: i64, got: i64 },
    /// Not the power that all validators had.
    #[error("evidence gives a total power of {got}, it was {expected}")]
    TotalPower { expected: i64, got: i64 },
    /// A vote's signature does not hold (`a` for the first vote).
    #[error("wrong signature of vote {0}")]
    WrongVoteSignature(char),
    /// Too little of the common set has signed the conflicting block.
    #[error("the common validators have not signed the conflicting block: {0}")]
    CommonSet(#[source] CommitError),
    /// The conflicting commit does not hold against the conflicting set.
    #[error("commit of the conflicting block: {0}")]
    ConflictingCommit(#[source] CommitError),
    /// At one height the conflicting header must follow from the same state.
    #[error("the conflicting header of the common height was not derived from the chain's state")]
    NotDerived,
    /// The conflicting header is the chain's own.
    #[error("the conflicting header is the chain's own")]
    SameHeader,
    /// A block above the latest one, but later than it, so that no time was violated.
    #[error("the conflicting block is of {conflicting:?}, after the latest block's {latest:?}")]
    TimeNotViolated { latest: Time, conflicting: Time },
    /// An amnesia attack convicts nobody, and evidence that convicts nobody is refused on the wire.
    #[error("no validator can be convicted by this attack")]
    NobodyByzantine,
    /// Another number of byzantine validators than follows from the headers.
    #[error("evidence lists {got} byzantine validators, {expected} follow from the headers")]
    ByzantineCount { expected: usize, got: usize },
    /// Another byzantine validator than follows from the headers.
    #[error("byzantine validator {index} is {got}, expected {expected}")]
    ByzantineAddress {
        index: usize,
        expected: Address,
        got: Address,
    },
    /// Another power of a byzantine validator.
    #[error("byzantine validator {index} has a power of {expected}, evidence says {got}")]
    ByzantinePower {
        index: usize,
        expected: i64,
        got: i64,
    },
}
