use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use perihelion_crypto::NodeId;
use tokio::time::Instant;

use crate::{DisconnectReason, NodeInfo, PeerAddress, PeerHandle, RejectReason, peer::lock};

use super::{DialOrder, Disconnected, Inner, OrderError, PeerSnapshot, order, tasks};

/// Controls a running switch. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SwitchHandle {
    inner: Arc<Inner>,
}

impl SwitchHandle {
    pub(super) const fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.node_key.id()
    }

    /// What this node tells peers of itself.
    #[must_use]
    pub fn node_info(&self) -> &NodeInfo {
        &self.inner.node_info
    }

    /// Where this node listens, with the port that was given to it.
    #[must_use]
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.inner.listen_address
    }

    /// A connected peer.
    #[must_use]
    pub fn peer(&self, id: &NodeId) -> Option<PeerHandle> {
        lock(&self.inner.table).get(id).cloned()
    }

    /// All connected peers, ordered by id, with the figures of their connections.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        let mut peers: Vec<_> = lock(&self.inner.table).peers().cloned().collect();
        peers.sort_by_key(PeerHandle::id);
        peers
            .into_iter()
            .map(|peer| PeerSnapshot {
                stats: peer.stats(),
                peer,
            })
            .collect()
    }

    /// How many peers are connected: outbound, inbound.
    #[must_use]
    pub fn peer_counts(&self) -> (usize, usize) {
        let table = lock(&self.inner.table);
        let outbound = table.peers().filter(|peer| peer.is_outbound()).count();
        (outbound, table.peers().count() - outbound)
    }

    /// The peers that were removed last, oldest first, with the reasons.
    #[must_use]
    pub fn recent_disconnects(&self) -> Vec<Disconnected> {
        lock(&self.inner.table).recent().cloned().collect()
    }

    /// The persistent peers that could not be dialled the last time, ordered by id, with the reasons.
    #[must_use]
    pub fn dial_failures(&self) -> Vec<(PeerAddress, RejectReason)> {
        lock(&self.inner.dial_failures).values().cloned().collect()
    }

    /// Removes a peer, if it is connected. A persistent one is dialled again after a pause.
    pub fn disconnect(&self, id: &NodeId, reason: DisconnectReason) {
        if let Some(peer) = self.peer(id) {
            peer.disconnect(reason);
        }
    }

    /// Removes a peer and keeps it away for a time, in both directions.
    pub fn ban(&self, id: NodeId, duration: Duration, why: impl Into<String>) {
        let why = why.into();
        let now = Instant::now().into_std();
        lock(&self.inner.table).ban(now, id, duration, why.clone());
        tracing::info!(peer = %id, ?duration, why, "banned a peer");
        self.disconnect(&id, DisconnectReason::Banned(why));
    }

    /// Accepts nobody from an IP address for a time, persistent and unconditional peers excepted.
    /// Peers that are connected stay.
    pub fn ban_address(&self, ip: IpAddr, duration: Duration, why: impl Into<String>) {
        let now = Instant::now().into_std();
        let ip = crate::address::canonical_ip(ip);
        lock(&self.inner.table).ban_ip(now, ip, duration, why.into());
    }

    /// Dials a peer once, and waits until it is connected.
    ///
    /// # Errors
    /// Why it did not become a peer.
    pub async fn dial(&self, address: &PeerAddress) -> Result<PeerHandle, RejectReason> {
        tasks::dial(&self.inner, address)
            .await
            .map(|(peer, _)| peer)
    }

    /// Dials peers, from any thread, without waiting: those who are to stay connected for ever, others
    /// once. Who is connected already is not dialled.
    ///
    /// # Errors
    /// When there are too many; nothing is done then.
    pub fn order_dials(&self, order: DialOrder) -> Result<(), OrderError> {
        order::begin(&self.inner, order)
    }

    /// Disconnects from everybody and waits until all tasks of the switch have ended. Reactors
    /// must go on reading, or have dropped their receivers.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.wait().await;
    }
}
