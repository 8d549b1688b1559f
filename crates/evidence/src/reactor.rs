//! The reactor on channel 0x38.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use perihelion_p2p::{ChannelDescriptor, DisconnectReason, PeerEvent, PeerHandle};
use perihelion_store::StoreError;
use perihelion_types::PeerId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::debug;

use crate::{
    AddError, EvidencePool, PeerHeights, gossip, is_senders_fault,
    queue::{Queue, Queued},
    wire::{self, CHANNEL, MAX_MESSAGE_BYTES},
};

/// The reactor's name in logs and in reasons for a disconnect.
const NAME: &str = "evidence";
/// CometBFT's priority of the channel among others.
const PRIORITY: u8 = 6;
/// Messages that may wait to be sent to one peer.
const SEND_QUEUE: usize = 8;

/// The channel as the switch needs to know it.
#[must_use]
pub const fn channel() -> ChannelDescriptor {
    ChannelDescriptor::new(CHANNEL, PRIORITY, SEND_QUEUE, MAX_MESSAGE_BYTES)
}

/// Takes evidence from peers and passes it on.
pub struct EvidenceReactor {
    pool: Arc<EvidencePool>,
    heights: PeerHeights,
    active: watch::Receiver<bool>,
    /// The task for each peer.
    gossip_tasks: HashMap<PeerId, AbortOnDropHandle<()>>,
    queue: Queue<(PeerHandle, Bytes)>,
    failed: oneshot::Receiver<StoreError>,
}

impl EvidenceReactor {
    /// A reactor that takes and gives evidence while `active` says so: not while the node syncs,
    /// when it lacks the blocks to judge by.
    #[must_use]
    pub fn new(
        pool: Arc<EvidencePool>,
        heights: PeerHeights,
        active: watch::Receiver<bool>,
    ) -> Self {
        let (queue, queued) = Queue::new();
        let (fail, failed) = oneshot::channel();
        let verified = Arc::clone(&pool);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = verify_all(&verified, queued) {
                // Nobody waits for it when the reactor is gone.
                drop(fail.send(error));
            }
        });
        Self {
            pool,
            heights,
            active,
            gossip_tasks: HashMap::new(),
            queue,
            failed,
        }
    }

    /// Runs until `stop`, or until the switch is gone.
    ///
    /// # Errors
    /// When the store fails; the node is to stop.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<PeerEvent>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(error) = &mut self.failed => return Err(error),
                event = events.recv() => match event {
                    Some(event) => self.take_event(event),
                    None => return Ok(()),
                },
            }
        }
    }

    fn take_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Added(peer) => self.add_peer(peer),
            PeerEvent::Removed { id, .. } => {
                self.gossip_tasks.remove(&id);
                self.queue.forget(&id);
            }
            PeerEvent::Message { from, bytes, .. } => {
                if *self.active.borrow() {
                    self.take_message(from, bytes);
                }
            }
        }
    }

    fn take_message(&mut self, from: PeerHandle, bytes: Bytes) {
        let (peer, size) = (from.id(), bytes.len());
        if !self.queue.put(peer, size, (from, bytes)) {
            debug!(%peer, "evidence of a peer dropped: too much of it waits");
        }
    }

    fn add_peer(&mut self, peer: PeerHandle) {
        if !peer.has_channel(CHANNEL) {
            return;
        }
        let id = peer.id();
        let (pool, heights) = (Arc::clone(&self.pool), Arc::clone(&self.heights));
        let gossip = gossip::run(pool, heights, self.active.clone(), peer);
        let task = AbortOnDropHandle::new(tokio::spawn(gossip));
        self.gossip_tasks.insert(id, task);
    }
}

/// Verifies what peers sent, on a thread where that may take its time.
fn verify_all(
    pool: &EvidencePool,
    mut queued: mpsc::Receiver<Queued<(PeerHandle, Bytes)>>,
) -> Result<(), StoreError> {
    while let Some(queued) = queued.blocking_recv() {
        let (from, message) = &queued.item;
        // Whoever lied has no more to say.
        if !from.is_closing() {
            take_message(pool, from, message)?;
        }
    }
    Ok(())
}

/// What CometBFT would disconnect a peer for disconnects it, where the peer is to blame.
fn take_message(pool: &EvidencePool, from: &PeerHandle, message: &Bytes) -> Result<(), StoreError> {
    let list = match wire::decode(message, pool.wire_rules()) {
        Ok(list) => list,
        Err(error) => {
            from.disconnect(misbehaviour(&error));
            return Ok(());
        }
    };
    for evidence in list {
        match pool.add(evidence.clone()) {
            Ok(added) => debug!(peer = %from.id(), ?added, "evidence of a peer"),
            Err(AddError::Store(error)) => return Err(error),
            Err(AddError::Malformed(error)) => {
                from.disconnect(misbehaviour(&error));
                return Ok(());
            }
            Err(AddError::Invalid(error)) => {
                let height = pool.state().last_block_height;
                debug!(peer = %from.id(), %error, "evidence of a peer is not taken");
                if is_senders_fault(&error, &evidence, height) {
                    from.disconnect(misbehaviour(&error));
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn misbehaviour(fault: &dyn std::error::Error) -> DisconnectReason {
    DisconnectReason::Misbehaviour {
        reactor: NAME,
        fault: fault.to_string(),
    }
}

impl std::fmt::Debug for EvidenceReactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvidenceReactor")
            .field("peers", &self.gossip_tasks.len())
            .finish_non_exhaustive()
    }
}
