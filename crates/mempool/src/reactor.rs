//! The reactor on channel 0x30.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use perihelion_abci::AppError;
use perihelion_p2p::{ChannelDescriptor, DisconnectReason, PeerEvent, PeerHandle};
use perihelion_types::PeerId;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::debug;

use crate::{
    CheckTxError, Mempool, MempoolConfig, MempoolKind, PeerHeights,
    gossip::Gossip,
    stats::count,
    wire::{self, CHANNEL},
};

/// The reactor's name in logs and in reasons for a disconnect.
const NAME: &str = "mempool";
/// CometBFT's priority of the channel among others.
const PRIORITY: u8 = 5;
/// Messages that may wait to be sent to one peer; more are sent when these are.
const SEND_QUEUE: usize = 32;
/// The largest transaction that any version's default lets pass (v0.40's `max_tx_bytes`). A peer
/// that sends one of this size is no liar, whatever our own bound.
const WIDEST_TX_BYTES: usize = 4 << 20;
/// Transactions that may wait for the application to check them.
const QUEUE: usize = 4_096;
/// Bytes of these, as long as the largest transaction has room.
const QUEUE_BYTES: usize = 32 << 20;

/// The channels of a mempool: one, or none where nothing is kept.
#[must_use]
pub fn channels(config: &MempoolConfig) -> Vec<ChannelDescriptor> {
    if config.kind == MempoolKind::Nop {
        return Vec::new();
    }
    let bytes = wire::message_bytes(config.max_tx_bytes.max(WIDEST_TX_BYTES));
    vec![ChannelDescriptor::new(CHANNEL, PRIORITY, SEND_QUEUE, bytes)]
}

/// Takes transactions from peers and passes them on.
pub struct MempoolReactor {
    gossip: Gossip,
    unconditional: HashSet<PeerId>,
    /// The task for each peer.
    gossip_tasks: HashMap<PeerId, AbortOnDropHandle<()>>,
    queue: mpsc::Sender<FromPeer>,
    waiting: Arc<Waiting>,
    failed: oneshot::Receiver<AppError>,
}

/// A transaction that waits to be checked.
struct FromPeer {
    tx: Bytes,
    from: PeerId,
}

/// Bytes that wait to be checked.
struct Waiting {
    bytes: AtomicUsize,
    max: usize,
}

impl MempoolReactor {
    /// A reactor that takes and gives transactions while `active` says so: not while the node
    /// syncs, when the application is at an old height. `unconditional` peers are sent
    /// transactions beyond the configured numbers.
    #[must_use]
    pub fn new(
        mempool: Arc<Mempool>,
        heights: PeerHeights,
        unconditional: HashSet<PeerId>,
        active: watch::Receiver<bool>,
    ) -> Self {
        let config = mempool.config();
        let places = |count: usize| {
            (count > 0).then(|| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))))
        };
        let waiting = Arc::new(Waiting {
            bytes: AtomicUsize::new(0),
            max: QUEUE_BYTES.max(config.max_tx_bytes),
        });
        let gossip = Gossip {
            persistent: places(config.max_gossip_to_persistent_peers),
            others: places(config.max_gossip_to_other_peers),
            mempool,
            heights,
            active,
        };
        let (queue, queued) = mpsc::channel(QUEUE);
        let (fail, failed) = oneshot::channel();
        let checked = Arc::clone(&gossip.mempool);
        let taken = Arc::clone(&waiting);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = check_all(&checked, &taken, queued) {
                // Nobody waits for it when the reactor is gone.
                drop(fail.send(error));
            }
        });
        Self {
            gossip,
            unconditional,
            gossip_tasks: HashMap::new(),
            queue,
            waiting,
            failed,
        }
    }

    /// Runs until `stop`, or until the switch is gone.
    ///
    /// # Errors
    /// When the application fails; the node is to stop.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<PeerEvent>,
        stop: CancellationToken,
    ) -> Result<(), AppError> {
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
                self.gossip.mempool.forget_sender(&id);
            }
            PeerEvent::Message { from, bytes, .. } => self.take_message(&from, &bytes),
        }
    }

    fn add_peer(&mut self, peer: PeerHandle) {
        if !self.gossip.mempool.config().broadcast || !peer.has_channel(CHANNEL) {
            return;
        }
        let id = peer.id();
        let free = self.unconditional.contains(&id);
        let gossip = self.gossip.clone().run(peer, free);
        let task = AbortOnDropHandle::new(tokio::spawn(gossip));
        self.gossip_tasks.insert(id, task);
    }

    /// What CometBFT would disconnect a peer for disconnects it.
    fn take_message(&self, from: &PeerHandle, message: &Bytes) {
        let txs = match wire::decode(message) {
            Ok(txs) => txs,
            Err(fault) => {
                from.disconnect(DisconnectReason::Misbehaviour {
                    reactor: NAME,
                    fault: fault.to_string(),
                });
                return;
            }
        };
        if !*self.gossip.active.borrow() {
            return;
        }
        let from = from.id();
        for tx in txs.take(QUEUE) {
            if self.gossip.mempool.is_seen(&tx, from) {
                continue;
            }
            // A small part would keep a large message in memory.
            let tx = if tx.len() < message.len() / 2 {
                Bytes::copy_from_slice(&tx)
            } else {
                tx
            };
            self.queue(FromPeer { tx, from });
        }
    }

    /// Has a transaction checked, unless too many wait: the application is slow or a peer floods,
    /// and consensus must be read meanwhile. Other nodes have the transaction too.
    fn queue(&self, item: FromPeer) {
        let bytes = item.tx.len();
        if !self.waiting.take(bytes) {
            count(&self.gossip.mempool.stats.unhandled);
        } else if self.queue.try_send(item).is_err() {
            self.waiting.give_back(bytes);
            count(&self.gossip.mempool.stats.unhandled);
        }
    }
}

impl Waiting {
    fn take(&self, bytes: usize) -> bool {
        // Only the reactor's task takes, so nothing comes between the two.
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Checks what peers sent, in order, on a thread where waiting is allowed.
fn check_all(
    mempool: &Mempool,
    waiting: &Waiting,
    mut queued: mpsc::Receiver<FromPeer>,
) -> Result<(), AppError> {
    while let Some(FromPeer { tx, from }) = queued.blocking_recv() {
        let checked = mempool.check_tx(&tx, Some(from));
        waiting.give_back(tx.len());
        match checked {
            Ok(checked) => {
                debug!(peer = %from, fate = ?checked.fate, "transaction checked");
            }
            Err(CheckTxError::App(error)) => return Err(error),
            Err(error) => debug!(peer = %from, %error, "transaction not checked"),
        }
    }
    Ok(())
}

impl std::fmt::Debug for MempoolReactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MempoolReactor")
            .field("peers", &self.gossip_tasks.len())
            .finish_non_exhaustive()
    }
}
