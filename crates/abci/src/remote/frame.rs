//! The messages of CometBFT's socket protocol: a varint of the length in bytes, and so many bytes
//! of a `Request` or `Response`.

use std::io::{self, ErrorKind, Read};

use bytes::{BufMut as _, Bytes};
use prost::{
    Message,
    encoding::{encode_varint, encoded_len_varint, message},
};
use thiserror::Error;

use crate::CallName;

/// The longest message, in bytes, as with CometBFT (2 GiB - 1). Whoever announces one gets no
/// memory for it before its bytes arrive.
pub(crate) const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;

/// Memory that an announced length gets at once. Larger: an announcement alone costs that much.
/// Smaller: blocks of usual sizes are copied while they arrive.
const FIRST_BYTES: usize = 1 << 20;

/// Bytes of the longest varint of 64 bits.
const MAX_VARINT: usize = 10;

/// What arrived is no message, or none whole.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("a message is announced with {0} bytes, at most {MAX_MESSAGE_BYTES} are allowed")]
    TooLong(u64),
    #[error("the length of a message is no varint of 64 bits")]
    Varint,
    #[error("the connection ended within a message")]
    Truncated,
    #[error("a message cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the next message; `None` when the stream ends before one.
///
/// Memory grows with the bytes that arrive, whatever length was announced.
pub(crate) fn read_frame(stream: &mut impl Read) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = read_length(stream)? else {
        return Ok(None);
    };
    let long = |_| FrameError::TooLong(length);
    let wanted = usize::try_from(length).map_err(long)?;
    if wanted > MAX_MESSAGE_BYTES {
        return Err(FrameError::TooLong(length));
    }
    let mut bytes = Vec::with_capacity(wanted.min(FIRST_BYTES));
    stream.take(length).read_to_end(&mut bytes)?;
    if bytes.len() < wanted {
        return Err(FrameError::Truncated);
    }
    Ok(Some(bytes.into()))
}

fn read_length(stream: &mut impl Read) -> Result<Option<u64>, FrameError> {
    let mut length = 0;
    for index in 0..MAX_VARINT {
        let mut byte = [0];
        match stream.read_exact(&mut byte) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && index == 0 => {
                return Ok(None);
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(FrameError::Truncated);
            }
            Err(error) => return Err(error.into()),
        }
        let [byte] = byte;
        if index == MAX_VARINT - 1 && byte > 1 {
            return Err(FrameError::Varint);
        }
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(Some(length));
        }
    }
    Err(FrameError::Varint)
}

/// Appends the `Request` of `call` that holds `request`, without cloning it into one.
pub(crate) fn put_request(call: CallName, request: &impl Message, buffer: &mut Vec<u8>) {
    put(call.field(), request, buffer);
}

/// Appends `message` as a frame.
pub(crate) fn put_message(message: &impl Message, buffer: &mut Vec<u8>) {
    let length = message.encoded_len();
    buffer.reserve(encoded_len_varint(length as u64) + length);
    encode_varint(length as u64, buffer);
    message.encode_raw(buffer);
}

/// Appends a frame of a message that has `inner`, already encoded, as its only field.
pub(crate) fn put_enclosed(field: u32, inner: &[u8], buffer: &mut Vec<u8>) {
    let tag = prost::encoding::key_len(field) + encoded_len_varint(inner.len() as u64);
    let length = tag + inner.len();
    buffer.reserve(encoded_len_varint(length as u64) + length);
    encode_varint(length as u64, buffer);
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, buffer);
    encode_varint(inner.len() as u64, buffer);
    buffer.extend_from_slice(inner);
}

/// A frame of a message that has `inner` as its only field.
fn put(field: u32, inner: &impl Message, buffer: &mut Vec<u8>) {
    let length = message::encoded_len(field, inner);
    buffer.reserve(encoded_len_varint(length as u64) + length);
    encode_varint(length as u64, buffer);
    message::encode(field, inner, buffer);
}

/// The bytes of a message that has `inner`, already encoded, as its only field: how a body of gRPC
/// becomes a message of the socket protocol.
pub(crate) fn enclose(field: u32, inner: &Bytes) -> Bytes {
    let mut head = Vec::with_capacity(2 * MAX_VARINT + inner.len());
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut head);
    encode_varint(inner.len() as u64, &mut head);
    head.put_slice(inner);
    head.into()
}

/// What [`enclose`] was given.
pub(crate) fn disclose(mut message: Bytes) -> Result<Bytes, prost::DecodeError> {
    prost::encoding::decode_key(&mut message)?;
    prost::encoding::decode_varint(&mut message)?;
    Ok(message)
}

/// The number and the bytes of a message's field, where it is the only one and has a length.
pub(crate) fn only_field(message: &Bytes) -> Option<(u32, Bytes)> {
    let mut body = message.clone();
    let (field, wire_type) = prost::encoding::decode_key(&mut body).ok()?;
    if wire_type != prost::encoding::WireType::LengthDelimited {
        return None;
    }
    let length = prost::encoding::decode_varint(&mut body).ok()?;
    (length == body.len() as u64).then_some((field, body))
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
