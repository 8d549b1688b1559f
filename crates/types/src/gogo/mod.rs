//! Blocks in other encodings than the usual one, read as CometBFT reads them.
//!
//! CometBFT decides on bytes: their parts are hashed, and what its decoder (gogoproto) makes of
//! them is judged. That decoder takes what others refuse and reads some of it in another way:
//! varints of ten bytes may have any bits beyond the 64th and field numbers any beyond the 32nd,
//! groups end at any end, a time that is given twice is the second one, an oneof that is given
//! twice too, where other decoders merge. A validator that read such a block otherwise than the
//! rest could not follow once it is decided, so it is written anew here in the usual encoding, with
//! what gogoproto reads of it, or refused where gogoproto refuses it. The bytes that are hashed,
//! stored and served stay as they came.
//!
//! What is left to the decoding of the usual encoding: messages that are always there (`nullable =
//! false` in the schema) are not added, and a chain id need not be UTF-8 here; the header that has
//! such a one is of no chain.
//!
//! Everything is bounded by the length of the input: a field is looked at once for each field of
//! its message (fourteen at most), a byte moved once for each message around it (nine at most), and
//! a message that is given in several pieces is copied. The output is shorter than twice the input:
//! a negative number of 32 bits may grow from five bytes to ten, all else shrinks.

mod fields;
mod rewrite;
mod schema;
mod usual;

use bytes::{Bytes, BytesMut};
use perihelion_proto::tendermint::types as pb;
use prost::Message as _;

pub(crate) use fields::{Fields, Value};
use schema::Message;

use crate::{DecodeError, Rules};

/// A block's fields that are read alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockField {
    /// The header.
    Header = 1,
    /// The transactions.
    Data = 2,
    /// The commit of the block before.
    LastCommit = 4,
}

/// A `tendermint.types.Block` (no length prefix) in its usual encoding: the same bytes where they
/// are in it already.
///
/// # Errors
/// When CometBFT's decoder refuses the bytes.
pub fn usual_block(raw: &Bytes, rules: Rules) -> Result<Bytes, DecodeError> {
    usual(raw, schema::block(rules))
}

/// One field of a block, without its tag and length, in its usual encoding; `None` where it is
/// absent.
///
/// # Errors
/// When CometBFT's decoder refuses the field, or cannot find it.
pub fn usual_field(raw: &Bytes, field: BlockField) -> Result<Option<Bytes>, DecodeError> {
    let message = match field {
        BlockField::Header => &schema::HEADER,
        BlockField::Data => &schema::DATA,
        BlockField::LastCommit => &schema::COMMIT,
    };
    block_field(raw, field)?
        .map(|bytes| usual(&bytes, message))
        .transpose()
}

/// A `tendermint.types.Commit` in its usual encoding.
///
/// # Errors
/// When CometBFT's decoder refuses the bytes.
pub fn usual_commit(raw: &Bytes) -> Result<Bytes, DecodeError> {
    usual(raw, &schema::COMMIT)
}

/// One field of a block, without its tag and length, as it came; `None` where it is absent. Several
/// occurrences follow one another, which is the encoding of all of them merged.
///
/// # Errors
/// When CometBFT's decoder cannot find it.
pub fn block_field(raw: &Bytes, field: BlockField) -> Result<Option<Bytes>, DecodeError> {
    let (found, end) = gather(raw, field);
    end.map(|()| found)
}

/// The header, of the part of `raw` that can be read.
pub(crate) fn peek_header(raw: &Bytes) -> Option<pb::Header> {
    let header = gather(raw, BlockField::Header).0?;
    let plain = pb::Header::decode(header.clone());
    plain
        .or_else(|_| Ok::<_, DecodeError>(pb::Header::decode(usual(&header, &schema::HEADER)?)?))
        .ok()
}

/// The occurrences of a field, and whether it went well to the end.
fn gather(raw: &Bytes, wanted: BlockField) -> (Option<Bytes>, Result<(), DecodeError>) {
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    let mut fields = Fields(raw);
    let end = loop {
        match fields.next_value() {
            None => break Ok(()),
            Some(Err(error)) => break Err(error),
            Some(Ok((number, value))) if number == wanted as u32 => match (value, &first) {
                (Value::Bytes(piece), None) => first = Some(raw.slice_ref(piece)),
                (Value::Bytes(piece), Some(first)) => {
                    if all.is_empty() {
                        all.extend_from_slice(first);
                    }
                    all.extend_from_slice(piece);
                }
                _ => break Err(fields::malformed()),
            },
            Some(Ok(_)) => {}
        }
    };
    let found = if all.is_empty() {
        first
    } else {
        Some(all.freeze())
    };
    (found, end)
}

/// Whether the general decoder, if it takes them, reads header and evidence of a block as
/// CometBFT's does: it takes nothing that CometBFT's refuses, and they disagree only on times and
/// pieces of evidence that are given twice. Transactions and last commit are not looked at, but
/// stand once.
pub(crate) fn is_plain(raw: &[u8]) -> bool {
    let mut given = 0_u8;
    for field in Fields(raw) {
        let Ok((number, value)) = field else {
            return false;
        };
        if number > 4 {
            continue;
        }
        let bit = 1 << number;
        let is_plain = match (number, value) {
            (HEADER, Some(header)) => has_one_time(header),
            (EVIDENCE, evidence) => evidence == Some(&[]),
            _ => true,
        };
        if given & bit != 0 || !is_plain {
            return false;
        }
        given |= bit;
    }
    true
}

/// Numbers of a block's fields, and that of a header's time.
const HEADER: u64 = 1;
const EVIDENCE: u64 = 3;
const HEADER_TIME: u64 = 4;

fn has_one_time(header: &[u8]) -> bool {
    let times = short_times(header).unwrap_or_else(|| {
        let is_time = |field: &Result<(u64, _), _>| matches!(field, Ok((HEADER_TIME, _)));
        Fields(header).filter(is_time).count()
    });
    times <= 1
}

/// The times in a header whose tags, and lengths of fields, have one byte: a quick count.
fn short_times(header: &[u8]) -> Option<usize> {
    const TIME: u8 = (HEADER_TIME as u8) << 3 | 2;
    let (mut rest, mut times) = (header, 0);
    while let Some((&tag, behind)) = rest.split_first() {
        let length = match (tag, tag & 7) {
            (0..0x80, 2) => match *behind.first()? {
                length @ 0..0x80 => 1 + usize::from(length),
                _ => return None,
            },
            (0..0x80, 0) => 1 + behind.iter().position(|byte| *byte < 0x80)?,
            _ => return None,
        };
        rest = behind.get(length..)?;
        times += usize::from(tag == TIME);
    }
    Some(times)
}

fn usual(raw: &Bytes, message: &'static Message) -> Result<Bytes, DecodeError> {
    if usual::is_usual(raw, message) {
        return Ok(raw.clone());
    }
    let mut written = Vec::with_capacity(raw.len());
    rewrite::rewrite(raw, message, &mut written)?;
    Ok(written.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_wherever_it_is() {
        // header "ab", data "c", an unknown varint, last commit "d"
        let raw = Bytes::from_static(b"\x0a\x02ab\x12\x01c\x78\x05\x22\x01d");
        let field = |field| block_field(&raw, field).unwrap();
        assert_eq!(field(BlockField::Header).as_deref(), Some(&b"ab"[..]));
        assert_eq!(field(BlockField::LastCommit).as_deref(), Some(&b"d"[..]));
    }

    #[test]
    fn occurrences_are_merged_and_absence_is_none() {
        let raw = Bytes::from_static(b"\x0a\x00\x0a\x01a\x12\x00\x0a\x01b\x0a\x01c");
        let header = block_field(&raw, BlockField::Header).unwrap();
        assert_eq!(header.as_deref(), Some(&b"abc"[..]));
        assert_eq!(block_field(&raw, BlockField::LastCommit).unwrap(), None);
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        for raw in [
            &b"\x0a\x05a"[..],
            b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x12\x09",
        ] {
            let raw = Bytes::from_static(raw);
            assert!(block_field(&raw, BlockField::Header).is_err());
            assert!(block_field(&raw, BlockField::LastCommit).is_err());
        }
    }

    #[test]
    fn a_second_time_is_seen_however_long_the_fields_are() {
        for length in [32, 127, 128, 300] {
            let (mut header, mut prefix) = (b"\x22\x02\x08\x01".to_vec(), Vec::new());
            crate::wire::put_bytes(&mut prefix, 11, &vec![7; length]);
            header.splice(0..0, prefix);
            assert!(has_one_time(&header), "{length}");
            assert_eq!(short_times(&header).is_some(), length < 128);
            header.extend_from_slice(b"\x22\x00");
            assert!(!has_one_time(&header), "{length}");
        }
        // One whose tag has two bytes.
        assert!(!has_one_time(b"\x22\x00\xa2\x00\x00"));
    }

    #[test]
    fn a_field_is_written_anew() {
        // The height in ten bytes, with bits beyond the 64th; the rest of the header behind it.
        let raw = Bytes::from_static(
            b"\x0a\x0b\x18\x85\x80\x80\x80\x80\x80\x80\x80\x80\x7e\x0a\x03\x12\x01a",
        );
        let header = usual_field(&raw, BlockField::Header).unwrap();
        assert_eq!(header.as_deref(), Some(&b"\x12\x01a\x18\x05"[..]));
        let peeked = peek_header(&raw).map(|header| (header.height, header.chain_id));
        assert_eq!(peeked, Some((5, "a".to_owned())));
    }
}
