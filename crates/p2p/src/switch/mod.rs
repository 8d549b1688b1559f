//! The switch: listens, dials, decides who may be a peer, and runs one task for each.

mod backoff;
mod handle;
mod listen;
mod network;
mod order;
mod pending;
mod table;
mod tasks;
mod upgrade;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use perihelion_crypto::NodeId;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Semaphore, mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    ChannelDescriptor, DisconnectReason, LogLimit, NodeInfo, NodeKey, P2pConfig, PeerAddress,
    PeerEvent, PeerHandle, PeerStats, RejectReason, address::AddressError, connection::Routes,
    mconnection::MConnectionConfig,
};

pub use handle::SwitchHandle;
pub use order::{DialOrder, OrderError};
use pending::Pending;
use table::PeerTable;

/// Events that may wait for one reactor. While they do, no more is read from the peers that have
/// one for it, so this only evens out bursts; what it holds is bounded by the channels' budgets.
const REACTOR_QUEUE: usize = 256;
/// A filter that has not answered by then refuses. CometBFT's figure.
const FILTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where somebody is who may become a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The address at the other end of the connection.
    pub address: SocketAddr,
    /// Whether this node dialled.
    pub outbound: bool,
}

impl Remote {
    /// The site that is there: an IPv4 address, or a /64. None where it is a loopback or private one:
    /// behind a proxy everybody has that.
    #[must_use]
    pub fn site(&self) -> Option<IpAddr> {
        site_of(self.address)
    }
}

/// Decides, beside the limits and bans, who may be a peer. Called on a thread where it may block,
/// for five seconds at most.
pub trait PeerFilter: Send + Sync + 'static {
    /// Before a handshake with whoever is there; for a peer that was dialled too.
    ///
    /// # Errors
    /// Why the address is refused.
    fn filter_address(&self, remote: Remote) -> Result<(), String> {
        let _ = remote;
        Ok(())
    }

    /// After the handshake.
    ///
    /// # Errors
    /// Why the node is refused.
    fn filter_node(&self, remote: Remote, id: NodeId, node_info: &NodeInfo) -> Result<(), String> {
        let _ = (remote, id, node_info);
        Ok(())
    }
}

/// All that a switch is made of.
pub struct SwitchSetup {
    /// The `[p2p]` configuration.
    pub config: P2pConfig,
    /// Timers and packets. The configuration's rates and payload replace those in it.
    pub connection: MConnectionConfig,
    /// This node's key.
    pub node_key: NodeKey,
    /// This node's information. Its id, and its channels when it names none, are filled in; so is
    /// the listening address when it is empty.
    pub node_info: NodeInfo,
    /// The reactors, each with its name and channels.
    pub reactors: Vec<(&'static str, Vec<ChannelDescriptor>)>,
    /// Decides who else is refused.
    pub filter: Option<Arc<dyn PeerFilter>>,
}

/// The switch cannot start.
#[derive(Debug, Error)]
pub enum SwitchError {
    /// `laddr` is no address.
    #[error("p2p.laddr: {0}")]
    Address(#[from] AddressError),
    /// `laddr` names a host that cannot be resolved.
    #[error("p2p.laddr: host {host:?} cannot be resolved: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The port is in use, or may not be used.
    #[error("p2p.laddr: cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Two reactors claim one channel.
    #[error("channel {0:#04x} belongs to two reactors")]
    DuplicateChannel(u8),
    /// This node's own information would be refused by peers.
    #[error("this node's information is not acceptable: {0}")]
    NodeInfo(#[from] crate::NodeInfoError),
}

/// A peer as it is at one moment.
#[derive(Debug, Clone)]
pub struct PeerSnapshot {
    /// The peer.
    pub peer: PeerHandle,
    /// Figures of its connection.
    pub stats: PeerStats,
}

/// A peer that was removed.
#[derive(Debug, Clone)]
pub struct Disconnected {
    /// Its id.
    pub id: NodeId,
    /// Its address.
    pub remote: SocketAddr,
    /// Whether this node had dialled.
    pub outbound: bool,
    /// How long it had been connected.
    pub connected_for: Duration,
    /// When it was removed.
    pub at: SystemTime,
    /// Why.
    pub reason: DisconnectReason,
}

/// Lines about strangers that are logged at once, and how often after that: what anybody can bring
/// about must not fill a disk.
const LINES: u32 = 20;
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// What the tasks of a switch share.
struct Inner {
    config: P2pConfig,
    connection: MConnectionConfig,
    node_key: NodeKey,
    node_info: NodeInfo,
    routes: Arc<Routes>,
    filter: Option<Arc<dyn PeerFilter>>,
    table: Mutex<PeerTable<PeerHandle, Disconnected>>,
    pending: Arc<Pending>,
    /// Persistent peers that could not be dialled, and why the last time: one entry each at most.
    dial_failures: Mutex<BTreeMap<NodeId, (PeerAddress, RejectReason)>>,
    /// Places for peers that are to be dialled once.
    dials: Arc<Semaphore>,
    /// Counts removals, for those who wait for one.
    removals: watch::Sender<u64>,
    /// Lines about strangers that connect, and about those that go.
    arrivals: LogLimit,
    departures: LogLimit,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Where the tasks run.
    runtime: Handle,
    listen_address: Option<SocketAddr>,
}

/// Starts switches.
#[derive(Debug)]
pub struct Switch;

impl Switch {
    /// Binds the listener, then starts to accept and to dial the persistent peers. Returns the
    /// handle, and for each reactor, in order, where it hears of its peers. A reactor that stops
    /// reading holds back its peers; one that drops its receiver loses them.
    ///
    /// # Errors
    /// When the address is malformed or taken, channels clash, or the node information is not
    /// acceptable.
    pub async fn start(
        setup: SwitchSetup,
    ) -> Result<(SwitchHandle, Vec<mpsc::Receiver<PeerEvent>>), SwitchError> {
        let (routes, receivers) = routes(setup.reactors)?;
        let listener = listen::bind(&setup.config.laddr).await?;
        let listen_address = listener.as_ref().and_then(|it| it.local_addr().ok());
        let mut node_info = setup.node_info;
        node_info.id = setup.node_key.id().to_string();
        if node_info.channels.is_empty() {
            node_info.channels = routes.descriptors().map(|channel| channel.id).collect();
        }
        if node_info.listen_addr.is_empty() {
            let address = listen_address.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
            node_info.listen_addr = format!("tcp://{address}");
        }
        node_info.validate()?;
        let connection = MConnectionConfig {
            max_packet_payload: setup.config.max_packet_msg_payload_size,
            send_rate: setup.config.send_rate,
            recv_rate: setup.config.recv_rate,
            ..setup.connection
        };
        let inner = Arc::new(Inner {
            table: Mutex::new(PeerTable::new(setup.node_key.id(), &setup.config)),
            config: setup.config,
            connection,
            node_key: setup.node_key,
            node_info,
            routes: Arc::new(routes),
            filter: setup.filter,
            pending: Arc::default(),
            dial_failures: Mutex::default(),
            dials: Arc::new(Semaphore::new(order::MAX_ORDERED)),
            removals: watch::Sender::new(0),
            arrivals: LogLimit::new(LINES, LINE_INTERVAL),
            departures: LogLimit::new(LINES, LINE_INTERVAL),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            runtime: Handle::current(),
            listen_address,
        });
        inner.spawn_tasks(listener);
        Ok((SwitchHandle::new(inner), receivers))
    }
}

impl Inner {
    fn spawn_tasks(self: &Arc<Self>, listener: Option<TcpListener>) {
        if let Some(listener) = listener {
            self.tasks.spawn(tasks::accept(Arc::clone(self), listener));
        }
        for address in &self.config.persistent_peers {
            let task = tasks::keep_connected(Arc::clone(self), address.clone());
            self.tasks.spawn(task);
        }
        // Tasks can still be added; closing only lets a wait for the last one end.
        self.tasks.close();
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch")
            .field("id", &self.node_key.id())
            .field("listen_address", &self.listen_address)
            .finish_non_exhaustive()
    }
}

fn routes(
    reactors: Vec<(&'static str, Vec<ChannelDescriptor>)>,
) -> Result<(Routes, Vec<mpsc::Receiver<PeerEvent>>), SwitchError> {
    let mut routes = Routes {
        reactors: Vec::new(),
        channels: Vec::new(),
    };
    let mut receivers = Vec::new();
    for (index, (name, channels)) in reactors.into_iter().enumerate() {
        let (sender, receiver) = mpsc::channel(REACTOR_QUEUE);
        routes.reactors.push((name, sender));
        receivers.push(receiver);
        for channel in channels {
            if routes.descriptors().any(|other| other.id == channel.id) {
                return Err(SwitchError::DuplicateChannel(channel.id));
            }
            routes.channels.push((channel, index));
        }
    }
    Ok((routes, receivers))
}

/// The site of an address, where that says something of who is there.
pub(crate) fn site_of(address: SocketAddr) -> Option<IpAddr> {
    let ip = host(address);
    network::Network::of(ip).map(|_| network::site(ip))
}

/// The address family's own form of an address; see [`crate::address`].
fn host(address: SocketAddr) -> IpAddr {
    crate::address::canonical_ip(address.ip())
}
