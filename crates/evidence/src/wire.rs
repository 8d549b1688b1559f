//! The message of channel 0x38: a bare `tendermint.types.EvidenceList`.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use perihelion_types::{DecodeError, Evidence, Rules, bounds};
use prost::Message as _;

/// The channel.
pub const CHANNEL: u8 = 0x38;
/// The largest message, in bytes: CometBFT's.
pub const MAX_MESSAGE_BYTES: usize = 1_048_576;

/// The list with one piece of evidence.
#[must_use]
pub fn encode(evidence: &Evidence) -> Bytes {
    let evidence = vec![evidence.into()];
    pb::EvidenceList { evidence }.encode_to_vec().into()
}

/// The evidence of a message, which passes the stateless rules of `rules`.
///
/// # Errors
/// When CometBFT would disconnect the sender.
pub fn decode(message: &Bytes, rules: Rules) -> Result<Vec<Evidence>, DecodeError> {
    bounds::check_evidence_list(message)?;
    let list = pb::EvidenceList::decode(message.clone())?;
    let evidence = list.evidence.into_iter();
    evidence
        .map(|one| Evidence::from_proto(one, rules))
        .collect()
}
