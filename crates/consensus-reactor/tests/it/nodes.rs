//! Whole nodes but for blocksync: consensus with its log, signer, application and pools, over
//! connections on loopback.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use perihelion_abci::{AppConnections, Application, KvStore, KvStoreOptions};
use perihelion_consensus::{ConsensusConfig, Message, WalMessage};
use perihelion_consensus_reactor::{
    ConsensusError, ConsensusHandle, ConsensusSetup, View, channels,
    privval::{FilePrivval, SignState, ValidatorKey},
    start,
    wal::{Wal, WalOptions},
};
use perihelion_crypto::PrivateKey;
use perihelion_events::EventBus;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::{Mempool, MempoolConfig, TxLimits};
use perihelion_p2p::{
    MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, PeerEvent, PeerHandle,
    ProtocolVersion, RejectReason, Switch, SwitchHandle, SwitchSetup,
};
use perihelion_state::{AppColumn, Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_test_support::copy_folder;
use perihelion_types::{
    Block, ConsensusParams, Genesis, GenesisValidator, Height, Round, RulesByHeight, Time,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(240);
/// Pause between two looks at something that is awaited.
pub(crate) const LOOK: Duration = Duration::from_millis(5);

/// A runtime whose threads wait for one another.
pub(crate) fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never happened"))
}

/// Waits until `check` holds.
pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    soon(what, async {
        while !check() {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
}

pub(crate) fn key(number: usize) -> PrivateKey {
    PrivateKey::ed25519_from_secret(format!("validator {number}").as_bytes())
}

/// A chain whose validators have these powers.
pub(crate) fn genesis(powers: &[i64]) -> Genesis {
    Genesis {
        genesis_time: Time::new(1_700_000_000, 0),
        chain_id: "loopback".to_owned(),
        initial_height: Height::new(1),
        consensus_params: ConsensusParams::default_v038(),
        validators: (0..)
            .zip(powers)
            .map(|(number, power)| GenesisValidator {
                address: key(number).public_key().address(),
                pub_key: key(number).public_key(),
                power: *power,
                name: String::new(),
            })
            .collect(),
        app_hash: Bytes::new(),
        app_state: Bytes::new(),
    }
}

/// Rounds that are quick where all goes well and patient where it does not.
pub(crate) fn quick() -> ConsensusConfig {
    let millis = Duration::from_millis;
    ConsensusConfig {
        timeout_propose: millis(1_000),
        timeout_prevote: millis(300),
        timeout_precommit: millis(300),
        timeout_commit: millis(20),
        skip_timeout_commit: false,
        ..ConsensusConfig::default()
    }
}

/// What outlives a node.
pub(crate) struct Home {
    folder: tempfile::TempDir,
    pub(crate) genesis: Genesis,
    pub(crate) key: Option<ValidatorKey>,
    pub(crate) config: ConsensusConfig,
    pub(crate) executor: ExecutorConfig,
    pub(crate) look_back: u64,
}

/// Where a signature belongs: its height, its round, and 0 for a proposal or the vote's type.
pub(crate) type Place = (Height, Round, i32);

impl Home {
    pub(crate) fn new(genesis: &Genesis, key: Option<PrivateKey>) -> Self {
        let home = Self {
            folder: tempfile::tempdir().unwrap(),
            genesis: genesis.clone(),
            key: key.map(|key| ValidatorKey { key }),
            config: quick(),
            executor: ExecutorConfig::default(),
            look_back: 0,
        };
        SignState::default().save(&home.sign_state()).unwrap();
        home
    }

    /// The homes of all validators.
    pub(crate) fn all(genesis: &Genesis) -> Vec<Self> {
        (0..genesis.validators.len())
            .map(|number| Self::new(genesis, Some(key(number))))
            .collect()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn sign_state(&self) -> PathBuf {
        self.path().join("priv_validator_state.json")
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.path().join("cs.wal").join("wal")
    }

    /// What a loss of power would leave now: what was not synced, or not even handed to the system,
    /// is not in the files.
    pub(crate) fn copied(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(self.path(), folder.path());
        Self {
            folder,
            genesis: self.genesis.clone(),
            key: self.key.clone(),
            config: self.config.clone(),
            executor: self.executor.clone(),
            look_back: self.look_back,
        }
    }

    /// All that the log has since the chain began.
    pub(crate) fn records(&self) -> Vec<WalMessage> {
        let (mut wal, torn) = Wal::open(&self.wal(), WalOptions::default(), Time::ZERO).unwrap();
        assert_eq!(torn, None);
        let all = wal.search_end_height(Height::ZERO).unwrap().unwrap();
        all.map(|entry| entry.unwrap().decode().unwrap()).collect()
    }

    /// This node's own votes and proposals never contradict each other.
    pub(crate) fn assert_signed_once(&self) -> usize {
        self.signed().len()
    }

    /// What the log has of what this node has signed: one thing in each place.
    pub(crate) fn signed(&self) -> BTreeMap<Place, Vec<u8>> {
        let mut signed = BTreeMap::new();
        for record in self.records() {
            let WalMessage::Message {
                peer: None,
                message,
            } = record
            else {
                continue;
            };
            let (step, bytes) = match &message {
                Message::Proposal(proposal) => (0, proposal.sign_bytes("loopback")),
                Message::Vote(vote) => (vote.vote_type.to_i32(), vote.sign_bytes("loopback")),
                Message::Part { .. } => continue,
            };
            let place = (message.height(), message.round(), step);
            let before = signed.entry(place).or_insert_with(|| bytes.clone());
            assert_eq!(*before, bytes, "signed twice at {place:?}");
        }
        signed
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) home: Home,
    pub(crate) store: Arc<Store>,
    pub(crate) mempool: Arc<Mempool>,
    pub(crate) evidence: Arc<EvidencePool>,
    pub(crate) events: EventBus,
    pub(crate) handle: ConsensusHandle,
    pub(crate) switch: SwitchHandle,
    /// While consensus does not have it.
    pub(crate) executor: Option<Executor>,
    stop: CancellationToken,
}

pub(crate) fn kvstore(store: &Arc<Store>) -> Arc<dyn Application> {
    let column = Arc::new(AppColumn::new(Arc::clone(store)));
    Arc::new(KvStore::persistent(column, KvStoreOptions::default()).unwrap())
}

async fn open_store(path: &Path) -> Arc<Store> {
    // The tasks of the node that had it end when they are next polled.
    soon("the store to be free", async {
        loop {
            match Store::open(path, &StoreOptions::default()) {
                Ok(store) => break Arc::new(store),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    })
    .await
}

impl Node {
    /// A node that has not entered consensus.
    pub(crate) async fn open(home: Home) -> Self {
        Self::open_with(home, kvstore).await
    }

    pub(crate) async fn open_with(
        home: Home,
        app: impl FnOnce(&Arc<Store>) -> Arc<dyn Application>,
    ) -> Self {
        let store = open_store(&home.path().join("data")).await;
        let app = AppConnections::in_process(app(&store));
        let (consensus, query) = (app.consensus, app.query);
        let config = home.executor.clone();
        let started = Executor::start(Arc::clone(&store), &home.genesis, consensus, &query, config);
        let executor = started.unwrap();
        let state = executor.state_arc();
        let mempool = Arc::new(Mempool::new(
            MempoolConfig::default(),
            app.mempool,
            state.last_block_height,
            TxLimits::NONE,
        ));
        let rules = RulesByHeight::default();
        let evidence = EvidencePool::open(Arc::clone(&store), state, rules.clone());
        let evidence = Arc::new(evidence.unwrap());
        let (switch, peers) = switch().await;
        let events = EventBus::default();
        let stop = CancellationToken::new();
        let privval = home
            .key
            .clone()
            .map(|key| FilePrivval::open(key, &home.sign_state()).unwrap());
        let setup = ConsensusSetup {
            config: home.config.clone(),
            rules,
            store: Arc::clone(&store),
            mempool: Arc::clone(&mempool),
            evidence: Arc::clone(&evidence),
            events: events.clone(),
            privval,
            wal_file: home.wal(),
            double_sign_check_height: home.look_back,
            own_id: switch.id(),
            gossip_sleep: Duration::from_millis(100),
            maj23_sleep: Duration::from_millis(500),
        };
        let handle = start(setup, peers, stop.clone()).unwrap();
        Self {
            home,
            store,
            mempool,
            evidence,
            events,
            handle,
            switch,
            executor: Some(executor),
            stop,
        }
    }

    /// A node in consensus.
    pub(crate) async fn begin(home: Home) -> Self {
        let mut node = Self::open(home).await;
        node.enter().await;
        node
    }

    pub(crate) async fn try_enter(&mut self) -> Result<(), ConsensusError> {
        let executor = self.executor.take().unwrap();
        soon("consensus to begin", self.handle.enter(executor)).await
    }

    pub(crate) async fn enter(&mut self) {
        self.try_enter().await.unwrap();
    }

    pub(crate) async fn leave(&mut self) {
        let left = soon("consensus to be left", self.handle.leave()).await;
        self.executor = Some(left.unwrap());
    }

    pub(crate) async fn connect(&self, to: &Self) -> PeerHandle {
        dial(&self.switch, &to.switch).await
    }

    /// Waits until consensus has applied `height`.
    pub(crate) async fn reach(&self, height: i64) {
        let mut decided = self.handle.decided();
        let is_there = |state: &Option<Arc<perihelion_types::State>>| {
            let applied = state.as_ref().map(|state| state.last_block_height);
            applied >= Some(Height::new(height))
        };
        let what = format!("height {height}");
        soon(&what, async {
            tokio::select! {
                reached = decided.wait_for(is_there) => drop(reached.unwrap()),
                ended = self.handle.ended() => panic!("consensus has ended: {ended}"),
            }
        })
        .await;
    }

    /// The same, while those that have disconnected are dialled again, as persistent peers are.
    pub(crate) async fn reach_dialling(&self, height: i64, others: &[Self]) {
        soon("a height, with peers that are dialled", async {
            loop {
                for other in others {
                    drop(try_dial(&self.switch, &other.switch).await);
                }
                tokio::select! {
                    () = self.reach(height) => break,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        })
        .await;
    }

    /// Waits until the node is in consensus and `check` holds of it.
    pub(crate) async fn see(&self, what: &str, check: impl Fn(&View) -> bool) -> Arc<View> {
        let mut view = self.handle.view();
        soon(what, async {
            let seen = view
                .wait_for(|view| view.as_ref().is_some_and(|view| check(view)))
                .await;
            Arc::clone(seen.unwrap().as_ref().unwrap())
        })
        .await
    }

    pub(crate) fn block(&self, height: i64) -> Block {
        self.store.load_block(Height::new(height)).unwrap().unwrap()
    }

    /// Whether validator `number` has signed the commit for `height`, which must not be the last.
    pub(crate) fn has_signed(&self, number: usize, height: i64) -> bool {
        let commit = self
            .store
            .load_commit(Height::new(height))
            .unwrap()
            .unwrap();
        let address = key(number).public_key().address();
        commit
            .signatures
            .iter()
            .any(|place| place.validator_address[..] == address.as_bytes()[..])
    }

    /// Has the node stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops the node at once, wherever it is.
    pub(crate) async fn close(self) -> Home {
        self.stop();
        let ended = soon("consensus to end", self.handle.ended()).await;
        assert!(matches!(ended, ConsensusError::Stopped), "{ended}");
        soon("the switch to stop", self.switch.shutdown()).await;
        self.home
    }
}

/// Nodes in consensus, each connected to every other one.
pub(crate) async fn mesh(homes: Vec<Home>) -> Vec<Node> {
    let nodes = begin_all(homes).await;
    connect_all(&nodes).await;
    nodes
}

/// Nodes in consensus, of which none knows another: nothing is decided while the last begins.
pub(crate) async fn begin_all(homes: Vec<Home>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for home in homes {
        nodes.push(Node::begin(home).await);
    }
    nodes
}

/// Connects each to every other one.
pub(crate) async fn connect_all(nodes: &[Node]) {
    for (number, node) in nodes.iter().enumerate() {
        for other in &nodes[..number] {
            node.connect(other).await;
        }
    }
}

pub(crate) async fn close_all(nodes: Vec<Node>) -> Vec<Home> {
    let mut homes = Vec::new();
    for node in nodes {
        assert_eq!(node.evidence.size(), 0, "somebody signed twice");
        homes.push(node.close().await);
    }
    homes
}

pub(crate) async fn assert_same_chain(nodes: &[Node], height: i64) {
    for node in nodes {
        node.reach(height).await;
    }
    for at in 1..=height {
        let first = nodes[0].block(at).hash();
        for node in nodes {
            assert_eq!(node.block(at).hash(), first, "at {at}");
        }
    }
}

pub(crate) async fn switch() -> (SwitchHandle, mpsc::Receiver<PeerEvent>) {
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
            network: "loopback".to_owned(),
            version: "0.38.25".to_owned(),
            channels: Bytes::new(),
            moniker: "test".to_owned(),
            tx_index: "on".to_owned(),
            rpc_address: String::new(),
        },
        reactors: vec![("consensus", channels())],
        filter: None,
    })
    .await
    .unwrap();
    (switch, events.pop().unwrap())
}

pub(crate) async fn dial(from: &SwitchHandle, to: &SwitchHandle) -> PeerHandle {
    soon("a connection", try_dial(from, to)).await.unwrap()
}

pub(crate) async fn try_dial(
    from: &SwitchHandle,
    to: &SwitchHandle,
) -> Result<PeerHandle, RejectReason> {
    let address = to.listen_address().unwrap();
    let address = PeerAddress {
        id: to.id(),
        host: address.ip().to_string(),
        port: address.port(),
    };
    from.dial(&address).await
}
