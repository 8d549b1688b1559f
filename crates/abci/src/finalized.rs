//! The answer to `FinalizeBlock`: what the next state is made of, and the bytes that are stored.

use bytes::Bytes;
use prost::{
    DecodeError, Message as _,
    encoding::{WireType, decode_key, decode_varint},
};

use crate::{
    AppFault, CallName,
    remote::text::decode_answer,
    types::{ExecTxResult, ResponseFinalizeBlock},
};

/// An answer to `FinalizeBlock`, and the bytes that are stored of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finalized {
    response: ResponseFinalizeBlock,
    encoded: Bytes,
    is_complete: bool,
}

impl Finalized {
    /// Of an answer that `encoded` holds whole, and `response` without what no state depends on.
    #[must_use]
    pub fn without_events(response: ResponseFinalizeBlock, encoded: impl Into<Bytes>) -> Self {
        Self {
            response,
            encoded: encoded.into(),
            is_complete: false,
        }
    }

    /// Of an encoded answer. Its bytes are kept as they are where nothing in them needs to be
    /// mended; then events and texts are looked at and not copied: most of an answer is these.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read(encoded: Bytes) -> Result<Self, DecodeError> {
        if let Some(response) = essence(&encoded) {
            return Ok(Self::without_events(response, encoded));
        }
        decode_answer::<ResponseFinalizeBlock>(CallName::FinalizeBlock, &encoded).map(Self::from)
    }

    /// The answer. Events, and texts of the results, may be missing.
    #[must_use]
    pub fn response(&self) -> &ResponseFinalizeBlock {
        &self.response
    }

    /// The whole answer, encoded.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The same, given away.
    #[must_use]
    pub fn into_encoded(self) -> Bytes {
        self.encoded
    }

    /// The answer with all that it says.
    ///
    /// # Errors
    /// When the application encoded something else than an answer.
    pub fn into_response(self) -> Result<ResponseFinalizeBlock, AppFault> {
        if self.is_complete {
            return Ok(self.response);
        }
        ResponseFinalizeBlock::decode(self.encoded)
            .map_err(|error| AppFault::Contradiction(format!("no answer: {error}")))
    }
}

impl From<ResponseFinalizeBlock> for Finalized {
    fn from(response: ResponseFinalizeBlock) -> Self {
        Self {
            encoded: response.encode_to_vec().into(),
            response,
            is_complete: true,
        }
    }
}

/// An answer without its events and the texts of its results. `None` where it has a field that is
/// not in the schema, or one that cannot be decoded as it stands: whoever is given more decodes all
/// of it.
fn essence(encoded: &[u8]) -> Option<ResponseFinalizeBlock> {
    let mut tx_results = Vec::new();
    let mut others = Vec::new();
    let mut scratch = Vec::new();
    each_field(encoded, |field, whole| {
        match field {
            Field::Bytes(1, event) => check_event(event)?,
            Field::Bytes(2, result) => tx_results.push(essence_of_result(result, &mut scratch)?),
            Field::Bytes(3..=5, _) => others.extend_from_slice(whole),
            _ => return None,
        }
        Some(())
    })?;
    let response = ResponseFinalizeBlock::decode(others.as_slice()).ok()?;
    Some(ResponseFinalizeBlock {
        tx_results,
        ..response
    })
}

fn essence_of_result(result: &[u8], kept: &mut Vec<u8>) -> Option<ExecTxResult> {
    kept.clear();
    each_field(result, |field, whole| {
        match field {
            Field::Number(1 | 5 | 6) | Field::Bytes(2, _) => kept.extend_from_slice(whole),
            Field::Bytes(3 | 4 | 8, text) => check_text(text)?,
            Field::Bytes(7, event) => check_event(event)?,
            _ => return None,
        }
        Some(())
    })?;
    ExecTxResult::decode(kept.as_slice()).ok()
}

fn check_event(event: &[u8]) -> Option<()> {
    each_field(event, |field, _| match field {
        Field::Bytes(1, kind) => check_text(kind),
        Field::Bytes(2, attribute) => each_field(attribute, |field, _| {
            matches!(field, Field::Bytes(1 | 2, _) | Field::Number(3)).then_some(())
        }),
        _ => None,
    })
}

fn check_text(text: &[u8]) -> Option<()> {
    std::str::from_utf8(text).ok().map(drop)
}

/// A field of a message, by its number.
enum Field<'a> {
    Number(u32),
    Bytes(u32, &'a [u8]),
}

/// Visits the fields of a message, each with the bytes that it has in all, key included.
fn each_field<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(Field<'a>, &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        let value = decode_varint(&mut rest).ok()?;
        let field = match wire_type {
            WireType::Varint => Field::Number(number),
            WireType::LengthDelimited => {
                let (bytes, behind) = rest.split_at_checked(usize::try_from(value).ok()?)?;
                rest = behind;
                Field::Bytes(number, bytes)
            }
            _ => return None,
        };
        visit(field, &start[..start.len() - rest.len()])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::types::{Event, EventAttribute, ValidatorUpdate};

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn event() -> impl Strategy<Value = Event> {
        let attribute = (bytes(), bytes(), any::<bool>());
        ("[a-zé]{0,8}", vec(attribute, 0..3)).prop_map(|(kind, attributes)| Event {
            r#type: kind,
            attributes: attributes
                .into_iter()
                .map(|(key, value, index)| EventAttribute { key, value, index })
                .collect(),
        })
    }

    fn result() -> impl Strategy<Value = ExecTxResult> {
        let numbers = (any::<u32>(), any::<i64>(), any::<i64>());
        let texts = ("[a-zé]{0,8}", "[a-z]{0,3}", "[a-z]{0,3}");
        (numbers, bytes(), texts, vec(event(), 0..3)).prop_map(
            |((code, gas_wanted, gas_used), data, (log, info, codespace), events)| ExecTxResult {
                code,
                data,
                log,
                info,
                gas_wanted,
                gas_used,
                events,
                codespace,
            },
        )
    }

    fn response() -> impl Strategy<Value = ResponseFinalizeBlock> {
        let powers = vec(any::<i64>(), 0..3);
        (vec(event(), 0..3), vec(result(), 0..6), powers, bytes()).prop_map(
            |(events, tx_results, powers, app_hash)| ResponseFinalizeBlock {
                events,
                tx_results,
                validator_updates: powers
                    .into_iter()
                    .map(|power| ValidatorUpdate {
                        power,
                        ..ValidatorUpdate::default()
                    })
                    .collect(),
                app_hash,
                ..ResponseFinalizeBlock::default()
            },
        )
    }

    /// What is left of an answer where only the state matters.
    fn stripped(response: &ResponseFinalizeBlock) -> ResponseFinalizeBlock {
        let mut response = response.clone();
        response.events.clear();
        for result in &mut response.tx_results {
            *result = ExecTxResult {
                code: result.code,
                data: result.data.clone(),
                gas_wanted: result.gas_wanted,
                gas_used: result.gas_used,
                ..ExecTxResult::default()
            };
        }
        response
    }

    proptest! {
        #[test]
        fn an_answer_is_read_without_its_events(response in response()) {
            let encoded = Bytes::from(response.encode_to_vec());
            let read = Finalized::read(encoded.clone()).unwrap();
            prop_assert_eq!(read.response(), &stripped(&response));
            prop_assert_eq!(read.encoded(), &encoded[..]);
            prop_assert_eq!(read.into_response().unwrap(), response);
        }

        /// Damage: refused as decoding refuses it, else it means what decoding says, and what is
        /// stored of it can be decoded.
        #[test]
        fn a_damaged_answer_is_read_as_it_decodes(
            response in response(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut encoded = response.encode_to_vec();
            prop_assume!(!encoded.is_empty());
            let at = at.index(encoded.len());
            encoded[at] = byte;
            let encoded = Bytes::from(encoded);
            let decoded =
                decode_answer::<ResponseFinalizeBlock>(CallName::FinalizeBlock, &encoded);
            let read = Finalized::read(encoded);
            match (read, decoded) {
                (Ok(read), Ok(decoded)) => {
                    prop_assert_eq!(stripped(read.response()), stripped(&decoded));
                    prop_assert_eq!(
                        &ResponseFinalizeBlock::decode(read.encoded()).unwrap(),
                        &decoded
                    );
                    prop_assert_eq!(read.into_response().unwrap(), decoded);
                }
                (Err(_), Err(_)) => {}
                (read, decoded) => prop_assert!(false, "{:?} {:?}", read, decoded),
            }
        }
    }

    /// What is not in the schema is not stored: it is decoded, and encoded again.
    #[test]
    fn an_unknown_field_is_left_out() {
        let response = ResponseFinalizeBlock {
            app_hash: Bytes::from_static(b"hash"),
            ..ResponseFinalizeBlock::default()
        };
        let known = response.encode_to_vec();
        let unknown = [&known[..], &[6 << 3, 1]].concat();
        assert_eq!(essence(&unknown), None);
        let read = Finalized::read(unknown.into()).unwrap();
        assert_eq!(read.encoded(), known);
        assert_eq!(read.into_response().unwrap(), response);
    }
}
