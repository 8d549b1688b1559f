//! One record: CRC-32C of the data (4 bytes, big endian), length of the data (4 bytes, big endian),
//! the data: a `tendermint.consensus.TimedWALMessage`.

use perihelion_proto::tendermint::consensus as pb;
use prost::Message as _;
use thiserror::Error;

/// Bytes of a record before its data.
pub const HEADER_BYTES: usize = 8;
/// Largest data of a record: the largest message of the consensus channels (1 MiB) and 24 bytes for
/// its time. Larger: CometBFT refuses to read the log; smaller: a message could not be logged.
pub const MAX_DATA_BYTES: usize = 1_048_576 + 24;
/// Bytes of a protobuf timestamp at most: two tags, two varints of ten bytes.
const MAX_TIME_BYTES: u8 = 22;

/// What is wrong with the bytes where a record should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// The file ends within the record.
    #[error("the file ends {have} bytes into a record of {need}")]
    Cut {
        /// Bytes that are there.
        have: usize,
        /// Bytes that the record has, as far as can be told.
        need: usize,
    },
    /// The length is above the bound.
    #[error("a record of {0} bytes, {max} are allowed", max = MAX_DATA_BYTES)]
    Length(u32),
    /// The data do not have the checksum.
    #[error("checksum {found:08x} where the record says {expected:08x}")]
    Checksum {
        /// As the record says.
        expected: u32,
        /// Of the data.
        found: u32,
    },
    /// The data have the checksum, and are no message.
    #[error("no message: {0}")]
    NoMessage(String),
}

/// The record of `message`.
///
/// # Errors
/// The length of the data, when it is above [`MAX_DATA_BYTES`].
pub fn encode(message: &pb::TimedWalMessage) -> Result<Vec<u8>, usize> {
    let length = message.encoded_len();
    let stored = u32::try_from(length).map_err(|_| length)?;
    if length > MAX_DATA_BYTES {
        return Err(length);
    }
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.reserve(length);
    message
        .encode(&mut bytes)
        .expect("a vector has room for everything");
    let sum = crc32c::crc32c(&bytes[HEADER_BYTES..]);
    bytes[..4].copy_from_slice(&sum.to_be_bytes());
    bytes[4..HEADER_BYTES].copy_from_slice(&stored.to_be_bytes());
    Ok(bytes)
}

/// The bytes of the record that begins with this header; `None` when the length is above the bound.
pub(super) fn record_bytes(header: [u8; HEADER_BYTES]) -> Result<usize, RecordFault> {
    let [.., a, b, c, d] = header;
    let length = u32::from_be_bytes([a, b, c, d]);
    usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_DATA_BYTES)
        .map(|length| HEADER_BYTES + length)
        .ok_or(RecordFault::Length(length))
}

/// The record that `bytes` begin with, and its length with the header.
///
/// # Errors
/// When there is none, an empty slice included.
pub fn decode(bytes: &[u8]) -> Result<(pb::TimedWalMessage, usize), RecordFault> {
    let have = bytes.len();
    let header = bytes.first_chunk().ok_or(RecordFault::Cut {
        have,
        need: HEADER_BYTES,
    })?;
    let need = record_bytes(*header)?;
    let data = bytes
        .get(HEADER_BYTES..need)
        .ok_or(RecordFault::Cut { have, need })?;
    let [a, b, c, d, ..] = *header;
    let expected = u32::from_be_bytes([a, b, c, d]);
    let found = crc32c::crc32c(data);
    if expected != found {
        return Err(RecordFault::Checksum { expected, found });
    }
    let message = pb::TimedWalMessage::decode(data)
        .map_err(|error| RecordFault::NoMessage(error.to_string()))?;
    // Eight zero bytes have the checksum of no data.
    if message.msg.as_ref().is_none_or(|msg| msg.sum.is_none()) {
        return Err(RecordFault::NoMessage("it is empty".to_owned()));
    }
    Ok((message, need))
}

/// The bytes of the record that `bytes` begin with, though it is cut or damaged; `None` where there
/// is a whole one, or where the length of its header is not the one that its data begin with. The
/// data are a time and a message, each behind its own length.
pub(super) fn spoilt_bytes(bytes: &[u8]) -> Option<usize> {
    let need = record_bytes(*bytes.first_chunk()?).ok()?;
    let (tag, time) = (*bytes.get(8)?, *bytes.get(9)?);
    let (behind, mut rest) = bytes.get(10 + usize::from(time)..)?.split_first()?;
    if tag != 0x0a || time > MAX_TIME_BYTES || *behind != 0x12 {
        return None;
    }
    let message = prost::decode_length_delimiter(&mut rest).ok()?;
    let is_confirmed = message.checked_add(bytes.len() - rest.len()) == Some(need);
    (is_confirmed && decode(bytes).is_err()).then_some(need)
}

/// The first place in `bytes` where a record stands, and what it holds.
pub(super) fn find(bytes: &[u8]) -> Option<(usize, pb::TimedWalMessage, usize)> {
    (0..bytes.len()).find_map(|at| {
        let rest = &bytes[at..];
        // The time comes first and the message behind it: few places pass, so that few checksums
        // are computed.
        let (tag, length) = (rest.get(8)?, *rest.get(9)?);
        let behind = rest.get(10 + usize::from(length))?;
        if *tag != 0x0a || length > MAX_TIME_BYTES || *behind != 0x12 {
            return None;
        }
        let (message, length) = decode(rest).ok()?;
        Some((at, message, length))
    })
}

/// Whether a message is synced before it takes effect: our own proposals and votes, and the ends of
/// heights. Not so our own block parts: a proposal whose parts were lost is one that nobody got.
#[must_use]
pub fn is_synced(message: &pb::WalMessage) -> bool {
    use pb::{message::Sum as Kind, wal_message::Sum};
    match &message.sum {
        Some(Sum::EndHeight(_)) => true,
        Some(Sum::MsgInfo(info)) => {
            let kind = info.msg.as_ref().and_then(|msg| msg.sum.as_ref());
            info.peer_id.is_empty() && !matches!(kind, Some(Kind::BlockPart(_)))
        }
        Some(Sum::EventDataRoundState(_) | Sum::TimeoutInfo(_)) | None => false,
    }
}

/// The height whose end a message marks.
#[must_use]
pub fn end_height(message: &pb::WalMessage) -> Option<i64> {
    match &message.sum {
        Some(pb::wal_message::Sum::EndHeight(end)) => Some(end.height),
        _ => None,
    }
}
