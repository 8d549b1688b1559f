//! Texts of an application that are not UTF-8.
//!
//! The schema says `string`, but Go neither checks nor changes what it decodes into one, so CometBFT
//! takes a log line with any bytes in it. No hash covers these texts. They are kept as CometBFT
//! shows them in JSON: each byte that is not part of a character as U+FFFD.

use crate::{CallName, types::Response};
use bytes::{Buf, BufMut as _, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint},
};

/// What a length-delimited field of a response holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Message(Fields),
}

/// The fields of a message that hold texts, or messages with texts in them.
type Fields = &'static [(u32, Kind)];

const EVENT: Fields = &[(1, Kind::Text)];
const TX_RESULT: Fields = &[
    (3, Kind::Text),
    (4, Kind::Text),
    (7, Kind::Message(EVENT)),
    (8, Kind::Text),
];
const QUERY: Fields = &[(3, Kind::Text), (4, Kind::Text), (10, Kind::Text)];
const INFO: Fields = &[(1, Kind::Text), (2, Kind::Text)];
const ONE: Fields = &[(1, Kind::Text)];
const SNAPSHOT_CHUNK: Fields = &[(3, Kind::Text)];
const FINALIZED: Fields = &[(1, Kind::Message(EVENT)), (2, Kind::Message(TX_RESULT))];

/// `tendermint.abci.Response`.
const RESPONSE: Fields = &[
    (1, Kind::Message(ONE)),
    (2, Kind::Message(ONE)),
    (4, Kind::Message(INFO)),
    (7, Kind::Message(QUERY)),
    (9, Kind::Message(TX_RESULT)),
    (16, Kind::Message(SNAPSHOT_CHUNK)),
    (21, Kind::Message(FINALIZED)),
];

/// Decodes a `Response`, whatever bytes its texts hold.
///
/// # Errors
/// When it is none all the same.
pub(super) fn decode_response(message: &Bytes) -> Result<Response, DecodeError> {
    decode(message, RESPONSE)
}

/// Decodes the response to one call, likewise.
///
/// # Errors
/// When it is none.
pub(crate) fn decode_answer<R: Message + Default>(
    call: CallName,
    message: &Bytes,
) -> Result<R, DecodeError> {
    let fields = match call {
        CallName::Echo => ONE,
        CallName::Info => INFO,
        CallName::Query => QUERY,
        CallName::CheckTx => TX_RESULT,
        CallName::ApplySnapshotChunk => SNAPSHOT_CHUNK,
        CallName::FinalizeBlock => FINALIZED,
        _ => &[],
    };
    decode(message, fields)
}

fn decode<R: Message + Default>(message: &Bytes, fields: Fields) -> Result<R, DecodeError> {
    R::decode(message.clone()).or_else(|error| {
        let Ok(mended) = mend(message.clone(), fields) else {
            return Err(error);
        };
        R::decode(Bytes::from(mended)).map_err(|_| error)
    })
}

/// The same message with texts that are UTF-8.
fn mend(mut message: Bytes, fields: Fields) -> Result<Vec<u8>, DecodeError> {
    let mut mended = Vec::with_capacity(message.len());
    while message.has_remaining() {
        let whole = message.clone();
        let (field, wire_type) = decode_key(&mut message)?;
        let kind = fields.iter().find(|(number, _)| *number == field);
        let Some((_, kind)) = kind.filter(|_| wire_type == WireType::LengthDelimited) else {
            prost::encoding::skip_field(wire_type, field, &mut message, DecodeContext::default())?;
            mended.put_slice(&whole[..whole.len() - message.len()]);
            continue;
        };
        let length = usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX);
        if length > message.len() {
            // The decoder says what is wrong.
            mended.put_slice(&whole);
            break;
        }
        let content = message.split_to(length);
        let content = match kind {
            Kind::Text => text(&content).into_bytes(),
            Kind::Message(fields) => mend(content, fields)?,
        };
        encode_key(field, wire_type, &mut mended);
        encode_varint(content.len() as u64, &mut mended);
        mended.put_slice(&content);
    }
    Ok(mended)
}

/// Each byte that is not part of a character becomes U+FFFD.
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::frame::disclose, *};
    use crate::types::{
        Event, EventAttribute, ExecTxResult, ResponseFinalizeBlock, response::Value,
    };

    fn finalized(log: &str, kind: &str) -> Response {
        let event = Event {
            r#type: kind.to_owned(),
            attributes: vec![EventAttribute {
                key: Bytes::from_static(b"\xff"),
                value: Bytes::from_static(b"\xfe"),
                index: true,
            }],
        };
        let result = ExecTxResult {
            code: 7,
            data: Bytes::from_static(b"\xff\xff"),
            log: log.to_owned(),
            events: vec![event.clone()],
            ..ExecTxResult::default()
        };
        let response = ResponseFinalizeBlock {
            events: vec![event],
            tx_results: vec![result],
            app_hash: Bytes::from_static(b"\x80"),
            ..ResponseFinalizeBlock::default()
        };
        let value = Some(Value::FinalizeBlock(response));
        Response { value }
    }

    /// `from` in every text of the message, replaced by bytes of the same length.
    fn with(message: &Response, from: &str, to: &[u8]) -> Bytes {
        let mut bytes = message.encode_to_vec();
        assert_eq!(from.len(), to.len());
        let mut at = 0;
        while let Some(found) = bytes[at..]
            .windows(from.len())
            .position(|it| it == from.as_bytes())
        {
            bytes[at + found..at + found + to.len()].copy_from_slice(to);
            at += found + to.len();
        }
        assert!(at > 0, "nothing was replaced");
        bytes.into()
    }

    #[test]
    fn texts_with_any_bytes_are_taken_and_nothing_else_changes() {
        let bad = with(&finalized("out of gas: AB!", "type-AB"), "AB", b"\xff\xc3");
        assert!(Response::decode(bad.clone()).is_err(), "no UTF-8");
        let decoded = decode_response(&bad).unwrap();
        let expected = finalized("out of gas: \u{fffd}\u{fffd}!", "type-\u{fffd}\u{fffd}");
        assert_eq!(decoded, expected);

        let Some(Value::FinalizeBlock(expected)) = expected.value else {
            unreachable!("as made")
        };
        let body = disclose(bad).unwrap();
        let decoded: ResponseFinalizeBlock = decode_answer(CallName::FinalizeBlock, &body).unwrap();
        assert_eq!(decoded, expected, "as over gRPC");
    }

    #[test]
    fn what_is_no_response_stays_none() {
        let good = finalized("log", "type");
        let bytes = Bytes::from(good.encode_to_vec());
        assert_eq!(decode_response(&bytes).unwrap(), good);
        for end in 1..bytes.len() {
            let cut = bytes.slice(..end);
            let decoded = decode_response(&cut).ok();
            assert_eq!(decoded, Response::decode(cut).ok(), "cut at {end}");
        }
    }
}
