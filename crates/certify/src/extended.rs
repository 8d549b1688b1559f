//! Extended commits: precommits with the application's vote extensions.

use perihelion_types::{
    BlockId, BlockIdFlag, Commit, ExtendedCommit, Height, ValidatorSet, canonical,
};

use crate::{
    CommitError, CommitVerification,
    tally::{Claim, wrong_claims},
};

/// An extended commit, and what it must be for.
#[derive(Debug, Clone, Copy)]
pub struct ExtendedCheck<'a> {
    /// The validators of the height.
    pub set: &'a ValidatorSet,
    /// The block that was committed.
    pub block_id: BlockId,
    /// Its height.
    pub height: Height,
    /// The extended commit.
    pub extended: &'a ExtendedCommit,
}

/// `VerifyCommitExtended`: every signature and every extension. An extension is signed exactly
/// where the block was precommitted, the commit inside passes `VerifyCommit`, and each extension's
/// signature holds.
///
/// # Errors
/// Names the first rule that is broken, in CometBFT's order.
pub fn verify_extended_commit(
    chain_id: &str,
    set: &ValidatorSet,
    block_id: BlockId,
    height: Height,
    extended: &ExtendedCommit,
) -> Result<(), CommitError> {
    let check = ExtendedCheck {
        set,
        block_id,
        height,
        extended,
    };
    verify_extended_commits(chain_id, &[check])
        .pop()
        .unwrap_or(Ok(()))
}

/// [`verify_extended_commit`] for each of `checks`, in their order, with the signatures of all in
/// one batch: votes and extensions of a validator share the work for its key.
#[must_use]
pub fn verify_extended_commits(
    chain_id: &str,
    checks: &[ExtendedCheck<'_>],
) -> Vec<Result<(), CommitError>> {
    let commits: Vec<Commit> = checks.iter().map(|it| it.extended.to_commit()).collect();
    let mut results = Vec::with_capacity(checks.len());
    let (mut claims, mut origins) = (Vec::new(), Vec::new());
    for (number, (check, commit)) in checks.iter().zip(&commits).enumerate() {
        let votes = match check.votes(chain_id, commit) {
            Ok(votes) => votes,
            Err(error) => {
                results.push(Err(error));
                continue;
            }
        };
        results.push(Ok(()));
        for (kind, some) in [
            (Signed::Vote, votes),
            (Signed::Extension, check.extensions(chain_id)),
        ] {
            origins.extend(some.iter().map(|claim| (number, kind, claim.index)));
            claims.extend(some);
        }
    }
    // In the order of their places, votes before extensions: the first one counts.
    for wrong in wrong_claims(claims) {
        let (number, kind, index) = origins[wrong];
        if results[number].is_ok() {
            results[number] = Err(match kind {
                Signed::Vote => CommitError::WrongSignature { index },
                Signed::Extension => CommitError::WrongExtensionSignature { index },
            });
        }
    }
    results
}

/// What a signature is over.
#[derive(Clone, Copy)]
enum Signed {
    Vote,
    Extension,
}

impl<'a> ExtendedCheck<'a> {
    /// The votes' signatures, once all but they are judged; those that are verified one by one are
    /// judged here and left out.
    fn votes<'b>(
        &self,
        chain_id: &'b str,
        commit: &'b Commit,
    ) -> Result<Vec<Claim<'b>>, CommitError>
    where
        'a: 'b,
    {
        check_extensions(self.extended)?;
        let check = CommitVerification::new(chain_id, self.set, commit);
        if let Some(votes) = check.full_claims(self.block_id, self.height)? {
            return Ok(votes);
        }
        check.full(self.block_id, self.height)?;
        Ok(Vec::new())
    }

    /// The extensions' signatures.
    fn extensions(&self, chain_id: &str) -> Vec<Claim<'a>> {
        let extended = self.extended;
        let places = extended.extended_signatures.iter().enumerate();
        places
            .zip(self.set.validators())
            .filter(|((_, sig), _)| sig.commit_sig.block_id_flag == BlockIdFlag::Commit)
            .map(|((index, sig), member)| Claim {
                index,
                key: &member.pub_key,
                message: canonical::vote_extension(
                    chain_id,
                    extended.height,
                    extended.round,
                    &sig.extension,
                ),
                signature: &sig.extension_signature,
            })
            .collect()
    }
}

/// An extension's signature stands where the block was precommitted, and only there.
fn check_extensions(extended: &ExtendedCommit) -> Result<(), CommitError> {
    for (index, sig) in extended.extended_signatures.iter().enumerate() {
        if sig.commit_sig.block_id_flag == BlockIdFlag::Commit {
            if sig.extension_signature.is_empty() {
                return Err(CommitError::ExtensionMissing { index });
            }
        } else if !sig.extension.is_empty() || !sig.extension_signature.is_empty() {
            return Err(CommitError::ExtensionUnexpected { index });
        }
    }
    Ok(())
}
