//! Writes a message in its usual encoding.

use super::{
    Fields, Value,
    fields::malformed,
    schema::{self, Kind, Message},
};
use crate::{DecodeError, Time, wire};

/// Appends the usual encoding of a message that gogoproto reads from `raw`.
///
/// # Errors
/// When gogoproto refuses it.
pub(super) fn rewrite(raw: &[u8], message: &Message, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let given = check(raw, message)?;
    if message.is_oneof {
        return put_last(raw, message, out);
    }
    for (number, kind) in message.fields() {
        if given & 1 << number != 0 {
            put_field(raw, number, kind, out)?;
        }
    }
    Ok(())
}

/// Checks that all fields can be found and known ones are framed as they should be, and tells which
/// of these there are, a bit each.
fn check(raw: &[u8], message: &Message) -> Result<u32, DecodeError> {
    let (mut fields, mut given) = (Fields(raw), 0);
    while let Some(field) = fields.next_value() {
        let (number, value) = field?;
        let Some(kind) = message.kind(number) else {
            continue;
        };
        match (value, kind.wire_type()) {
            (Value::Varint(_), 0) | (Value::Bytes(_), 2) => given |= 1 << number,
            _ => return Err(malformed()),
        }
    }
    Ok(given)
}

/// The values of a field; `raw` has been checked.
fn values(raw: &[u8], number: u32) -> impl Iterator<Item = Value<'_>> {
    let mut fields = Fields(raw);
    std::iter::from_fn(move || fields.next_value())
        .flatten()
        .filter_map(move |(found, value)| (found == number).then_some(value))
}

/// The same of one that holds bytes.
fn pieces(raw: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    values(raw, number).filter_map(|value| match value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    })
}

/// Writes all that a message has of one field.
fn put_field(raw: &[u8], number: u32, kind: Kind, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match kind {
        Kind::Number | Kind::Signed32 | Kind::Unsigned32 => {
            if let Some(Value::Varint(value)) = values(raw, number).last() {
                put_number(kind.cut(value), kind, number, out);
            }
        }
        Kind::Bytes => {
            if let Some(bytes) = pieces(raw, number).last().filter(|it| !it.is_empty()) {
                put_bytes(bytes, number, out);
            }
        }
        Kind::ManyBytes => pieces(raw, number).for_each(|bytes| put_bytes(bytes, number, out)),
        Kind::One(message) => {
            let mut all = pieces(raw, number);
            let first = all.next().unwrap_or_default();
            let Some(second) = all.next() else {
                return put_message(first, message, number, out);
            };
            let mut joined = Vec::new();
            for piece in [first, second].into_iter().chain(all) {
                // Each is a message: no field begins in one and ends in the next.
                check(piece, message)?;
                joined.extend_from_slice(piece);
            }
            put_message(&joined, message, number, out)?;
        }
        Kind::Many(message) => {
            for piece in pieces(raw, number) {
                put_message(piece, message, number, out)?;
            }
        }
        Kind::Time => {
            let start = out.len();
            for piece in pieces(raw, number) {
                out.truncate(start);
                put_time(piece, number, out)?;
            }
        }
    }
    Ok(())
}

/// Writes the last field of an oneof. Those before it must be right too.
fn put_last(raw: &[u8], message: &Message, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let start = out.len();
    let mut fields = Fields(raw);
    while let Some(field) = fields.next_value() {
        let (number, value) = field?;
        let (Some(kind), Value::Bytes(bytes)) = (message.kind(number), value) else {
            continue;
        };
        out.truncate(start);
        match kind {
            Kind::One(message) => put_message(bytes, message, number, out)?,
            _ => put_bytes(bytes, number, out),
        }
    }
    Ok(())
}

fn put_tag(number: u32, kind: u8, out: &mut Vec<u8>) {
    out.push((number << 3) as u8 | kind);
}

fn put_number(value: u64, kind: Kind, number: u32, out: &mut Vec<u8>) {
    if value != 0 {
        put_tag(number, kind.wire_type(), out);
        wire::put_varint(out, value);
    }
}

fn put_bytes(bytes: &[u8], number: u32, out: &mut Vec<u8>) {
    put_tag(number, 2, out);
    wire::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_message(
    raw: &[u8],
    message: &Message,
    number: u32,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    put_tag(number, 2, out);
    let length_at = out.len();
    out.push(0);
    rewrite(raw, message, out)?;
    let length = out.len() - length_at - 1;
    if length < 128 {
        out[length_at] = length as u8;
    } else {
        let mut prefix = Vec::with_capacity(10);
        wire::put_varint(&mut prefix, length as u64);
        out.splice(length_at..=length_at, prefix);
    }
    Ok(())
}

/// Writes a time that can be one.
fn put_time(raw: &[u8], number: u32, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    check(raw, &schema::TIME)?;
    let last = |number, kind: Kind| match values(raw, number).last() {
        Some(Value::Varint(value)) => kind.cut(value).cast_signed(),
        _ => 0,
    };
    let seconds = last(1, Kind::Number);
    let nanos = last(2, Kind::Signed32) as i32;
    let time = Time::try_from(prost_types::Timestamp { seconds, nanos })?;
    wire::put_time(out, number as u8, time);
    Ok(())
}
