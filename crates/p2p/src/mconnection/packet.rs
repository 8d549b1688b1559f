//! Packets: what a multiplexed connection is made of.

use bytes::{BufMut as _, Bytes};
use perihelion_proto::tendermint::p2p::{self as pb, packet::Sum};
use prost::Message as _;

use super::MConnectionError;

/// Bytes that a packet may have beside its payload: tags, lengths, channel and the end mark take
/// at most 17, and unknown fields of another implementation have some room.
const OVERHEAD: usize = 48;

/// Bytes before a packet's payload at most: three lengths of ten bytes, three tags, channel, end mark.
const HEAD: usize = 40;

/// A packet; its payload is borrowed from the bytes that it was read from where they have the
/// usual form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Ping,
    Pong,
    Message {
        channel: u8,
        eof: bool,
        data: Payload<'a>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl std::ops::Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Cuts the first packet off `input`: its bytes without the length in front, and how many bytes it
/// takes with it. `None` while it is not there in whole.
pub(super) fn split(
    input: &[u8],
    max_payload: usize,
) -> Result<Option<(&[u8], usize)>, MConnectionError> {
    let Some((length, start)) = read_varint(input)? else {
        return Ok(None);
    };
    let bound = max_payload + OVERHEAD;
    let length = usize::try_from(length)
        .ok()
        .filter(|&length| length <= bound)
        .ok_or(MConnectionError::PacketTooLong { length, bound })?;
    let end = start + length;
    Ok(input.get(start..end).map(|packet| (packet, end)))
}

/// Decodes a packet.
pub(super) fn decode(bytes: &[u8]) -> Result<Packet<'_>, MConnectionError> {
    if let Some(packet) = decode_usual(bytes) {
        return Ok(packet);
    }
    let packet = pb::Packet::decode(bytes).map_err(|_| MConnectionError::MalformedPacket)?;
    match packet.sum {
        Some(Sum::PacketPing(_)) => Ok(Packet::Ping),
        Some(Sum::PacketPong(_)) => Ok(Packet::Pong),
        Some(Sum::PacketMsg(message)) => Ok(Packet::Message {
            channel: u8::try_from(message.channel_id)
                .map_err(|_| MConnectionError::UnknownChannel(message.channel_id))?,
            eof: message.eof,
            data: Payload::Owned(message.data),
        }),
        None => Err(MConnectionError::UnknownPacket),
    }
}

/// Decodes a packet of the one form that every encoder writes, without a copy; `None` for any
/// other, which [`decode`] leaves to the general decoder.
fn decode_usual(bytes: &[u8]) -> Option<Packet<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    if tag != 0x1a {
        return match bytes {
            [0x0a, 0] => Some(Packet::Ping),
            [0x12, 0] => Some(Packet::Pong),
            _ => None,
        };
    }
    let mut rest = usual_field(rest)?;
    let mut channel = 0;
    if let [0x08, id @ 1..=0x7f, tail @ ..] = rest {
        channel = *id;
        rest = tail;
    }
    let mut eof = false;
    if let [0x10, 1, tail @ ..] = rest {
        eof = true;
        rest = tail;
    }
    let data = match rest {
        [] => rest,
        [0x1a, tail @ ..] => usual_field(tail)?,
        _ => return None,
    };
    Some(Packet::Message {
        channel,
        eof,
        data: Payload::Borrowed(data),
    })
}

/// The content of a length-delimited field that reaches exactly to the end of `bytes`.
fn usual_field(bytes: &[u8]) -> Option<&[u8]> {
    let (length, start) = read_varint(bytes).ok()??;
    let content = bytes.get(start..)?;
    (usize::try_from(length).ok()? == content.len()).then_some(content)
}

/// Where packets are written to.
pub trait PacketSink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);

    /// How many bytes were put.
    fn bytes(&self) -> usize;
}

impl PacketSink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

/// Appends a ping behind its length.
pub(super) fn encode_ping(out: &mut impl PacketSink) {
    out.put(&[2, 0x0a, 0]);
}

/// Appends a pong behind its length.
pub(super) fn encode_pong(out: &mut impl PacketSink) {
    out.put(&[2, 0x12, 0]);
}

/// Appends a piece of a message behind its length. Returns how many bytes were appended.
pub(super) fn encode_message(
    channel: u8,
    eof: bool,
    data: &[u8],
    out: &mut impl PacketSink,
) -> usize {
    let channel_length = match channel {
        0 => 0,
        1..=0x7f => 2,
        _ => 3,
    };
    let data_length = if data.is_empty() {
        0
    } else {
        1 + varint_length(data.len()) + data.len()
    };
    let inner = channel_length + 2 * usize::from(eof) + data_length;
    // What goes before the data.
    let mut head = [0; HEAD];
    let mut rest = head.as_mut_slice();
    write_varint(1 + varint_length(inner) + inner, &mut rest);
    rest.put_u8(0x1a);
    write_varint(inner, &mut rest);
    if channel != 0 {
        rest.put_u8(0x08);
        write_varint(channel.into(), &mut rest);
    }
    if eof {
        rest.put_slice(&[0x10, 1]);
    }
    if !data.is_empty() {
        rest.put_u8(0x1a);
        write_varint(data.len(), &mut rest);
    }
    let written = HEAD - rest.len();
    out.put(&head[..written]);
    out.put(data);
    written + data.len()
}

fn varint_length(value: usize) -> usize {
    prost::length_delimiter_len(value)
}

fn write_varint(value: usize, out: &mut &mut [u8]) {
    prost::encoding::encode_varint(value as u64, out);
}

/// Reads a varint: its value and length. `None` while it is not there in whole.
///
/// # Errors
/// When it is longer than ten bytes or above 64 bits.
pub(super) fn read_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, MConnectionError> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            return Err(MConnectionError::MalformedPacket);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 10 {
        return Err(MConnectionError::MalformedPacket);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_prost(channel: u8, eof: bool, data: &[u8]) -> Vec<u8> {
        pb::Packet {
            sum: Some(Sum::PacketMsg(pb::PacketMsg {
                channel_id: channel.into(),
                eof,
                data: Bytes::copy_from_slice(data),
            })),
        }
        .encode_length_delimited_to_vec()
    }

    proptest! {
        #[test]
        fn packets_are_written_and_read_as_the_general_codec_does(
            channel: u8,
            eof: bool,
            data in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut out = Vec::new();
            let written = encode_message(channel, eof, &data, &mut out);
            prop_assert_eq!(written, out.len());
            prop_assert_eq!(&out, &as_prost(channel, eof, &data));
            let (packet, taken) = split(&out, 2000).unwrap().unwrap();
            prop_assert_eq!(taken, out.len());
            let Packet::Message { channel: c, eof: e, data: d } = decode(packet).unwrap() else {
                panic!("a message");
            };
            prop_assert_eq!((c, e, &*d), (channel, eof, data.as_slice()));
        }

        #[test]
        fn the_quick_decoder_agrees_with_the_general_one(
            bytes in proptest::collection::vec(any::<u8>(), 0..24),
        ) {
            if let Some(quick) = decode_usual(&bytes) {
                let general = pb::Packet::decode(bytes.as_slice()).unwrap();
                let expected = match general.sum.unwrap() {
                    Sum::PacketPing(_) => Packet::Ping,
                    Sum::PacketPong(_) => Packet::Pong,
                    Sum::PacketMsg(message) => {
                        let Packet::Message { channel, eof, data } = &quick else {
                            panic!("a message");
                        };
                        prop_assert_eq!(i32::from(*channel), message.channel_id);
                        prop_assert_eq!(*eof, message.eof);
                        prop_assert_eq!(&**data, message.data.as_ref());
                        return Ok(());
                    }
                };
                prop_assert_eq!(quick, expected);
            }
        }
    }

    #[test]
    fn lengths_are_bounded_before_the_packet_is_there() {
        assert!(matches!(
            split(&[0xff, 0xff, 0x7f], 1024),
            Err(MConnectionError::PacketTooLong { .. })
        ));
        assert!(split(&[0xff; 10], 1024).is_err());
        assert_eq!(split(&[0xff], 1024), Ok(None));
        assert_eq!(split(&[5, 1, 2], 1024), Ok(None));
    }
}
