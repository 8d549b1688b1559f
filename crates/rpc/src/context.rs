use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use perihelion_abci::QueryConnection;
use perihelion_consensus_reactor::{
    ConsensusHandle,
    peer::{PeerState, View},
};
use perihelion_events::EventBus;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::Mempool;
use perihelion_p2p::{DialOrder, NodeId, NodeInfo, OrderError, PeerStats, SwitchHandle};
use perihelion_schedule::Progress;
use perihelion_store::Store;
use perihelion_types::{Genesis, PublicKey};
use tokio::sync::watch;

use crate::{RpcConfig, search};

/// What the server answers from.
pub struct RpcContext {
    /// Blocks, states, results.
    pub store: Arc<Store>,
    /// The application's connection for queries.
    pub query: QueryConnection,
    /// The chain's genesis.
    pub genesis: Genesis,
    /// This node and its peers.
    pub network: Arc<dyn NetworkView>,
    /// How far the node is.
    pub progress: watch::Receiver<Progress>,
    /// Transactions that wait for a block.
    pub mempool: Arc<Mempool>,
    /// Evidence that waits for a block.
    pub evidence: Arc<EvidencePool>,
    /// Where consensus stands.
    pub consensus: Arc<dyn ConsensusView>,
    /// What happens.
    pub events: EventBus,
    /// The node's validator key; `None` where it has none.
    pub validator_key: Option<PublicKey>,
    /// The software's name, for `/sync_status`.
    pub software: String,
    /// Its version, for `/sync_status`. (`node_info.version` names CometBFT's, by which clients
    /// choose how to talk.)
    pub version: String,
}

/// What the server asks of p2p.
pub trait NetworkView: Send + Sync + 'static {
    /// This node as it presents itself.
    fn node_info(&self) -> NodeInfo;
    /// Whether it accepts connections.
    fn is_listening(&self) -> bool;
    /// The connected peers.
    fn peers(&self) -> Vec<PeerView>;
    /// Who went of late and why, newest last.
    fn recent_disconnects(&self) -> Vec<DisconnectView>;
    /// Dials peers, which is not waited for.
    ///
    /// # Errors
    /// When there are too many.
    fn dial(&self, order: DialOrder) -> Result<(), OrderError>;
}

/// What the server asks of consensus.
pub trait ConsensusView: Send + Sync + 'static {
    /// A picture of the height that is being decided; `None` while the node is not in consensus.
    fn view(&self) -> Option<Arc<View>>;
    /// What each peer has of it.
    fn peers(&self) -> Vec<PeerRoundView>;
}

/// A peer in consensus.
#[derive(Debug, Clone)]
pub struct PeerRoundView {
    /// `ID@IP:PORT`.
    pub node_address: String,
    /// What it has.
    pub state: PeerState,
    /// Votes that it has sent.
    pub votes: i64,
    /// Block parts that it has sent.
    pub block_parts: i64,
}

impl ConsensusView for ConsensusHandle {
    fn view(&self) -> Option<Arc<View>> {
        Self::view(self).borrow().clone()
    }

    fn peers(&self) -> Vec<PeerRoundView> {
        Self::peers(self)
            .into_iter()
            .map(|peer| PeerRoundView {
                node_address: format!("{}@{}", peer.peer.id(), peer.peer.remote_address()),
                state: peer.state,
                votes: peer.votes,
                block_parts: peer.block_parts,
            })
            .collect()
    }
}

/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// As it presents itself.
    pub node_info: NodeInfo,
    /// Whether this node dialled.
    pub is_outbound: bool,
    /// Its address.
    pub remote_ip: IpAddr,
    /// Figures of the connection.
    pub stats: PeerStats,
}

/// A peer that is gone.
#[derive(Debug, Clone)]
pub struct DisconnectView {
    /// Who.
    pub id: NodeId,
    /// Its address.
    pub remote: String,
    /// Whether this node had dialled.
    pub is_outbound: bool,
    /// How long it was connected.
    pub connected_for: Duration,
    /// When it went.
    pub at: SystemTime,
    /// Why.
    pub reason: String,
}

impl NetworkView for SwitchHandle {
    fn node_info(&self) -> NodeInfo {
        Self::node_info(self).clone()
    }

    fn is_listening(&self) -> bool {
        self.listen_address().is_some()
    }

    fn peers(&self) -> Vec<PeerView> {
        Self::peers(self)
            .into_iter()
            .map(|snapshot| PeerView {
                node_info: snapshot.peer.node_info().clone(),
                is_outbound: snapshot.peer.is_outbound(),
                remote_ip: snapshot.peer.remote_address().ip(),
                stats: snapshot.stats,
            })
            .collect()
    }

    fn recent_disconnects(&self) -> Vec<DisconnectView> {
        Self::recent_disconnects(self)
            .into_iter()
            .map(|gone| DisconnectView {
                id: gone.id,
                remote: gone.remote.to_string(),
                is_outbound: gone.outbound,
                connected_for: gone.connected_for,
                at: gone.at,
                reason: gone.reason.to_string(),
            })
            .collect()
    }

    fn dial(&self, order: DialOrder) -> Result<(), OrderError> {
        self.order_dials(order)
    }
}

/// The context as the routes see it.
pub(crate) struct Backend {
    pub(crate) context: RpcContext,
    /// The genesis document, compact.
    pub(crate) genesis_json: String,
    /// What a search may cost.
    pub(crate) search: search::Limits,
    /// Bytes of what is shown on one page of a search.
    pub(crate) max_page_bytes: usize,
    pub(crate) synced: Arc<SyncClock>,
}

/// Adds up the time spent on catching up.
pub(crate) struct SyncClock(Mutex<SyncTime>);

struct SyncTime {
    total: Duration,
    since: Option<Instant>,
}

impl Backend {
    pub(crate) fn new(context: RpcContext, config: &RpcConfig) -> serde_json::Result<Self> {
        let genesis_json = perihelion_types::json::to_string(&context.genesis)?;
        let catching_up = context.progress.borrow().is_catching_up();
        Ok(Self {
            context,
            genesis_json,
            search: search::Limits {
                entries: config.max_search_entries,
                time: config.search_timeout,
            },
            max_page_bytes: config.max_answer_bytes,
            synced: Arc::new(SyncClock::new(catching_up)),
        })
    }
}

impl SyncClock {
    fn new(catching_up: bool) -> Self {
        Self(Mutex::new(SyncTime {
            total: Duration::ZERO,
            since: catching_up.then(Instant::now),
        }))
    }

    /// Notes whether the node is catching up now.
    pub(crate) fn note(&self, catching_up: bool) {
        let mut clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (clock.since, catching_up) {
            (None, true) => clock.since = Some(Instant::now()),
            (Some(since), false) => {
                clock.total = clock.total.saturating_add(since.elapsed());
                clock.since = None;
            }
            _ => {}
        }
    }

    /// How long the node has been catching up since it started.
    pub(crate) fn total(&self) -> Duration {
        let clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = clock.since.map_or(Duration::ZERO, |since| since.elapsed());
        clock.total.saturating_add(running)
    }
}
