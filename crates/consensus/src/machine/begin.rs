//! What a height begins with.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use perihelion_types::{BlockId, Commit, ExtendedCommit, ExtendedCommitSig, Height, Round, State};
use thiserror::Error;

use crate::{
    HeightVoteSet, LastCommit, Start, Step, Verify, VoteSet,
    round_state::{Elapsed, RoundState},
    votes::VoteError,
};

/// Consensus cannot begin with what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// There are blocks, and nothing says why the last one is final.
    #[error("no commit for block {height}, which was applied last")]
    NoLastCommit {
        /// The last applied block's height.
        height: Height,
    },
    /// Vote extensions are enabled at the last block's height and its extended commit is not there.
    #[error("no extended commit for block {height}, which was applied last")]
    NoExtendedCommit {
        /// The last applied block's height.
        height: Height,
    },
    /// The commit is of another block than the one applied last.
    #[error("the commit is for block {got}, the last applied block is {expected}")]
    OtherCommit {
        /// The last applied block.
        expected: Box<BlockId>,
        /// What the commit is for.
        got: Box<BlockId>,
    },
    /// The commit has another number of places than there are validators.
    #[error("the commit has {got} places, there were {expected} validators")]
    CommitSize {
        /// Validators of the last block.
        expected: usize,
        /// Places of the commit.
        got: usize,
    },
    /// A vote of the commit does not hold.
    #[error("the last block's commit: {0}")]
    Vote(#[from] VoteError),
    /// The commit has too little power.
    #[error("the commit for block {height} has too little power")]
    TooLittlePower {
        /// The last applied block's height.
        height: Height,
    },
}

/// The state of a height before its first round.
pub(super) fn first_round(
    chain_id: &Arc<str>,
    state: &State,
    last_commit: Option<VoteSet>,
    start_time: Instant,
) -> RoundState {
    let height = state.next_height();
    let extensions = state.consensus_params.vote_extensions_enabled(height);
    let validators = Arc::clone(&state.validators);
    RoundState {
        height,
        round: Round::ZERO,
        step: Step::NewHeight,
        start_time,
        commit_time: None,
        votes: HeightVoteSet::new(
            Arc::clone(chain_id),
            height,
            Arc::clone(&validators),
            extensions,
        ),
        validators,
        proposal: None,
        block: None,
        parts: None,
        locked: None,
        bound: None,
        valid: None,
        commit_round: None,
        last_commit,
        elapsed: Elapsed::default(),
        precommit_wait: false,
    }
}

/// The votes of the last applied block's commit, each verified.
pub(super) fn last_commit(
    chain_id: &Arc<str>,
    start: &Start,
    verify: &dyn Verify,
) -> Result<Option<VoteSet>, StartError> {
    let state = &start.state;
    let height = state.last_block_height;
    if height == Height::ZERO {
        return Ok(None);
    }
    let extensions = state.consensus_params.vote_extensions_enabled(height);
    let commit = match &start.last_commit {
        LastCommit::None => return Err(StartError::NoLastCommit { height }),
        LastCommit::Plain(_) if extensions => return Err(StartError::NoExtendedCommit { height }),
        LastCommit::Plain(commit) => without_extensions(commit),
        LastCommit::Extended(commit) if extensions => commit.clone(),
        LastCommit::Extended(commit) => without_extensions(&commit.to_commit()),
    };
    if (commit.height, commit.block_id) != (height, state.last_block_id) {
        return Err(StartError::OtherCommit {
            expected: Box::new(state.last_block_id),
            got: Box::new(commit.block_id),
        });
    }
    let (expected, got) = (
        state.last_validators.len(),
        commit.extended_signatures.len(),
    );
    if expected != got {
        return Err(StartError::CommitSize { expected, got });
    }
    let set = Arc::clone(&state.last_validators);
    let votes = VoteSet::from_commit(Arc::clone(chain_id), &commit, set, extensions, verify)?;
    if votes.maj23() != Some(state.last_block_id) {
        return Err(StartError::TooLittlePower { height });
    }
    Ok(Some(votes))
}

fn without_extensions(commit: &Commit) -> ExtendedCommit {
    ExtendedCommit {
        height: commit.height,
        round: commit.round,
        block_id: commit.block_id,
        extended_signatures: commit
            .signatures
            .iter()
            .map(|place| ExtendedCommitSig {
                commit_sig: place.clone(),
                extension: Bytes::new(),
                extension_signature: Bytes::new(),
            })
            .collect(),
    }
}
