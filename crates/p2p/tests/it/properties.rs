//! The pure state machines under whatever a peer may send, cut however the network cuts it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_crypto::PrivateKey;
use perihelion_p2p::{
    MConnectionConfig, MConnectionError,
    mconnection::{ChannelConfig, Event, MConnection},
    secret_connection::{Established, Handshake, HandshakeError},
};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::util::{large_message, node_info, packet};

const CHANNELS: [ChannelConfig; 3] = [
    ChannelConfig {
        id: 0x20,
        priority: 6,
        max_message_bytes: 10_000,
        budgeted: false,
    },
    ChannelConfig {
        id: 0x30,
        priority: 1,
        max_message_bytes: 10_000,
        budgeted: false,
    },
    ChannelConfig {
        id: 0x40,
        priority: 3,
        max_message_bytes: 10_000,
        budgeted: true,
    },
];

fn connection(now: Instant) -> MConnection {
    let config = MConnectionConfig {
        send_rate: 0,
        recv_rate: 0,
        ..MConnectionConfig::default()
    };
    MConnection::new(config, &CHANNELS, now)
}

/// One way of a connection: feeds the receiver with pieces, as far as it takes them.
#[derive(Default)]
struct Pipe {
    waiting: Vec<u8>,
    received: BTreeMap<u8, Vec<Bytes>>,
}

impl Pipe {
    fn deliver(
        &mut self,
        receiver: &mut MConnection,
        now: Instant,
    ) -> Result<(), MConnectionError> {
        loop {
            let (taken, event) = receiver.handle_bytes(now, &self.waiting)?;
            assert!(taken <= self.waiting.len());
            self.waiting.drain(..taken);
            match event {
                Some(Event::Message { channel, bytes }) => {
                    self.received.entry(channel).or_default().push(bytes);
                }
                Some(Event::NeedsRoom { bytes, .. }) => {
                    assert!(bytes <= 10_000);
                    // Nothing is taken until there is room.
                    assert_eq!(receiver.handle_bytes(now, &self.waiting), Ok((0, None)));
                    receiver.handle_room(now);
                }
                None => return Ok(()),
            }
        }
    }
}

/// Puts all that is ready on the wire, so many bytes at a time.
fn transmit(sender: &mut MConnection, now: Instant, pipe: &mut Pipe, limit: usize) {
    let mut batch = Vec::new();
    while sender.poll_transmit(now, &mut batch, limit) {
        pipe.waiting.append(&mut batch);
    }
}

fn message() -> impl Strategy<Value = (usize, usize)> {
    (
        0..3_usize,
        prop_oneof![0..50_usize, 1000..1100_usize, 0..9000_usize],
    )
}

fn handshake(seed: u8) -> Handshake {
    let key = PrivateKey::ed25519_from_seed(&[seed; 32]);
    let mut info = node_info("node", "chain");
    info.id = key.public_key().node_id().to_string();
    Handshake::new(&key, &info, [seed; 32])
}

/// Lets two ends talk, each getting the other's bytes in pieces.
fn shake(cuts: &[usize], extra: &[u8]) -> (Established, Established) {
    let mut ends = [handshake(1), handshake(2)];
    let mut established: [Option<Established>; 2] = [None, None];
    let mut wires = [Vec::new(), Vec::new()];
    let mut cuts = cuts.iter().cycle();
    let mut extra_sent = false;
    while established.iter().any(Option::is_none) {
        for from in 0..2 {
            if let Some(bytes) = ends[from].poll_transmit() {
                wires[from].extend(bytes);
            }
            if let Some(end) = ends[from].poll_established() {
                established[from] = Some(end);
            }
            if from == 0
                && !extra_sent
                && let Some(end) = &mut established[0]
            {
                // The first end sends ahead, before the other one is done.
                end.sealer.seal_all(extra, &mut wires[0]).unwrap();
                extra_sent = true;
            }
            let to = 1 - from;
            if established[to].is_none() {
                let length = (*cuts.next().unwrap())
                    .min(wires[from].len())
                    .min(ends[to].room());
                let piece: Vec<u8> = wires[from].drain(..length).collect();
                ends[to].handle_bytes(&piece).unwrap();
            }
        }
    }
    let [first, second] = established.map(Option::unwrap);
    let mut second = second;
    second.sealed.extend(&wires[0]);
    (first, second)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_arrive_whole_and_in_order_both_ways(
        messages in vec((any::<bool>(), message()), 0..60),
        cuts in vec(1..3000_usize, 1..20),
        limits in vec(1..5000_usize, 1..5),
    ) {
        let now = Instant::now();
        let mut ends = [connection(now), connection(now)];
        let mut pipes = [Pipe::default(), Pipe::default()];
        let mut expected = [BTreeMap::new(), BTreeMap::new()];
        for (second, (channel, size)) in messages {
            let id = CHANNELS[channel].id;
            let message = large_message(size);
            ends[usize::from(second)].handle_send(id, message.clone()).unwrap();
            let sent: &mut BTreeMap<u8, Vec<Bytes>> = &mut expected[usize::from(second)];
            sent.entry(id).or_default().push(message);
        }
        let (mut cuts, mut limits) = (cuts.iter().cycle(), limits.iter().cycle());
        for from in 0..2 {
            let mut wire = Vec::new();
            while ends[from].poll_transmit(now, &mut wire, *limits.next().unwrap()) {
                while !wire.is_empty() {
                    let cut = (*cuts.next().unwrap()).min(wire.len());
                    pipes[from].waiting.extend(wire.drain(..cut));
                    pipes[from].deliver(&mut ends[1 - from], now).unwrap();
                }
            }
            prop_assert!(pipes[from].waiting.is_empty());
            prop_assert_eq!(&pipes[from].received, &expected[from]);
        }
    }

    /// A message arrives as one however it was handed over.
    #[test]
    fn a_message_in_parts_is_one_message(
        size in 0..9_000_usize,
        cuts in vec(any::<Index>(), 0..20),
        limit in 1..5000_usize,
    ) {
        let now = Instant::now();
        let [mut sender, mut receiver] = [connection(now), connection(now)];
        let mut pipe = Pipe::default();
        let (message, after) = (large_message(size), large_message(7));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(message.len());
        let (mut begin, count) = (0, cuts.len());
        for (index, end) in cuts.into_iter().enumerate() {
            let last = index + 1 == count;
            sender.handle_send_part(0x20, message.slice(begin..end), last).unwrap();
            transmit(&mut sender, now, &mut pipe, limit);
            pipe.deliver(&mut receiver, now).unwrap();
            prop_assert_eq!(pipe.received.contains_key(&0x20), last);
            begin = end;
        }
        sender.handle_send(0x20, after.clone()).unwrap();
        transmit(&mut sender, now, &mut pipe, limit);
        pipe.deliver(&mut receiver, now).unwrap();
        prop_assert_eq!(&pipe.received[&0x20], &vec![message, after]);
    }

    #[test]
    fn any_bytes_are_survived_and_bounded(
        pieces in vec(prop_oneof![
            vec(any::<u8>(), 0..200),
            (0..0x50_u8, any::<bool>(), vec(any::<u8>(), 0..1500))
                .prop_map(|(channel, eof, data)| packet(channel & 0xf0, eof, &data)),
            (any::<bool>(), 0..20_000_usize, 0..1100_usize).prop_map(|(eof, declared, length)| {
                let whole = large_message(declared);
                packet(0x40, eof, &whole[..length.min(whole.len())])
            }),
        ], 0..40),
    ) {
        let now = Instant::now();
        let mut receiver = connection(now);
        let mut pipe = Pipe::default();
        for piece in pieces {
            pipe.waiting.extend(piece);
            if pipe.deliver(&mut receiver, now).is_err() {
                break;
            }
            // What is left over is less than one packet.
            prop_assert!(pipe.waiting.len() < 1024 + 64);
        }
        for messages in pipe.received.values() {
            prop_assert!(messages.iter().all(|message| message.len() <= 10_000));
        }
    }

    #[test]
    fn handshakes_succeed_however_they_are_cut(
        cuts in vec(1..4000_usize, 1..10),
        extra in vec(any::<u8>(), 0..3000),
    ) {
        let (first, mut second) = shake(&cuts, &extra);
        prop_assert_eq!(first.remote_id.to_string(), first.node_info.id);
        prop_assert_eq!(&second.node_info.moniker, "node");
        // What was sent ahead is not lost.
        let mut opened = std::mem::take(&mut second.opened);
        for frame in second.sealed.chunks_exact_mut(1044) {
            let frame: &mut [u8; 1044] = frame.try_into().unwrap();
            let length = second.opener.open(frame).unwrap();
            opened.extend(&frame[4..4 + length]);
        }
        prop_assert_eq!(opened, extra);
    }

    #[test]
    fn a_changed_bit_never_yields_a_connection(bit: Index, byte: Index) {
        let mut ends = [handshake(1), handshake(2)];
        let mut refused = false;
        // All that the first end sends, one bit of it changed.
        let mut wire = ends[0].poll_transmit().unwrap();
        let hello = ends[1].poll_transmit().unwrap();
        ends[0].handle_bytes(&hello).unwrap();
        wire.extend(ends[0].poll_transmit().unwrap());
        let at = byte.index(wire.len());
        wire[at] ^= 1 << bit.index(8);
        // The highest bit of an X25519 key is ignored, but the transcript holds it.
        for piece in wire.chunks(4000) {
            refused = refused || ends[1].handle_bytes(piece).is_err();
        }
        prop_assert!(refused || ends[1].poll_established().is_none());
    }

    #[test]
    fn any_bytes_to_the_handshake_are_survived_and_bounded(
        honest_hello: bool,
        pieces in vec(vec(any::<u8>(), 0..3000), 0..20),
    ) {
        let mut end = handshake(1);
        if honest_hello {
            let hello = handshake(2).poll_transmit().unwrap();
            end.handle_bytes(&hello).unwrap();
        }
        for piece in pieces {
            let piece = &piece[..piece.len().min(end.room())];
            if end.handle_bytes(piece).is_err() {
                break;
            }
            prop_assert!(end.room() > 0, "a handshake that goes on can take more");
        }
        prop_assert!(end.poll_established().is_none());
    }
}

#[test]
fn one_end_cannot_answer_with_the_others_own_words() {
    // A mirror sends everything back: it must not be taken for a peer, not even for ourselves.
    let mut end = handshake(1);
    let hello = end.poll_transmit().unwrap();
    end.handle_bytes(&hello).unwrap();
    let rest = end.poll_transmit().unwrap();
    assert!(matches!(
        end.handle_bytes(&rest),
        Err(HandshakeError::Frame(_))
    ));
}

#[test]
fn channels_share_by_priority() {
    let now = Instant::now();
    let mut sender = connection(now);
    for _ in 0..60 {
        sender.handle_send(0x20, large_message(9000)).unwrap();
        sender.handle_send(0x30, large_message(9000)).unwrap();
    }
    let mut wire = Vec::new();
    sender.poll_transmit(now, &mut wire, 300_000);
    let sent: BTreeMap<_, _> = sender
        .queues()
        .map(|queue| (queue.id, queue.recently_sent))
        .collect();
    let ratio = sent[&0x20] / sent[&0x30];
    assert!((5..=6).contains(&ratio), "{sent:?}");
}

#[test]
fn an_untruthful_length_is_noticed() {
    let now = Instant::now();
    let message = large_message(5000);
    let begin = packet(0x40, false, &message[..1000]);
    // It ends before its length.
    let mut receiver = connection(now);
    let needs = Event::NeedsRoom {
        channel: 0x40,
        bytes: message.len(),
    };
    assert_eq!(
        receiver.handle_bytes(now, &begin),
        Ok((begin.len(), Some(needs)))
    );
    receiver.handle_room(now);
    assert_eq!(
        receiver.handle_bytes(now, &packet(0x40, true, b"end")),
        Err(MConnectionError::UntruthfulLength {
            channel: 0x40,
            declared: message.len(),
            actual: 1003
        })
    );
    // It goes on beyond it, farther than unknown fields have room.
    let mut receiver = connection(now);
    receiver.handle_bytes(now, &begin).unwrap();
    receiver.handle_room(now);
    let more = packet(0x40, false, &[0; 1024]);
    let error = std::iter::repeat_with(|| receiver.handle_bytes(now, &more))
        .take(10)
        .find_map(Result::err);
    assert_eq!(
        error,
        Some(MConnectionError::MessageTooLong {
            channel: 0x40,
            bound: message.len() + 1024
        })
    );
    // It does not say its length at all, or too large a one.
    for (start, expected) in [
        (vec![0x08; 20], MConnectionError::UndeclaredLength(0x40)),
        (
            vec![0x1a, 0xff, 0xff, 0x7f, 0],
            MConnectionError::MessageTooLong {
                channel: 0x40,
                bound: 10_000,
            },
        ),
    ] {
        let begin = packet(0x40, false, &start);
        assert_eq!(connection(now).handle_bytes(now, &begin), Err(expected));
    }
}

/// A connection for large messages.
fn large(now: Instant) -> MConnection {
    let channel = ChannelConfig {
        max_message_bytes: 100 << 20,
        ..CHANNELS[2]
    };
    MConnection::new(MConnectionConfig::default(), &[channel], now)
}

/// A message's packets.
fn packets(message: &[u8]) -> Vec<Vec<u8>> {
    let count = message.chunks(1024).len();
    let chunks = message.chunks(1024).enumerate();
    chunks
        .map(|(index, chunk)| packet(0x40, index + 1 == count, chunk))
        .collect()
}

/// Hands in packets; there is room. Whether the message is whole.
fn take(end: &mut MConnection, now: Instant, packets: &[Vec<u8>]) -> bool {
    let mut is_whole = false;
    for packet in packets {
        let (taken, event) = end.handle_bytes(now, packet).unwrap();
        assert_eq!(taken, packet.len());
        match event {
            Some(Event::NeedsRoom { .. }) => end.handle_room(now),
            Some(Event::Message { .. }) => is_whole = true,
            None => {}
        }
    }
    is_whole
}

#[test]
fn room_is_asked_for_in_steps_as_the_bytes_come() {
    let now = Instant::now();
    let size = 5_000_000;
    let mut end = large(now);
    let wire = packets(&large_message(size)).concat();
    let (mut room, mut taken, mut steps) = (0, 0, 0);
    loop {
        let (length, event) = end.handle_bytes(now, &wire[taken..]).unwrap();
        taken += length;
        match event {
            Some(Event::NeedsRoom { bytes, .. }) => {
                assert!(bytes <= 1 << 20, "{bytes}");
                // No more than a packet is taken beyond what there is room for.
                let here = end.arrival().map_or(0, |arrival| arrival.bytes());
                assert!(here <= room + 1024, "{here}");
                assert!(here >= room, "{here}");
                room += bytes;
                steps += 1;
                end.handle_room(now);
            }
            Some(Event::Message { bytes, .. }) => {
                assert_eq!(bytes, large_message(size));
                assert_eq!(room, bytes.len());
                break;
            }
            None => panic!("{taken} of {}", wire.len()),
        }
    }
    assert_eq!(steps, 5);
}

#[test]
fn a_message_of_which_nothing_more_comes_ends_the_connection() {
    let start = Instant::now();
    let (mut end, wire) = (large(start), packets(&large_message(100_000)));
    take(&mut end, start, &wire[..50]);
    // A packet each nine seconds is slow, which ends nothing by itself.
    let mut now = start;
    for drip in wire[50..].chunks(1).take(20) {
        now += Duration::from_secs(9);
        end.handle_deadline(now).unwrap();
        take(&mut end, now, drip);
    }
    assert!(end.arrival().unwrap().is_slow(now));
    // Neither does a time in which nothing was read.
    end.handle_hold(now);
    now += Duration::from_secs(100);
    end.handle_deadline(now).unwrap();
    end.handle_release(now);
    let stopped = now;
    let error = loop {
        now = end.poll_deadline().unwrap();
        if let Err(error) = end.handle_deadline(now) {
            break error;
        }
    };
    assert_eq!(error, MConnectionError::Stopped(0x40));
    let after = now.duration_since(stopped).as_secs();
    assert!((9..=12).contains(&after), "{after}");
}

#[test]
fn a_message_that_needs_no_room_and_does_not_end_ends_the_connection() {
    let start = Instant::now();
    let mut end = large(start);
    // A packet of the message, which says that its first field is empty, and is not the last one.
    assert!(!take(&mut end, start, &[packet(0x40, false, &[0x0a, 0])]));
    let error = loop {
        let now = end.poll_deadline().unwrap();
        if let Err(error) = end.handle_deadline(now) {
            break error;
        }
    };
    assert_eq!(error, MConnectionError::Stopped(0x40));
}

#[test]
fn a_node_that_was_held_up_itself_blames_nobody() {
    let start = Instant::now();
    let (mut end, wire) = (large(start), packets(&large_message(100_000)));
    take(&mut end, start, &wire[..50]);
    let awake = start + Duration::from_secs(40);
    end.handle_deadline(awake).unwrap();
    take(&mut end, awake, &wire[50..52]);
    let later = awake + Duration::from_secs(9);
    end.handle_deadline(later).unwrap();
    assert!(take(&mut end, later, &wire[52..]));
    assert_eq!(end.arrival(), None);
}

#[test]
fn a_held_connection_waits_for_no_pong_and_sends_its_own() {
    let start = Instant::now();
    let mut end = connection(start);
    let mut now = start;
    let mut sent = Vec::new();
    end.handle_hold(now);
    while now < start + Duration::from_secs(600) {
        now = end.poll_deadline().unwrap();
        end.handle_deadline(now).unwrap();
        end.poll_transmit(now, &mut sent, 1 << 16);
    }
    let pongs = sent.chunks(3).filter(|packet| packet[1] == 0x12).count();
    assert!((29..=31).contains(&pongs), "{pongs}");
    // Once it reads again, the peer has its full time to answer, and no more.
    end.handle_release(now);
    let released = now;
    let error = loop {
        now = end.poll_deadline().unwrap();
        if let Err(error) = end.handle_deadline(now) {
            break error;
        }
    };
    assert_eq!(error, MConnectionError::PongTimeout);
    assert_eq!(now, released + Duration::from_secs(45));
}

#[test]
fn the_sending_rate_is_kept_and_its_wait_ends() {
    let start = Instant::now();
    let config = MConnectionConfig {
        send_rate: 1_000_000,
        ..MConnectionConfig::default()
    };
    let channel = ChannelConfig {
        max_message_bytes: 1 << 20,
        ..CHANNELS[1]
    };
    let mut sender = MConnection::new(config, &[channel], start);
    let (mut now, mut sent) = (start, 0);
    let mut wire = Vec::new();
    while now < start + Duration::from_secs(5) {
        while sender
            .handle_send(channel.id, large_message(50_000))
            .is_ok()
        {}
        sender.handle_deadline(now).unwrap();
        while sender.poll_transmit(now, &mut wire, 1 << 16) {
            sent += wire.len();
            wire.clear();
        }
        now = now.max(sender.poll_deadline().unwrap());
    }
    assert!((4_900_000..=5_300_000).contains(&sent), "{sent}");
}
