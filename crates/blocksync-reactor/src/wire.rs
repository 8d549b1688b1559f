//! Messages of channel 0x40, read without copying a block's bytes.
//!
//! A block response is split into the bytes of its block and of its extended commit, as slices of
//! the message; they are decoded later, on a worker thread. Everything else is a few bytes.
//!
//! Source: `proto/tendermint/blocksync/types.proto`, and `ValidateMsg` of CometBFT's blocksync.

use bytes::{Buf, Bytes, BytesMut};
use perihelion_proto::tendermint::blocksync as pb;
use perihelion_types::{Height, HeightRange};
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_varint, skip_field},
};
use thiserror::Error;

/// The channel's id.
pub const CHANNEL: u8 = 0x40;

/// Largest message of the channel in bytes: a block of the largest size with its framing. Smaller,
/// and a chain with blocks of 100 MB could not be followed; larger, and a peer could make us
/// reserve memory for nothing.
pub const MAX_MESSAGE_BYTES: usize = 104_857_605;

/// Largest message in bytes that is not a block response: a tag, a length and two heights with
/// their tags come to 24. Smaller, and an honest message would be refused.
const MAX_SMALL_MESSAGE_BYTES: usize = 64;

/// Fields of a message, or of a block response, at most. An honest one has one or two; joining the
/// pieces of a block that is split over very many would take for ever.
const MAX_FIELDS: usize = 8;

/// Field of a block response in `Message`, of the block and of the extended commit in it.
const BLOCK_RESPONSE: u32 = 3;
const BLOCK: u32 = 1;
const EXTENDED_COMMIT: u32 = 2;

/// What a peer says on the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// It wants the block at this height.
    BlockRequest(Height),
    /// It has no block at this height.
    NoBlockResponse(Height),
    /// A block, still encoded.
    BlockResponse(EncodedBlock),
    /// It wants to know our range.
    StatusRequest,
    /// Its range.
    StatusResponse(HeightRange),
    /// A message of a kind that this version does not know; nothing is to be done about it.
    Unknown,
}

/// A block as it came: slices of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBlock {
    /// `tendermint.types.Block`, without a length prefix.
    pub block: Bytes,
    /// `tendermint.types.ExtendedCommit`, if there was one.
    pub extended_commit: Option<Bytes>,
}

/// A message that CometBFT would disconnect a peer for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Not protobuf.
    #[error("malformed blocksync message: {0}")]
    Malformed(String),
    /// Longer than a message of its kind can be.
    #[error("blocksync message of {0} bytes that holds no block")]
    TooLong(usize),
    /// A height below zero.
    #[error("negative height {0}")]
    NegativeHeight(i64),
    /// A range that contradicts itself.
    #[error("base {base} and height {height} are no range")]
    Range {
        /// Lowest height claimed.
        base: i64,
        /// Highest height claimed.
        height: i64,
    },
    /// A block response without a block.
    #[error("block response without a block")]
    NoBlock,
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// When CometBFT would disconnect the sender.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        match last_field(bytes)? {
            Some((BLOCK_RESPONSE, body)) => decode_block_response(&body).map(Self::BlockResponse),
            _ if bytes.len() > MAX_SMALL_MESSAGE_BYTES => Err(WireError::TooLong(bytes.len())),
            _ => decode_small(bytes),
        }
    }
}

/// The last known length-delimited field of a message: of a oneof, the last case counts.
fn last_field(bytes: &Bytes) -> Result<Option<(u32, Bytes)>, WireError> {
    let mut last = None;
    for_each_field(bytes, |field, body| {
        if (1..=5).contains(&field) {
            last = Some((field, body));
        }
    })?;
    Ok(last)
}

fn decode_block_response(body: &Bytes) -> Result<EncodedBlock, WireError> {
    let (mut block, mut extended_commit) = (None, None);
    for_each_field(body, |field, value| match field {
        BLOCK => merge(&mut block, value),
        EXTENDED_COMMIT => merge(&mut extended_commit, value),
        _ => {}
    })?;
    Ok(EncodedBlock {
        block: block.ok_or(WireError::NoBlock)?,
        extended_commit,
    })
}

/// Protobuf merges the occurrences of a message field, which is to join their bytes.
fn merge(field: &mut Option<Bytes>, value: Bytes) {
    *field = Some(match field.take() {
        None => value,
        Some(first) => {
            let mut joined = BytesMut::with_capacity(first.len() + value.len());
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&value);
            joined.freeze()
        }
    });
}

/// Calls `each` with every length-delimited field, as a slice of `bytes`.
fn for_each_field(bytes: &Bytes, mut each: impl FnMut(u32, Bytes)) -> Result<(), WireError> {
    let (mut rest, mut fields) = (bytes.clone(), 0);
    while rest.has_remaining() {
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(WireError::Malformed("too many fields".into()));
        }
        let (field, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        if wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut rest).map_err(malformed)?;
            let length = usize::try_from(length)
                .ok()
                .filter(|length| *length <= rest.len())
                .ok_or_else(|| WireError::Malformed("a field ends after the message".into()))?;
            each(field, rest.split_to(length));
        } else {
            skip_field(wire_type, field, &mut rest, DecodeContext::default()).map_err(malformed)?;
        }
    }
    Ok(())
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "used as a function of map_err"
)]
fn malformed(error: prost::DecodeError) -> WireError {
    WireError::Malformed(error.to_string())
}

fn decode_small(bytes: &Bytes) -> Result<Message, WireError> {
    use pb::message::Sum;
    let message = pb::Message::decode(bytes.clone()).map_err(malformed)?;
    Ok(match message.sum {
        Some(Sum::BlockRequest(request)) => Message::BlockRequest(height(request.height)?),
        Some(Sum::NoBlockResponse(response)) => Message::NoBlockResponse(height(response.height)?),
        Some(Sum::StatusRequest(_)) => Message::StatusRequest,
        Some(Sum::StatusResponse(pb::StatusResponse { height, base })) => Message::StatusResponse(
            HeightRange::new(Height::new(base), Height::new(height))
                .ok_or(WireError::Range { base, height })?,
        ),
        Some(Sum::BlockResponse(_)) | None => Message::Unknown,
    })
}

fn height(height: i64) -> Result<Height, WireError> {
    if height < 0 {
        Err(WireError::NegativeHeight(height))
    } else {
        Ok(Height::new(height))
    }
}

fn encode(sum: pb::message::Sum) -> Bytes {
    pb::Message { sum: Some(sum) }.encode_to_vec().into()
}

/// Asks for the block at `height`.
#[must_use]
pub fn block_request(height: Height) -> Bytes {
    encode(pb::message::Sum::BlockRequest(pb::BlockRequest {
        height: height.get(),
    }))
}

/// Says that there is no block at `height`.
#[must_use]
pub fn no_block_response(height: Height) -> Bytes {
    encode(pb::message::Sum::NoBlockResponse(pb::NoBlockResponse {
        height: height.get(),
    }))
}

/// Asks for a peer's range.
#[must_use]
pub fn status_request() -> Bytes {
    encode(pb::message::Sum::StatusRequest(pb::StatusRequest {}))
}

/// Tells our range.
#[must_use]
pub fn status_response(base: Height, height: Height) -> Bytes {
    encode(pb::message::Sum::StatusResponse(pb::StatusResponse {
        height: height.get(),
        base: base.get(),
    }))
}

/// A block response: the stored bytes behind a prefix, in one buffer.
#[must_use]
pub fn block_response(block: &[u8], extended_commit: Option<&[u8]>) -> Bytes {
    let field = |length: usize| 1 + prost::length_delimiter_len(length) + length;
    let inner = field(block.len()) + extended_commit.map_or(0, |commit| field(commit.len()));
    let mut out = BytesMut::with_capacity(field(inner));
    let mut put = |number: u32, length: usize, body: &[u8]| {
        encode_varint(u64::from(number << 3 | 2), &mut out);
        encode_varint(length as u64, &mut out);
        out.extend_from_slice(body);
    };
    put(BLOCK_RESPONSE, inner, &[]);
    put(BLOCK, block.len(), block);
    if let Some(commit) = extended_commit {
        put(EXTENDED_COMMIT, commit.len(), commit);
    }
    out.freeze()
}

/// The length in bytes of the whole message of which `first` is the beginning, as its first field
/// says; `None` when `first` is no beginning of a block response. What the connection reserves
/// memory by before it reads on.
#[must_use]
pub fn announced_length(first: &[u8]) -> Option<usize> {
    let mut rest = first;
    let (field, wire_type) = decode_key(&mut rest).ok()?;
    if field != BLOCK_RESPONSE || wire_type != WireType::LengthDelimited {
        return None;
    }
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    length.checked_add(first.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode_pb(message: &pb::Message) -> Bytes {
        message.encode_to_vec().into()
    }

    #[test]
    fn small_messages_round_trip() {
        let height = Height::new(7);
        for (bytes, message) in [
            (block_request(height), Message::BlockRequest(height)),
            (no_block_response(height), Message::NoBlockResponse(height)),
            (status_request(), Message::StatusRequest),
            (
                status_response(Height::new(3), Height::new(9)),
                Message::StatusResponse(HeightRange::new(Height::new(3), Height::new(9)).unwrap()),
            ),
        ] {
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn a_block_response_is_what_prost_encodes() {
        for extended in [None, Some(&b"\x08\x05"[..])] {
            let ours = block_response(b"\x12\x00", extended);
            let theirs = encode_pb(&pb::Message {
                sum: Some(pb::message::Sum::BlockResponse(pb::BlockResponse {
                    block: Some(perihelion_proto::tendermint::types::Block {
                        data: Some(perihelion_proto::tendermint::types::Data::default()),
                        ..Default::default()
                    }),
                    ext_commit: extended.map(|bytes| {
                        perihelion_proto::tendermint::types::ExtendedCommit::decode(bytes).unwrap()
                    }),
                })),
            });
            assert_eq!(ours, theirs);
            assert_eq!(announced_length(&ours[..2]), Some(ours.len()));
            let Ok(Message::BlockResponse(block)) = Message::decode(&ours) else {
                panic!()
            };
            assert_eq!(&block.block[..], b"\x12\x00");
            assert_eq!(block.extended_commit.as_deref(), extended);
        }
    }

    #[test]
    fn a_block_split_over_two_fields_is_joined() {
        let bytes = Bytes::from_static(b"\x1a\x06\x0a\x01\x01\x0a\x01\x02");
        let Ok(Message::BlockResponse(block)) = Message::decode(&bytes) else {
            panic!()
        };
        assert_eq!(&block.block[..], b"\x01\x02");
    }

    #[test]
    fn a_block_split_over_many_fields_is_refused() {
        let pieces = b"\x0a\x01\x01".repeat(MAX_FIELDS + 1);
        let length = u8::try_from(pieces.len()).unwrap();
        let bytes = Bytes::from([vec![0x1a, length], pieces].concat());
        assert_eq!(
            Message::decode(&bytes),
            Err(WireError::Malformed("too many fields".into()))
        );
        let many = b"\x1a\x02\x0a\x00".repeat(MAX_FIELDS + 1);
        assert!(Message::decode(&Bytes::from(many)).is_err());
    }

    #[test]
    fn what_cometbft_refuses_is_refused() {
        let range = |base, height| {
            encode_pb(&pb::Message {
                sum: Some(pb::message::Sum::StatusResponse(pb::StatusResponse {
                    height,
                    base,
                })),
            })
        };
        assert!(matches!(
            Message::decode(&range(5, 4)),
            Err(WireError::Range { .. })
        ));
        assert!(matches!(
            Message::decode(&range(-1, 4)),
            Err(WireError::Range { .. })
        ));
        assert_eq!(
            Message::decode(&block_request(Height::new(-1))),
            Err(WireError::NegativeHeight(-1))
        );
        assert!(matches!(
            Message::decode(&Bytes::from_static(b"\x1a\x05\x0a")),
            Err(WireError::Malformed(_))
        ));
        assert_eq!(
            Message::decode(&Bytes::from_static(b"\x1a\x00")),
            Err(WireError::NoBlock)
        );
        assert_eq!(
            Message::decode(&Bytes::from(vec![0x32; 70])),
            Err(WireError::Malformed(
                "a field ends after the message".into()
            ))
        );
    }

    #[test]
    fn an_unknown_kind_is_ignored() {
        assert_eq!(
            Message::decode(&Bytes::from_static(b"\x32\x00")),
            Ok(Message::Unknown)
        );
        assert_eq!(Message::decode(&Bytes::new()), Ok(Message::Unknown));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Message::decode(&Bytes::from(bytes.clone()));
            let _ = announced_length(&bytes);
        }
    }
}
