//! Whether a block follows from a state.

use std::time::Duration;

use bytes::Bytes;
use perihelion_certify::{
    CommitError, CommitVerification, EvidenceError, History, Rules, verify_evidence_list,
};
use perihelion_proto::tendermint::types as pb;
use perihelion_types::{
    Address, Block, BlockId, Hash, Height, InvalidError, State, Time, header::Version,
    median::MedianTimeError, median_time,
};
use prost::Message as _;
use thiserror::Error;

use crate::{error::shown, request::LastCommitSize};

/// Whether the signatures of a block's last commit are still to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastCommit {
    /// All of them, nil votes too: for a block that somebody proposes.
    Verify,
    /// The block is final already, its last commit with it: nothing about its signatures can
    /// change that. Whether its times make the block's time is checked all the same.
    Trust,
}

/// A block does not follow from a state: the first rule that it breaks. `expected` is what follows
/// from the state, `got` what the block says.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(
    missing_docs,
    reason = "the message of a variant tells what its fields are"
)]
pub enum ValidationError {
    /// A rule that needs no state.
    #[error(transparent)]
    Basic(#[from] InvalidError),
    /// The block's or the application's version.
    #[error("versions are {}/{}, expected {}/{}", got.block, got.app, expected.block, expected.app)]
    Version { expected: Version, got: Version },
    /// The chain.
    #[error("chain id is {got:?}, expected {expected:?}")]
    ChainId { expected: String, got: String },
    /// Not the height that follows.
    #[error("height is {got}, expected {expected}")]
    Height { expected: Height, got: Height },
    /// The block below it is not ours.
    #[error("last block id is {}:{}, expected {}:{}", got.hash, got.part_set_header.hash, expected.hash, expected.part_set_header.hash)]
    LastBlockId {
        expected: Box<BlockId>,
        got: Box<BlockId>,
    },
    /// The application's state before this block.
    #[error(
        "app hash is {got}, ours is {expected}: the application yields another state than the chain's validators had",
        got = shown(.got), expected = shown(.expected)
    )]
    AppHash { expected: Bytes, got: Bytes },
    /// The consensus parameters.
    #[error("consensus hash is {got}, ours is {expected}")]
    ConsensusHash { expected: Hash, got: Hash },
    /// The results of the block below it.
    #[error(
        "last results hash is {got}, ours is {expected}: the application gives other results than the chain's validators had"
    )]
    LastResultsHash { expected: Hash, got: Hash },
    /// The validators of its height.
    #[error("validators hash is {got}, ours is {expected}")]
    ValidatorsHash { expected: Hash, got: Hash },
    /// The validators of the height after it.
    #[error("next validators hash is {got}, ours is {expected}")]
    NextValidatorsHash { expected: Hash, got: Hash },
    /// The chain's first block has nothing below it.
    #[error("the initial block's last commit has {0} signatures")]
    InitialLastCommit(usize),
    /// Nothing says that the block below it is final.
    #[error("there is no last commit")]
    NoLastCommit,
    /// What says that the block below it is final does not hold.
    #[error("last commit: {0}")]
    LastCommit(#[source] Box<CommitError>),
    /// Only seen where the last commit was not verified.
    #[error(transparent)]
    LastCommitSize(#[from] LastCommitSize),
    /// An address has 20 bytes.
    #[error("proposer address of {0} bytes")]
    ProposerLength(usize),
    /// Who proposed it may not.
    #[error("proposer {0} is no validator")]
    Proposer(Address),
    /// Time grows from block to block.
    #[error("time is {got:?}, not after the last block's {last:?}")]
    TimeNotAfterLast { last: Time, got: Time },
    /// The time cannot be told from the last commit.
    #[error("median time: {0}")]
    Median(#[from] MedianTimeError),
    /// Not the median of the last commit's times; at the initial height, not the genesis time.
    #[error("time is {got:?}, expected {expected:?}")]
    Time { expected: Time, got: Time },
    /// A proposed block from the future.
    #[error("time is {got:?}, more than {} s ahead of the clock, which says {now:?}", tolerance.as_secs_f64())]
    TimeAhead {
        got: Time,
        now: Time,
        tolerance: Duration,
    },
    /// More evidence than the parameters allow.
    #[error("evidence of {got} bytes, at most {max} are allowed")]
    EvidenceBytes { max: i64, got: i64 },
    /// Evidence that proves nothing, or no longer counts.
    #[error("evidence: {0}")]
    Evidence(#[source] Box<EvidenceError>),
}

impl From<CommitError> for ValidationError {
    fn from(error: CommitError) -> Self {
        Self::LastCommit(Box::new(error))
    }
}

impl From<EvidenceError> for ValidationError {
    fn from(error: EvidenceError) -> Self {
        Self::Evidence(Box::new(error))
    }
}

/// Validates `block` as the one that follows `state`, with its evidence judged by `history`, in
/// CometBFT's order (`state/validation.go`, then the evidence pool's check).
///
/// A block is judged anew each time. CometBFT v0.40 skips a block whose header it has just
/// validated, and so accepts one with the same header and another last commit; here the verdict is
/// v0.38's.
///
/// # Errors
/// Names the first rule that is broken.
pub fn validate_block(
    state: &State,
    block: &Block,
    last_commit: LastCommit,
    rules: Rules,
    history: &impl History,
) -> Result<(), ValidationError> {
    block.validate_basic_by(rules)?;
    validate_against_state(state, block, last_commit, rules)?;
    Ok(verify_evidence_list(&block.evidence, state, history)?)
}

/// [`validate_block`] without what needs no state, which a decoded block has passed, and without
/// its evidence.
pub(crate) fn validate_against_state(
    state: &State,
    block: &Block,
    last_commit: LastCommit,
    rules: Rules,
) -> Result<(), ValidationError> {
    validate_place(state, block)?;
    validate_hashes(state, block)?;
    validate_last_commit(state, block, last_commit, rules)?;
    validate_proposer(state, block)?;
    validate_time(state, block, rules)?;
    validate_evidence_size(state, block)
}

/// Versions, chain, height and the block below.
fn validate_place(state: &State, block: &Block) -> Result<(), ValidationError> {
    let header = &block.header;
    if header.version != state.version {
        return Err(ValidationError::Version {
            expected: state.version,
            got: header.version,
        });
    }
    if header.chain_id != state.chain_id {
        return Err(ValidationError::ChainId {
            expected: state.chain_id.clone(),
            got: header.chain_id.clone(),
        });
    }
    let (expected, got) = (state.next_height(), header.height);
    if got != expected {
        return Err(ValidationError::Height { expected, got });
    }
    let (expected, got) = (state.last_block_id, header.last_block_id);
    if got != expected {
        return Err(ValidationError::LastBlockId {
            expected: Box::new(expected),
            got: Box::new(got),
        });
    }
    Ok(())
}

/// What the header says of the state before it.
fn validate_hashes(state: &State, block: &Block) -> Result<(), ValidationError> {
    let header = &block.header;
    if header.app_hash != state.app_hash {
        return Err(ValidationError::AppHash {
            expected: state.app_hash.clone(),
            got: header.app_hash.clone(),
        });
    }
    let (expected, got) = (state.consensus_params.hash(), header.consensus_hash);
    if got != expected {
        return Err(ValidationError::ConsensusHash { expected, got });
    }
    let (expected, got) = (state.last_results_hash, header.last_results_hash);
    if got != expected {
        return Err(ValidationError::LastResultsHash { expected, got });
    }
    let (expected, got) = (state.validators.hash(), header.validators_hash);
    if got != expected {
        return Err(ValidationError::ValidatorsHash { expected, got });
    }
    let (expected, got) = (state.next_validators.hash(), header.next_validators_hash);
    if got != expected {
        return Err(ValidationError::NextValidatorsHash { expected, got });
    }
    Ok(())
}

fn validate_last_commit(
    state: &State,
    block: &Block,
    last_commit: LastCommit,
    rules: Rules,
) -> Result<(), ValidationError> {
    let commit = block
        .last_commit
        .as_ref()
        .ok_or(ValidationError::NoLastCommit)?;
    let height = block.header.height;
    if height == state.initial_height {
        return match commit.signatures.len() {
            0 => Ok(()),
            count => Err(ValidationError::InitialLastCommit(count)),
        };
    }
    match last_commit {
        LastCommit::Trust => Ok(()),
        LastCommit::Verify => {
            CommitVerification::new(&state.chain_id, &state.last_validators, commit)
                .rules(rules)
                .full(state.last_block_id, height.prev())?;
            Ok(())
        }
    }
}

/// The proposer is a validator; which one's turn it was depends on the round and is not known.
fn validate_proposer(state: &State, block: &Block) -> Result<(), ValidationError> {
    let bytes = &block.header.proposer_address;
    let address =
        Address::try_from(&bytes[..]).map_err(|_| ValidationError::ProposerLength(bytes.len()))?;
    match state.validators.by_address(&address) {
        Some(_) => Ok(()),
        None => Err(ValidationError::Proposer(address)),
    }
}

/// The genesis time for the first block, then the median of the last commit, which must rise.
fn validate_time(state: &State, block: &Block, rules: Rules) -> Result<(), ValidationError> {
    let got = block.header.time;
    if block.header.height == state.initial_height {
        let expected = state.last_block_time;
        return if got == expected {
            Ok(())
        } else {
            Err(ValidationError::Time { expected, got })
        };
    }
    let last = state.last_block_time;
    if got <= last {
        return Err(ValidationError::TimeNotAfterLast { last, got });
    }
    let commit = block
        .last_commit
        .as_ref()
        .ok_or(ValidationError::NoLastCommit)?;
    let expected = median_time(commit, &state.last_validators, rules.into())?;
    if got == expected {
        Ok(())
    } else {
        Err(ValidationError::Time { expected, got })
    }
}

/// A proposed block may not be ahead of the clock by the `tolerance` or more; zero is no bound.
pub(crate) fn validate_clock(
    got: Time,
    now: Time,
    tolerance: Duration,
) -> Result<(), ValidationError> {
    let ahead = u128::try_from(got.nanos_since(now)).unwrap_or(0);
    if tolerance.is_zero() || ahead < tolerance.as_nanos() {
        Ok(())
    } else {
        Err(ValidationError::TimeAhead {
            got,
            now,
            tolerance,
        })
    }
}

fn validate_evidence_size(state: &State, block: &Block) -> Result<(), ValidationError> {
    if block.evidence.is_empty() {
        return Ok(());
    }
    let list = pb::EvidenceList {
        evidence: block.evidence.iter().map(Into::into).collect(),
    };
    let got = i64::try_from(list.encoded_len()).unwrap_or(i64::MAX);
    let max = state.consensus_params.evidence.max_bytes;
    if got > max {
        return Err(ValidationError::EvidenceBytes { max, got });
    }
    Ok(())
}
