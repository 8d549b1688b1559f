//! Votes and bits as CometBFT prints them: clients take these texts apart. Pure.

use perihelion_types::{SignedMsgType, Vote};

/// Bytes of a hash, address or signature that are shown.
const SHOWN: usize = 6;

/// A vote, or that there is none.
pub(crate) fn vote_text(vote: Option<&Vote>) -> String {
    let Some(vote) = vote else {
        return "nil-Vote".to_owned();
    };
    let number = vote.vote_type.to_i32();
    let (kind, name) = match vote.vote_type {
        SignedMsgType::Prevote => ("SIGNED_MSG_TYPE_PREVOTE".to_owned(), "Prevote"),
        SignedMsgType::Precommit => ("SIGNED_MSG_TYPE_PRECOMMIT".to_owned(), "Precommit"),
        SignedMsgType::Proposal => ("SIGNED_MSG_TYPE_PROPOSAL".to_owned(), "Unknown"),
        SignedMsgType::Unknown(_) => (number.to_string(), "Unknown"),
    };
    format!(
        "Vote{{{}:{} {}/{:02}/{kind}({name}) {} {} {} @ {}}}",
        vote.validator_index,
        fingerprint(&vote.validator_address),
        vote.height,
        vote.round.get(),
        fingerprint(vote.block_id.hash.as_bytes()),
        fingerprint(&vote.signature),
        fingerprint(&vote.extension),
        vote.timestamp,
    )
}

/// The first bytes, with zeros for those that are missing.
fn fingerprint(bytes: &[u8]) -> String {
    let mut shown = [0; SHOWN];
    let count = bytes.len().min(SHOWN);
    shown[..count].copy_from_slice(&bytes[..count]);
    hex::encode_upper(shown)
}

/// `x` for what is in, `_` for what is not.
pub(crate) fn bits_text(bits: impl IntoIterator<Item = bool>) -> String {
    let bits = bits.into_iter();
    bits.map(|is_in| if is_in { 'x' } else { '_' }).collect()
}

/// Who has voted, and how much power that is.
pub(crate) fn voted_text(bits: &[bool], power: i64, total: i64) -> String {
    let text = bits_text(bits.iter().copied());
    #[allow(clippy::cast_precision_loss, reason = "two places are shown")]
    let part = power as f64 / total as f64;
    // What Go prints where there is no power at all.
    let part = if part.is_nan() {
        "NaN".to_owned()
    } else {
        format!("{part:.2}")
    };
    format!("BA{{{}:{text}}} {power}/{total} = {part}", bits.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_told_as_cometbft_tells_them() {
        assert_eq!(voted_text(&[false; 5], 0, 71), "BA{5:_____} 0/71 = 0.00");
        assert_eq!(voted_text(&[true, false], 20, 30), "BA{2:x_} 20/30 = 0.67");
        assert_eq!(voted_text(&[], 0, 0), "BA{0:} 0/0 = NaN");
    }
}
