//! Peers that an operator wants dialled while the node runs.

use std::sync::Arc;

use perihelion_crypto::NodeId;
use thiserror::Error;
use tokio::{sync::OwnedSemaphorePermit, task::JoinSet};

use super::{Inner, table::MAX_NAMED, tasks};
use crate::{PeerAddress, RejectReason, peer::lock};

/// Peers that may wait to be dialled once. More would be no list of peers that somebody knows.
pub(super) const MAX_ORDERED: usize = 1000;
/// Of one order so many are dialled at a time. One that does not answer takes the dial timeout; more at
/// a time are as many sockets that are waited for.
const AT_ONCE: usize = 16;

/// Peers to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialOrder {
    /// Where.
    pub peers: Vec<PeerAddress>,
    /// Whether they are to stay connected, as those of the configuration are.
    pub persistent: bool,
    /// Whether no limit of peers applies to them from now on.
    pub unconditional: bool,
}

/// Peers are not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OrderError {
    /// Too many wait to be dialled.
    #[error("more than {0} peers would wait to be dialled")]
    Dials(usize),
    /// Too many would be persistent or unconditional.
    #[error("more than {0} peers would be persistent or unconditional")]
    Named(usize),
}

/// Begins to carry an order out.
pub(super) fn begin(inner: &Arc<Inner>, order: DialOrder) -> Result<(), OrderError> {
    let (stay, once, places) = {
        let mut table = lock(&inner.table);
        let ids: Vec<NodeId> = order.peers.iter().map(|peer| peer.id).collect();
        if !table.may_name(&ids, order.persistent, order.unconditional) {
            return Err(OrderError::Named(MAX_NAMED));
        }
        // Who is persistent already is dialled at its own address, by a task of its own.
        let is_new = |peer: &PeerAddress| order.persistent && !table.is_persistent(&peer.id);
        let (mut stay, once): (Vec<_>, Vec<_>) = order.peers.into_iter().partition(is_new);
        let count = u32::try_from(once.len()).unwrap_or(u32::MAX);
        let places = Arc::clone(&inner.dials).try_acquire_many_owned(count);
        let places = places.map_err(|_| OrderError::Dials(MAX_ORDERED))?;
        // Of several addresses of one peer the first one counts.
        stay.retain(|peer| table.make_persistent(peer.id));
        if order.unconditional {
            ids.into_iter().for_each(|id| table.make_unconditional(id));
        }
        (stay, once, places)
    };
    for address in stay {
        let task = tasks::keep_connected(Arc::clone(inner), address);
        inner.tasks.spawn_on(task, &inner.runtime);
    }
    let task = dial_once(Arc::clone(inner), once, places);
    inner.tasks.spawn_on(task, &inner.runtime);
    Ok(())
}

async fn dial_once(inner: Arc<Inner>, peers: Vec<PeerAddress>, _places: OwnedSemaphorePermit) {
    let mut dials = JoinSet::new();
    for address in peers {
        if dials.len() >= AT_ONCE {
            dials.join_next().await;
        }
        let inner = Arc::clone(&inner);
        dials.spawn(async move {
            if lock(&inner.table).get(&address.id).is_some() {
                tracing::debug!(%address, "a peer that is to be dialled is connected");
                return;
            }
            match tasks::dial(&inner, &address).await {
                Ok(_) => {}
                Err(reason @ (RejectReason::Myself | RejectReason::DuplicateId)) => {
                    tracing::debug!(%address, %reason, "a peer is not dialled");
                }
                Err(reason) => {
                    tracing::warn!(%address, %reason, "a peer that was to be dialled is not connected");
                }
            }
        });
    }
    while dials.join_next().await.is_some() {}
}
