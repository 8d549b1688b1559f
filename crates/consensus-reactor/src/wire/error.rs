use perihelion_types::{DecodeError, Height, InvalidError, Round};
use thiserror::Error;

/// What no honest peer sends: each of these disconnects, as it does with CometBFT.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Longer than a message of its kind can be.
    #[error("consensus message of {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// The message's length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Not protobuf.
    #[error("malformed consensus message: {0}")]
    Malformed(String),
    /// None of the kinds that there are.
    #[error("unknown consensus message")]
    Unknown,
    /// A height, round or index below zero.
    #[error("{message}: {field} {value}")]
    Negative {
        /// The message, by its protocol name.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// As the message has it.
        value: i64,
    },
    /// A step that there is not.
    #[error("new round step: step {0}")]
    Step(u32),
    /// A round of the last commit below -1.
    #[error("new round step: last commit round {0}")]
    LastCommitRound(Round),
    /// A height below the chain's first.
    #[error("new round step: height {height}, the chain begins at {initial}")]
    BelowInitialHeight {
        /// As the message has it.
        height: Height,
        /// The chain's first.
        initial: Height,
    },
    /// The initial height has no last commit, and every other height has one.
    #[error("new round step: last commit round {round} at height {height}")]
    LastCommitAt {
        /// As the message has it.
        height: Height,
        /// As the message has it.
        round: Round,
    },
    /// Neither a prevote nor a precommit.
    #[error("{message}: type {vote_type}")]
    VoteType {
        /// The message, by its protocol name.
        message: &'static str,
        /// As the message has it.
        vote_type: i32,
    },
    /// A bit array with another number of words than its size needs, or a negative size.
    #[error("{message}: {bits} bits in {words} words")]
    Words {
        /// The message, by its protocol name.
        message: &'static str,
        /// As the message has it.
        bits: i64,
        /// Words of 64 bits that came.
        words: usize,
    },
    /// A bit array of a size that is not allowed.
    #[error("{message}: {bits} bits, at most {max} are allowed")]
    TooManyBits {
        /// The message, by its protocol name.
        message: &'static str,
        /// As the message has it.
        bits: i64,
        /// The bound.
        max: usize,
    },
    /// An empty bit array where there must be one.
    #[error("{0}: empty bit array")]
    NoBits(&'static str),
    /// A bit array of another size than the block's number of parts.
    #[error("new valid block: {bits} bits for {total} parts")]
    PartBits {
        /// The bit array's size.
        bits: usize,
        /// The part set header's total.
        total: u32,
    },
    /// A proposal of a block with more parts than the largest block has.
    #[error("proposal of {total} parts, at most {max} are allowed")]
    TooManyParts {
        /// As the proposal has it.
        total: u32,
        /// Parts of the largest block.
        max: u32,
    },
    /// A vote message without a vote.
    #[error("vote message without a vote")]
    NoVote,
    /// A proposal, part, vote or block id that does not decode.
    #[error("{message}: {source}")]
    Decode {
        /// The message, by its protocol name.
        message: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// A proposal, part or vote that breaks a stateless rule.
    #[error(transparent)]
    Invalid(#[from] InvalidError),
}
