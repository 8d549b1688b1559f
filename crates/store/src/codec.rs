//! Single fields of a stored block, without decoding the rest of it.

use bytes::Bytes;
use perihelion_types::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A block's fields that are read alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockField {
    /// The header.
    Header = 1,
    /// The transactions.
    Data = 2,
    /// The commit of the block before.
    LastCommit = 4,
}

/// The bytes of one field of a `tendermint.types.Block`, without its tag and length; `None` when
/// the field is absent. Several occurrences follow one another, as protobuf merges them.
///
/// # Errors
/// When `raw` is no protobuf.
pub(crate) fn block_field(raw: &Bytes, field: BlockField) -> Result<Option<Bytes>, DecodeError> {
    let mut rest = raw.clone();
    let mut found: Option<Bytes> = None;
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest)?;
        if number != field as u32 || wire_type != WireType::LengthDelimited {
            skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut rest)?).unwrap_or(usize::MAX);
        if length > rest.len() {
            return Err(DecodeError::Protobuf("a field ends after the block".into()));
        }
        let value = rest.split_to(length);
        found = Some(match found {
            None => value,
            // The concatenation of two encodings is the encoding of the merged message.
            Some(first) => [first, value].concat().into(),
        });
    }
    Ok(found)
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
        let raw = Bytes::from_static(b"\x0a\x01a\x12\x00\x0a\x01b");
        let header = block_field(&raw, BlockField::Header).unwrap();
        assert_eq!(header.as_deref(), Some(&b"ab"[..]));
        assert_eq!(block_field(&raw, BlockField::LastCommit).unwrap(), None);
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        for raw in [
            &b"\x0a\x05a"[..],
            b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x12\x09",
        ] {
            let raw = Bytes::copy_from_slice(raw);
            assert!(block_field(&raw, BlockField::Header).is_err() || raw[0] == 0x22);
            assert!(block_field(&raw, BlockField::LastCommit).is_err());
        }
    }
}
