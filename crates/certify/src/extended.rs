//! Extended commits: precommits with the application's vote extensions.

use perihelion_types::{BlockId, BlockIdFlag, ExtendedCommit, Height, ValidatorSet, canonical};

use crate::{
    CommitError, CommitVerification,
    tally::{Claim, first_wrong},
};

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
    check_extensions(extended)?;
    CommitVerification::new(chain_id, set, &extended.to_commit()).full(block_id, height)?;
    let claims: Vec<Claim<'_>> = extended
        .extended_signatures
        .iter()
        .enumerate()
        .zip(set.validators())
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
        .collect();
    match first_wrong(claims) {
        None => Ok(()),
        Some(index) => Err(CommitError::WrongExtensionSignature { index }),
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
