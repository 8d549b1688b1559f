//! Extended commits: precommits with the application's vote extensions.

use perihelion_types::{
    BlockId, BlockIdFlag, ExtendedCommit, Height, SignedMsgType, ValidatorSet, Vote,
};

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
            message: extension_sign_bytes(chain_id, extended, &sig.extension),
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

/// What a validator signs for its extension: chain, height, round and the extension.
fn extension_sign_bytes(
    chain_id: &str,
    extended: &ExtendedCommit,
    extension: &bytes::Bytes,
) -> Vec<u8> {
    Vote {
        vote_type: SignedMsgType::Precommit,
        height: extended.height,
        round: extended.round,
        block_id: extended.block_id,
        timestamp: perihelion_types::Time::ZERO,
        validator_address: bytes::Bytes::new(),
        validator_index: 0,
        signature: bytes::Bytes::new(),
        extension: extension.clone(),
        extension_signature: bytes::Bytes::new(),
    }
    .extension_sign_bytes(chain_id)
}
