//! Commit verification in its three forms, verdict for verdict as CometBFT's `types/validation.go`.
//!
//! *Full* (`VerifyCommit`) checks every signature, nil votes too; *light* stops once more than 2/3
//! of the power has signed the block; *trusting* matches validators by address, for a set that is
//! not the commit's own, and needs more than a fraction of that set's power. The `all` variants
//! count on to the end.
//!
//! Where the set's keys can be batched (two places or more, all keys ed25519) the power is judged
//! before any signature; elsewhere signatures are verified one by one, in order, first. A commit
//! that is both short and forged therefore fails differently; callers see the same as CometBFT.

use perihelion_types::{BlockId, Commit, Height, ValidatorSet};

use crate::{CommitError, CommitVerification, TrustLevel};

/// `VerifyCommit` by the rules of v0.38: every signature holds, nil votes too, and more than 2/3 of
/// the power precommitted `block_id`.
///
/// # Errors
/// Names the first rule that is broken, in CometBFT's order.
pub fn verify_commit(
    chain_id: &str,
    set: &ValidatorSet,
    block_id: BlockId,
    height: Height,
    commit: &Commit,
) -> Result<(), CommitError> {
    CommitVerification::new(chain_id, set, commit)
        .full(block_id, height)
        .map(drop)
}

/// `VerifyCommitLight` by the rules of v0.38: stops at the first place by which more than 2/3 of the
/// power has signed.
///
/// # Errors
/// As [`verify_commit`].
pub fn verify_commit_light(
    chain_id: &str,
    set: &ValidatorSet,
    block_id: BlockId,
    height: Height,
    commit: &Commit,
) -> Result<(), CommitError> {
    CommitVerification::new(chain_id, set, commit)
        .light(block_id, height)
        .map(drop)
}

/// `VerifyCommitLightAllSignatures`: as light, but every precommit for the block is checked.
///
/// # Errors
/// As [`verify_commit`].
pub fn verify_commit_light_all(
    chain_id: &str,
    set: &ValidatorSet,
    block_id: BlockId,
    height: Height,
    commit: &Commit,
) -> Result<(), CommitError> {
    CommitVerification::new(chain_id, set, commit)
        .light_all(block_id, height)
        .map(drop)
}

/// `VerifyCommitLightTrusting`: members of `set`, matched by address, with more than `trust` of its
/// power have signed. The set need not be the commit's own.
///
/// # Errors
/// As [`verify_commit`]; also for a trust level that makes no sense.
pub fn verify_commit_light_trusting(
    chain_id: &str,
    set: &ValidatorSet,
    commit: &Commit,
    trust: TrustLevel,
) -> Result<(), CommitError> {
    CommitVerification::new(chain_id, set, commit)
        .trusting(trust)
        .map(drop)
}

/// `VerifyCommitLightTrustingAllSignatures`: as trusting, but every precommit is checked.
///
/// # Errors
/// As [`verify_commit_light_trusting`].
pub fn verify_commit_light_trusting_all(
    chain_id: &str,
    set: &ValidatorSet,
    commit: &Commit,
    trust: TrustLevel,
) -> Result<(), CommitError> {
    CommitVerification::new(chain_id, set, commit)
        .trusting_all(trust)
        .map(drop)
}
