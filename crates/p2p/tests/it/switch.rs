//! Whole switches over loopback: who becomes a peer, and how peers come and go.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use perihelion_p2p::{
    DisconnectReason, HandshakeError, Incompatible, NodeId, NodeInfo, NodeKey, P2pConfig,
    PeerAddress, PeerFilter, RejectReason, Remote, SendError, frame::FrameError,
    mconnection::MConnectionConfig,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::util::{
    BLOCKSYNC, NETWORK, Node, OTHER, Options, RawPeer, free_port, large_message, node_info, packet,
    soon,
};

fn loopback(change: impl FnOnce(&mut P2pConfig)) -> Options {
    let mut options = Options::default();
    change(&mut options.config);
    options
}

/// The errors of a system without IPv6: Linux's, and macOS's.
const EAFNOSUPPORT: i32 = 97;
const EAFNOSUPPORT_BSD: i32 = 47;

/// Whether this machine has IPv6; any other failure to bind is one of the tests that need it.
fn has_ipv6() -> bool {
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => true,
        Err(error) => {
            let no_address = error.kind() == io::ErrorKind::AddrNotAvailable;
            let no_family = matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EAFNOSUPPORT_BSD));
            !no_address && !no_family
        }
    }
}

#[tokio::test]
async fn two_nodes_exchange_messages_of_all_sizes() {
    for listen in ["tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://[::]:0"] {
        if listen.contains('[') && !has_ipv6() {
            // Not by a macro, whose output the test harness keeps to itself.
            let told = format!("\n*** NOT RUN: no IPv6 here, nothing listens at {listen} ***\n\n");
            let _unseen = io::stderr().write_all(told.as_bytes());
            continue;
        }
        let mut server = Node::start(loopback(|it| it.laddr = listen.to_owned())).await;
        let mut client = Node::start(Options::default()).await;
        let mut address = server.address();
        if address.host == "::" {
            // The unspecified IPv6 address takes IPv4 too.
            address.host = "127.0.0.1".to_owned();
        }
        let peer = client.switch.dial(&address).await.unwrap();
        assert_eq!(peer.id(), server.switch.id());
        assert!(client.added().await.is_outbound());
        let back = server.added().await;
        assert_eq!((back.id(), back.is_outbound()), (client.switch.id(), false));
        let remote = back.remote_address().ip();
        assert_eq!(
            remote,
            remote.to_canonical(),
            "one address whatever the socket"
        );
        for size in [1, 1000, 1024, 1025, 70_000, 3_000_000] {
            let message = large_message(size);
            peer.send(BLOCKSYNC, message.clone()).await.unwrap();
            let (channel, bytes, permit) = server.message().await;
            assert_eq!(
                (channel, bytes, permit.is_some()),
                (BLOCKSYNC, message, false)
            );
        }
        back.try_send(OTHER, "answer".into()).unwrap();
        assert_eq!(client.message().await.1, "answer");
        assert_eq!(
            peer.try_send(0x77, "".into()),
            Err(SendError::NoChannel(0x77))
        );
        let stats = &client.switch.peers()[0].stats;
        assert!(stats.sent.bytes > 3_000_000 && stats.received.bytes > 0);
        client.stop().await;
        server.stop().await;
    }
}

/// Batches and reads grow once a second has told how quick the peer is.
#[tokio::test]
async fn messages_to_a_quick_peer_arrive_whole_and_in_order() {
    let unlimited = || Options {
        connection: MConnectionConfig {
            send_rate: 0,
            recv_rate: 0,
            ..MConnectionConfig::default()
        },
        ..loopback(|it| (it.send_rate, it.recv_rate) = (0, 0))
    };
    let mut server = Node::start(unlimited()).await;
    let mut client = Node::start(unlimited()).await;
    let peer = client.switch.dial(&server.address()).await.unwrap();
    client.added().await;
    server.added().await;
    let messages = [3, 300, 1025, 65_536, 200_000].map(large_message);
    let send = async {
        let mut more = 300;
        while more > 0 {
            for message in &messages {
                peer.send(BLOCKSYNC, message.clone()).await.unwrap();
            }
            let sent = client.switch.peers()[0].stats.sent;
            if sent.inst_rate > 30_000_000 || sent.samples > 3 {
                more -= 1;
            }
        }
        peer.send(BLOCKSYNC, large_message(7)).await.unwrap();
    };
    let receive = async {
        for expected in messages.iter().cycle() {
            let (_, message, _) = server.message().await;
            if message == large_message(7) {
                break;
            }
            assert_eq!(message, *expected);
        }
    };
    tokio::join!(send, receive);
    client.stop().await;
    server.stop().await;
}

/// Other messages of its channel wait for a message's last part, those of other channels do not.
#[tokio::test]
async fn a_message_in_parts_arrives_as_one() {
    let mut server = Node::start(Options::default()).await;
    let mut client = Node::start(Options::default()).await;
    let peer = client.switch.dial(&server.address()).await.unwrap();
    client.added().await;
    server.added().await;
    let message = large_message(200_000);
    let mut parts = peer.send_in_parts(BLOCKSYNC).await.unwrap();
    parts.send(message.slice(..70_001), false).await.unwrap();
    peer.send(BLOCKSYNC, large_message(3)).await.unwrap();
    peer.send(OTHER, "meanwhile".into()).await.unwrap();
    assert_eq!(server.message().await.1, "meanwhile");
    parts
        .send(message.slice(70_001..150_000), false)
        .await
        .unwrap();
    parts.send(message.slice(150_000..), true).await.unwrap();
    drop(parts);
    assert_eq!(server.message().await.1, message);
    assert_eq!(server.message().await.1, large_message(3));
    assert_eq!(peer.queued_bytes(), 0);
    // Without its end, the connection is over, which nobody is blamed for.
    let mut parts = peer.send_in_parts(BLOCKSYNC).await.unwrap();
    parts.send(message.slice(..1000), false).await.unwrap();
    drop(parts);
    let (_, reason) = client.removed().await;
    assert_eq!(reason, DisconnectReason::Unfinished(BLOCKSYNC));
    assert!(!reason.is_peers_fault());
    server.stop().await;
    client.stop().await;
}

#[tokio::test]
async fn a_removed_peer_is_named_with_the_reason() {
    let mut server = Node::start(Options::default()).await;
    let mut client = Node::start(Options::default()).await;
    let peer = client.switch.dial(&server.address()).await.unwrap();
    client.added().await;
    server.added().await;
    let reason = DisconnectReason::Misbehaviour {
        reactor: "test",
        fault: "it lied".to_owned(),
    };
    server
        .switch
        .disconnect(&client.switch.id(), reason.clone());
    assert_eq!(server.removed().await, (client.switch.id(), reason.clone()));
    assert_eq!(
        client.removed().await,
        (server.switch.id(), DisconnectReason::ClosedByPeer)
    );
    assert_eq!(
        peer.try_send(OTHER, "".into()),
        Err(SendError::Disconnected)
    );
    // The record is written right after the reactors were told.
    client.stop().await;
    let switch = server.switch.clone();
    server.stop().await;
    let recent = switch.recent_disconnects();
    assert_eq!((recent.len(), &recent[0].reason), (1, &reason));
    assert_eq!(recent[0].reason.to_string(), "test: it lied");
    assert!(switch.peers().is_empty());
}

#[tokio::test]
async fn a_second_connection_of_one_id_is_refused() {
    let key = NodeKey::generate();
    let mut server = Node::start(Options::default()).await;
    let mut first = Node::start(Options {
        key: key.clone(),
        ..Options::default()
    })
    .await;
    let second = Node::start(Options {
        key,
        ..Options::default()
    })
    .await;
    first.switch.dial(&server.address()).await.unwrap();
    first.added().await;
    server.added().await;
    assert_eq!(
        first.switch.dial(&server.address()).await.unwrap_err(),
        RejectReason::DuplicateId
    );
    // The server refuses the other one, which learns by the connection's end.
    let mut second = second;
    if second.switch.dial(&server.address()).await.is_ok() {
        second.added().await;
        assert_eq!(second.removed().await.0, server.switch.id());
    }
    assert_eq!(server.switch.peers().len(), 1);
    for node in [first, second, server] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_does_not_connect_to_itself() {
    let key = NodeKey::generate();
    let node = Node::start(Options {
        key: key.clone(),
        ..Options::default()
    })
    .await;
    assert_eq!(
        node.switch.dial(&node.address()).await.unwrap_err(),
        RejectReason::Myself
    );
    // Nor when somebody with its key comes to it.
    let twin = Node::start(Options {
        key,
        ..Options::default()
    })
    .await;
    let mut raw = TcpStream::connect(node.socket()).await.unwrap();
    assert!(raw.write_all(&[0; 10]).await.is_ok());
    let address = PeerAddress {
        id: NodeKey::generate().id(),
        ..node.address()
    };
    assert!(matches!(
        twin.switch.dial(&address).await.unwrap_err(),
        RejectReason::WrongId { .. }
    ));
    assert!(node.switch.peers().is_empty());
    twin.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn wrong_ids_and_networks_are_refused() {
    let server = Node::start(Options::default()).await;
    let client = Node::start(Options::default()).await;
    let wrong = NodeKey::generate().id();
    assert_eq!(
        client
            .switch
            .dial(&PeerAddress {
                id: wrong,
                ..server.address()
            })
            .await
            .unwrap_err(),
        RejectReason::WrongId {
            dialled: wrong,
            actual: server.switch.id()
        }
    );
    let stranger = Node::start(Options {
        network: "other-chain".to_owned(),
        ..Options::default()
    })
    .await;
    assert_eq!(
        stranger.switch.dial(&server.address()).await.unwrap_err(),
        RejectReason::Incompatible(Incompatible::Network {
            ours: "other-chain".to_owned(),
            theirs: NETWORK.to_owned(),
        })
    );
    for node in [client, stranger, server] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_claimed_id_must_be_that_of_the_key() {
    let server = Node::start(Options::default()).await;
    let mut info = node_info("liar", NETWORK);
    info.id = NodeKey::generate().id().to_string();
    // Dial a listener that answers with another id than its key's.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let key = NodeKey::generate();
    let address = PeerAddress {
        id: key.id(),
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
    };
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut handshake = perihelion_p2p::secret_connection::Handshake::new(
            key.private_key(),
            &info,
            rand::random(),
        );
        let mut buffer = [0; 4096];
        while let Some(bytes) = handshake.poll_transmit() {
            stream.write_all(&bytes).await.unwrap();
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            let _closed_early = handshake.handle_bytes(&buffer[..length]);
        }
        // Until the other side hangs up.
        while stream
            .read(&mut buffer)
            .await
            .is_ok_and(|length| length > 0)
        {}
    };
    let (dialled, ()) = soon("the refusal", async {
        tokio::join!(server.switch.dial(&address), answer)
    })
    .await;
    assert_eq!(
        dialled.unwrap_err(),
        RejectReason::ClaimedId {
            claimed: info.id,
            actual: key.id()
        }
    );
    server.stop().await;
}

#[tokio::test]
async fn garbage_and_low_order_keys_end_the_handshake() {
    let client = Node::start(Options::default()).await;
    let mut low_order = vec![34, 10, 32];
    low_order.extend([0; 32]);
    for (bytes, expected) in [
        (
            vec![0xff; 100],
            HandshakeError::TooLong {
                message: "an ephemeral key",
                bound: 128,
            },
        ),
        (low_order, HandshakeError::LowOrder),
        (vec![2, 10, 0], HandshakeError::EphemeralLength(0)),
        (
            vec![2, 0xff, 0xff],
            HandshakeError::Malformed("an ephemeral key"),
        ),
        (
            [vec![34, 10, 32], vec![9; 32], vec![1; 1044]].concat(),
            FrameError::Authentication.into(),
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = PeerAddress {
            id: NodeKey::generate().id(),
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut buffer = [0; 4096];
            while stream
                .read(&mut buffer)
                .await
                .is_ok_and(|length| length > 0)
            {}
        };
        let (dialled, ()) = soon("the refusal", async {
            tokio::join!(client.switch.dial(&address), answer)
        })
        .await;
        assert_eq!(dialled.unwrap_err(), RejectReason::Handshake(expected));
    }
    client.stop().await;
}

#[tokio::test]
async fn broken_packets_and_frames_cost_the_connection_with_a_reason() {
    let mut server = Node::start(Options::default()).await;
    let bad: [(&str, Vec<u8>); 4] = [
        (
            "a packet of the unknown channel 0x77",
            packet(0x77, true, b"x"),
        ),
        ("a packet of unknown kind", vec![0]),
        ("a malformed packet", vec![2, 0xff, 0xff]),
        (
            "a packet of 16384 bytes, at most 1072 are allowed",
            vec![0x80, 0x80, 1],
        ),
    ];
    for (expected, bytes) in bad {
        let key = NodeKey::generate();
        let info = node_info("raw", NETWORK);
        let mut peer = RawPeer::connect(server.socket(), &key, &info).await;
        server.added().await;
        peer.send(&bytes).await.unwrap();
        let (id, reason) = server.removed().await;
        assert_eq!((id, reason.to_string().as_str()), (key.id(), expected));
        assert!(reason.is_peers_fault());
    }
    let key = NodeKey::generate();
    let mut peer = RawPeer::connect(server.socket(), &key, &node_info("raw", NETWORK)).await;
    server.added().await;
    peer.stream.write_all(&[7; 1044]).await.unwrap();
    assert_eq!(
        server.removed().await.1,
        DisconnectReason::Frame(FrameError::Authentication)
    );
    server.stop().await;
}

#[tokio::test]
async fn a_persistent_peer_is_found_again_after_its_restart() {
    let key = NodeKey::generate();
    let laddr = format!("tcp://127.0.0.1:{}", free_port());
    let at = |laddr: &str| Options {
        key: key.clone(),
        ..loopback(|it| it.laddr = laddr.to_owned())
    };
    let mut server = Node::start(at(&laddr)).await;
    let address = server.address();
    let mut client = Node::start(loopback(|it| it.persistent_peers = vec![address])).await;
    assert!(client.added().await.is_persistent());
    server.added().await;
    server.stop().await;
    assert_eq!(client.removed().await.0, key.id());
    let mut again = Node::start(at(&laddr)).await;
    assert_eq!(client.added().await.id(), key.id());
    again.added().await;
    client.stop().await;
    again.stop().await;
}

/// Tells what it is asked, and refuses what is to be refused.
#[derive(Default)]
struct Filter {
    asked: Mutex<Vec<String>>,
    refused: Mutex<String>,
}

impl Filter {
    fn ask(&self, question: String) -> Result<(), String> {
        let refused = self.refused.lock().unwrap();
        let answer = if question.split(' ').next() == Some(&**refused) {
            Err(format!("not this {refused}"))
        } else {
            Ok(())
        };
        self.asked.lock().unwrap().push(question);
        answer
    }

    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn refuse(&self, what: &str) {
        what.clone_into(&mut self.refused.lock().unwrap());
    }
}

impl PeerFilter for Filter {
    fn filter_address(&self, remote: Remote) -> Result<(), String> {
        self.ask(format!("address {} {}", remote.address, remote.outbound))
    }

    fn filter_node(&self, _: Remote, id: NodeId, info: &NodeInfo) -> Result<(), String> {
        self.ask(format!("node {id} {}", info.moniker))
    }
}

#[tokio::test]
async fn a_filter_is_asked_of_addresses_and_of_nodes_whoever_dialled() {
    let filter = Arc::new(Filter::default());
    let mut judge = Node::start(Options {
        filter: Some(Arc::<Filter>::clone(&filter)),
        ..Options::default()
    })
    .await;
    let mut client = Node::start(Options::default()).await;
    client.switch.dial(&judge.address()).await.unwrap();
    let inbound = judge.added().await;
    let node = |of: &Node| format!("node {} node", of.switch.id());
    let from = format!("address {} false", inbound.remote_address());
    assert_eq!(filter.take_asked(), [from, node(&client)]);
    client.added().await;

    let mut dialled = Node::start(Options::default()).await;
    let judges = judge.switch.clone();
    let dial = |to: &Node| {
        let (switch, to) = (judges.clone(), to.address());
        async move { switch.dial(&to).await }
    };
    dial(&dialled).await.unwrap();
    let to = format!("address {} true", dialled.socket());
    assert_eq!(filter.take_asked(), [to, node(&dialled)]);
    dialled.added().await;
    judge.added().await;

    let outside = Node::start(Options::default()).await;
    let mut refused = Node::start(Options::default()).await;
    for (what, questions) in [("address", 1), ("node", 2)] {
        filter.refuse(what);
        let reason = RejectReason::Filtered(format!("not this {what}"));
        assert_eq!(dial(&outside).await.unwrap_err(), reason);
        assert_eq!(filter.take_asked().len(), questions);
        // Whoever dials may have seen a handshake that it holds for a success.
        if refused.switch.dial(&judge.address()).await.is_ok() {
            assert_eq!(what, "node", "nobody shook hands");
            refused.added().await;
            refused.removed().await;
        }
        assert_eq!(filter.take_asked().len(), questions);
    }
    assert!(
        judge.events.try_recv().is_err(),
        "a refused peer was let in"
    );
    for node in [judge, client, dialled, outside, refused] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_banned_peer_is_kept_away_in_both_directions() {
    let mut server = Node::start(Options::default()).await;
    let mut client = Node::start(Options::default()).await;
    client.switch.dial(&server.address()).await.unwrap();
    client.added().await;
    server.added().await;
    let minute = Duration::from_secs(60);
    server.switch.ban(client.switch.id(), minute, "it lied");
    let banned = DisconnectReason::Banned("it lied".to_owned());
    assert_eq!(server.removed().await, (client.switch.id(), banned));
    client.removed().await;
    if client.switch.dial(&server.address()).await.is_ok() {
        client.added().await;
        client.removed().await;
    }
    assert!(
        server.events.try_recv().is_err(),
        "a banned peer was let in"
    );
    assert_eq!(
        server.switch.dial(&client.address()).await.unwrap_err(),
        RejectReason::Banned("it lied".to_owned())
    );
    client.stop().await;
    server.stop().await;
}
