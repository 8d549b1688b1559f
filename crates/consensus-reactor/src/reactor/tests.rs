//! Peers that are too slow for what happens, and peers that say nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::Future,
    time::{Duration, Instant},
};

use perihelion_abci::{AppConnections, KvStore, KvStoreOptions};
use perihelion_consensus::{Announce, Consensus, ConsensusConfig, LastCommit, Now, Start, Step};
use perihelion_crypto::PrivateKey;
use perihelion_events::EventBus;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::{Mempool, MempoolConfig, TxLimits};
use perihelion_p2p::{
    MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, ProtocolVersion, SendError,
    Switch, SwitchHandle, SwitchSetup,
};
use perihelion_state::{Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_types::{
    BlockId, BlockIdFlag, Commit, CommitSig, ConsensusParams, Genesis, GenesisValidator, Height,
    Part, PartSet, Round, Rules, RulesByHeight, SignedMsgType, Time, Vote,
};

use super::*;
use crate::{
    ConsensusSetup,
    peer::{View, VotesView},
    shared::{CLAIM_QUEUE, CORE_QUEUE, NEWS_QUEUE, lock},
    wire::{NewRoundStep, PeerMessage},
};

/// Far longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(240);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never happened"))
}

/// A switch on loopback that knows no limit of bytes a second.
async fn switch() -> (SwitchHandle, mpsc::Receiver<PeerEvent>) {
    let (switch, mut events) = Switch::start(SwitchSetup {
        config: P2pConfig {
            laddr: "tcp://127.0.0.1:0".to_owned(),
            allow_duplicate_ip: true,
            send_rate: 0,
            recv_rate: 0,
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
            network: "news".to_owned(),
            version: "0.38.25".to_owned(),
            channels: Bytes::new(),
            moniker: "test".to_owned(),
            tx_index: "on".to_owned(),
            rpc_address: String::new(),
        },
        reactors: vec![("consensus", crate::channels())],
        filter: None,
    })
    .await
    .unwrap();
    (switch, events.pop().unwrap())
}

/// A reactor whose state machine is driven by the test.
struct Node {
    switch: SwitchHandle,
    shared: Arc<Shared>,
    core: Consensus,
    now: Now,
    stop: CancellationToken,
    /// The lowest stored block, as is said.
    base: Height,
    /// News that were told.
    told: i32,
    _folder: tempfile::TempDir,
    _to_core: mpsc::Receiver<crate::shared::FromPeer>,
    _claims: mpsc::Receiver<crate::shared::Claim>,
}

impl Node {
    /// At the first height of a chain.
    async fn start() -> Self {
        Self::at(Height::new(1)).await
    }

    /// At `height`, with all blocks below, as far as is said.
    async fn at(height: Height) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("data"), &StoreOptions::default());
        let store = Arc::new(store.unwrap());
        let pub_key = PrivateKey::ed25519_from_secret(b"validator").public_key();
        let genesis = Genesis {
            genesis_time: Time::new(1_700_000_000, 0),
            chain_id: "news".to_owned(),
            initial_height: height,
            consensus_params: ConsensusParams::default_v038(),
            validators: vec![GenesisValidator {
                address: pub_key.address(),
                pub_key,
                power: 10,
                name: String::new(),
            }],
            app_hash: Bytes::new(),
            app_state: Bytes::new(),
        };
        let app = Arc::new(KvStore::in_memory(KvStoreOptions::default()));
        let app = AppConnections::in_process(app);
        let (consensus, config) = (app.consensus, ExecutorConfig::default());
        let executor = Executor::start(Arc::clone(&store), &genesis, consensus, &app.query, config);
        let state = executor.unwrap().state_arc();
        let mempool = Mempool::new(
            MempoolConfig::default(),
            app.mempool,
            Height::ZERO,
            TxLimits::NONE,
        );
        let rules = RulesByHeight::default();
        let evidence = EvidencePool::open(Arc::clone(&store), Arc::clone(&state), rules.clone());
        let (switch, events) = switch().await;
        let setup = ConsensusSetup {
            config: ConsensusConfig::default(),
            rules,
            store,
            mempool: Arc::new(mempool),
            evidence: Arc::new(evidence.unwrap()),
            events: EventBus::default(),
            privval: None,
            wal_file: folder.path().join("wal"),
            double_sign_check_height: 0,
            own_id: switch.id(),
            gossip_sleep: Duration::from_millis(1),
            maj23_sleep: Duration::from_millis(500),
        };
        let (to_core, _to_core) = mpsc::channel(CORE_QUEUE);
        let (claims, _claims) = mpsc::channel(CLAIM_QUEUE);
        let mut shared = Shared::new(&setup, to_core, claims);
        shared.initial_height = Height::new(1);
        let shared = Arc::new(shared);
        let now = Now {
            instant: Instant::now(),
            time: genesis.genesis_time,
        };
        let start = Start {
            state,
            rules: Rules::V038,
            own_key: None,
            last_commit: LastCommit::None,
            last_header_app_hash: None,
        };
        let mut core = Consensus::new(now, ConsensusConfig::default(), start).unwrap();
        core.start(now);
        let stop = CancellationToken::new();
        tokio::spawn(run(Arc::clone(&shared), events, stop.clone()));
        let mut node = Self {
            switch,
            shared,
            core,
            now,
            stop,
            base: Height::new(i64::from(height > Height::new(1))),
            told: 0,
            _folder: folder,
            _to_core,
            _claims,
        };
        node.show();
        node
    }

    /// Shows peers' tasks where the state machine is.
    fn show(&mut self) -> Step {
        while self.core.poll_effect().is_some() {}
        let view = View::of(&self.core, self.base, None);
        self.shared.show(Arc::new(view));
        self.core.step()
    }

    /// The block of `height` is decided, by one precommit.
    fn decide(&self, height: Height, parts: &Arc<PartSet>) {
        let commit = Commit {
            height,
            round: Round::ZERO,
            block_id: BlockId {
                part_set_header: parts.header(),
                ..BlockId::NIL
            },
            signatures: vec![CommitSig {
                block_id_flag: BlockIdFlag::Commit,
                validator_address: Bytes::from_static(&[1; 20]),
                timestamp: Time::ZERO,
                signature: Bytes::from_static(&[2; 64]),
            }],
        };
        let commit = VotesView::of_commit(&commit);
        let parts = Some(Arc::clone(parts));
        self.shared.stored.decided(height, parts, commit);
    }

    /// The state machine waits in vain, and goes on to its next step.
    fn go_on(&mut self) -> Step {
        let before = self.core.step();
        while self.core.step() == before {
            self.now.instant = self.core.poll_deadline().unwrap();
            self.core.handle_deadline(self.now);
            while self.core.poll_effect().is_some() {}
        }
        self.show()
    }

    /// Tells all peers of the next vote, each of another validator, with the next view.
    fn announce(&mut self) {
        let vote = Vote {
            vote_type: SignedMsgType::Prevote,
            height: Height::new(1),
            round: Round::ZERO,
            block_id: BlockId::NIL,
            timestamp: Time::ZERO,
            validator_address: Bytes::from_static(&[1; 20]),
            validator_index: self.told,
            signature: Bytes::from_static(&[2; 64]),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        self.shared.announce(&Announce::Vote(Arc::new(vote)));
        self.told += 1;
    }
}

/// What a peer hears on the channel that tells of states.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Step(Step),
    Vote(i32),
}

struct Listener {
    switch: SwitchHandle,
    events: mpsc::Receiver<PeerEvent>,
}

impl Listener {
    async fn connect(node: &Node) -> Self {
        let (switch, events) = switch().await;
        let address = node.switch.listen_address().unwrap();
        let address = PeerAddress {
            id: node.switch.id(),
            host: address.ip().to_string(),
            port: address.port(),
        };
        soon("a connection", switch.dial(&address)).await.unwrap();
        let mut listener = Self { switch, events };
        assert_eq!(listener.hear().await, Heard::Step(Step::NewHeight));
        listener
    }

    /// Says where it is; nothing else is known of it.
    fn tell(&self, node: &Node, height: Height, step: Step) {
        let peer = self.switch.peer(&node.switch.id()).unwrap();
        let message = PeerMessage::NewRoundStep(step_of(height, step));
        peer.try_send(message.channel().id(), message.encode())
            .unwrap();
    }

    /// The first part of a block that it is sent.
    async fn part(&mut self) -> (Height, Arc<Part>) {
        soon("a part", async {
            loop {
                let event = self.events.recv().await.expect("the switch runs");
                let PeerEvent::Message { channel, bytes, .. } = event else {
                    continue;
                };
                if channel == Channel::Data.id() {
                    let message = PeerMessage::decode_on(Channel::Data, &bytes, Rules::V038);
                    match message.unwrap().unwrap() {
                        PeerMessage::Part { height, part, .. } => return (height, part),
                        other => panic!("{other:?}"),
                    }
                }
            }
        })
        .await
    }

    async fn hear(&mut self) -> Heard {
        soon("news", async {
            loop {
                match self.events.recv().await.expect("the switch runs") {
                    PeerEvent::Message { channel, bytes, .. } if channel == Channel::State.id() => {
                        let message = PeerMessage::decode_on(Channel::State, &bytes, Rules::V038);
                        match message.unwrap().unwrap() {
                            PeerMessage::NewRoundStep(step) => return Heard::Step(step.step),
                            PeerMessage::HasVote(vote) => return Heard::Vote(vote.index),
                            other => panic!("{other:?}"),
                        }
                    }
                    PeerEvent::Message { .. } | PeerEvent::Added(_) => {}
                    PeerEvent::Removed { reason, .. } => panic!("disconnected: {reason}"),
                }
            }
        })
        .await
    }
}

fn step_of(height: Height, step: Step) -> NewRoundStep {
    NewRoundStep {
        height,
        round: Round::ZERO,
        step,
        seconds_since_start_time: 0,
        last_commit_round: Round::new(if height > Height::new(1) { 0 } else { -1 }),
    }
}

fn block() -> Arc<PartSet> {
    Arc::new(PartSet::from_data(Bytes::from_static(b"a small block")))
}

/// Sends a peer so much that its queue is full, if it does not read.
fn fill(peer: &PeerHandle) {
    let junk = Bytes::from(vec![0; 64 << 10]);
    loop {
        match peer.try_send(Channel::Data.id(), junk.clone()) {
            Ok(()) => {}
            Err(SendError::Full(_)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Rule: what waits for a peer that reads nothing is bounded, and others hear all news meanwhile. Once
/// it reads again it is told where this node is, and what happens from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_too_slow_for_news_is_told_the_place_instead_and_delays_nobody() {
    let mut node = Node::start().await;
    let mut slow = Listener::connect(&node).await;
    let mut quick = Listener::connect(&node).await;
    let handle = node.switch.peer(&slow.switch.id()).unwrap();
    // Until nothing more goes to the slow one, while more happens than its task may be behind.
    loop {
        fill(&handle);
        let before = handle.stats().sent.bytes;
        for _ in 0..8 {
            let first = node.told;
            (0..NEWS_QUEUE / 4).for_each(|_| node.announce());
            node.show();
            for number in first..node.told {
                assert_eq!(quick.hear().await, Heard::Vote(number));
            }
        }
        let stats = handle.stats();
        for channel in &stats.channels {
            assert!(channel.send_queue_size <= channel.send_queue_capacity);
        }
        assert!(stats.queued_bytes < 2 << 20, "{}", stats.queued_bytes);
        assert!(node.shared.news.len() <= NEWS_QUEUE);
        if stats.sent.bytes == before {
            break;
        }
    }
    let number = node.told;
    node.announce();
    assert_eq!(node.go_on(), Step::Propose);
    assert_eq!(quick.hear().await, Heard::Vote(number));
    let (mut next, mut has_place) = (0, true);
    loop {
        match slow.hear().await {
            Heard::Step(Step::Propose) => break,
            Heard::Step(_) => has_place = true,
            Heard::Vote(number) => {
                let follows = number == next || (number > next && has_place);
                assert!(follows, "{number} after {next}");
                (next, has_place) = (number + 1, false);
            }
        }
    }
    assert!(node.told - next > 1024, "{next} of {} were told", node.told);
    // Its task has caught up with the news that there are.
    soon("the news to be forgotten", async {
        while !node.shared.news.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The place was perhaps told too early, so it is told again with the next step.
    let number = node.told;
    node.announce();
    let step = node.go_on();
    assert_ne!(step, Step::Propose);
    assert_eq!(slow.hear().await, Heard::Step(step));
    for listener in [&mut slow, &mut quick] {
        assert_eq!(listener.hear().await, Heard::Vote(number));
    }
    assert!(node.switch.recent_disconnects().is_empty());
    node.stop.cancel();
}

/// Rule: a peer that lags and does not say what it collects is looked at by the clock, whatever else
/// happens: it gets the block that was decided.
#[tokio::test]
async fn a_peer_that_lags_and_says_nothing_more_gets_the_block_after_a_while() {
    let node = Node::at(Height::new(3)).await;
    let parts = block();
    node.decide(Height::new(1), &parts);
    let mut silent = Listener::connect(&node).await;
    silent.tell(&node, Height::new(1), Step::Propose);
    let (height, part) = silent.part().await;
    assert_eq!(height, Height::new(1));
    assert_eq!(Some(&*part), parts.part(0));
    node.stop.cancel();
}

/// Until what is loaded for the peer is there, or cannot be had.
async fn is_loaded(task: &mut Gossip) {
    let mut load = task.load.take().expect("something is loaded");
    soon("a load", async { while load.changed().await.is_ok() {} }).await;
}

/// Rule: for a peer that lacks nothing no thread is woken by the clock. One that lags is looked at
/// until it says what it collects, and what was loaded in vain is asked for again.
#[tokio::test]
async fn only_a_peer_that_may_lack_something_is_looked_at_by_the_clock() {
    let node = Node::at(Height::new(3)).await;
    let listener = Listener::connect(&node).await;
    let (one, here) = (Height::new(1), Height::new(3));
    let task = |height: Height, step: Step| {
        let id = listener.switch.id();
        let state = PeerState::new(&node.shared.own_id, &id, one);
        let peer = Arc::new(Peer::new(node.switch.peer(&id).unwrap(), state));
        let place = PeerMessage::NewRoundStep(step_of(height, step));
        let taken = lock(&peer.state).handle(Instant::now(), None, &place);
        taken.unwrap();
        let (_, incoming) = mpsc::channel(1);
        Gossip::new(Arc::clone(&node.shared), peer, incoming)
    };
    assert!(!task(here, Step::Propose).gossip(false));
    assert!(!task(Height::new(4), Step::Propose).gossip(false));
    // It may collect another block than the one that was decided.
    assert!(task(Height::new(2), Step::Propose).gossip(false));
    // It has seen a commit, and collects the block. There is none here.
    let mut lagging = task(Height::new(2), Step::Commit);
    assert!(!lagging.gossip(false));
    // The commit is to be loaded, and is not there.
    let mut lagging = task(one, Step::Commit);
    assert!(lagging.gossip(false));
    is_loaded(&mut lagging).await;
    assert!(lagging.gossip(false));
    // By the clock it is asked for again.
    assert!(lagging.gossip(true));
    is_loaded(&mut lagging).await;
    node.decide(one, &block());
    assert!(!lagging.gossip(true));
    node.stop.cancel();
}
