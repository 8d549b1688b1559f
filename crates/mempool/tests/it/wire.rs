//! The one message of channel 0x30.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use perihelion_mempool::wire::{WireError, decode, encode, message_bytes};
use perihelion_proto::tendermint::mempool as pb;
use perihelion_test_support::{self as vectors, Hex};
use proptest::prelude::*;
use prost::Message as _;
use serde::Deserialize;

fn txs(message: &Bytes) -> Result<Vec<Bytes>, WireError> {
    decode(message).map(Iterator::collect)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    channel: String,
    name: String,
    fields: String,
    wire: Hex,
    #[serde(rename = "type")]
    _type: String,
    #[serde(default, rename = "validate")]
    _validate: Option<vectors::Verdict>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    txs: Vec<String>,
}

#[test]
fn vector_messages_are_read_as_cometbft_reads_them() {
    // The key is there twice, with a text at first: a plain value keeps the list.
    let mut file: serde_json::Value = vectors::load("p2p.json");
    let cases: Vec<Case> = serde_json::from_value(file["messages"].take()).unwrap();
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| case.channel == "0x30")
        .collect();
    vectors::each("messages of 0x30", &cases, |_, case| {
        let fields: Fields = serde_json::from_str(&case.fields).unwrap();
        let expected: Vec<Vec<u8>> = fields
            .txs
            .iter()
            .map(|tx| BASE64_STANDARD.decode(tx).unwrap())
            .collect();
        let read = txs(&Bytes::copy_from_slice(&case.wire));
        if expected.is_empty() {
            assert_eq!(read, Err(WireError::NoTransactions), "{}", case.name);
        } else if expected.iter().any(Vec::is_empty) {
            assert_eq!(read, Err(WireError::EmptyTransaction), "{}", case.name);
        } else {
            assert_eq!(read.unwrap(), expected, "{}", case.name);
        }
        if let [tx] = &expected[..] {
            let (message, inner) = encode(&Bytes::copy_from_slice(tx));
            assert_eq!(message, case.wire[..]);
            assert_eq!(inner, tx[..]);
            assert_eq!(message_bytes(tx.len()), message.len());
        }
    });
}

fn message(txs: Vec<Bytes>) -> Bytes {
    let sum = Some(pb::message::Sum::Txs(pb::Txs { txs }));
    pb::Message { sum }.encode_to_vec().into()
}

proptest! {
    #[test]
    fn messages_come_back(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..20)) {
        let expected: Vec<Bytes> = contents.into_iter().map(Bytes::from).collect();
        prop_assert_eq!(txs(&message(expected.clone())).unwrap(), expected.clone());
        for tx in expected {
            let (one, _) = encode(&tx);
            prop_assert_eq!(&one, &message(vec![tx.clone()]));
            prop_assert_eq!(message_bytes(tx.len()), one.len());
        }
    }

    /// Any bytes: no panic, and where both read something it is the same.
    #[test]
    fn any_bytes_are_read_or_refused(
        mut bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            prop::collection::vec(prop_oneof![Just(0x0a_u8), 0_u8..6, any::<u8>()], 0..60),
        ],
        cut in any::<prop::sample::Index>(),
    ) {
        for _ in 0..2 {
            let raw = Bytes::from(bytes.clone());
            if let (Ok(read), Ok(decoded)) = (txs(&raw), pb::Message::decode(raw.clone())) {
                let Some(pb::message::Sum::Txs(decoded)) = decoded.sum else {
                    panic!("read from nothing");
                };
                prop_assert_eq!(read, decoded.txs);
            }
            bytes.truncate(cut.index(bytes.len() + 1));
        }
    }
}
