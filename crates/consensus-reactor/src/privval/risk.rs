//! What the chain in the store says of our own signatures, before anything is signed.

use std::path::{Path, PathBuf};

use perihelion_consensus::{Message, WalMessage};
use perihelion_crypto::PublicKey;
use perihelion_store::{Store, StoreError};
use perihelion_types::{BlockIdFlag, Commit, Height, SignedMsgType};
use thiserror::Error;

use super::{HeightRoundStep, SignState, Step, WITHOUT_A_COPY};

/// Heights below the last that are searched for signatures that the state does not know of. A
/// validator that signed is in nearly every commit, so a few would do; more make the start of a
/// node that is no validator slower.
const SEARCHED_HEIGHTS: i64 = 1_000;

/// To sign now would risk signing twice.
#[derive(Debug, Error)]
pub enum DoubleSignRisk {
    /// The state file is older than the chain in the store.
    #[error(
        "the validator state {} is too old: it knows of {last}, but this validator signed block \
         {signed}. With it the validator may sign twice at a height, for which it loses a part of \
         its stake and on most chains is barred for good. Restore the newest state; or, when no other \
         copy of this validator runs and none will, {WITHOUT_A_COPY}",
        path.display()
    )]
    StaleState {
        /// The file.
        path: PathBuf,
        /// What it knows of.
        last: HeightRoundStep,
        /// The highest block of the store that we signed.
        signed: Height,
    },
    /// The state file is older than what the consensus log has of this validator.
    #[error(
        "the validator state {} is too old: it knows of {last}, but the consensus log has this \
         validator's own {signed}. With it the validator may sign twice at a height, for which it \
         loses a part of its stake and on most chains is barred for good. Restore the newest state; \
         or, when no other copy of this validator runs and none will, write the height, round and \
         step of the latter into the file, and remove \"signature\" and \"signbytes\"",
        path.display()
    )]
    StaleForLog {
        /// The file.
        path: PathBuf,
        /// What it knows of.
        last: HeightRoundStep,
        /// What the log has.
        signed: HeightRoundStep,
    },
    /// Our signature stands in one of the last blocks (`double_sign_check_height`).
    #[error(
        "this validator signed block {signed}, one of the last {look_back}: another copy of it may \
         be running. Stop that one, and start again when its signatures are {look_back} blocks \
         old (consensus.double_sign_check_height; 0 does not look)"
    )]
    SignedLately {
        /// The highest of them.
        signed: Height,
        /// The blocks that were searched.
        look_back: u64,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Fails when a block of the store, whose chain is `chain_id`, has a precommit by `key` that is later
/// than what `state`, read from `path`, knows of: then the file was lost or restored, or another copy
/// of the validator runs, and other votes may have been signed since. For the start, and for each
/// moment before consensus is entered: blocks that were fetched meanwhile may show it. What this
/// process signed is never later than its state. Searches the last 1,000 blocks.
///
/// # Errors
/// Then, or when the store cannot be read.
pub fn check_sign_state(
    state: &SignState,
    path: &Path,
    key: &PublicKey,
    chain_id: &str,
    store: &Store,
) -> Result<(), DoubleSignRisk> {
    let last = state.at();
    let height = store.height();
    let first = Height::new(last.height).max(height.plus(1 - SEARCHED_HEIGHTS));
    let newer = |commit: &Commit| {
        let precommit = HeightRoundStep {
            height: commit.height.get(),
            round: commit.round.get(),
            step: Step::Precommit,
        };
        precommit > last && has_signed(commit, key, chain_id, |flag| flag != BlockIdFlag::Absent)
    };
    match highest(store, first, newer)? {
        None => Ok(()),
        Some(signed) => Err(DoubleSignRisk::StaleState {
            path: path.to_owned(),
            last,
            signed,
        }),
    }
}

/// Fails when a record of the consensus log is a proposal or vote of our own that is later than what
/// `state`, read from `path`, knows of. The state is written before the log, so one of the two is
/// not of this home. For each record that is replayed.
///
/// # Errors
/// Then.
pub fn check_replayed(
    state: &SignState,
    path: &Path,
    record: &WalMessage,
) -> Result<(), DoubleSignRisk> {
    let WalMessage::Message {
        peer: None,
        message,
    } = record
    else {
        return Ok(());
    };
    let step = match message {
        Message::Proposal(_) => Step::Propose,
        Message::Vote(vote) if vote.vote_type == SignedMsgType::Prevote => Step::Prevote,
        Message::Vote(_) => Step::Precommit,
        Message::Part { .. } => return Ok(()),
    };
    let signed = HeightRoundStep {
        height: message.height().get(),
        round: message.round().get(),
        step,
    };
    let last = state.at();
    if signed <= last {
        return Ok(());
    }
    Err(DoubleSignRisk::StaleForLog {
        path: path.to_owned(),
        last,
        signed,
    })
}

/// Fails when one of the last `look_back` blocks (0: none are searched) of chain `chain_id` was
/// precommitted by `key`, as CometBFT's `double_sign_check_height`: then another copy of the validator
/// may be running. For the moment before consensus is entered.
///
/// # Errors
/// Then, or when the store cannot be read.
pub fn check_signed_lately(
    store: &Store,
    key: &PublicKey,
    chain_id: &str,
    look_back: u64,
) -> Result<(), DoubleSignRisk> {
    let blocks = i64::try_from(look_back).unwrap_or(i64::MAX);
    let first = Height::new(store.height().get().saturating_sub(blocks)).next();
    let ours =
        |commit: &Commit| has_signed(commit, key, chain_id, |flag| flag == BlockIdFlag::Commit);
    match highest(store, first, ours)? {
        None => Ok(()),
        Some(signed) => Err(DoubleSignRisk::SignedLately { signed, look_back }),
    }
}

/// The highest block from `first` on whose commit passes.
fn highest(
    store: &Store,
    first: Height,
    passes: impl Fn(&Commit) -> bool,
) -> Result<Option<Height>, StoreError> {
    let (base, mut height) = store.base_and_height();
    let first = first.max(base);
    while height >= first && height.is_positive() {
        // The last block has a seen commit only, and not even that after blocksync.
        let commit = match store.load_seen_commit(height)? {
            Some(commit) => Some(commit),
            None => store.load_commit(height)?,
        };
        if commit.as_ref().is_some_and(&passes) {
            return Ok(Some(height));
        }
        height = height.prev();
    }
    Ok(None)
}

/// The signature itself counts, not the name beside it: while the last block's commit comes from one
/// peer, not every place in it was verified.
fn has_signed(
    commit: &Commit,
    key: &PublicKey,
    chain_id: &str,
    counts: impl Fn(BlockIdFlag) -> bool,
) -> bool {
    let address = key.address();
    let is_ours = |index: usize, signature: &[u8]| {
        let signed = commit.vote_sign_bytes(chain_id, index);
        signed.is_some_and(|bytes| key.verify(&bytes, signature).is_ok())
    };
    commit.signatures.iter().enumerate().any(|(index, place)| {
        counts(place.block_id_flag)
            && place.validator_address[..] == address.as_bytes()[..]
            && is_ours(index, &place.signature)
    })
}
