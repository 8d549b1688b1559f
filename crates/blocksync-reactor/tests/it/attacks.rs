use bytes::Bytes;
use perihelion_blocksync_reactor::{ServeLimits, wire};
use perihelion_p2p::DisconnectReason;
use perihelion_pool::{Command, PoolInput};
use perihelion_schedule::Fault;
use perihelion_types::Height;

use crate::util::{Node, Peer, blocks, padded, soon};

const FIRST: Height = Height::new(1);
const SECOND: Height = Height::new(2);

/// Asks for the large block again and again, until the first response is on its way.
async fn clog(node: &Node, peer: &Peer) {
    for _ in 0..900 {
        peer.send(wire::block_request(FIRST)).await;
    }
    let handle = node.switch.peer(&peer.id()).unwrap();
    soon("a response to begin", async {
        while handle.stats().sent.bytes < 4 << 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// So slow that nothing large is ever sent.
const CRAWL: u64 = 10_000;

#[tokio::test]
async fn a_peer_that_reads_nothing_holds_back_no_request_to_others() {
    let mut node = Node::start(CRAWL).await;
    let clogged = Peer::connect(&mut node).await;
    let mut honest = Peer::connect(&mut node).await;
    clog(&node, &clogged).await;
    for _ in 0..1000 {
        node.commands.send(clogged.request(FIRST)).await.unwrap();
    }
    node.commands.send(honest.request(SECOND)).await.unwrap();
    honest
        .receive(|bytes| *bytes == wire::block_request(SECOND))
        .await;
    node.stop().await;
}

#[tokio::test]
async fn peers_that_read_nothing_hold_back_no_serving_of_others() {
    // Two large responses fill the room of all.
    let mut node = Node::start_within(ServeLimits::new(1100, 64, 1), CRAWL).await;
    let mut clogged = Vec::new();
    for _ in 0..2 {
        let peer = Peer::connect(&mut node).await;
        clog(&node, &peer).await;
        clogged.push(peer);
    }
    // The next one waits for room, and holds up nobody's reading.
    let waiting = Peer::connect(&mut node).await;
    waiting.send(wire::block_request(FIRST)).await;
    let mut honest = Peer::connect(&mut node).await;
    honest.send(wire::block_request(SECOND)).await;
    let response = wire::block_response(&blocks()[1], None);
    honest.receive(|bytes| *bytes == response).await;
    node.stop().await;
}

/// Nor of large ones: what finds no room as a whole goes out in parts.
#[tokio::test]
async fn peers_that_read_nothing_hold_back_no_large_block() {
    let mut node = Node::start_within(ServeLimits::new(1100, 16, 1), CRAWL).await;
    let mut clogged = Vec::new();
    for _ in 0..2 {
        let peer = Peer::connect(&mut node).await;
        clog(&node, &peer).await;
        clogged.push(peer);
    }
    let honest = Peer::connect(&mut node).await;
    clog(&node, &honest).await;
    node.stop().await;
}

/// And what goes out in parts arrives whole, and in the order of the requests.
#[tokio::test]
async fn a_large_block_without_room_arrives_whole() {
    let mut node = Node::start_within(ServeLimits::new(0, 64, 2), 0).await;
    let mut peer = Peer::connect(&mut node).await;
    let large = wire::block_response(&padded(&blocks()[0], 512 << 10), None);
    let small = wire::block_response(&blocks()[1], None);
    let absent = wire::no_block_response(SECOND.next());
    for height in [FIRST, SECOND, FIRST, SECOND.next(), FIRST] {
        peer.send(wire::block_request(height)).await;
    }
    for expected in [&large, &small, &large, &absent, &large] {
        let is_answer = |bytes: &Bytes| {
            matches!(
                wire::Message::decode(bytes),
                Ok(wire::Message::BlockResponse(_) | wire::Message::NoBlockResponse(_))
            )
        };
        assert!(peer.receive(is_answer).await == *expected);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_flood_of_small_messages_ends_the_connection() {
    let status = wire::status_response(FIRST, SECOND);
    for message in [
        wire::status_request(),
        status,
        wire::no_block_response(FIRST),
    ] {
        let mut node = Node::start(0).await;
        let peer = Peer::connect(&mut node).await;
        let id = peer.id();
        let flood =
            tokio::spawn(
                async move { while peer.node.send(0x40, message.clone()).await.is_ok() {} },
            );
        let reason = node.removal(id).await;
        assert!(
            matches!(reason, DisconnectReason::Misbehaviour { .. }),
            "{reason}"
        );
        soon("the flood to end", flood).await.unwrap();
        node.stop().await;
    }
}

#[tokio::test]
async fn an_unasked_block_ends_the_connection_and_takes_no_budget() {
    for padding in [0, 600 << 10] {
        let mut node = Node::start(0).await;
        let peer = Peer::connect(&mut node).await;
        // Nothing is free: a message that waited for room would not be looked at.
        let held = node.budget.acquire(node.budget.total()).await;
        let block = padded(&blocks()[0], padding);
        peer.send(wire::block_response(&block, None)).await;
        node.removal(peer.id()).await;
        drop(held);
        node.stop().await;
    }
}

#[tokio::test]
async fn each_request_is_good_for_one_answer() {
    let mut node = Node::start(0).await;
    let mut peer = Peer::connect(&mut node).await;
    let id = peer.id();
    for padding in [600 << 10, 0] {
        node.commands.send(peer.request(FIRST)).await.unwrap();
        peer.receive(|bytes| *bytes == wire::block_request(FIRST))
            .await;
        let block = padded(&blocks()[0], padding);
        peer.send(wire::block_response(&block, None)).await;
        let received = node
            .input(|input| match input {
                PoolInput::Block { block, .. } => Some(block),
                PoolInput::PeerRemoved { .. } => panic!("an answer was taken for unasked"),
                _ => None,
            })
            .await;
        assert_eq!(received, block);
    }
    peer.send(wire::block_response(&blocks()[0], None)).await;
    node.removal(id).await;
    node.stop().await;
}

#[tokio::test]
async fn what_was_meant_for_an_earlier_connection_does_not_reach_the_next_one() {
    let mut node = Node::start(0).await;
    let mut peer = Peer::connect(&mut node).await;
    let (id, earlier) = (peer.id(), peer.connection);
    peer.reconnect(&mut node).await;
    let stale = [
        Command::Request {
            peer: id,
            connection: earlier,
            height: FIRST,
            proven: false,
        },
        Command::Punish {
            peer: id,
            connection: earlier,
            fault: Fault::Unsolicited { height: FIRST },
            ban: false,
        },
    ];
    for command in stale {
        node.commands.send(command).await.unwrap();
    }
    node.commands.send(peer.request(SECOND)).await.unwrap();
    let asked = peer
        .receive(|bytes| {
            matches!(
                wire::Message::decode(bytes),
                Ok(wire::Message::BlockRequest(_))
            )
        })
        .await;
    assert_eq!(asked, wire::block_request(SECOND));
    assert!(node.switch.peer(&id).is_some());
    node.stop().await;
}

/// Whatever a peer says while a block is awaited of it, only the block's own bytes count.
#[tokio::test]
async fn chatter_is_no_sign_of_a_block() {
    let mut node = Node::start(0).await;
    let mut peer = Peer::connect(&mut node).await;
    node.commands.send(peer.request(FIRST)).await.unwrap();
    peer.receive(|bytes| *bytes == wire::block_request(FIRST))
        .await;
    for _ in 0..50 {
        peer.send(wire::status_response(FIRST, SECOND)).await;
    }
    let block = padded(&blocks()[0], 600 << 10);
    peer.send(wire::block_response(&block, None)).await;
    // Those of the first packet came before there was room.
    let expected = wire::block_response(&block, None).len() as u64 - 1024;
    let mut counted = 0;
    while counted < expected {
        counted += node
            .input(|input| match input {
                PoolInput::Bytes { bytes, .. } => Some(bytes),
                _ => None,
            })
            .await;
        assert!(counted <= expected, "{counted} of {expected}");
    }
    node.stop().await;
}

/// A range that contradicts itself is for the pool to judge; what is no message ends the connection.
#[tokio::test]
async fn what_makes_no_sense_has_its_consequences() {
    let mut node = Node::start(0).await;
    let peer = Peer::connect(&mut node).await;
    peer.send(wire::status_response(SECOND, FIRST)).await;
    let told = node
        .input(|input| match input {
            PoolInput::ImpossibleStatus { base, height, .. } => Some((base, height)),
            PoolInput::Status { .. } => panic!("it was believed"),
            _ => None,
        })
        .await;
    assert_eq!(told, (SECOND, FIRST));
    peer.send(Bytes::from_static(&[0xff; 3])).await;
    let reason = node.removal(peer.id()).await;
    assert!(
        matches!(reason, DisconnectReason::Misbehaviour { .. }),
        "{reason}"
    );
    node.stop().await;
}

/// Requests beyond the queue are of no use to anybody.
#[tokio::test]
async fn a_flood_of_requests_ends_the_connection() {
    let mut node = Node::start(CRAWL).await;
    let peer = Peer::connect(&mut node).await;
    let id = peer.id();
    let flood = tokio::spawn(async move {
        while peer
            .node
            .send(0x40, wire::block_request(FIRST))
            .await
            .is_ok()
        {}
    });
    let reason = node.removal(id).await;
    assert!(
        reason.to_string().contains("a flood of messages"),
        "{reason}"
    );
    soon("the flood to end", flood).await.unwrap();
    node.stop().await;
}
