//! Transactions between nodes.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_abci::CallName;
use perihelion_mempool::{CheckTxError, Fate, MempoolConfig, TxLimits, wire};
use perihelion_types::Height;

use crate::{
    apps::{tx, waiting},
    network::{Node, Peer, removal, soon, until},
};

fn some(count: usize) -> Vec<Bytes> {
    (0..count).map(|at| tx(&format!("a{at}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_reach_every_node_in_order() {
    let config = MempoolConfig::default;
    let nodes = [
        Node::start(config()).await,
        Node::start(config()).await,
        Node::start(config()).await,
    ];
    // A line: what reaches the last has gone through the middle.
    nodes[0].connect(&nodes[1]).await;
    nodes[1].connect(&nodes[2]).await;
    let txs = some(200);
    for tx in &txs[..100] {
        nodes[0].mempool.check_tx(tx, None).unwrap();
    }
    until("the first at the last node", || {
        nodes[2].mempool.size() == 100
    })
    .await;
    for tx in &txs[100..] {
        nodes[0].mempool.check_tx(tx, None).unwrap();
    }
    until("all at the last node", || nodes[2].mempool.size() == 200).await;
    for node in &nodes {
        assert_eq!(waiting(&node.mempool), txs);
        assert_eq!(node.app.take_asked().len(), 200);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_not_sent_what_it_sent() {
    let node = Node::start(MempoolConfig::default()).await;
    let mut peer = Peer::connect(&node).await;
    let other = Peer::connect(&node).await;
    let txs = some(6);
    peer.send_tx(&txs[0]).await;
    peer.send_tx(&txs[1]).await;
    until("both", || node.mempool.size() == 2).await;
    // One that two peers send is sent to neither.
    other.send_tx(&txs[2]).await;
    until("the third", || node.mempool.size() == 3).await;
    assert_eq!(peer.receive().await, txs[2]);
    for tx in &txs[3..] {
        node.mempool.check_tx(tx, None).unwrap();
    }
    for tx in &txs[3..] {
        assert_eq!(peer.receive().await, tx);
    }
    let (peer_id, other_id) = (peer.id(), other.id());
    assert!(node.switch.peer(&peer_id).is_some() && node.switch.peer(&other_id).is_some());
    node.stop().await;
}

/// Any peer would disconnect for it. It may enter, by way of a client, where the application lets
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_transaction_waits_and_is_sent_to_nobody() {
    let nodes = [
        Node::start(MempoolConfig::default()).await,
        Node::start(MempoolConfig::default()).await,
    ];
    let mut peer = Peer::connect(&nodes[0]).await;
    nodes[0].connect(&nodes[1]).await;
    let txs = [tx("before"), tx(""), tx("behind")];
    for tx in &txs {
        let checked = nodes[0].mempool.check_tx(tx, None).unwrap();
        assert_eq!(checked.fate, Fate::Added);
    }
    assert_eq!(waiting(&nodes[0].mempool), txs);
    let sent = [tx("before"), tx("behind")];
    for tx in &sent {
        assert_eq!(peer.receive().await, tx);
    }
    until("both at the other node", || nodes[1].mempool.size() == 2).await;
    assert_eq!(waiting(&nodes[1].mempool), sent);
    assert!(nodes[0].switch.recent_disconnects().is_empty());
    for node in nodes {
        node.stop().await;
    }
}

/// It gets what it sent when it comes again: it may have lost it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_again_is_sent_all() {
    let node = Node::start(MempoolConfig::default()).await;
    let mut peer = Peer::connect(&node).await;
    peer.send_tx(&tx("mine")).await;
    until("it", || node.mempool.size() == 1).await;
    peer.come_again(&node).await;
    assert_eq!(peer.receive().await, tx("mine"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_behind_waits() {
    let node = Node::start(MempoolConfig::default()).await;
    node.mempool.check_tx(&tx("old"), None).unwrap();
    {
        let mut lock = node.mempool.lock();
        lock.update(Height::new(10), &[], &[], TxLimits::NONE)
            .unwrap();
    }
    node.mempool.check_tx(&tx("new"), None).unwrap();
    let mut peer = Peer::connect(&node).await;
    // Accepted at height 1, where the peer is.
    assert_eq!(peer.receive().await, tx("old"));
    node.heights.0.lock().unwrap().insert(peer.id(), 8);
    // A transaction that waits for its peer is not sent before the peer has come to one block below.
    let mut ahead = Peer::connect(&node).await;
    node.heights.0.lock().unwrap().insert(ahead.id(), 9);
    assert_eq!(ahead.receive().await, tx("old"));
    assert_eq!(ahead.receive().await, tx("new"));
    assert!(peer.events.try_recv().is_err());
    node.heights.0.lock().unwrap().insert(peer.id(), 9);
    assert_eq!(peer.receive().await, tx("new"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_broadcast_nothing_is_sent_but_taken() {
    let quiet = Node::start(MempoolConfig {
        broadcast: false,
        ..MempoolConfig::default()
    })
    .await;
    let mut peer = Peer::connect(&quiet).await;
    quiet.mempool.check_tx(&tx("a"), None).unwrap();
    peer.send_tx(&tx("b")).await;
    until("the peer's", || quiet.mempool.size() == 2).await;
    // Had it been sent, it would stand before the end of the connection.
    quiet.stop().await;
    soon("the end", async {
        while let Some(event) = peer.events.recv().await {
            match event {
                perihelion_p2p::PeerEvent::Message { .. } => panic!("it was sent"),
                perihelion_p2p::PeerEvent::Removed { .. } => return,
                perihelion_p2p::PeerEvent::Added(_) => {}
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_peers_are_sent_transactions() {
    let node = Node::start(MempoolConfig {
        max_gossip_to_other_peers: 1,
        ..MempoolConfig::default()
    })
    .await;
    let mut first = Peer::connect(&node).await;
    node.mempool.check_tx(&tx("a"), None).unwrap();
    assert_eq!(first.receive().await, tx("a"));
    let mut second = Peer::connect(&node).await;
    node.mempool.check_tx(&tx("b"), None).unwrap();
    assert_eq!(first.receive().await, tx("b"));
    // The place is free when the first peer is gone.
    soon("the switch to stop", first.switch.shutdown()).await;
    assert_eq!(second.receive().await, tx("a"));
    assert_eq!(second.receive().await, tx("b"));
    node.stop().await;
}

/// While the node syncs, its application is at an old height.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_syncing_nothing_is_taken_or_given() {
    let node = Node::start(MempoolConfig::default()).await;
    node.active.send_replace(false);
    let mut peer = Peer::connect(&node).await;
    node.mempool.check_tx(&tx("own"), None).unwrap();
    // A message that is refused shows that those before it were read.
    peer.send_tx(&tx("early")).await;
    let liar = Peer::connect(&node).await;
    liar.send(Bytes::from_static(&[0x0a, 0x00])).await;
    removal(&node, liar.id()).await;
    node.active.send_replace(true);
    assert_eq!(peer.receive().await, tx("own"));
    peer.send_tx(&tx("late")).await;
    until("the late one", || node.mempool.size() == 2).await;
    assert_eq!(waiting(&node.mempool), [tx("own"), tx("late")]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cometbft_disconnects_for_disconnects() {
    let node = Node::start(MempoolConfig::default()).await;
    for (message, why) in [
        (&b""[..], "no transactions"),
        (&[0x0a, 0x00][..], "no transactions"),
        (&[0x0a, 0x02, 0x0a, 0x00][..], "empty transaction"),
        (
            &[0x0a, 0x05, 0x0a, 0x01, b'x', 0x0a, 0x00][..],
            "empty transaction",
        ),
        (&[0x0a, 0x09, 0x0a][..], "malformed"),
        (&[0x0a, 0x03, 0x0a, 0x05, b'x'][..], "malformed"),
        (&[0xff, 0xff, 0xff][..], "malformed"),
    ] {
        let peer = Peer::connect(&node).await;
        peer.send(Bytes::copy_from_slice(message)).await;
        let reason = removal(&node, peer.id()).await;
        assert!(reason.contains(why), "{message:02x?}: {reason}");
    }
    assert_eq!(node.mempool.size(), 0);
    node.stop().await;
}

/// Room for all that a test sends.
fn roomy() -> MempoolConfig {
    MempoolConfig {
        size: 20_000,
        cache_size: 20_000,
        ..MempoolConfig::default()
    }
}

/// A peer never sends again what was dropped, so it waits while the application is slow, and others
/// are read meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_waits_for_the_application_and_nothing_of_it_is_dropped() {
    let node = Node::start(roomy()).await;
    let peer = Peer::connect(&node).await;
    let liar = Peer::connect(&node).await;
    let id = peer.id();
    let burst = some(9_000);
    let all = burst.clone();
    let lock = node.mempool.lock();
    let sending = tokio::spawn(async move {
        for tx in &all {
            peer.send_tx(tx).await;
        }
        peer
    });
    until("the peer to wait", || {
        let dropped = node.mempool.stats().unhandled;
        assert_eq!(dropped, 0, "dropped transactions");
        let known = node.switch.peer(&id);
        known.is_some_and(|peer| peer.stats().held)
    })
    .await;
    liar.send(Bytes::from_static(&[0x0a, 0x00])).await;
    removal(&node, liar.id()).await;
    drop(lock);
    until("all of them", || node.mempool.size() == burst.len()).await;
    assert_eq!(waiting(&node.mempool), burst);
    assert_eq!(node.mempool.stats().unhandled, 0);
    drop(soon("the sending to end", sending).await.unwrap());
    node.stop().await;
}

/// No version sends such a message, but any may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_transactions_of_a_message_are_taken_whatever_their_number() {
    let node = Node::start(roomy()).await;
    let peer = Peer::connect(&node).await;
    let txs = some(9_000);
    // Fields of two messages one behind the other are one message with all of them.
    let messages: Vec<Bytes> = txs.iter().map(|tx| wire::encode(tx).0).collect();
    peer.send(messages.concat().into()).await;
    peer.send_tx(&tx("another")).await;
    until("all of them", || node.mempool.size() == txs.len() + 1).await;
    let mut found = waiting(&node.mempool);
    found.retain(|it| *it != tx("another"));
    assert_eq!(found, txs);
    node.stop().await;
}

/// A transaction above our own bound and below what other versions let pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_wider_bound_is_not_blamed() {
    let node = Node::start(MempoolConfig::default()).await;
    let peer = Peer::connect(&node).await;
    let large = Bytes::from(vec![b'x'; 4 << 20]);
    peer.send_tx(&large).await;
    peer.send_tx(&tx("small")).await;
    until("the small one", || node.mempool.size() == 1).await;
    assert_eq!(waiting(&node.mempool), [tx("small")]);
    assert!(node.switch.peer(&peer.id()).is_some());
    // Beyond that it is a message that no version sends.
    let larger = Bytes::from(vec![b'x'; (4 << 20) + 1]);
    peer.send(wire::encode(&larger).0).await;
    removal(&node, peer.id()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_fails_ends_the_reactor() {
    let node = Node::start(MempoolConfig::default()).await;
    let peer = Peer::connect(&node).await;
    peer.send_tx(&tx("panic")).await;
    let error = soon("the end", node.ended).await.unwrap().unwrap_err();
    assert_eq!(error.call, CallName::CheckTx);
}

/// Whoever had it asked, and though it may answer again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_fails_a_client_ends_the_reactor_too() {
    let node = Node::start(MempoolConfig::default()).await;
    let mempool = Arc::clone(&node.mempool);
    let given = tokio::task::spawn_blocking(move || {
        let checked = mempool.check_tx(&tx("panic"), None);
        (checked, mempool.lock().recheck_left())
    });
    let (checked, rechecked) = given.await.unwrap();
    assert!(matches!(checked, Err(CheckTxError::App(_))), "{checked:?}");
    assert_eq!(rechecked.unwrap_err().call, CallName::CheckTx);
    let error = soon("the end", node.ended).await.unwrap().unwrap_err();
    assert_eq!(error.call, CallName::CheckTx);
}
