//! The fields of a message, found as gogoproto finds them.

use crate::DecodeError;

/// What a field holds on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A varint; bits beyond the 64th are gone.
    Varint(u64),
    /// What a length stands before.
    Bytes(&'a [u8]),
    /// Four or eight bytes, or a group.
    Other,
}

/// The fields of a message: number, and the bytes where it is length-delimited. Ends after an
/// error.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Option<&'a [u8]>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.next_value()?;
        Some(field.map(|(number, value)| match value {
            Value::Bytes(bytes) => (number.into(), Some(bytes)),
            _ => (number.into(), None),
        }))
    }
}

impl<'a> Fields<'a> {
    /// The next field's number and value; `None` at the end and after an error.
    #[inline]
    pub(crate) fn next_value(&mut self) -> Option<Result<(u32, Value<'a>), DecodeError>> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(malformed))
    }

    #[inline]
    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = self.varint()?;
        // Of the number only the lower 32 bits count, of which the highest is a sign.
        let number = (tag >> 3) as u32;
        if number == 0 || number.cast_signed() < 0 {
            return None;
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            3 => {
                self.skip_group()?;
                Value::Other
            }
            other => {
                self.skip(other)?;
                Value::Other
            }
        };
        Some((number, value))
    }

    /// Skips everything up to a group's end, groups inside of it too. No field number matters
    /// there.
    fn skip_group(&mut self) -> Option<()> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.varint()? & 7 {
                3 => depth += 1,
                4 => depth -= 1,
                inner => self.skip(inner)?,
            }
        }
        Some(())
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

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

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

pub(super) fn malformed() -> DecodeError {
    DecodeError::Protobuf("malformed field".into())
}
