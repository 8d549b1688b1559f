//! Copies of two votes in which somebody changed what no signature of a vote covers.

use perihelion_types::{DuplicateVoteEvidence, ValidatorSet, Vote};

/// Whether two votes, which prove what they should, are not as their validator sent them: at
/// another place of the height's set, or with an extension that it did not sign. Consensus takes no
/// such vote, so that no honest report has one. CometBFT takes such evidence; but of one double
/// vote anybody can make as much of it as he likes.
///
/// Votes without their extension count as unchanged, and so do those with the extension of the other,
/// whose signature names no block. So one double precommit with extensions has 9 copies at most, which
/// fill the room of its voter alone.
pub(crate) fn is_changed(
    votes: &DuplicateVoteEvidence,
    chain_id: &str,
    set: &ValidatorSet,
) -> bool {
    let voter = votes.vote_a.address();
    let Some((place, member)) = voter.and_then(|address| set.by_address(&address)) else {
        return true;
    };
    let is_sent = |vote: &Vote| {
        let signature = &vote.extension_signature;
        let extension = vote.extension_sign_bytes(chain_id);
        usize::try_from(vote.validator_index) == Ok(place)
            && (signature.is_empty() || member.pub_key.verify(&extension, signature).is_ok())
    };
    !is_sent(&votes.vote_a) || !is_sent(&votes.vote_b)
}
