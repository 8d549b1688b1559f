//! Whether bytes are in the usual encoding: fields in order, each as short as can be, none that is
//! zero or unknown.

use super::schema::{Kind, Message};
use crate::Time;

/// Whether a message is.
pub(super) fn is_usual(raw: &[u8], message: &Message) -> bool {
    let mut rest = Rest(raw);
    let mut last = 0;
    while let Some((&tag, behind)) = rest.0.split_first() {
        rest.0 = behind;
        // One byte: no field has a number above 15.
        let (number, wire_type) = (u32::from(tag >> 3), tag & 7);
        let Some(kind) = message.kind(number) else {
            return false;
        };
        let in_order = match kind {
            Kind::Many(_) | Kind::ManyBytes => number >= last,
            _ => number > last && !(message.is_oneof && last > 0),
        };
        if !in_order || wire_type != kind.wire_type() || !rest.is_usual(kind, message.is_oneof) {
            return false;
        }
        last = number;
    }
    true
}

impl Kind {
    /// How its values are framed.
    pub(super) const fn wire_type(self) -> u8 {
        match self {
            Self::Number | Self::Signed32 | Self::Unsigned32 => 0,
            _ => 2,
        }
    }

    /// A number as a field of this kind holds it.
    pub(super) const fn cut(self, value: u64) -> u64 {
        match self {
            Self::Signed32 => (value as i32 as i64).cast_unsigned(),
            Self::Unsigned32 => value as u32 as u64,
            _ => value,
        }
    }
}

/// Whether a timestamp is, and a time.
fn is_time(raw: &[u8]) -> bool {
    let mut rest = Rest(raw);
    let (Some(seconds), Some(nanos)) = (rest.number(1), rest.number(2)) else {
        return false;
    };
    let (seconds, Ok(nanos)) = (seconds.cast_signed(), i32::try_from(nanos)) else {
        return false;
    };
    rest.0.is_empty() && Time::try_from(prost_types::Timestamp { seconds, nanos }).is_ok()
}

/// What is left of a message.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Takes a value, which is left out where it is zero unless the message is `oneof`.
    fn is_usual(&mut self, kind: Kind, oneof: bool) -> bool {
        if kind.wire_type() == 0 {
            return self
                .varint()
                .is_some_and(|value| value != 0 && kind.cut(value) == value);
        }
        let Some(bytes) = self.bytes() else {
            return false;
        };
        match kind {
            Kind::Bytes => oneof || !bytes.is_empty(),
            Kind::One(message) | Kind::Many(message) => is_usual(bytes, message),
            Kind::Time => is_time(bytes),
            _ => true,
        }
    }

    /// The number of a field, zero where it is not there.
    fn number(&mut self, field: u8) -> Option<u64> {
        match self.0.split_first() {
            Some((&tag, behind)) if tag == field << 3 => {
                self.0 = behind;
                self.varint().filter(|value| *value != 0)
            }
            _ => Some(0),
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A varint that is as short as can be.
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.0.split_first() {
            // Most are short.
            Some((&byte, rest)) if byte < 0x80 => {
                self.0 = rest;
                Some(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            if index == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return (byte != 0).then_some(value);
            }
        }
        None
    }
}
