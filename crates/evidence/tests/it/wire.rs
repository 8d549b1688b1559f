//! The message of channel 0x38.

use bytes::Bytes;
use perihelion_evidence::wire::{decode, encode};
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{self as vectors, Hex, Verdict};
use perihelion_types::Rules;
use proptest::prelude::*;
use prost::Message as _;
use serde::Deserialize;

use crate::node::all_evidence;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    channel: String,
    name: String,
    #[serde(rename = "fields")]
    _fields: String,
    wire: Hex,
    #[serde(rename = "type")]
    _type: String,
    #[serde(default)]
    validate: Option<Verdict>,
}

#[test]
fn vector_messages_come_back() {
    // The key is there twice, with a text at first: a plain value keeps the list.
    let mut file: serde_json::Value = vectors::load("p2p.json");
    let cases: Vec<Case> = serde_json::from_value(file["messages"].take()).unwrap();
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| case.channel == "0x38")
        .collect();
    vectors::each("messages of 0x38", &cases, |_, case| {
        let read = decode(&Bytes::copy_from_slice(&case.wire), Rules::V038);
        match &case.validate {
            Some(verdict) => verdict.assert_agrees(&case.name, &read),
            None => assert!(read.is_ok(), "{}: {read:?}", case.name),
        }
        if let Ok(list) = read {
            let evidence = list.iter().map(Into::into).collect();
            let again = pb::EvidenceList { evidence }.encode_to_vec();
            assert_eq!(again, case.wire[..], "{}", case.name);
        }
    });
}

#[test]
fn vector_evidence_comes_back() {
    for (_, evidence) in all_evidence() {
        let message = encode(&evidence);
        assert_eq!(decode(&message, Rules::V038).unwrap(), [evidence]);
        for length in 1..message.len() {
            decode(&message.slice(..length), Rules::V038).unwrap_err();
        }
    }
}

proptest! {
    /// Any bytes, and evidence with any byte changed: no panic.
    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        drop(decode(&bytes.into(), Rules::V038));
        thread_local! {
            static MESSAGES: Vec<Bytes> =
                all_evidence().iter().map(|(_, one)| encode(one)).collect();
        }
        let mut message = MESSAGES.with(|all| which.get(all).to_vec());
        let at = at.index(message.len());
        message[at] = to;
        drop(decode(&message.into(), Rules::V038));
    }
}
