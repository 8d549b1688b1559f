//! Counts on raw bytes, before anything is decoded: a few bytes a signature on the wire become
//! hundreds in memory, so the counts are bounded first.
//!
//! Repetitions are refused here when there are too many of them, and when one is too short to be
//! what it should be (CometBFT decodes such a thing first and refuses it then). Transactions need
//! no count: they stay as they came ([`crate::Data`]), and blocks are bounded.

use crate::DecodeError;

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
    if raw.len() > MAX_BLOCK_BYTES {
        return Err(DecodeError::TooMany {
            what: "bytes",
            count: raw.len(),
            max: MAX_BLOCK_BYTES,
        });
    }
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

/// The fields of a message: number, and the bytes where it is length-delimited. Ends after an
/// error.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Option<&'a [u8]>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| DecodeError::Protobuf("malformed field".into())))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Option<&'a [u8]>)> {
        let (number, wire_type) = self.tag()?;
        match wire_type {
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                return Some((number, Some(self.take(length)?)));
            }
            3 => {
                // A group: everything up to its end is skipped, groups inside of it too.
                let mut depth = 1_usize;
                while depth > 0 {
                    match self.tag()?.1 {
                        3 => depth += 1,
                        4 => depth -= 1,
                        inner => self.skip(inner)?,
                    }
                }
            }
            other => self.skip(other)?,
        }
        Some((number, None))
    }

    /// Field number and wire type.
    fn tag(&mut self) -> Option<(u64, u64)> {
        let tag = self.varint()?;
        Some((tag >> 3, tag & 7))
    }

    fn skip(&mut self, wire_type: u64) -> Option<()> {
        match wire_type {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length).map(drop)
            }
            5 => self.take(4).map(drop),
            _ => None,
        }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
