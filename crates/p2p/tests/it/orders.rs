//! Peers that are dialled because an operator wants it.

use perihelion_p2p::{DialOrder, DisconnectReason, OrderError, PeerAddress, SwitchHandle};

use crate::util::{Node, Options};

fn to(peers: Vec<PeerAddress>) -> DialOrder {
    DialOrder {
        peers,
        persistent: false,
        unconditional: false,
    }
}

/// Gives an order from a thread that knows nothing of the switch's.
fn order(switch: &SwitchHandle, order: DialOrder) -> Result<(), OrderError> {
    let switch = switch.clone();
    let ordered = std::thread::spawn(move || switch.order_dials(order));
    ordered.join().unwrap()
}

#[tokio::test]
async fn all_of_an_order_are_dialled_and_who_does_not_answer_harms_nobody() {
    let mut node = Node::start(Options::default()).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Node::start(Options::default()).await);
    }
    let mut peers: Vec<_> = others.iter().map(Node::address).collect();
    // Nobody is there, it is the node itself, and a name that nobody has.
    let mut gone = peers[0].clone();
    gone.id = "ab".repeat(20).parse().unwrap();
    gone.port = 1;
    let mut nameless = gone.clone();
    nameless.host = "no host".to_owned();
    peers.splice(0..0, [gone, node.address(), nameless]);
    order(&node.switch, to(peers)).unwrap();
    let mut expected: Vec<_> = others.iter().map(|other| other.switch.id()).collect();
    expected.sort_unstable();
    let mut added = Vec::new();
    for _ in &others {
        let peer = node.added().await;
        assert!(peer.is_outbound() && !peer.is_persistent());
        added.push(peer.id());
    }
    added.sort_unstable();
    assert_eq!(added, expected);
    node.stop().await;
}

#[tokio::test]
async fn who_is_made_persistent_is_dialled_again() {
    let mut node = Node::start(Options::default()).await;
    let mut other = Node::start(Options::default()).await;
    let wanted = DialOrder {
        persistent: true,
        ..to(vec![other.address()])
    };
    order(&node.switch, wanted.clone()).unwrap();
    for _ in 0..2 {
        assert!(node.added().await.is_persistent());
        let back = other.added().await;
        // It is so already.
        order(&node.switch, wanted.clone()).unwrap();
        other
            .switch
            .disconnect(&back.id(), DisconnectReason::Shutdown);
        let (id, _) = node.removed().await;
        assert_eq!(id, other.switch.id());
        other.removed().await;
    }
    node.added().await;
    node.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn who_is_made_unconditional_is_let_in_though_all_places_are_taken() {
    let mut options = Options::default();
    options.config.max_num_inbound_peers = 0;
    let mut node = Node::start(options).await;
    let other = Node::start(Options::default()).await;
    // It cannot be dialled, and dials by itself.
    let mut address = other.address();
    address.port = 1;
    let wanted = DialOrder {
        unconditional: true,
        ..to(vec![address])
    };
    order(&node.switch, wanted).unwrap();
    other.switch.dial(&node.address()).await.unwrap();
    let peer = node.added().await;
    assert_eq!((peer.id(), peer.is_outbound()), (other.switch.id(), false));
    node.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn orders_are_bounded() {
    let node = Node::start(Options::default()).await;
    let address = node.address();
    let too_many = to(vec![address.clone(); 1001]);
    let refused = order(&node.switch, too_many).unwrap_err();
    assert_eq!(refused, OrderError::Dials(1000));
    let named = |count: u32| DialOrder {
        persistent: true,
        peers: (1..=count)
            .map(|number| {
                let mut address = address.clone();
                address.id = format!("{number:040x}").parse().unwrap();
                address.port = 1;
                address
            })
            .collect(),
        unconditional: false,
    };
    order(&node.switch, named(999)).unwrap();
    order(&node.switch, named(1000)).unwrap();
    let mut one_more = named(1000).peers;
    one_more[0].id = "f".repeat(40).parse().unwrap();
    let one_more = DialOrder {
        persistent: true,
        ..to(one_more)
    };
    assert_eq!(order(&node.switch, one_more), Err(OrderError::Named(1000)));
    node.stop().await;
}
