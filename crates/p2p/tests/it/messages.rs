//! Every message of every channel in its protobuf form, and what blocksync's own check says.

use perihelion_proto::tendermint::{blocksync, consensus, mempool, p2p, statesync, types};
use perihelion_test_support::{Hex, Verdict, each};
use prost::Message;
use serde::Deserialize;

use crate::vectors::{channel_id, file, load_lists};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "`fields` shows people what `wire` holds")]
pub(crate) struct MessageCase {
    channel: String,
    fields: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    /// Where the channel has a check of its own.
    validate: Option<Verdict>,
    wire: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the heads are for people")]
struct Newer {
    about: String,
    made_by: String,
    messages: Vec<MessageCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BentMessage {
    channel: String,
    decode: Verdict,
    decoded: String,
    name: String,
    wire: Hex,
}

/// Decodes a message that must be of a known kind, and encodes it again.
fn again<M: Message + Default>(wire: &[u8], is_known: fn(&M) -> bool) -> Result<Vec<u8>, String> {
    let message = M::decode(wire).map_err(|error| error.to_string())?;
    if is_known(&message) {
        Ok(message.encode_to_vec())
    } else {
        Err("of no known kind".to_owned())
    }
}

fn again_on_channel(channel: u8, wire: &[u8]) -> Result<Vec<u8>, String> {
    match channel {
        0x00 => again::<p2p::Message>(wire, |it| it.sum.is_some()),
        0x20..=0x23 => again::<consensus::Message>(wire, |it| it.sum.is_some()),
        0x30 => again::<mempool::Message>(wire, |it| it.sum.is_some()),
        0x38 => again::<types::EvidenceList>(wire, |_| true),
        0x40 => again::<blocksync::Message>(wire, |it| it.sum.is_some()),
        0x60 | 0x61 => again::<statesync::Message>(wire, |it| it.sum.is_some()),
        _ => panic!("a channel that CometBFT does not have: {channel:#04x}"),
    }
}

fn check_again(cases: &[MessageCase]) {
    each("messages", cases, |_, case| {
        let wire = again_on_channel(channel_id(&case.channel), &case.wire);
        assert_eq!(
            wire.as_deref(),
            Ok(&*case.wire),
            "{}: {}",
            case.kind,
            case.name
        );
    });
}

#[test]
fn vector_messages_of_every_channel() {
    check_again(&file().messages);
    check_again(&load_lists::<Newer>("p2p_v0.40.json").messages);
}

/// Heights are not negative and a base is not above its height; the block itself is judged by
/// whoever decodes it.
fn validate(message: &blocksync::Message) -> Result<(), &'static str> {
    use blocksync::message::Sum;
    let height = match message.sum.as_ref().ok_or("empty")? {
        Sum::BlockRequest(request) => request.height,
        Sum::NoBlockResponse(response) => response.height,
        Sum::StatusResponse(status) if status.base < 0 || status.base > status.height => {
            return Err("base");
        }
        Sum::StatusResponse(status) => status.height,
        Sum::StatusRequest(_) | Sum::BlockResponse(_) => 0,
    };
    if height < 0 { Err("height") } else { Ok(()) }
}

#[test]
fn vector_blocksync_messages() {
    let messages = file().messages;
    let cases: Vec<_> = messages
        .iter()
        .filter(|case| channel_id(&case.channel) == 0x40)
        .collect();
    each("messages of blocksync", &cases, |_, case| {
        let message = blocksync::Message::decode(&*case.wire).unwrap();
        let verdict = case
            .validate
            .as_ref()
            .expect("blocksync checks every message");
        verdict.assert_agrees(&case.name, &validate(&message));
    });
}

#[test]
fn vector_bent_messages() {
    use blocksync::message::Sum;
    each("bent_messages", &file().bent_messages, |_, case| {
        assert_eq!(channel_id(&case.channel), 0x40, "{}", case.name);
        let decoded = blocksync::Message::decode(&*case.wire)
            .ok()
            .and_then(|message| message.sum);
        let name = match &decoded {
            None => "",
            Some(Sum::BlockRequest(_)) => "block_request",
            Some(Sum::NoBlockResponse(_)) => "no_block_response",
            Some(Sum::BlockResponse(_)) => "block_response",
            Some(Sum::StatusRequest(_)) => "status_request",
            Some(Sum::StatusResponse(_)) => "status_response",
        };
        case.decode
            .assert_agrees(&case.name, &decoded.as_ref().ok_or("nothing"));
        let expected: serde_json::Value = serde_json::from_str(if case.decoded.is_empty() {
            "{}"
        } else {
            &case.decoded
        })
        .unwrap();
        let expected_name = expected.as_object().unwrap().keys().next();
        assert_eq!(
            name,
            expected_name.map_or("", String::as_str),
            "{}",
            case.name
        );
        if let Some(Sum::BlockRequest(request)) = decoded {
            let height = expected["block_request"]["height"].as_str().unwrap_or("0");
            assert_eq!(request.height.to_string(), height, "{}", case.name);
        }
    });
}
