//! Handshakes, frames, node information and packets, byte for byte as CometBFT's.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_crypto::{AEAD_GROUP, PrivateKey};
use perihelion_p2p::{
    MConnectionError, NodeInfo,
    frame::{FrameOpener, FrameSealer, LENGTH_BYTES, MAX_DATA, PLAIN_FRAME, SEALED_FRAME},
    mconnection::{ChannelConfig, Event, MConnection, MConnectionConfig},
    secret_connection::{Handshake, SharedSecrets, auth_message},
};
use perihelion_proto::tendermint::p2p as pb;
use perihelion_test_support::{Hex, Verdict, each, load};
use prost::Message as _;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use x25519_dalek::StaticSecret;

use crate::{
    messages::{BentMessage, MessageCase},
    util::node_info,
};

/// The whole file, so that a list that no test knows is noticed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the heads are for people")]
pub(crate) struct File {
    about: String,
    made_by: String,
    secret_connections: Vec<SecretConnectionCase>,
    node_infos: Vec<NodeInfoCase>,
    packets: Vec<PacketCase>,
    messages_in_packets: Vec<MessageInPackets>,
    pub(crate) messages: Vec<MessageCase>,
    pub(crate) bent_messages: Vec<BentMessage>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretConnectionCase {
    ends: [End; 2],
    shared_secret: Hex,
    hkdf_output: Hex,
    challenge: Hex,
    lower_ephemeral_is_end: usize,
    data: Vec<Data>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    auth_message: Hex,
    challenge_signature: Hex,
    ephemeral_private: Hex,
    ephemeral_public: Hex,
    handshake_bytes: Hex,
    hello: Hex,
    node_id: String,
    node_private: Hex,
    node_public: Hex,
    receive_key: Hex,
    send_key: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    from: usize,
    first_nonce: u64,
    frames: usize,
    plain: Hex,
    sealed: Option<Hex>,
    sealed_sha256: Option<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "`fields` shows people what `proto` holds")]
struct NodeInfoCase {
    name: String,
    fields: String,
    proto: Hex,
    as_sent: Hex,
    validate: Verdict,
    compatible_with_first: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "`fields` shows people what `proto` holds")]
struct PacketCase {
    name: String,
    fields: String,
    proto: Hex,
    as_sent: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageInPackets {
    channel: String,
    data: Hex,
    max_payload: usize,
    as_sent: Hex,
}

pub(crate) fn file() -> File {
    load_lists("p2p.json")
}

/// Reads a file in which a list may bear the name of a head before it, which explains the list.
pub(crate) fn load_lists<T: DeserializeOwned>(file: &str) -> T {
    let members: Members = load(file);
    serde_json::from_value(members.0.into()).unwrap_or_else(|error| panic!("{file}: {error}"))
}

struct Members(serde_json::Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = serde_json::Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            let explains = members.get(&name).is_some_and(Value::is_string) && value.is_array();
            if members.contains_key(&name) && !explains {
                return Err(A::Error::custom(format!("{name} twice")));
            }
            members.insert(name, value);
        }
        Ok(Members(members))
    }
}

pub(crate) fn channel_id(text: &str) -> u8 {
    u8::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}

impl End {
    fn node_key(&self) -> PrivateKey {
        PrivateKey::ed25519_from_seed(&array(&self.node_private[..32]))
    }
}

#[test]
fn vector_secrets_of_connections() {
    each(
        "secret_connections",
        &file().secret_connections,
        |index, case| {
            for (end, other) in [(0, 1), (1, 0)].map(|(a, b)| (&case.ends[a], &case.ends[b])) {
                let ephemeral = StaticSecret::from(array::<32>(&end.ephemeral_private));
                let secrets =
                    SharedSecrets::derive(&ephemeral, &array(&other.ephemeral_public)).unwrap();
                assert_eq!(*secrets.shared_secret, *case.shared_secret, "case {index}");
                assert_eq!(*secrets.hkdf_output, *case.hkdf_output, "case {index}");
                assert_eq!(secrets.challenge, *case.challenge, "case {index}");
                assert_eq!(*secrets.receive_key, *end.receive_key, "case {index}");
                assert_eq!(*secrets.send_key, *end.send_key, "case {index}");

                let key = end.node_key();
                assert_eq!(key.public_key().as_bytes(), &*end.node_public);
                assert_eq!(key.public_key().node_id().to_string(), end.node_id);
                assert_eq!(auth_message(&key, &secrets.challenge), *end.auth_message);
                assert_eq!(&*key.sign(&secrets.challenge), &*end.challenge_signature);
            }
            let [first, second] = &case.ends;
            let lower = usize::from(*second.ephemeral_public < *first.ephemeral_public);
            assert_eq!(lower, case.lower_ephemeral_is_end, "case {index}");
        },
    );
}

#[test]
fn vector_handshakes() {
    each(
        "secret_connections",
        &file().secret_connections,
        |index, case| {
            for (end, other) in [(0, 1), (1, 0)].map(|(a, b)| (&case.ends[a], &case.ends[b])) {
                let ephemeral = array(&end.ephemeral_private);
                let mut handshake =
                    Handshake::new(&end.node_key(), &node_info("n", "c"), ephemeral);
                let mut sent = handshake.poll_transmit().unwrap();
                assert_eq!(sent, *end.hello, "case {index}");
                handshake.handle_bytes(&other.handshake_bytes).unwrap();
                sent.extend(handshake.poll_transmit().unwrap());
                assert!(sent.starts_with(&end.handshake_bytes), "case {index}");
                assert_eq!(handshake.remote_id().unwrap().to_string(), other.node_id);
            }
        },
    );
}

/// CometBFT seals from one buffer that it does not clear, so the padding of a frame shows what a
/// longer one held before.
struct Sender {
    sealer: FrameSealer,
    buffer: [u8; PLAIN_FRAME],
}

impl Sender {
    fn send(&mut self, data: &[u8]) -> Vec<[u8; SEALED_FRAME]> {
        data.chunks(MAX_DATA)
            .map(|chunk| {
                let length = u32::try_from(chunk.len()).unwrap().to_le_bytes();
                self.buffer[..LENGTH_BYTES].copy_from_slice(&length);
                self.buffer[LENGTH_BYTES..LENGTH_BYTES + chunk.len()].copy_from_slice(chunk);
                let mut frame = [0; SEALED_FRAME];
                frame[..PLAIN_FRAME].copy_from_slice(&self.buffer);
                self.sealer.seal(&mut frame).unwrap();
                frame
            })
            .collect()
    }
}

#[test]
fn vector_frames() {
    let longest = Cell::new(0);
    each(
        "secret_connections",
        &file().secret_connections,
        |index, case| {
            let key = |bytes: &[u8]| array::<32>(bytes).into();
            let mut senders: Vec<_> = case
                .ends
                .iter()
                .map(|end| Sender {
                    sealer: FrameSealer::new(&key(&end.send_key)),
                    buffer: [0; PLAIN_FRAME],
                })
                .collect();
            let mut openers: Vec<_> = case
                .ends
                .iter()
                .map(|end| FrameOpener::new(&key(&end.receive_key)))
                .collect();
            let mut nonces = [0, 0];
            let mut all = [Vec::new(), Vec::new()];
            for (from, end) in case.ends.iter().enumerate() {
                let frames = senders[from].send(&end.auth_message);
                assert_eq!(frames.concat(), end.handshake_bytes[end.hello.len()..]);
                all[from].extend(&frames);
                for mut frame in frames {
                    openers[1 - from].open(&mut frame).unwrap();
                    nonces[from] += 1;
                }
            }
            let mut plain = case.ends.each_ref().map(|end| end.auth_message.to_vec());
            each("data", &case.data, |step, data| {
                let what = format!("case {index}, data {step}");
                assert_eq!(nonces[data.from], data.first_nonce, "{what}");
                let frames = senders[data.from].send(&data.plain);
                assert_eq!(frames.len(), data.frames, "{what}");
                let sealed = frames.concat();
                match (&data.sealed, &data.sealed_sha256) {
                    (Some(expected), None) => assert_eq!(sealed, **expected, "{what}"),
                    (None, Some(hash)) => assert_eq!(*Sha256::digest(&sealed), **hash, "{what}"),
                    _ => panic!("{what}: either the sealed bytes or their hash"),
                }
                all[data.from].extend(&frames);
                plain[data.from].extend(&*data.plain);
                let mut opened = Vec::new();
                for mut frame in frames {
                    let length = openers[1 - data.from].open(&mut frame).unwrap();
                    opened.extend_from_slice(&frame[LENGTH_BYTES..LENGTH_BYTES + length]);
                    nonces[data.from] += 1;
                }
                assert_eq!(opened, *data.plain, "{what}");
            });
            // And all of each end at once.
            for (from, mut frames) in all.into_iter().enumerate() {
                let mut opener = FrameOpener::new(&key(&case.ends[1 - from].receive_key));
                let mut opened = Vec::new();
                let opening = opener.open_all(frames.as_flattened_mut(), &mut opened);
                assert_eq!(opening, Ok(()), "case {index}");
                assert_eq!(opened, plain[from], "case {index}");
                longest.set(longest.get().max(frames.len()));
            }
        },
    );
    assert!(longest.get() >= AEAD_GROUP, "some are opened in groups");
}

#[test]
fn vector_node_infos() {
    let cases = file().node_infos;
    let first = NodeInfo::decode(&cases[0].proto).unwrap();
    each("node_infos", &cases, |_, case| {
        let info = NodeInfo::decode(&case.proto).unwrap();
        assert_eq!(info.encode(), *case.proto, "{}", case.name);
        assert_eq!(info.encode_delimited(), *case.as_sent, "{}", case.name);
        case.validate.assert_agrees(&case.name, &info.validate());
        let compatible = first.compatible_with(&info);
        case.compatible_with_first
            .assert_agrees(&case.name, &compatible);
    });
}

fn connection(channel: u8, max_packet_payload: usize, now: Instant) -> MConnection {
    let config = MConnectionConfig {
        max_packet_payload,
        ..MConnectionConfig::default()
    };
    let channel = ChannelConfig {
        id: channel,
        priority: 1,
        max_message_bytes: 1 << 20,
        budgeted: false,
    };
    MConnection::new(config, &[channel], now)
}

#[test]
fn vector_packets() {
    each("packets", &file().packets, |_, case| {
        let now = Instant::now();
        let name = &case.name;
        let packet = pb::Packet::decode(&*case.proto).unwrap();
        assert_eq!(
            packet.encode_length_delimited_to_vec(),
            *case.as_sent,
            "{name}"
        );
        let mut written = Vec::new();
        match packet.sum {
            None => {
                let received = connection(0, 1024, now).handle_bytes(now, &case.as_sent);
                assert_eq!(received, Err(MConnectionError::UnknownPacket), "{name}");
                return;
            }
            Some(pb::packet::Sum::PacketPing(_)) => {
                let mut sender = connection(0, 1024, now);
                let due = now + Duration::from_secs(60);
                sender.handle_deadline(due).unwrap();
                sender.poll_transmit(due, &mut written, 1024);
                // The receiver answers.
                let mut receiver = connection(0, 1024, now);
                receiver.handle_bytes(now, &case.as_sent).unwrap();
                assert!(receiver.poll_transmit(now, &mut Vec::new(), 1024), "{name}");
            }
            Some(pb::packet::Sum::PacketPong(_)) => {
                let mut sender = connection(0, 1024, now);
                sender.handle_bytes(now, &[2, 0x0a, 0]).unwrap();
                sender.poll_transmit(now, &mut written, 1024);
                let mut receiver = connection(0, 1024, now);
                receiver.handle_bytes(now, &case.as_sent).unwrap();
                assert!(
                    !receiver.poll_transmit(now, &mut Vec::new(), 1024),
                    "{name}"
                );
            }
            Some(pb::packet::Sum::PacketMsg(message)) => {
                let id = u8::try_from(message.channel_id).unwrap();
                // A packet that ends no message is the first of a message of two.
                let payload = message.data.len().max(1);
                let mut whole = message.data.to_vec();
                if !message.eof {
                    whole.push(0);
                }
                let mut sender = connection(id, payload, now);
                sender.handle_send(id, whole.into()).unwrap();
                sender.poll_transmit(now, &mut written, 1);
                let (taken, event) = connection(id, 1024, now)
                    .handle_bytes(now, &case.as_sent)
                    .unwrap();
                assert_eq!(taken, case.as_sent.len(), "{name}");
                let expected = message.eof.then_some(Event::Message {
                    channel: id,
                    bytes: message.data,
                });
                assert_eq!(event, expected, "{name}");
            }
        }
        assert_eq!(written, *case.as_sent, "{name}");
    });
}

#[test]
fn vector_messages_in_packets() {
    each(
        "messages_in_packets",
        &file().messages_in_packets,
        |index, case| {
            let now = Instant::now();
            let id = channel_id(&case.channel);
            let message = Bytes::copy_from_slice(&case.data);
            let mut sender = connection(id, case.max_payload, now);
            sender.handle_send(id, message.clone()).unwrap();
            let mut written = Vec::new();
            while sender.poll_transmit(now, &mut written, usize::MAX) {}
            assert_eq!(written, *case.as_sent, "case {index}");
            let mut receiver = connection(id, case.max_payload, now);
            let (taken, event) = receiver.handle_bytes(now, &case.as_sent).unwrap();
            assert_eq!(taken, case.as_sent.len(), "case {index}");
            let expected = Event::Message {
                channel: id,
                bytes: message,
            };
            assert_eq!(event, Some(expected), "case {index}");
        },
    );
}
