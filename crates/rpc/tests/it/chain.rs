//! A server with the chain of the vectors.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Instant,
};

use perihelion_abci::{AppConnections, KvStore, KvStoreOptions};
use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{Consensus, ConsensusConfig, LastCommit, Now, Start};
use perihelion_consensus_reactor::peer::{PeerState, View};
use perihelion_events::EventBus;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::{Mempool, MempoolConfig, TxLimits};
use perihelion_p2p::{DialOrder, FlowStatus, NodeInfo, OrderError, PeerStats, ProtocolVersion};
use perihelion_proto::tendermint::types as pb;
use perihelion_rpc::{
    ConsensusView, DisconnectView, NetworkView, PeerRoundView, PeerView, RpcAddress, RpcConfig,
    RpcContext, RpcServer, serve,
};
use perihelion_schedule::{Mode, Progress, TargetSource};
use perihelion_state::{AppColumn, Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_test_support::{Hex, load_lines, read};
use perihelion_types::{
    Commit, ConsensusParams, FetchedBlock, Genesis, Height, PeerId, PublicKey, Rules,
    RulesByHeight, State, Time, genesis::GenesisDefaults,
};
use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Of a line of the chain only what replaying needs; the chain's own tests read all of it.
#[derive(Deserialize)]
struct Line {
    block: Hex,
    seen_commit: Hex,
}

/// Answers of p2p that do not change.
pub(crate) struct FixedNetwork {
    pub(crate) node_info: NodeInfo,
    pub(crate) peers: Vec<NodeInfo>,
    /// Who was to be dialled.
    pub(crate) orders: Arc<Mutex<Vec<DialOrder>>>,
}

impl NetworkView for FixedNetwork {
    fn node_info(&self) -> NodeInfo {
        self.node_info.clone()
    }

    fn is_listening(&self) -> bool {
        true
    }

    fn peers(&self) -> Vec<PeerView> {
        let flow = FlowStatus {
            duration: std::time::Duration::ZERO,
            idle: std::time::Duration::ZERO,
            bytes: 0,
            samples: 0,
            inst_rate: 0,
            cur_rate: 0,
            avg_rate: 0,
            peak_rate: 0,
        };
        let view = |info: &NodeInfo| PeerView {
            node_info: info.clone(),
            is_outbound: false,
            remote_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            stats: PeerStats {
                connected_for: std::time::Duration::ZERO,
                sent: flow,
                received: flow,
                queued_bytes: 0,
                held: false,
                large_bytes: 0,
                arrival: None,
                channels: vec![perihelion_p2p::ChannelStats {
                    id: 0x40,
                    send_queue_capacity: 1000,
                    send_queue_size: 0,
                    priority: 5,
                    recently_sent: 9,
                }],
            },
        };
        self.peers.iter().map(view).collect()
    }

    fn recent_disconnects(&self) -> Vec<DisconnectView> {
        Vec::new()
    }

    fn dial(&self, order: DialOrder) -> Result<(), OrderError> {
        self.orders.lock().unwrap().push(order);
        Ok(())
    }
}

/// Consensus that stands still, at the height behind the last block.
struct FixedConsensus {
    view: Arc<View>,
    peer: PeerRoundView,
}

impl FixedConsensus {
    fn new(store: &Store, state: &Arc<State>) -> Self {
        let height = state.last_block_height;
        let commit = store.load_seen_commit(height).unwrap();
        let start = Start {
            state: Arc::clone(state),
            rules: Rules::V038,
            own_key: None,
            last_commit: LastCommit::Plain(commit.unwrap()),
            last_header_app_hash: None,
        };
        let now = Now {
            instant: Instant::now(),
            time: Time::new(1_800_000_000, 0),
        };
        let core = Consensus::new(now, ConsensusConfig::default(), start).unwrap();
        let id = |byte: &str| byte.repeat(20).parse::<PeerId>().unwrap();
        let (own, peer) = (id("11"), id("ab"));
        Self {
            view: Arc::new(View::of(&core, Height::new(1), None)),
            peer: PeerRoundView {
                node_address: format!("{peer}@127.0.0.1:26656"),
                state: PeerState::new(&own, &peer, state.initial_height),
                votes: 3,
                block_parts: 4,
            },
        }
    }
}

impl ConsensusView for FixedConsensus {
    fn view(&self) -> Option<Arc<View>> {
        Some(Arc::clone(&self.view))
    }

    fn peers(&self) -> Vec<PeerRoundView> {
        vec![self.peer.clone()]
    }
}

/// A node's information out of an answer.
pub(crate) fn node_info(json: &Value) -> NodeInfo {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let number = |value: &Value| value.as_str().unwrap().parse().unwrap();
    let version = &json["protocol_version"];
    NodeInfo {
        protocol_version: ProtocolVersion {
            p2p: number(&version["p2p"]),
            block: number(&version["block"]),
            app: number(&version["app"]),
        },
        id: text(&json["id"]),
        listen_addr: text(&json["listen_addr"]),
        network: text(&json["network"]),
        version: text(&json["version"]),
        channels: hex::decode(text(&json["channels"])).unwrap().into(),
        moniker: text(&json["moniker"]),
        tx_index: text(&json["other"]["tx_index"]),
        rpc_address: text(&json["other"]["rpc_address"]),
    }
}

pub(crate) fn progress(mode: Mode, height: Height) -> Progress {
    Progress {
        mode,
        start: Height::ZERO,
        target_source: TargetSource::Certified,
        ..Progress::new(height)
    }
}

/// A server, with what must outlive it.
pub(crate) struct Node {
    pub(crate) server: Option<RpcServer>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) stop: CancellationToken,
    pub(crate) store: Arc<Store>,
    pub(crate) events: EventBus,
    pub(crate) mempool: Arc<Mempool>,
    pub(crate) orders: Arc<Mutex<Vec<DialOrder>>>,
    _home: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            server.join();
        }
    }
}

impl Node {
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        match self.server.as_ref().unwrap().address() {
            RpcAddress::Tcp(address) => *address,
            RpcAddress::Unix(path) => panic!("at {}", path.display()),
        }
    }

    /// A node that holds the first `blocks` of the chain and stands in consensus.
    pub(crate) fn start(
        blocks: usize,
        config: &RpcConfig,
        network: FixedNetwork,
        key: PublicKey,
    ) -> Self {
        Self::start_at("tcp://127.0.0.1:0", blocks, config, network, key)
    }

    /// The same at another address.
    pub(crate) fn start_at(
        laddr: &str,
        blocks: usize,
        config: &RpcConfig,
        network: FixedNetwork,
        key: PublicKey,
    ) -> Self {
        let defaults = GenesisDefaults {
            time: Time::ZERO,
            consensus_params: ConsensusParams::default_v038(),
        };
        let genesis = read("chain_basic/genesis.json");
        let genesis = Genesis::from_json(genesis.as_bytes(), &defaults).unwrap();
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(home.path(), &StoreOptions::default()).unwrap());
        let (app, state) = replay(&store, &genesis, blocks);
        store.index_pending().unwrap();
        let mempool = Mempool::new(
            MempoolConfig::default(),
            app.mempool,
            state.last_block_height,
            TxLimits::of(&state, Rules::V038),
        );
        let mempool = Arc::new(mempool);
        let rules = RulesByHeight::new(Vec::new()).unwrap();
        let evidence = EvidencePool::open(Arc::clone(&store), Arc::clone(&state), rules).unwrap();
        let events = EventBus::default();
        let (sender, receiver) = watch::channel(progress(Mode::Consensus, store.height()));
        let orders = Arc::clone(&network.orders);
        let context = RpcContext {
            store: Arc::clone(&store),
            query: app.query,
            genesis,
            network: Arc::new(network),
            progress: receiver,
            mempool: Arc::clone(&mempool),
            evidence: Arc::new(evidence),
            consensus: Arc::new(FixedConsensus::new(&store, &state)),
            events: events.clone(),
            validator_key: Some(key),
            software: "perihelion".to_owned(),
            version: "0.1.0".to_owned(),
        };
        let stop = CancellationToken::new();
        let server = serve(laddr, context, config, stop.clone()).unwrap();
        Self {
            server: Some(server),
            progress: sender,
            stop,
            store,
            events,
            mempool,
            orders,
            _home: home,
        }
    }
}

/// The blocks of the chain, and the commits that were seen for them; read once.
pub(crate) fn recorded_blocks() -> impl Iterator<Item = (FetchedBlock, Commit)> {
    static BLOCKS: OnceLock<Vec<(FetchedBlock, Commit)>> = OnceLock::new();
    let read = || {
        let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
        assert!(!lines.is_empty());
        let decode = |line: Line| {
            let block = FetchedBlock::decode(line.block.0.into(), None).unwrap();
            let commit = pb::Commit::decode(&line.seen_commit[..]).unwrap();
            (block, Commit::try_from(commit).unwrap())
        };
        lines.into_iter().map(decode).collect()
    };
    BLOCKS.get_or_init(read).iter().cloned()
}

/// Applies blocks of the chain; the application, and the state after them.
fn replay(store: &Arc<Store>, genesis: &Genesis, blocks: usize) -> (AppConnections, Arc<State>) {
    let column = Arc::new(AppColumn::new(Arc::clone(store)));
    let app = KvStore::persistent(column, KvStoreOptions::default()).unwrap();
    let app = AppConnections::in_process(Arc::new(app));
    let mut executor = Executor::start(
        Arc::clone(store),
        genesis,
        app.consensus.clone(),
        &app.query,
        ExecutorConfig::default(),
    )
    .unwrap();
    for (block, commit) in recorded_blocks().take(blocks) {
        let state = executor.state();
        let (set, chain) = (&state.validators, &state.chain_id);
        let block = CertifiedBlock::decided(Arc::new(block), commit, set, chain).unwrap();
        executor.apply(&block).unwrap();
    }
    executor.flush().unwrap();
    let state = Arc::new(executor.state().clone());
    (app, state)
}

/// A node with a few blocks and a network that only names itself.
pub(crate) fn small_node(config: &RpcConfig) -> Node {
    small_node_at("tcp://127.0.0.1:0", config)
}

/// The same at another address.
pub(crate) fn small_node_at(laddr: &str, config: &RpcConfig) -> Node {
    let status: Value = perihelion_test_support::load("rpc/status.json");
    let recorded: Value = recorded_result(&status, "status");
    let network = FixedNetwork {
        node_info: node_info(&recorded["node_info"]),
        peers: Vec::new(),
        orders: Arc::default(),
    };
    let key = serde_json::from_value(recorded["validator_info"]["pub_key"].clone()).unwrap();
    Node::start_at(laddr, 3, config, network, key)
}

/// The result of the first exchange of a file.
pub(crate) fn recorded_result(file: &Value, what: &str) -> Value {
    let answer = file["exchanges"][0]["answer"].as_str();
    let answer = answer.unwrap_or_else(|| panic!("{what} has no exchange"));
    serde_json::from_str::<Value>(answer).unwrap()["result"].take()
}
