//! What is noticed of peers over time. The clock is paused: it goes on only while nothing else does, in
//! steps of the reactor's own looks.

use std::time::Duration;

use bytes::Bytes;
use perihelion_blocksync_reactor::wire::{self, Message};
use perihelion_p2p::{DisconnectReason, MessageInParts, Standing};
use perihelion_pool::{Command, PoolInput};
use perihelion_types::Height;
use tokio::time::{Instant, pause, sleep};

use crate::util::{BLOCKSYNC, Node, Peer, blocks, padded, save, soon};

const FIRST: Height = Height::new(1);
const SECOND: Height = Height::new(2);
const A_SECOND: Duration = Duration::from_secs(1);

/// So slow that 30 seconds bring less than 64 KiB.
const SNAIL: u64 = 1_000;

/// So slow that a block of [`LARGE`] KiB takes longer than it may where others wait, and quick enough for
/// the connection.
const WALK: u64 = 200 << 10;
const LARGE: usize = 14 << 10;

/// How long a block may be arriving while others wait.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Asks a peer for a block and waits until it knows.
async fn ask(node: &Node, peer: &mut Peer) {
    node.commands.send(peer.request(FIRST)).await.unwrap();
    peer.receive(|bytes| *bytes == wire::block_request(FIRST))
        .await;
}

/// The response with a block of about `kib` KiB.
fn response(kib: usize) -> Bytes {
    wire::block_response(&padded(&blocks()[0], kib << 10), None)
}

/// Waits until a block from `peer` is arriving.
async fn arrives(node: &Node, peer: &Peer) {
    let handle = node.switch.peer(&peer.id()).unwrap();
    soon("a block to arrive", async {
        while handle.stats().arrival.is_none() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Lets a peer begin a block of 100 MB, of which nothing more comes while the answer is kept.
async fn announce(node: &Node, peer: &mut Peer) -> MessageInParts {
    ask(node, peer).await;
    let announced = 104_000_000;
    let mut begin = vec![0x1a];
    prost::encoding::encode_varint(announced, &mut begin);
    let mut answer = peer.node.send_in_parts(BLOCKSYNC).await.unwrap();
    answer.send(begin.into(), false).await.unwrap();
    arrives(node, peer).await;
    answer
}

/// Waits until reading from `peer` is held back.
async fn waits(node: &Node, peer: &Peer) {
    let handle = node.switch.peer(&peer.id()).unwrap();
    soon("a block to wait", async {
        while !handle.stats().held {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn next_block(node: &mut Node, from: &Peer) {
    let id = from.id();
    node.input(|input| match input {
        PoolInput::Block { peer, .. } => (peer == id).then_some(()),
        PoolInput::PeerRemoved { peer } if peer == id => panic!("it is gone"),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_asks_for_blocks_and_takes_none_is_let_go() {
    let mut node = Node::start(SNAIL).await;
    let peer = Peer::connect(&mut node).await;
    pause();
    let start = Instant::now();
    peer.send(wire::block_request(FIRST)).await;
    let reason = node.removal(peer.id()).await;
    let expected = "asks for blocks and takes none";
    assert!(reason.to_string().contains(expected), "{reason}");
    assert!(start.elapsed() >= 30 * A_SECOND);
    node.stop().await;
}

#[tokio::test]
async fn a_peer_that_takes_a_block_slowly_gets_it() {
    let mut node = Node::start(10 * SNAIL).await;
    let mut peer = Peer::connect(&mut node).await;
    pause();
    let start = Instant::now();
    peer.send(wire::block_request(FIRST)).await;
    let whole = response(512);
    peer.receive(|bytes| *bytes == whole).await;
    assert!(start.elapsed() > 30 * A_SECOND, "it was looked at");
    node.stop().await;
}

/// While nothing is asked for nothing is looked at often, and as soon as something is it is again.
#[tokio::test]
async fn what_comes_after_a_long_calm_is_seen_at_once() {
    let mut node = Node::start(0).await;
    let mut peers = Vec::new();
    for _ in 0..8 {
        peers.push(Peer::connect_at(&mut node, WALK).await);
    }
    pause();
    for (phase, mut peer) in (0..8).zip(peers) {
        let id = peer.id();
        sleep(20 * A_SECOND + phase * A_SECOND / 8).await;
        let start = Instant::now();
        ask(&node, &mut peer).await;
        peer.send(response(2_000)).await;
        node.input(|input| match input {
            PoolInput::Bytes { peer, .. } if peer == id => Some(()),
            PoolInput::Block { .. } => panic!("it was not seen on its way"),
            _ => None,
        })
        .await;
        assert!(start.elapsed() < A_SECOND / 2, "{:?}", start.elapsed());
        next_block(&mut node, &peer).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn the_slowest_gives_way_to_who_waits_for_its_room() {
    let mut node = Node::start(0).await;
    let mut slow = Peer::connect_at(&mut node, WALK).await;
    let mut waiting = Peer::connect(&mut node).await;
    pause();
    ask(&node, &mut slow).await;
    let start = Instant::now();
    slow.send(response(LARGE)).await;
    arrives(&node, &slow).await;
    // There is one reserve, and no room for both.
    ask(&node, &mut waiting).await;
    waiting.send(response(2_000)).await;
    waits(&node, &waiting).await;
    let reason = node.removal(slow.id()).await;
    assert!(
        matches!(reason, DisconnectReason::Replaced { .. }),
        "{reason}"
    );
    assert!(start.elapsed() >= ARRIVAL, "{:?}", start.elapsed());
    next_block(&mut node, &waiting).await;
    node.stop().await;
}

#[tokio::test]
async fn who_is_slower_than_the_least_rate_gives_way_sooner() {
    let mut node = Node::start(0).await;
    let mut slow = Peer::connect_at(&mut node, 50 << 10).await;
    let mut waiting = Peer::connect(&mut node).await;
    pause();
    ask(&node, &mut slow).await;
    let start = Instant::now();
    slow.send(response(LARGE)).await;
    arrives(&node, &slow).await;
    ask(&node, &mut waiting).await;
    waiting.send(response(2_000)).await;
    let reason = node.removal(slow.id()).await;
    assert!(
        matches!(reason, DisconnectReason::Replaced { .. }),
        "{reason}"
    );
    let elapsed = start.elapsed();
    assert!(10 * A_SECOND <= elapsed && elapsed < ARRIVAL, "{elapsed:?}");
    next_block(&mut node, &waiting).await;
    node.stop().await;
}

/// One is let go of for the other, and then the other one gets on, however often the first one comes again.
#[tokio::test]
async fn honest_peers_that_are_all_slow_do_not_let_go_of_one_another_for_ever() {
    let mut node = Node::start(0).await;
    let mut first = Peer::connect_at(&mut node, WALK).await;
    let mut second = Peer::connect_at(&mut node, WALK).await;
    pause();
    let start = Instant::now();
    ask(&node, &mut first).await;
    first.send(response(LARGE)).await;
    arrives(&node, &first).await;
    ask(&node, &mut second).await;
    second.send(response(LARGE)).await;
    let reason = node.removal(first.id()).await;
    assert!(
        matches!(reason, DisconnectReason::Replaced { .. }),
        "{reason}"
    );
    first.come_again(&mut node).await;
    let id = first.id();
    node.input(|input| match input {
        PoolInput::Slow { peer } if peer == id => Some(()),
        _ => None,
    })
    .await;
    ask(&node, &mut first).await;
    first.send(response(LARGE)).await;
    waits(&node, &first).await;
    next_block(&mut node, &second).await;
    assert!(start.elapsed() > 2 * ARRIVAL, "{:?}", start.elapsed());
    next_block(&mut node, &first).await;
    node.stop().await;
}

/// Those before it get the reserve each time, so that it would never have to send, nor give back.
#[tokio::test]
async fn who_stands_behind_and_waits_gives_back_what_others_wait_for() {
    let mut node = Node::with_budget(16 << 20).await;
    let mut first = Peer::connect(&mut node).await;
    let mut pins = Peer::connect(&mut node).await;
    let mut waiting = Peer::connect(&mut node).await;
    pause();
    // The reserve is gone until this block is applied.
    ask(&node, &mut first).await;
    first.send(response(LARGE)).await;
    let id = first.id();
    let _block = node
        .input(|input| match input {
            PoolInput::Block { peer, hold, .. } if peer == id => Some(hold),
            _ => None,
        })
        .await;
    for peer in [&mut pins, &mut waiting] {
        ask(&node, peer).await;
        peer.send(response(LARGE)).await;
        waits(&node, peer).await;
    }
    sleep(2 * ARRIVAL).await;
    for peer in [&pins, &waiting] {
        assert!(node.switch.peer(&peer.id()).is_some(), "neither is better");
    }
    let handle = node.switch.peer(&pins.id()).unwrap();
    handle.set_standing(Standing::Behind);
    let reason = node.removal(pins.id()).await;
    assert!(
        matches!(reason, DisconnectReason::Replaced { .. }),
        "{reason}"
    );
    arrives(&node, &waiting).await;
    node.stop().await;
}

/// Strangers could keep the only one that has the blocks from ever ending one.
#[tokio::test]
async fn a_proven_peer_does_not_give_way_to_strangers_unless_it_is_slow() {
    let mut node = Node::start(0).await;
    let mut proven = Peer::connect_at(&mut node, WALK).await;
    let mut stranger = Peer::connect(&mut node).await;
    proven.proven = true;
    pause();
    let start = Instant::now();
    ask(&node, &mut proven).await;
    proven.send(response(LARGE)).await;
    arrives(&node, &proven).await;
    ask(&node, &mut stranger).await;
    stranger.send(response(LARGE)).await;
    waits(&node, &stranger).await;
    next_block(&mut node, &proven).await;
    assert!(start.elapsed() > 2 * ARRIVAL, "{:?}", start.elapsed());
    next_block(&mut node, &stranger).await;
    // It is relied on no more, as long as nothing else is said.
    proven.proven = false;
    let begun = Instant::now();
    ask(&node, &mut proven).await;
    proven.send(response(LARGE)).await;
    arrives(&node, &proven).await;
    ask(&node, &mut stranger).await;
    stranger.send(response(LARGE)).await;
    let reason = node.removal(proven.id()).await;
    assert!(
        matches!(reason, DisconnectReason::Replaced { .. }),
        "{reason}"
    );
    assert!(begun.elapsed() >= ARRIVAL, "{:?}", begun.elapsed());
    next_block(&mut node, &stranger).await;
    node.stop().await;
}

#[tokio::test]
async fn a_quick_start_does_not_buy_dripping() {
    let mut node = Node::with_budget(16 << 20).await;
    let mut drips = Peer::connect(&mut node).await;
    let mut waiting = Peer::connect(&mut node).await;
    pause();
    let start = Instant::now();
    let mut answer = announce(&node, &mut drips).await;
    answer.send(vec![0; 12 << 20].into(), false).await.unwrap();
    ask(&node, &mut waiting).await;
    waiting.send(response(LARGE)).await;
    waits(&node, &waiting).await;
    let gone = async {
        let reason = node.removal(drips.id()).await;
        assert!(
            matches!(reason, DisconnectReason::Replaced { .. }),
            "{reason}"
        );
    };
    let dripping = async {
        while answer.send(vec![0].into(), false).await.is_ok() {
            sleep(3 * A_SECOND).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = gone => {}
        () = dripping => {}
    }
    assert!(start.elapsed() < ARRIVAL, "{:?}", start.elapsed());
    next_block(&mut node, &waiting).await;
    node.stop().await;
}

#[tokio::test]
async fn a_large_block_that_comes_quickly_is_not_let_go_of_however_long_it_takes() {
    let mut node = Node::start(0).await;
    let mut quick = Peer::connect_at(&mut node, 1_400_000).await;
    let mut waiting = Peer::connect(&mut node).await;
    pause();
    ask(&node, &mut quick).await;
    let start = Instant::now();
    quick.send(response(50 << 10)).await;
    arrives(&node, &quick).await;
    ask(&node, &mut waiting).await;
    waiting.send(response(LARGE)).await;
    waits(&node, &waiting).await;
    next_block(&mut node, &quick).await;
    assert!(start.elapsed() > ARRIVAL, "{:?}", start.elapsed());
    next_block(&mut node, &waiting).await;
    node.stop().await;
}

#[tokio::test]
async fn slow_is_no_fault_while_nobody_waits_and_only_the_slowest_is_let_go() {
    let mut node = Node::with_budget(16 << 20).await;
    let mut slow = Peer::connect_at(&mut node, WALK).await;
    let mut slow_too = Peer::connect_at(&mut node, WALK).await;
    let mut waiting = Peer::connect(&mut node).await;
    pause();
    ask(&node, &mut slow).await;
    slow.send(response(LARGE)).await;
    arrives(&node, &slow).await;
    sleep(ARRIVAL + 5 * A_SECOND).await;
    assert!(node.switch.peer(&slow.id()).is_some());
    ask(&node, &mut slow_too).await;
    slow_too.send(response(LARGE)).await;
    arrives(&node, &slow_too).await;
    let begun = Instant::now();
    ask(&node, &mut waiting).await;
    waiting.send(response(LARGE)).await;
    let reason = node.removal(slow.id()).await;
    assert!(
        matches!(reason, DisconnectReason::Replaced { .. }),
        "{reason}"
    );
    assert!(begun.elapsed() < ARRIVAL, "{:?}", begun.elapsed());
    next_block(&mut node, &waiting).await;
    assert!(node.switch.peer(&slow_too.id()).is_some());
    node.stop().await;
}

#[tokio::test]
async fn who_announces_much_and_sends_nothing_holds_up_nobody() {
    let mut node = Node::with_budget(16 << 20).await;
    let mut honest = Peer::connect(&mut node).await;
    let mut silent = Vec::new();
    pause();
    // One after the other, under new ids.
    for _ in 0..5 {
        let mut peer = Peer::connect(&mut node).await;
        let answer = announce(&node, &mut peer).await;
        silent.push((peer, answer));
        for _ in 0..40 {
            ask(&node, &mut honest).await;
            honest.send(response(20)).await;
            next_block(&mut node, &honest).await;
        }
        for (peer, _) in &silent {
            assert!(node.switch.peer(&peer.id()).is_some(), "it is gone");
        }
    }
    for (peer, _) in &silent {
        let reason = node.removal(peer.id()).await;
        assert!(reason.is_peers_fault(), "{reason}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_block_comes_in_however_slowly_while_nobody_waits() {
    let mut node = Node::with_budget(16 << 20).await;
    let mut slow = Peer::connect_at(&mut node, 100 << 10).await;
    pause();
    ask(&node, &mut slow).await;
    let start = Instant::now();
    slow.send(response(8 << 10)).await;
    next_block(&mut node, &slow).await;
    assert!(start.elapsed() > 2 * ARRIVAL, "{:?}", start.elapsed());
    node.stop().await;
}

/// Blocks that wait for another one hold the whole budget: that one gets through, and nothing else.
#[tokio::test]
async fn in_a_standstill_who_owes_the_next_blocks_passes_and_nobody_else() {
    let mut node = Node::start(0).await;
    let held = node.budget.acquire(node.budget.total()).await;
    pause();
    let start = Instant::now();
    let mut peers = Vec::new();
    for _ in 0..4 {
        let mut peer = Peer::connect(&mut node).await;
        ask(&node, &mut peer).await;
        peer.send(response(2_000)).await;
        waits(&node, &peer).await;
        peers.push(peer);
    }
    for waiting in &peers {
        let id = waiting.id();
        node.input(|input| {
            matches!(input, PoolInput::HeldBack { peer } if peer == id).then_some(())
        })
        .await;
    }
    assert!(start.elapsed() < A_SECOND, "{:?}", start.elapsed());
    node.input(|input| matches!(input, PoolInput::Starved).then_some(()))
        .await;
    for owing in [2, 1] {
        standstill(&mut node).await;
        assert!(start.elapsed() >= 2 * A_SECOND, "{:?}", start.elapsed());
        let admit = Command::Admit {
            peer: peers[owing].id(),
            connection: peers[owing].connection,
            proven: false,
        };
        node.commands.send(admit).await.unwrap();
        next_block(&mut node, &peers[owing]).await;
    }
    // Nobody passes unless it is told to.
    standstill(&mut node).await;
    for still in [0, 3] {
        let handle = node.switch.peer(&peers[still].id()).unwrap();
        assert!(handle.stats().held);
    }
    drop(held);
    node.stop().await;
}

/// A pass is for what everything waits for now, and for a peer that waits for room now.
#[tokio::test]
async fn a_pass_is_not_kept_for_later() {
    let mut node = Node::start(0).await;
    let (early, unused) = (
        Peer::connect(&mut node).await,
        Peer::connect(&mut node).await,
    );
    let admit = Command::Admit {
        peer: early.id(),
        connection: early.connection,
        proven: true,
    };
    node.commands.send(admit).await.unwrap();
    node.switch.peer(&unused.id()).unwrap().admit_one();
    pause();
    sleep(A_SECOND).await;
    save(&node.store, blocks()[2].clone());
    sleep(A_SECOND).await;
    let held = node.budget.acquire(node.budget.total()).await;
    for mut peer in [early, unused] {
        ask(&node, &mut peer).await;
        peer.send(response(2_000)).await;
        waits(&node, &peer).await;
        standstill(&mut node).await;
        standstill(&mut node).await;
        assert!(node.switch.peer(&peer.id()).unwrap().waits_for_room());
    }
    drop(held);
    node.stop().await;
}

/// Waits for a standstill in which no block comes in.
async fn standstill(node: &mut Node) {
    node.input(|input| match input {
        PoolInput::Standstill => Some(()),
        PoolInput::Block { peer, .. } => panic!("a block of {peer}"),
        _ => None,
    })
    .await;
}

/// How many of an allowance of statuses there can have been since `start`.
fn allowed(start: Instant) -> u128 {
    16 + 1 + start.elapsed().as_millis() / 100
}

#[tokio::test]
async fn who_asks_for_statuses_too_often_is_not_answered_each_time() {
    let mut node = Node::start(0).await;
    let mut peer = Peer::connect(&mut node).await;
    pause();
    let start = Instant::now();
    for _ in 0..2_000 {
        peer.send(wire::status_request()).await;
    }
    peer.send(wire::block_request(SECOND)).await;
    let mut answers = 0;
    loop {
        let bytes = peer.receive(|_| true).await;
        match Message::decode(&bytes).unwrap() {
            Message::StatusResponse(_) => answers += 1,
            Message::BlockResponse(_) => break,
            _ => {}
        }
    }
    // One was told without being asked for.
    assert!(answers >= 2, "{answers}");
    assert!(answers <= 1 + allowed(start), "{answers}");
    node.stop().await;
}

#[tokio::test]
async fn who_tells_its_status_too_often_is_not_listened_to_each_time() {
    let mut node = Node::start(0).await;
    let mut peer = Peer::connect(&mut node).await;
    pause();
    ask(&node, &mut peer).await;
    let start = Instant::now();
    for _ in 0..2_000 {
        peer.send(wire::status_response(FIRST, SECOND)).await;
    }
    peer.send(wire::no_block_response(FIRST)).await;
    let mut told = 0;
    loop {
        let is_last = node
            .input(|input| match input {
                PoolInput::Status { .. } => Some(false),
                PoolInput::NoBlock { .. } => Some(true),
                _ => None,
            })
            .await;
        if is_last {
            break;
        }
        told += 1;
    }
    assert!(told >= 1);
    assert!(told <= allowed(start), "{told}");
    node.stop().await;
}

/// CometBFT asks again at once, and would spin with us.
#[tokio::test]
async fn absent_blocks_are_answered_at_a_bounded_rate() {
    let mut node = Node::start(0).await;
    let mut peer = Peer::connect(&mut node).await;
    pause();
    let start = Instant::now();
    let requests = 64 + 200;
    for _ in 0..requests {
        peer.send(wire::block_request(SECOND.next())).await;
    }
    let absent = wire::no_block_response(SECOND.next());
    for _ in 0..requests {
        peer.receive(|bytes| *bytes == absent).await;
    }
    let least = 200 * Duration::from_millis(20);
    assert!(start.elapsed() >= least, "{:?}", start.elapsed());
    node.stop().await;
}
