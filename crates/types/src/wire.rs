//! Protobuf by hand, where a struct of the schema would only be made to be encoded and dropped:
//! in hashes and sign bytes. Fields that are zero or empty are left out, as proto3 does.

use crate::{BlockId, PartSetHeader, Time};

pub(crate) fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// A field of type int32, int64, uint32, uint64 or of an enum; negative values have ten bytes.
pub(crate) fn put_int(buffer: &mut Vec<u8>, field: u8, value: i64) {
    if value != 0 {
        buffer.push(field << 3);
        put_varint(buffer, value.cast_unsigned());
    }
}

pub(crate) fn put_sfixed64(buffer: &mut Vec<u8>, field: u8, value: i64) {
    if value != 0 {
        buffer.push(field << 3 | 1);
        buffer.extend_from_slice(&value.to_le_bytes());
    }
}

pub(crate) fn put_bytes(buffer: &mut Vec<u8>, field: u8, value: &[u8]) {
    if !value.is_empty() {
        buffer.push(field << 3 | 2);
        put_varint(buffer, value.len() as u64);
        buffer.extend_from_slice(value);
    }
}

/// A message of fewer than 128 bytes, present even when it is empty.
fn put_short_message(buffer: &mut Vec<u8>, field: u8, put: impl FnOnce(&mut Vec<u8>)) {
    buffer.push(field << 3 | 2);
    let length_at = buffer.len();
    buffer.push(0);
    put(buffer);
    let length = buffer.len() - length_at - 1;
    debug_assert!(length < 128, "lengths of short messages have one byte");
    buffer[length_at] = length as u8;
}

/// The fields of a timestamp: at most 21 bytes.
pub(crate) fn put_time_fields(buffer: &mut Vec<u8>, time: Time) {
    put_int(buffer, 1, time.seconds());
    put_int(buffer, 2, i64::from(time.nanos()));
}

pub(crate) fn put_time(buffer: &mut Vec<u8>, field: u8, time: Time) {
    put_short_message(buffer, field, |buffer| put_time_fields(buffer, time));
}

fn put_part_set_header_fields(buffer: &mut Vec<u8>, header: &PartSetHeader) {
    put_int(buffer, 1, i64::from(header.total));
    put_bytes(buffer, 2, header.hash.as_bytes());
}

/// The fields of a block id, canonical or not: at most 76 bytes.
pub(crate) fn put_block_id_fields(buffer: &mut Vec<u8>, id: &BlockId) {
    put_bytes(buffer, 1, id.hash.as_bytes());
    put_short_message(buffer, 2, |buffer| {
        put_part_set_header_fields(buffer, &id.part_set_header);
    });
}

/// A canonical block id, which is left out when it is nil.
pub(crate) fn put_canonical_block_id(buffer: &mut Vec<u8>, field: u8, id: &BlockId) {
    if !id.is_nil() {
        put_short_message(buffer, field, |buffer| put_block_id_fields(buffer, id));
    }
}

/// `message` with its length before it.
pub(crate) fn delimited(message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 4);
    put_varint(&mut bytes, message.len() as u64);
    bytes.extend_from_slice(message);
    bytes
}

/// The encoded part set header.
pub(crate) fn part_set_header(header: &PartSetHeader) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    put_part_set_header_fields(&mut bytes, header);
    bytes
}
