//! Counts on raw bytes, before anything is decoded: a few bytes a signature on the wire become
//! hundreds in memory, so the counts are bounded first.
//!
//! Repetitions are refused here when there are too many of them, and when one is too short to be
//! what it should be (CometBFT decodes such a thing first and refuses it then). Transactions need
//! no count: they stay as they came ([`crate::Data`]), and blocks are bounded.

use crate::{DecodeError, gogo::Fields};

/// Signatures in one commit, and validators in one set. CometBFT allows no larger set.
pub const MAX_SIGNATURES: usize = 10_000;
/// Largest block in bytes (CometBFT's `MaxBlockSizeBytes`).
pub const MAX_BLOCK_BYTES: usize = 104_857_600;

/// Shortest encoding of a commit's place: its flag.
const MIN_SIGNATURE_BYTES: usize = 2;
/// Shortest encoding of a validator: its address.
const MIN_VALIDATOR_BYTES: usize = 22;
/// Shortest encoding of evidence: two addresses, of voters or of a proposer and a validator.
const MIN_EVIDENCE_BYTES: usize = 44;
/// Signatures and validators in all evidence of a block: one more for so many bytes of the block.
/// The shortest that an honest encoder writes, an absent place, has 17 bytes.
const BYTES_PER_EVIDENCE_ITEM: usize = 16;

/// Checks a `tendermint.types.Block` (no length prefix) with an optional number of nested
/// messages: signatures of the last commit, of every commit inside evidence, members of validator
/// sets and of byzantine lists, even when a field is split over several occurrences.
///
/// # Errors
/// When the bytes are no protobuf, or a count is above its bound.
pub fn check_block(raw: &[u8]) -> Result<(), DecodeError> {
    check_size(raw)?;
    let mut last_commit = Count::signatures();
    let mut in_evidence = Count::in_evidence(raw);
    for field in Fields(raw) {
        match field? {
            (3, Some(list)) => check_list(list, &mut in_evidence)?,
            (4, Some(commit)) => last_commit.add_field(commit, 4)?,
            _ => {}
        }
    }
    Ok(())
}

/// Checks the size of an encoded block alone.
pub(crate) fn check_size(raw: &[u8]) -> Result<(), DecodeError> {
    if raw.len() <= MAX_BLOCK_BYTES {
        return Ok(());
    }
    Err(DecodeError::TooMany {
        what: "bytes",
        count: raw.len(),
        max: MAX_BLOCK_BYTES,
    })
}

/// The same for a `tendermint.types.EvidenceList`, as the evidence channel carries it.
///
/// # Errors
/// As [`check_block`].
pub fn check_evidence_list(raw: &[u8]) -> Result<(), DecodeError> {
    check_list(raw, &mut Count::in_evidence(raw))
}

fn check_list(list: &[u8], in_evidence: &mut Count) -> Result<(), DecodeError> {
    for evidence in occurrences(list, 1) {
        check_evidence(evidence?, in_evidence)?;
    }
    Ok(())
}

/// The same for a `tendermint.types.ExtendedCommit`.
///
/// # Errors
/// As [`check_block`].
pub fn check_extended_commit(raw: &[u8]) -> Result<(), DecodeError> {
    Count::signatures().add_field(raw, 4)
}

/// One piece of evidence; its parts may be split over several occurrences, which are merged.
fn check_evidence(evidence: &[u8], all: &mut Count) -> Result<(), DecodeError> {
    if evidence.len() < MIN_EVIDENCE_BYTES {
        return Err(too_short("evidence", evidence));
    }
    let mut signatures = Count::signatures();
    let mut validators = Count::validators("validators");
    let mut byzantine = Count::validators("byzantine validators");
    for attack in occurrences(evidence, 2) {
        for field in Fields(attack?) {
            match field? {
                (1, Some(light_block)) => {
                    for signed_header in occurrences(light_block, 1) {
                        for commit in occurrences(signed_header?, 2) {
                            signatures.add_field(commit?, 4)?;
                        }
                    }
                    for set in occurrences(light_block, 2) {
                        validators.add_field(set?, 1)?;
                    }
                }
                (3, Some(validator)) => byzantine.add(validator)?,
                _ => {}
            }
        }
    }
    all.add_count(signatures.count + validators.count + byzantine.count)
}

/// Counts one kind of repeated message.
#[derive(Clone, Copy)]
struct Count {
    what: &'static str,
    count: usize,
    max: usize,
    min_bytes: usize,
}

impl Count {
    const fn signatures() -> Self {
        Self {
            what: "signatures",
            count: 0,
            max: MAX_SIGNATURES,
            min_bytes: MIN_SIGNATURE_BYTES,
        }
    }

    /// Those in evidence that stands in `raw`.
    const fn in_evidence(raw: &[u8]) -> Self {
        Self {
            what: "signatures and validators in evidence",
            max: raw.len() / BYTES_PER_EVIDENCE_ITEM,
            ..Self::signatures()
        }
    }

    const fn validators(what: &'static str) -> Self {
        Self {
            what,
            min_bytes: MIN_VALIDATOR_BYTES,
            ..Self::signatures()
        }
    }

    /// Counts the occurrences of `field` in `message`.
    fn add_field(&mut self, message: &[u8], field: u64) -> Result<(), DecodeError> {
        occurrences(message, field).try_for_each(|item| self.add(item?))
    }

    fn add(&mut self, item: &[u8]) -> Result<(), DecodeError> {
        if item.len() < self.min_bytes {
            return Err(too_short(self.what, item));
        }
        self.add_count(1)
    }

    fn add_count(&mut self, count: usize) -> Result<(), DecodeError> {
        self.count += count;
        if self.count > self.max {
            return Err(DecodeError::TooMany {
                what: self.what,
                count: self.count,
                max: self.max,
            });
        }
        Ok(())
    }
}

fn too_short(what: &'static str, item: &[u8]) -> DecodeError {
    DecodeError::Field {
        field: what,
        reason: format!("one of {} bytes", item.len()),
    }
}

/// The length-delimited occurrences of `wanted` in `message`.
fn occurrences(
    message: &[u8],
    wanted: u64,
) -> impl Iterator<Item = Result<&[u8], DecodeError>> + use<'_> {
    Fields(message).filter_map(move |field| match field {
        Ok((number, Some(bytes))) if number == wanted => Some(Ok(bytes)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}
