//! Bounds in time, number and memory over real sockets. Time is virtual: once a peer is connected
//! the clock stands still while anything happens and jumps while nothing does.

use std::time::Duration;

use perihelion_p2p::{
    ByteBudget, DisconnectReason, MConnectionError, MIN_UNHANDLED_BYTES, NodeKey, PeerAddress,
    PeerHandle,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::util::{
    BLOCKSYNC, NETWORK, Node, OTHER, Options, RawPeer, large_message, node_info, packet, soon,
};

const PING: [u8; 3] = [2, 0x0a, 0];
const PONG: [u8; 3] = [2, 0x12, 0];

async fn with_raw_peer(options: Options) -> (Node, RawPeer, PeerHandle) {
    let mut server = Node::start(options).await;
    let info = node_info("raw", NETWORK);
    let raw = RawPeer::connect(server.socket(), &NodeKey::generate(), &info).await;
    let peer = server.added().await;
    (server, raw, peer)
}

async fn until_held(peer: &PeerHandle) {
    soon("reading to be held back", async {
        while !peer.stats().held {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Reads what the server sends until it has sent `pongs` pongs unasked.
async fn count_pongs(raw: &mut RawPeer, pongs: usize) {
    let mut seen = 0;
    while seen < pongs {
        let frame = raw.receive().await.expect("the connection is kept");
        for packet in frame.chunks(3) {
            assert!(packet == PING || packet == PONG, "{packet:?}");
            seen += usize::from(packet == PONG);
        }
    }
}

#[tokio::test]
async fn a_silent_peer_is_dropped_after_the_pong_timeout() {
    // What passes before the clock stands still counts for the server, too.
    let before = Instant::now();
    let (mut server, _raw, _) = with_raw_peer(Options::default()).await;
    tokio::time::pause();
    let start = Instant::now();
    let reason = loop {
        // A ping interval and a pong timeout.
        if let Ok(event) =
            tokio::time::timeout(Duration::from_secs(300), server.events.recv()).await
        {
            break event;
        }
    };
    assert!(matches!(
        reason,
        Some(perihelion_p2p::PeerEvent::Removed {
            reason: DisconnectReason::MConnection(MConnectionError::PongTimeout),
            ..
        })
    ));
    let (least, most) = (before.elapsed().as_secs(), start.elapsed().as_secs());
    assert!(least >= 104 && most <= 107, "{most} to {least}");
    server.stop().await;
}

/// The same where it takes nothing in, so that not even a ping gets across; what waits for it is bounded.
#[tokio::test]
async fn a_peer_that_reads_nothing_is_dropped_after_the_pong_timeout() {
    let (mut server, _raw, peer) = with_raw_peer(Options::default()).await;
    tokio::time::pause();
    let start = Instant::now();
    let message = large_message(1 << 20);
    let mut is_gone = false;
    let reason = loop {
        tokio::select! {
            event = server.events.recv() => break event,
            // Until its queue is full, again and again.
            room = peer.ready(OTHER), if !is_gone => match room {
                Ok(()) => peer.try_send(OTHER, message.clone()).unwrap(),
                Err(_) => is_gone = true,
            }
        }
        assert!(peer.queued_bytes() <= 10 * message.len());
    };
    assert!(matches!(
        reason,
        Some(perihelion_p2p::PeerEvent::Removed {
            reason: DisconnectReason::MConnection(MConnectionError::PongTimeout),
            ..
        })
    ));
    let waited = start.elapsed().as_secs();
    assert!((104..=107).contains(&waited), "{waited}");
    server.stop().await;
}

#[tokio::test]
async fn pings_are_answered_and_a_flood_of_them_is_not() {
    let (mut server, mut raw, _) = with_raw_peer(Options::default()).await;
    raw.send(&PING).await.unwrap();
    assert_eq!(raw.receive().await.unwrap(), PONG);
    raw.send(&PING.repeat(200)).await.unwrap();
    assert_eq!(
        server.removed().await.1,
        DisconnectReason::MConnection(MConnectionError::PingFlood)
    );
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_has_one_deadline_however_it_drips() {
    let server = Node::start(Options::default()).await;
    let before = Instant::now();
    let mut silent = TcpStream::connect(server.socket()).await.unwrap();
    let mut dripping = TcpStream::connect(server.socket()).await.unwrap();
    // The server has spoken: it has accepted both.
    for stream in [&mut silent, &mut dripping] {
        soon("the server's key", stream.read_exact(&mut [0; 35]))
            .await
            .unwrap();
    }
    tokio::time::pause();
    let start = Instant::now();
    let mut drip = tokio::time::interval(Duration::from_secs(2));
    let mut sent = 0;
    let hello = [vec![34, 10, 32], vec![9; 32]].concat();
    let mut answer = [0; 8];
    loop {
        tokio::select! {
            _ = drip.tick() => {
                if dripping.write_all(&hello[sent..=sent]).await.is_err() { break }
                sent += 1;
            }
            closed = dripping.read(&mut answer) => {
                assert!(!matches!(closed, Ok(1..)), "the server answered");
                break;
            }
        }
    }
    // A byte every two seconds.
    let lost = usize::try_from((start - before).as_secs().div_ceil(2)).unwrap();
    assert!(
        sent + lost >= 9 && sent <= 12,
        "{sent} bytes, {lost} too late"
    );
    assert!(matches!(silent.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    let (least, most) = (before.elapsed().as_secs(), start.elapsed().as_secs());
    assert!(least >= 19 && most <= 22, "{most} to {least}");
    server.stop().await;
}

#[tokio::test]
async fn a_spent_budget_holds_back_reading_and_blames_nobody() {
    let budget = ByteBudget::new(1 << 20);
    let all = budget.acquire(1 << 20).await;
    let options = Options {
        budget: Some(budget.clone()),
        ..Options::default()
    };
    let (mut server, mut raw, peer) = with_raw_peer(options).await;
    let message = large_message(100_000);
    raw.send(&packet(BLOCKSYNC, false, &message[..1000]))
        .await
        .unwrap();
    until_held(&peer).await;
    assert_eq!(budget.waiting(), 1);
    tokio::time::pause();
    let start = Instant::now();
    // Ten pongs unasked, twenty seconds apart: three pings of the server stay unanswered.
    count_pongs(&mut raw, 10).await;
    assert!(start.elapsed() >= Duration::from_secs(195));
    assert!(!peer.is_closing());
    tokio::time::resume();
    drop(all);
    for rest in message[1000..].chunks(1024) {
        let eof = rest.as_ptr_range().end == message.as_ptr_range().end;
        raw.send(&packet(BLOCKSYNC, eof, rest)).await.unwrap();
    }
    let (channel, bytes, permit) = server.message().await;
    assert_eq!((channel, &bytes), (BLOCKSYNC, &message));
    assert_eq!(permit.as_ref().unwrap().bytes(), message.len());
    assert!(budget.available() <= budget.total() - message.len());
    drop(permit);
    assert_eq!(budget.available(), budget.total());
    server.stop().await;
}

#[tokio::test]
async fn one_message_may_pass_a_spent_budget() {
    let budget = ByteBudget::new(1 << 20);
    let _all = budget.acquire(1 << 20).await;
    let options = Options {
        budget: Some(budget.clone()),
        ..Options::default()
    };
    let (mut server, mut raw, peer) = with_raw_peer(options).await;
    let message = large_message(2000);
    for _ in 0..2 {
        raw.send(&packet(BLOCKSYNC, false, &message[..1000]))
            .await
            .unwrap();
        raw.send(&packet(BLOCKSYNC, true, &message[1000..]))
            .await
            .unwrap();
    }
    until_held(&peer).await;
    peer.admit_one();
    assert_eq!(server.message().await.1, message);
    // The second one waits.
    until_held(&peer).await;
    assert_eq!(budget.waiting(), 1);
    assert!(server.events.try_recv().is_err());
    server.stop().await;
}

#[tokio::test]
async fn a_permit_is_returned_when_its_connection_breaks() {
    let budget = ByteBudget::new(1 << 20);
    let options = Options {
        budget: Some(budget.clone()),
        ..Options::default()
    };
    let (mut server, mut raw, _) = with_raw_peer(options).await;
    let message = large_message(500_000);
    raw.send(&packet(BLOCKSYNC, false, &message[..1000]))
        .await
        .unwrap();
    soon("the permit to be taken", async {
        while budget.available() == budget.total() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(raw);
    server.removed().await;
    assert_eq!(budget.available(), budget.total());
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_stops_arriving_gives_its_budget_back() {
    let budget = ByteBudget::new(1 << 20);
    let options = Options {
        budget: Some(budget.clone()),
        ..Options::default()
    };
    let (mut server, mut raw, _) = with_raw_peer(options).await;
    let message = large_message(500_000);
    raw.send(&packet(BLOCKSYNC, false, &message[..1000]))
        .await
        .unwrap();
    soon("the permit to be taken", async {
        while budget.available() == budget.total() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    tokio::time::pause();
    let start = Instant::now();
    assert_eq!(
        server.removed().await.1,
        DisconnectReason::MConnection(MConnectionError::Stopped(BLOCKSYNC))
    );
    assert!(start.elapsed() <= Duration::from_secs(15));
    assert_eq!(budget.available(), budget.total());
    server.stop().await;
}

#[tokio::test]
async fn a_busy_reactor_holds_back_its_peers_and_loses_nothing() {
    let (mut server, mut raw, peer) = with_raw_peer(Options::default()).await;
    for number in 0..1000_u32 {
        raw.send(&packet(OTHER, true, &number.to_be_bytes()))
            .await
            .unwrap();
    }
    until_held(&peer).await;
    tokio::time::pause();
    count_pongs(&mut raw, 6).await;
    tokio::time::resume();
    for number in 0..1000_u32 {
        assert_eq!(*server.message().await.1, number.to_be_bytes());
    }
    assert!(!peer.is_closing());
    server.stop().await;
}

/// A block in the middle of which the reactor is busy: what came before the pause still counts as of
/// late when what stands behind it is read, so that who sends quickly enough is not taken for slow.
#[tokio::test]
async fn a_pause_of_this_nodes_own_is_no_slowness_of_the_block_that_is_on_its_way() {
    const A_SECOND: Duration = Duration::from_secs(1);
    const SECONDS: usize = 11;
    let options = Options {
        budget: Some(ByteBudget::new(16 << 20)),
        ..Options::default()
    };
    let (mut server, mut raw, peer) = with_raw_peer(options).await;
    let block = large_message(4 << 20);
    let mut parts = block.chunks(200 << 10);
    tokio::time::pause();
    let mut here = 0;
    for _ in 0..SECONDS {
        let part = parts.next().unwrap();
        for data in part.chunks(1024) {
            raw.send(&packet(BLOCKSYNC, false, data)).await.unwrap();
        }
        here += part.len();
        until_here(&peer, here).await;
        tokio::time::sleep(A_SECOND).await;
    }
    // At once, so that what stands behind them has been read when the reactor goes on.
    let messages = (0..1000_u32).flat_map(|number| packet(OTHER, true, &number.to_be_bytes()));
    let mut bytes: Vec<u8> = messages.collect();
    let behind = &parts.next().unwrap()[..1000];
    bytes.extend(packet(BLOCKSYNC, false, behind));
    raw.send(&bytes).await.unwrap();
    until_held(&peer).await;
    tokio::time::sleep(30 * A_SECOND).await;
    for _ in 0..1000 {
        assert_eq!(server.message().await.0, OTHER);
    }
    until_here(&peer, here + behind.len()).await;
    let (arrival, now) = (peer.stats().arrival.unwrap(), Instant::now().into_std());
    assert!(arrival.lasts(now) < 20 * A_SECOND, "{arrival:?}");
    assert!(!arrival.is_slow(now), "{arrival:?}");
    assert!(arrival.recent(now) > 1 << 20, "{arrival:?}");
    server.stop().await;
}

/// Waits until so much of a block is here.
async fn until_here(peer: &PeerHandle, bytes: usize) {
    let is_here = |peer: &PeerHandle| {
        let arrival = peer.stats().arrival;
        arrival.is_some_and(|arrival| arrival.bytes() >= bytes)
    };
    soon("the bytes to come", async {
        while !is_here(peer) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn inbound_places_are_limited_and_freed() {
    let mut options = Options::default();
    options.config.max_num_inbound_peers = 1;
    let (mut server, first, _) = with_raw_peer(options).await;
    let info = node_info("raw", NETWORK);
    let mut second = RawPeer::connect(server.socket(), &NodeKey::generate(), &info).await;
    assert_eq!(second.receive().await, None, "it was refused");
    drop(first);
    server.removed().await;
    // The place is free once the removal has been recorded.
    soon("the place to be free", async {
        while server.switch.peer_counts() != (0, 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let third = NodeKey::generate();
    let _third = RawPeer::connect(server.socket(), &third, &info).await;
    assert_eq!(server.added().await.id(), third.id());
    server.stop().await;
}

#[tokio::test]
async fn duplicate_addresses_are_refused_unless_allowed() {
    let mut options = Options::default();
    options.config.allow_duplicate_ip = false;
    let (server, _first, _) = with_raw_peer(options).await;
    let info = node_info("raw", NETWORK);
    let mut second = RawPeer::connect(server.socket(), &NodeKey::generate(), &info).await;
    assert_eq!(second.receive().await, None, "it was refused");
    server.stop().await;
}

#[tokio::test]
async fn a_failing_persistent_peer_is_dialled_ever_less_often_but_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = PeerAddress {
        id: NodeKey::generate().id(),
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    let mut options = Options::default();
    options.config.persistent_peers = vec![address];
    let node = Node::start(options).await;
    tokio::time::pause();
    let mut dials = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(600) {
        let (stream, _) = listener.accept().await.unwrap();
        dials.push(start.elapsed());
        drop(stream);
    }
    assert!((15..=40).contains(&dials.len()), "{dials:?}");
    let pauses: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses
            .iter()
            .all(|pause| *pause >= Duration::from_millis(350)),
        "{pauses:?}"
    );
    assert!(
        pauses.iter().all(|pause| *pause <= Duration::from_secs(60)),
        "{pauses:?}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_peer_of_which_too_much_is_unhandled_is_not_read_from_and_others_are() {
    let options = Options {
        unhandled: Some(4 * MIN_UNHANDLED_BYTES),
        ..Options::default()
    };
    let (mut server, mut flood, flooder) = with_raw_peer(options).await;
    let info = node_info("raw", NETWORK);
    let mut quiet = RawPeer::connect(server.socket(), &NodeKey::generate(), &info).await;
    server.added().await;
    let small = packet(OTHER, true, b"a small message");
    flood.send(&small.repeat(10)).await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..4 {
        let (channel, bytes, permit) = server.message().await;
        assert_eq!((channel, &bytes[..]), (OTHER, &b"a small message"[..]));
        kept.push(permit.expect("each message has its share"));
    }
    until_held(&flooder).await;
    quiet.send(&packet(OTHER, true, b"another")).await.unwrap();
    let (_, bytes, _permit) = server.message().await;
    assert_eq!(bytes, b"another"[..]);
    // A share that is given back lets one more through, and so on.
    for _ in 0..6 {
        kept.remove(0);
        let (_, bytes, permit) = server.message().await;
        assert_eq!(bytes, b"a small message"[..]);
        kept.extend(permit);
    }
    // A message that is larger than all shares waits for all of them.
    let mut large = Vec::new();
    for chunk in large_message(8 * MIN_UNHANDLED_BYTES).chunks(1_000) {
        large.extend(packet(OTHER, false, chunk));
    }
    large.extend(packet(OTHER, true, b""));
    flood.send(&large).await.unwrap();
    until_held(&flooder).await;
    drop(kept);
    let (_, bytes, permit) = server.message().await;
    assert!(bytes.len() > 8 * MIN_UNHANDLED_BYTES && permit.is_some());
    server.stop().await;
}
