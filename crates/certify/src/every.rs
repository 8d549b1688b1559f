//! Certifies a run as [`crate::pin`] does, and checks every commit of it as well: `verify =
//! "every"`.
//!
//! Both modes apply the same blocks. This one may in addition halt, blaming nobody, where a final
//! block carries an invalid last commit: the header covers a commit's signatures, but not its
//! height, round and block id, and whoever serves the final block serves the chain.

use std::{collections::BTreeMap, sync::Arc};

use perihelion_types::{Commit, FetchedBlock, Hash, ValidatorSet};

use crate::{
    CertifiedBlock, CommitError, CommitFault, CommitVerification, LastBlock, Run, RunVerdict,
    SignatureCount, certify_run,
    tally::{Claim, wrong_claims},
};

/// Signatures that are verified in one batch: a batch holds about 200 bytes for each. More would
/// save little work, since the share of each key is spread over hundreds already.
const MAX_BATCH: usize = 16_384;

/// Certifies `run` and verifies each commit inside it by the light check, against the set whose
/// hash the committed block's header names, in batches over many commits.
///
/// `known` gives a set by its hash. Where it does not know one, the commit is left for
/// [`CertifiedBlock::verify_commit`], which the caller must call before it applies the block; where
/// it does, the result counts once our own state confirms that set, which block validation does by
/// comparing the header's `validators_hash`.
///
/// A block is released only together with a commit for it that passed, or that is final and was
/// left. So the last block released may be lower by one than with [`certify_run`]: where the commit
/// for it stands in a block that is not final, and does not hold (that block is suspect then) or
/// cannot be checked.
#[must_use]
pub fn certify_every(
    run: &Run,
    known: &impl Fn(Hash) -> Option<Arc<ValidatorSet>>,
) -> (RunVerdict, SignatureCount) {
    let (verdict, mut count) = certify_run(run);
    let RunVerdict::Certified { blocks, last, .. } = verdict else {
        return (verdict, count);
    };
    let checks = check_commits(run, blocks.len(), known, &mut count);
    (conclude(run, blocks, last, checks), count)
}

/// What is known of the commit for one block.
enum Check {
    Verified,
    UnknownSet,
    Failed(CommitError),
}

/// The commit for the block at `index`, in the block above it.
fn commit_above(run: &Run, index: usize) -> Option<&Commit> {
    run.blocks
        .get(index + 1)
        .unwrap_or(&run.closing)
        .block()
        .last_commit
        .as_ref()
}

/// Checks the commits for the first `count` blocks; the one that closed the run has passed already.
fn check_commits(
    run: &Run,
    blocks: usize,
    known: &impl Fn(Hash) -> Option<Arc<ValidatorSet>>,
    count: &mut SignatureCount,
) -> Vec<Check> {
    let inside = blocks.min(run.blocks.len() - 1);
    let mut sets: BTreeMap<Hash, Option<Arc<ValidatorSet>>> = BTreeMap::new();
    for fetched in &run.blocks[..inside] {
        let hash = fetched.block().header.validators_hash;
        sets.entry(hash)
            .or_insert_with(|| known_set(run, hash, known));
    }
    let mut checks = Vec::with_capacity(blocks);
    let mut claims: Vec<(usize, Claim<'_>)> = Vec::new();
    for (index, fetched) in run.blocks[..inside].iter().enumerate() {
        let set = sets
            .get(&fetched.block().header.validators_hash)
            .and_then(Option::as_deref);
        let check = match (set, commit_above(run, index)) {
            (None, _) => Check::UnknownSet,
            (Some(_), None) => Check::Failed(CommitError::NoCommit),
            (Some(set), Some(commit)) => match light(run, fetched, set, commit, count) {
                Ok(needed) => {
                    claims.extend(needed.into_iter().map(|claim| (index, claim)));
                    Check::Verified
                }
                Err(error) => Check::Failed(error),
            },
        };
        checks.push(check);
        if claims.len() >= MAX_BATCH {
            verify(std::mem::take(&mut claims), &mut checks, count);
        }
    }
    verify(claims, &mut checks, count);
    checks.resize_with(blocks, || Check::Verified);
    checks
}

/// The set with `hash`: the anchor's, or one that the caller knows. A set that is handed out under
/// another hash is not that set.
fn known_set(
    run: &Run,
    hash: Hash,
    known: &impl Fn(Hash) -> Option<Arc<ValidatorSet>>,
) -> Option<Arc<ValidatorSet>> {
    let anchor = &run.anchor;
    [Some(&anchor.set), anchor.next.as_ref()]
        .into_iter()
        .flatten()
        .find(|set| set.hash() == hash)
        .cloned()
        .or_else(|| known(hash).filter(|set| set.hash() == hash))
}

/// The signatures to verify for one commit; those that cannot be batched are verified here.
fn light<'a>(
    run: &'a Run,
    fetched: &FetchedBlock,
    set: &'a ValidatorSet,
    commit: &'a Commit,
    count: &mut SignatureCount,
) -> Result<Vec<Claim<'a>>, CommitError> {
    let verification = CommitVerification::new(&run.chain_id, set, commit);
    if verification.batches()? {
        verification.light_claims(fetched.block_id(), fetched.height())
    } else {
        verification
            .light_counted(fetched.block_id(), fetched.height(), count)
            .map(|()| Vec::new())
    }
}

/// Verifies a batch of claims, and marks the commits of those that do not hold.
fn verify(claims: Vec<(usize, Claim<'_>)>, checks: &mut [Check], count: &mut SignatureCount) {
    *count += SignatureCount::of(claims.len());
    let places: Vec<(usize, usize)> = claims
        .iter()
        .map(|(block, claim)| (*block, claim.index))
        .collect();
    let claims = claims.into_iter().map(|(_, claim)| claim).collect();
    for wrong in wrong_claims(claims) {
        let Some(&(block, index)) = places.get(wrong) else {
            continue;
        };
        if let Some(check @ Check::Verified) = checks.get_mut(block) {
            *check = Check::Failed(CommitError::WrongSignature { index });
        }
    }
}

/// Halts on a bad commit in a final block; holds back the last block when its commit stands in a
/// block that is not final, and fails or cannot be checked.
fn conclude(
    run: &Run,
    mut blocks: Vec<CertifiedBlock>,
    mut last: LastBlock,
    checks: Vec<Check>,
) -> RunVerdict {
    let certified = blocks.len();
    for (index, check) in checks.into_iter().enumerate() {
        let holder = run.blocks.get(index + 1).unwrap_or(&run.closing);
        match check {
            Check::Verified => blocks[index].set_verified_commit(Arc::clone(holder)),
            Check::UnknownSet if index + 1 < certified => {}
            Check::UnknownSet => {
                blocks.pop();
            }
            Check::Failed(error) if index + 1 < certified => {
                return RunVerdict::InvalidFinalCommit {
                    height: holder.height(),
                    error,
                };
            }
            Check::Failed(error) => {
                blocks.pop();
                last = LastBlock::Suspect {
                    height: holder.height(),
                    fault: CommitFault::OwnSet(error),
                };
            }
        }
    }
    match (blocks.last(), last) {
        (Some(block), last) => RunVerdict::Certified {
            next_validators_hash: block.block().header.next_validators_hash,
            blocks,
            last,
        },
        (None, LastBlock::Suspect { height, fault }) => RunVerdict::Suspect { height, fault },
        (None, LastBlock::Final | LastBlock::UnknownSet) => RunVerdict::Drifted,
    }
}
