use std::io::{self, Cursor, Read};

use perihelion_test_support::{Hex, each};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::types::{Request, RequestEcho, Response, request, response};

/// The messages of a stream until it ends, and how it ended.
fn read_all(bytes: &[u8]) -> (Vec<Request>, Result<(), FrameError>) {
    let mut stream = Cursor::new(bytes);
    let mut messages = Vec::new();
    loop {
        let read = read_frame(&mut stream).and_then(|frame| {
            frame
                .map(Request::decode)
                .transpose()
                .map_err(FrameError::from)
        });
        match read {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, Ok(())),
            Err(error) => return (messages, Err(error)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "made_by")]
    _made_by: String,
    #[serde(rename = "frames")]
    _frames: String,
    #[serde(rename = "stream_rule")]
    _stream_rule: String,
    requests: Vec<FrameCase>,
    responses: Vec<FrameCase>,
    streams: Vec<StreamCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameCase {
    call: String,
    message: Hex,
    frame: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamCase {
    name: String,
    bytes: Hex,
    messages: Vec<Hex>,
    end: String,
    is_eof: bool,
}

/// A set of vectors that was made before this file belonged to it lacks it: then the repository's.
fn vectors() -> File {
    let name = "abci.json";
    if perihelion_test_support::folder().join(name).exists() {
        return perihelion_test_support::load(name);
    }
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/abci.json");
    serde_json::from_str(&std::fs::read_to_string(ours).unwrap()).unwrap()
}

fn call_named(name: &str) -> CallName {
    let found = CallName::ALL
        .into_iter()
        .find(|call| call.to_string() == name);
    found.unwrap_or_else(|| panic!("no call {name}"))
}

/// A message that is taken and given as its bytes.
#[derive(Debug, Default)]
struct Raw(Vec<u8>);

impl Message for Raw {
    fn encode_raw(&self, buffer: &mut impl bytes::BufMut) {
        buffer.put_slice(&self.0);
    }
    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        unreachable!("it is only encoded")
    }
    fn encoded_len(&self) -> usize {
        self.0.len()
    }
    fn clear(&mut self) {}
}

#[test]
fn vector_requests_are_framed_as_by_cometbft() {
    let file = vectors();
    let mut seen = Vec::new();
    each("requests", &file.requests, |_, case| {
        let call = call_named(&case.call);
        let mut frame = Vec::new();
        put_request(call, &Raw(case.message.0.clone()), &mut frame);
        assert_eq!(hex::encode(&frame), hex::encode(&case.frame.0), "{call}");
        // Decoded and encoded again it is the same, so no field is missing in the schema.
        let (messages, end) = read_all(&case.frame);
        end.unwrap();
        let mut again = Vec::new();
        messages.iter().for_each(|it| put_message(it, &mut again));
        assert_eq!(hex::encode(again), hex::encode(&case.frame.0), "{call}");
        let inner = Bytes::from(case.message.0.clone());
        let whole = enclose(call.field(), &inner);
        assert_eq!(Request::decode(whole.clone()).unwrap(), messages[0]);
        assert_eq!(disclose(whole).unwrap(), inner, "{call}");
        seen.push(call);
    });
    for call in CallName::ALL {
        assert!(seen.contains(&call), "no request of {call}");
    }
}

#[test]
fn vector_responses_are_framed_as_by_cometbft() {
    let file = vectors();
    let mut seen = Vec::new();
    each("responses", &file.responses, |_, case| {
        let mut stream = Cursor::new(&case.frame.0);
        let frame = read_frame(&mut stream).unwrap().unwrap();
        assert!(read_frame(&mut stream).unwrap().is_none());
        let response = Response::decode(frame.clone()).unwrap();
        let mut again = Vec::new();
        put_message(&response, &mut again);
        assert_eq!(hex::encode(again), hex::encode(&case.frame.0));
        assert_eq!(disclose(frame).unwrap(), case.message.0);
        let value = response.value.unwrap();
        if case.call == "Exception" {
            assert!(matches!(value, response::Value::Exception(_)));
            assert!(
                CallName::ALL
                    .iter()
                    .all(|call| !call.is_answered_by(&value))
            );
            return;
        }
        let call = call_named(&case.call);
        for other in CallName::ALL {
            assert_eq!(other.is_answered_by(&value), other == call, "{other}");
        }
        let mut framed = Vec::new();
        put(call.field() + 1, &Raw(case.message.0.clone()), &mut framed);
        assert_eq!(hex::encode(framed), hex::encode(&case.frame.0), "{call}");
        seen.push(call);
    });
    for call in CallName::ALL {
        assert!(seen.contains(&call), "no response of {call}");
    }
}

#[test]
fn vector_streams_are_read_as_by_cometbft() {
    each("streams", &vectors().streams, |_, case| {
        let (messages, end) = read_all(&case.bytes);
        let read: Vec<_> = messages
            .iter()
            .map(|message| hex::encode(message.encode_to_vec()))
            .collect();
        let recorded: Vec<_> = case.messages.iter().map(|it| hex::encode(&it.0)).collect();
        assert_eq!(read, recorded, "{}", case.name);
        match (end, case.is_eof) {
            // CometBFT takes a stream that ends behind a length for one that ended before it.
            (Ok(()), true) | (Err(_), false) | (Err(FrameError::Truncated), true) => {}
            (end, _) => panic!("{}: {end:?}, CometBFT says {}", case.name, case.end),
        }
    });
}

/// Gives one to seven bytes at a time.
struct Trickle<'a> {
    rest: &'a [u8],
    step: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.step = self.step % 7 + 1;
        let taken = self.step.min(buffer.len()).min(self.rest.len());
        buffer[..taken].copy_from_slice(&self.rest[..taken]);
        self.rest = &self.rest[taken..];
        Ok(taken)
    }
}

#[test]
fn an_announced_length_gets_no_memory_before_its_bytes() {
    let mut bytes = Vec::new();
    encode_varint(MAX_MESSAGE_BYTES as u64, &mut bytes);
    bytes.extend([1; 100]);
    // 2 GiB are not there; what was read is far below.
    let refused = read_frame(&mut Cursor::new(bytes)).unwrap_err();
    assert!(matches!(refused, FrameError::Truncated), "{refused}");
}

#[test]
fn a_large_message_comes_through() {
    let message = "x".repeat(3 * FIRST_BYTES);
    let mut frame = Vec::new();
    put_request(CallName::Echo, &RequestEcho { message }, &mut frame);
    let mut stream = Trickle {
        rest: &frame,
        step: 0,
    };
    let read = read_frame(&mut stream).unwrap().unwrap();
    let Some(request::Value::Echo(echo)) = Request::decode(read).unwrap().value else {
        panic!("another message");
    };
    assert_eq!(echo.message.len(), 3 * FIRST_BYTES);
}

proptest! {
    /// Whatever bytes come, however they come: no panic, no more memory than bytes, an end, and
    /// what was read before the end does not depend on how the bytes were cut.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in hostile()) {
        let (whole, end) = read_all(&bytes);
        let mut stream = Trickle { rest: &bytes, step: 0 };
        let mut read = 0;
        while let Ok(Some(frame)) = read_frame(&mut stream) {
            prop_assert!(frame.len() <= bytes.len());
            if Request::decode(frame).is_err() {
                break;
            }
            read += 1;
        }
        prop_assert_eq!(read, whole.len());
        if end.is_ok() {
            let mut again = Vec::new();
            whole.iter().for_each(|message| put_message(message, &mut again));
            prop_assert_eq!(read_all(&again).0, whole);
        }
    }
}

/// Random bytes, and whole messages with some bytes changed.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let echo = |text: String| {
        let mut frame = Vec::new();
        put_request(CallName::Echo, &RequestEcho { message: text }, &mut frame);
        frame
    };
    let frames =
        proptest::collection::vec(".{0,40}".prop_map(echo), 0..6).prop_map(|it| it.concat());
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let bent = (frames, changes).prop_map(|(mut bytes, changes)| {
        if !bytes.is_empty() {
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        bytes
    });
    prop_oneof![bent, proptest::collection::vec(any::<u8>(), 0..200)]
}
