//! Messages of the channels 0x20 to 0x23.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_consensus::{BitArray, Maj23, Step};
use perihelion_consensus_reactor::wire::{
    Channel, HasVote, MAX_MESSAGE_BYTES, MAX_SMALL_MESSAGE_BYTES, NewRoundStep, NewValidBlock,
    PeerMessage, ProposalPol, VoteSetBits, WireError, channels,
};
use perihelion_test_support::{self as vectors, Hex, Verdict};
use perihelion_types::{
    BlockId, Hash, Height, PartSet, PartSetHeader, Proposal, Round, Rules, SignedMsgType, Time,
    Vote,
};
use proptest::prelude::*;
use serde::Deserialize;

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

fn check_vectors(file: &str, rules: Rules) {
    // The key is there twice, with a text at first: a plain value keeps the list.
    let mut file: serde_json::Value = vectors::load(file);
    let cases: Vec<Case> = serde_json::from_value(file["messages"].take()).unwrap();
    let name = |channel: Channel| format!("{:#04x}", channel.id());
    let cases: Vec<(Channel, Case)> = cases
        .into_iter()
        .filter_map(|case| {
            let channel = Channel::ALL
                .into_iter()
                .find(|c| name(*c) == case.channel)?;
            Some((channel, case))
        })
        .collect();
    vectors::each("messages of 0x20 to 0x23", &cases, |_, (channel, case)| {
        let bytes = Bytes::copy_from_slice(&case.wire);
        let read = PeerMessage::decode_on(*channel, &bytes, rules);
        match &case.validate {
            Some(verdict) => verdict.assert_agrees(&case.name, &read),
            None => assert!(read.is_ok(), "{}: {read:?}", case.name),
        }
        if let Ok(message) = read {
            let message = message.expect("of its channel");
            assert_eq!(message.encode(), bytes, "{}", case.name);
        }
        for other in Channel::ALL.into_iter().filter(|other| other != channel) {
            let read = PeerMessage::decode_on(other, &bytes, rules);
            assert!(!matches!(read, Ok(Some(_))), "{}", case.name);
        }
    });
}

#[test]
fn vector_messages_of_v038() {
    check_vectors("p2p.json", Rules::V038);
}

#[test]
fn vector_messages_of_v040() {
    check_vectors("p2p_v0.40.json", Rules::V040);
}

#[test]
fn channels_are_those_of_cometbft() {
    let all: Vec<_> = channels()
        .iter()
        .map(|c| (c.id, c.priority, c.send_queue, c.max_message_bytes))
        .collect();
    let most = MAX_MESSAGE_BYTES;
    assert_eq!(
        all,
        [
            (0x20, 6, 100, most),
            (0x21, 10, 16, most),
            (0x22, 7, 100, most),
            (0x23, 1, 2, most)
        ]
    );
    assert_eq!(Channel::from_id(0x23), Some(Channel::VoteSetBits));
    assert_eq!(Channel::from_id(0x24), None);
}

#[test]
fn heights_below_the_first_and_wrong_last_commits_disconnect() {
    let step = |height, round| NewRoundStep {
        height: Height::new(height),
        round: Round::ZERO,
        step: Step::Propose,
        seconds_since_start_time: 0,
        last_commit_round: Round::new(round),
    };
    let initial = Height::new(5);
    let verdicts = [(4, 0), (5, -1), (5, 0), (6, 0), (6, -1)]
        .map(|(height, round)| step(height, round).validate_height(initial).is_ok());
    assert_eq!(verdicts, [false, true, false, true, false]);
}

#[test]
fn empty_and_unknown_messages_disconnect() {
    for bytes in [&[][..], &[0x6a, 0x00]] {
        let read = PeerMessage::decode(&Bytes::from_static(bytes), Rules::V038);
        assert_eq!(read, Err(WireError::Unknown));
    }
}

/// A million words in a bit array have one byte each on the wire.
#[test]
fn long_messages_are_refused_before_they_are_decoded() {
    let words = vec![0_u8; MAX_SMALL_MESSAGE_BYTES];
    let field = |number: u8, inner: Vec<u8>| {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend(inner);
        bytes
    };
    let bits = field(9, field(5, field(2, words)));
    let read = PeerMessage::decode(&Bytes::from(bits.clone()), Rules::V038);
    assert!(matches!(read, Err(WireError::TooLong { .. })), "{read:?}");
    // Nor behind a vote, whose messages may be longer.
    let vote = PeerMessage::Vote(Arc::new(vote(9))).encode();
    let both = [&vote[..], &bits[..]].concat();
    let read = PeerMessage::decode(&Bytes::from(both), Rules::V038);
    assert!(matches!(read, Err(WireError::Malformed(_))), "{read:?}");
}

/// Fields that nobody knows, in a message that may be long, do not stay in memory with the vote.
#[test]
fn what_is_kept_of_a_padded_vote_is_the_vote() {
    let long = Vote {
        extension: Bytes::from(vec![7; 9_000]),
        extension_signature: Bytes::from(vec![8; 64]),
        ..vote(1)
    };
    for vote in [vote(1), long] {
        let vote = PeerMessage::Vote(Arc::new(vote));
        let mut inner = vote.encode().to_vec();
        // Behind the fields of the vote message: field 15 of 100,000 bytes.
        let mut padding = vec![0x7a];
        prost::encoding::encode_varint(100_000, &mut padding);
        padding.extend(vec![0; 100_000]);
        let mut body = inner.split_off(inner.len() - vote_body(&vote));
        body.extend(padding);
        let mut message = vec![6 << 3 | 2];
        prost::encoding::encode_varint(body.len() as u64, &mut message);
        message.extend(body);
        let message = Bytes::from(message);
        let read = PeerMessage::decode(&message, Rules::V038).unwrap();
        assert_eq!(read, vote);
        let PeerMessage::Vote(read) = read else {
            unreachable!("it is a vote")
        };
        let whole = message.as_ptr() as usize..message.as_ptr() as usize + message.len();
        assert!(!whole.contains(&(read.signature.as_ptr() as usize)));
    }
}

/// Bytes of the vote message in its message.
fn vote_body(message: &PeerMessage) -> usize {
    let bytes = message.encode();
    let mut rest = &bytes[1..];
    let length = prost::encoding::decode_varint(&mut rest).unwrap();
    assert_eq!(length as usize, rest.len());
    rest.len()
}

fn vote(index: i32) -> Vote {
    Vote {
        vote_type: SignedMsgType::Precommit,
        height: Height::new(7),
        round: Round::new(1),
        block_id: block_id(3),
        timestamp: Time::new(1_700_000_000, 5),
        validator_address: Bytes::from_static(&[1; 20]),
        validator_index: index,
        signature: Bytes::from_static(&[2; 64]),
        extension: Bytes::new(),
        extension_signature: Bytes::new(),
    }
}

fn block_id(total: u32) -> BlockId {
    BlockId {
        hash: Hash::of(b"block"),
        part_set_header: header(total),
    }
}

fn header(total: u32) -> PartSetHeader {
    PartSetHeader {
        total,
        hash: Hash::of(b"parts"),
    }
}

fn bits(size: std::ops::Range<usize>) -> impl Strategy<Value = BitArray> {
    prop::collection::vec(any::<bool>(), size).prop_map(|set| {
        let mut bits = BitArray::new(set.len());
        for (index, is_in) in set.into_iter().enumerate() {
            bits.set(index, is_in);
        }
        bits
    })
}

fn vote_type() -> impl Strategy<Value = SignedMsgType> {
    prop_oneof![Just(SignedMsgType::Prevote), Just(SignedMsgType::Precommit)]
}

fn place() -> impl Strategy<Value = (Height, Round)> {
    (1..=i64::MAX, 0..=i32::MAX).prop_map(|(h, r)| (Height::new(h), Round::new(r)))
}

fn state_message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        (place(), 0..8_usize, any::<i64>(), -1..=i32::MAX).prop_map(
            |(place, step, seconds, last)| {
                PeerMessage::NewRoundStep(NewRoundStep {
                    height: place.0,
                    round: place.1,
                    step: Step::ALL[step],
                    seconds_since_start_time: seconds,
                    last_commit_round: Round::new(last),
                })
            }
        ),
        (place(), bits(1..200), any::<bool>()).prop_map(|(place, parts, is_commit)| {
            PeerMessage::NewValidBlock(NewValidBlock {
                height: place.0,
                round: place.1,
                header: header(parts.size() as u32),
                parts,
                is_commit,
            })
        }),
        (place(), vote_type(), 0..=i32::MAX).prop_map(|(place, vote_type, index)| {
            PeerMessage::HasVote(HasVote {
                height: place.0,
                round: place.1,
                vote_type,
                index,
            })
        }),
        (place(), vote_type(), any::<bool>()).prop_map(|(place, vote_type, nil)| {
            PeerMessage::Maj23(Maj23 {
                height: place.0,
                round: place.1,
                vote_type,
                block_id: if nil { BlockId::NIL } else { block_id(4) },
            })
        }),
    ]
}

fn other_message() -> impl Strategy<Value = PeerMessage> {
    prop_oneof![
        (place(), -1..=i32::MAX, 1..1_000_u32).prop_map(|(place, pol, total)| {
            PeerMessage::Proposal(Arc::new(Proposal {
                proposal_type: SignedMsgType::Proposal,
                height: place.0,
                round: place.1,
                pol_round: Round::new(pol),
                block_id: block_id(total),
                timestamp: Time::new(1_700_000_000, 9),
                signature: Bytes::from_static(&[3; 64]),
            }))
        }),
        (place(), bits(1..400)).prop_map(|(place, prevotes)| {
            PeerMessage::ProposalPol(ProposalPol {
                height: place.0,
                pol_round: place.1,
                prevotes,
            })
        }),
        (place(), 1..200_000_usize, any::<prop::sample::Index>()).prop_map(|(place, size, at)| {
            let parts = PartSet::from_data(vec![0x5a; size].into());
            let index = at.index(parts.header().total as usize) as u32;
            PeerMessage::Part {
                height: place.0,
                round: place.1,
                part: Arc::new(parts.part(index).unwrap().clone()),
            }
        }),
        (0..10_000, prop::collection::vec(any::<u8>(), 0..9_000)).prop_map(|(index, extension)| {
            PeerMessage::Vote(Arc::new(Vote {
                extension: extension.into(),
                extension_signature: Bytes::from_static(&[4; 64]),
                ..vote(index)
            }))
        }),
        (place(), vote_type(), bits(0..400)).prop_map(|(place, vote_type, votes)| {
            PeerMessage::VoteSetBits(VoteSetBits {
                height: place.0,
                round: place.1,
                vote_type,
                block_id: block_id(1),
                votes,
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn messages_come_back(message in prop_oneof![state_message(), other_message()]) {
        let bytes = message.encode();
        let read = PeerMessage::decode_on(message.channel(), &bytes, Rules::V038);
        prop_assert_eq!(read, Ok(Some(message)));
        prop_assert!(PeerMessage::decode(&bytes.slice(..bytes.len() - 1), Rules::V038).is_err());
    }

    /// Any bytes, and messages with any byte changed: no panic, and what is read comes back.
    #[test]
    fn any_bytes_are_read_or_refused(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        message in prop_oneof![state_message(), other_message()],
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let mut bent = message.encode().to_vec();
        let at = at.index(bent.len());
        bent[at] = to;
        for bytes in [noise, bent] {
            if let Ok(read) = PeerMessage::decode(&Bytes::from(bytes), Rules::V038) {
                let again = PeerMessage::decode(&read.encode(), Rules::V038);
                prop_assert_eq!(again, Ok(read));
            }
        }
    }
}
