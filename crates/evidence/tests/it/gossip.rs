//! Evidence between nodes.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use perihelion_evidence::{EvidencePool, EvidenceReactor, channel, wire};
use perihelion_p2p::{
    ChannelDescriptor, MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, PeerEvent,
    PeerHandle, ProtocolVersion, Switch, SwitchHandle, SwitchSetup,
};
use perihelion_store::StoreError;
use perihelion_types::{Evidence, Height, PeerId, Rules};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::node::{Node, heights_with_evidence};

/// Far longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(240);
/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(5);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never happened"))
}

async fn until(what: &str, check: impl Fn() -> bool) {
    soon(what, async {
        while !check() {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
}

async fn switch(channel: ChannelDescriptor) -> (SwitchHandle, mpsc::Receiver<PeerEvent>) {
    let (switch, mut events) = Switch::start(SwitchSetup {
        config: P2pConfig {
            laddr: "tcp://127.0.0.1:0".to_owned(),
            allow_duplicate_ip: true,
            ..P2pConfig::default()
        },
        connection: MConnectionConfig::default(),
        node_key: NodeKey::generate(),
        node_info: NodeInfo {
            protocol_version: ProtocolVersion {
                p2p: 8,
                block: 11,
                app: 0,
            },
            id: String::new(),
            listen_addr: "tcp://127.0.0.1:0".to_owned(),
            network: "test-chain".to_owned(),
            version: "0.38.25".to_owned(),
            channels: Bytes::new(),
            moniker: "test".to_owned(),
            tx_index: "on".to_owned(),
            rpc_address: String::new(),
        },
        reactors: vec![("evidence", vec![channel])],
        filter: None,
    })
    .await
    .unwrap();
    (switch, events.pop().unwrap())
}

async fn dial(from: &SwitchHandle, to: &SwitchHandle) -> PeerHandle {
    let address = to.listen_address().unwrap();
    let address = PeerAddress {
        id: to.id(),
        host: address.ip().to_string(),
        port: address.port(),
    };
    soon("a connection", from.dial(&address)).await.unwrap()
}

/// What a test says of peers' heights; those it says nothing of are far enough.
type Heights = Arc<Mutex<HashMap<PeerId, i64>>>;

struct Running {
    pool: Arc<EvidencePool>,
    switch: SwitchHandle,
    heights: Heights,
    active: watch::Sender<bool>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), StoreError>>,
    _node: Node,
}

impl Running {
    async fn start(node: Node) -> Self {
        let pool = Arc::new(node.pool());
        let heights = Heights::default();
        let told = Arc::clone(&heights);
        let here = node.height() + 1;
        let tell = move |peer: &PeerId| {
            let heights = told.lock().unwrap();
            Some(Height::new(heights.get(peer).copied().unwrap_or(here)))
        };
        let (switch, events) = switch(channel()).await;
        let (active, is_active) = watch::channel(true);
        let reactor = EvidenceReactor::new(Arc::clone(&pool), Arc::new(tell), is_active);
        let stop = CancellationToken::new();
        let ended = tokio::spawn(reactor.run(events, stop.clone()));
        Self {
            pool,
            switch,
            heights,
            active,
            stop,
            ended,
            _node: node,
        }
    }

    async fn removal(&self, peer: PeerId) -> String {
        soon("the disconnect", async {
            loop {
                let recent = self.switch.recent_disconnects();
                if let Some(gone) = recent.into_iter().find(|gone| gone.id == peer) {
                    return gone.reason.to_string();
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
    }

    async fn stop(self) {
        self.stop.cancel();
        soon("the reactor to end", self.ended)
            .await
            .unwrap()
            .unwrap();
        soon("the switch to stop", self.switch.shutdown()).await;
    }
}

struct Peer {
    switch: SwitchHandle,
    events: mpsc::Receiver<PeerEvent>,
    node: PeerHandle,
}

impl Peer {
    async fn connect(to: &Running) -> Self {
        let (switch, events) = switch(channel()).await;
        let node = dial(&switch, &to.switch).await;
        Self {
            switch,
            events,
            node,
        }
    }

    async fn send(&self, message: Bytes) {
        soon("room", self.node.send(wire::CHANNEL, message))
            .await
            .unwrap();
    }

    async fn receive(&mut self) -> Vec<Evidence> {
        soon("evidence", async {
            loop {
                match self.events.recv().await.expect("the switch runs") {
                    PeerEvent::Message { bytes, .. } => {
                        return wire::decode(&bytes, Rules::V038).unwrap();
                    }
                    PeerEvent::Added(_) => {}
                    PeerEvent::Removed { reason, .. } => panic!("disconnected: {reason}"),
                }
            }
        })
        .await
    }
}

/// A node right below the first block with evidence, and that evidence.
fn below_evidence() -> (Node, Vec<Evidence>) {
    let height = heights_with_evidence()[0];
    let node = Node::at(height - 1);
    let evidence = node.evidence(height);
    (node, evidence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vector_evidence_reaches_every_node() {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Running::start(below_evidence().0).await);
    }
    // A line: what reaches the last has gone through the middle.
    dial(&nodes[0].switch, &nodes[1].switch).await;
    dial(&nodes[1].switch, &nodes[2].switch).await;
    let (_, evidence) = below_evidence();
    for one in &evidence {
        nodes[0].pool.add(one.clone()).unwrap();
    }
    until("it at the last", || nodes[2].pool.size() == evidence.len()).await;
    let all = nodes[0].pool.pending_evidence(-1);
    assert_eq!(nodes[2].pool.pending_evidence(-1), all);
    let peers: Vec<_> = nodes.iter().map(|it| it.switch.peers().len()).collect();
    assert_eq!(peers, [1, 2, 1]);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vector_evidence_waits_for_peers_that_lack_its_blocks() {
    let (node, evidence) = below_evidence();
    let running = Running::start(node).await;
    let first = evidence[0].clone();
    let mut behind = Peer::connect(&running).await;
    let id = behind.switch.id();
    running
        .heights
        .lock()
        .unwrap()
        .insert(id, first.height().get());
    running.pool.add(first.clone()).unwrap();
    let mut ahead = Peer::connect(&running).await;
    assert_eq!(ahead.receive().await, std::slice::from_ref(&first));
    assert!(!matches!(
        behind.events.try_recv(),
        Ok(PeerEvent::Message { .. })
    ));
    running
        .heights
        .lock()
        .unwrap()
        .insert(id, first.height().get() + 2);
    assert_eq!(behind.receive().await, std::slice::from_ref(&first));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vector_evidence_of_liars_disconnects_and_that_of_others_does_not() {
    let (node, evidence) = below_evidence();
    let last = *heights_with_evidence().last().unwrap();
    let ahead = node.evidence(last);
    let running = Running::start(node).await;
    // What we cannot judge, what we know, and nothing at all: from an honest peer.
    let honest = Peer::connect(&running).await;
    for one in &ahead {
        honest.send(wire::encode(one)).await;
    }
    honest.send(Bytes::new()).await;
    for _ in 0..2 {
        honest.send(wire::encode(&evidence[0])).await;
    }
    until("the valid one", || running.pool.size() == 1).await;
    let mut forged = evidence[0].clone();
    match &mut forged {
        Evidence::DuplicateVote(votes) => votes.vote_a.signature = Bytes::from_static(&[1; 64]),
        Evidence::LightClientAttack(attack) => attack.total_voting_power += 1,
    }
    for (message, why) in [
        (wire::encode(&forged), "evidence: "),
        (wire::encode(&evidence[0]).slice(..40), "evidence: "),
        (Bytes::from_static(&[0x0a, 0x00]), "evidence: "),
        (Bytes::from_static(b"\xff\xff\xff"), "evidence: "),
    ] {
        let liar = Peer::connect(&running).await;
        liar.send(message).await;
        let reason = running.removal(liar.switch.id()).await;
        assert!(reason.starts_with(why), "{reason}");
    }
    assert!(running.switch.peer(&honest.switch.id()).is_some());
    assert_eq!(running.pool.size(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vector_evidence_is_neither_taken_nor_given_while_syncing() {
    let (node, evidence) = below_evidence();
    let running = Running::start(node).await;
    running.active.send_replace(false);
    let mut peer = Peer::connect(&running).await;
    // A lie is not even read.
    peer.send(Bytes::from_static(b"\xff\xff\xff")).await;
    running.pool.add(evidence[0].clone()).unwrap();
    let mut other = Peer::connect(&running).await;
    running.active.send_replace(true);
    assert_eq!(other.receive().await, evidence[..1]);
    assert_eq!(peer.receive().await, evidence[..1]);
    running.stop().await;
}
