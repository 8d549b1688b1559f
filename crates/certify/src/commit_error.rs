//! Why a commit does not make its block final.

use bytes::Bytes;
use perihelion_types::{Address, BlockId, Height, KeyType};
use thiserror::Error;

/// Why a commit does not make its block final.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// A commit has one place for each validator of the set.
    #[error("commit has {got} places for a set of {expected} validators")]
    SetSize {
        /// Validators in the set.
        expected: usize,
        /// Places in the commit.
        got: usize,
    },
    /// The commit is for another height.
    #[error("commit is for height {got}, expected {expected}")]
    Height {
        /// The height that was to be committed.
        expected: Height,
        /// The commit's.
        got: Height,
    },
    /// The commit is for another block.
    #[error("commit is for block {}, expected {}", got.hash, expected.hash)]
    BlockId {
        /// The block that was to be committed.
        expected: Box<BlockId>,
        /// The commit's.
        got: Box<BlockId>,
    },
    /// Too little power precommitted the block.
    #[error("power of {got} signed, more than {needed} is needed")]
    NotEnoughPower {
        /// The power that counted (up to where counting stopped).
        got: i64,
        /// Must be exceeded.
        needed: i64,
    },
    /// A signature does not hold.
    #[error("wrong signature at index {index}")]
    WrongSignature {
        /// The place in the commit.
        index: usize,
    },
    /// A signature that is to be batched has not 64 bytes.
    #[error("signature of {length} bytes at index {index}")]
    SignatureLength {
        /// The place in the commit.
        index: usize,
        /// Bytes of the signature.
        length: usize,
    },
    /// A place that breaks the stateless rules (seen where signatures are verified one by one).
    #[error("malformed place at index {index}")]
    MalformedPlace {
        /// The place in the commit.
        index: usize,
    },
    /// A flag that is none of absent, commit and nil.
    #[error("unknown block id flag {flag} at index {index}")]
    UnknownFlag {
        /// The place in the commit.
        index: usize,
        /// The flag.
        flag: i32,
    },
    /// The place names another validator than the set has at its index.
    #[error(
        "validator address mismatch at index {index}: expected {expected}, got {}",
        hex(got)
    )]
    AddressMismatch {
        /// The place in the commit.
        index: usize,
        /// The set's validator at that index.
        expected: Address,
        /// What the place says, of any length.
        got: Bytes,
    },
    /// One validator at two places.
    #[error("double vote of {address} at indexes {first} and {second}")]
    DoubleVote {
        /// The validator.
        address: Address,
        /// Its first place.
        first: usize,
        /// Its second place.
        second: usize,
    },
    /// The set's proposer has a key that can be batched, this validator has not.
    #[error("{key_type:?} key at index {index} in a set whose signatures are batched")]
    KeyType {
        /// The place in the commit.
        index: usize,
        /// The validator's key type.
        key_type: KeyType,
    },
    /// A set without validators.
    #[error("empty validator set")]
    EmptySet,
    /// A trust level with denominator 0.
    #[error("trust level has denominator 0")]
    TrustLevel,
    /// A trust level whose numerator times the total power exceeds 64 bits.
    #[error("trust level is too large for the set's power")]
    TrustLevelOverflow,
    /// A precommit for the block without the signature of its extension.
    #[error("vote extension signature is missing at index {index}")]
    ExtensionMissing {
        /// The place in the commit.
        index: usize,
    },
    /// An extension, or a signature of one, where no block was precommitted.
    #[error("vote extension without a precommit for the block at index {index}")]
    ExtensionUnexpected {
        /// The place in the commit.
        index: usize,
    },
    /// The signature of an extension does not hold.
    #[error("wrong vote extension signature at index {index}")]
    WrongExtensionSignature {
        /// The place in the commit.
        index: usize,
    },
    /// There is no commit to verify.
    #[error("there is no commit")]
    NoCommit,
    /// There is no extended commit to verify.
    #[error("there is no extended commit")]
    NoExtendedCommit,
    /// The set that was given is not the one that the block's header names.
    #[error("the set is not the one that the block's header names")]
    OtherSet,
}

/// Upper-case hexadecimal of at most 64 bytes: an address of any length comes from a peer.
fn hex(bytes: &Bytes) -> String {
    bytes
        .iter()
        .take(64)
        .map(|byte| format!("{byte:02X}"))
        .collect()
}
