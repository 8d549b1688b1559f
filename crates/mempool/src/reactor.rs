//! The reactor on channel 0x30.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    iter::once,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use perihelion_abci::AppError;
use perihelion_p2p::{
    ChannelDescriptor, DisconnectReason, MIN_UNHANDLED_BYTES, PeerEvent, PeerHandle, Permit,
};
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
/// Bytes of one peer's messages that may wait for the application; beyond it nothing more is read
/// from that peer, consensus included, as with CometBFT, where one message alone waits. Whoever sent
/// a transaction never sends it again, so that it must not be dropped.
const UNHANDLED_BYTES: usize = 1 << 20;
/// Messages of all peers that may wait: those of 64 peers. Only who comes again and again, and leaves
/// messages behind each time, makes more.
const QUEUE: usize = 64 * (UNHANDLED_BYTES / MIN_UNHANDLED_BYTES);
/// Bytes of these, as long as one of the largest messages has room.
const QUEUE_BYTES: usize = 64 * UNHANDLED_BYTES;
/// Transactions of one message that are checked before it is the next message's turn.
const TURN: usize = 256;

/// The channels of a mempool: one, or none where nothing is kept.
#[must_use]
pub fn channels(config: &MempoolConfig) -> Vec<ChannelDescriptor> {
    if config.kind == MempoolKind::Nop {
        return Vec::new();
    }
    let bytes = wire::message_bytes(config.max_tx_bytes.max(WIDEST_TX_BYTES));
    let channel = ChannelDescriptor::new(CHANNEL, PRIORITY, SEND_QUEUE, bytes);
    vec![channel.with_unhandled_bytes(UNHANDLED_BYTES)]
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

/// A message whose transactions wait to be checked.
struct FromPeer {
    /// Those that are left, the first of which was not seen before.
    txs: Box<dyn Iterator<Item = Bytes> + Send>,
    from: PeerId,
    /// Of the whole message.
    bytes: usize,
    /// Its share of what may wait of its peer.
    _share: Option<Permit>,
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
            max: QUEUE_BYTES.max(wire::message_bytes(
                config.max_tx_bytes.max(WIDEST_TX_BYTES),
            )),
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
            PeerEvent::Message {
                from,
                bytes,
                permit,
                ..
            } => self.take_message(&from, &bytes, permit),
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
    fn take_message(&self, from: &PeerHandle, message: &Bytes, share: Option<Permit>) {
        let mut txs = match wire::decode(message) {
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
        // Most often another peer was first.
        if let Some(first) = txs.find(|tx| !self.gossip.mempool.is_seen(tx, from)) {
            self.queue(FromPeer {
                txs: Box::new(once(first).chain(txs)),
                from,
                bytes: message.len(),
                _share: share,
            });
        }
    }

    /// Has a message's transactions checked. The shares of the peers keep room for it; it is dropped
    /// only where peers that are gone have left too many behind.
    fn queue(&self, item: FromPeer) {
        let bytes = item.bytes;
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

/// Checks what peers sent on a thread where waiting is allowed: in order, but a message of very many
/// transactions keeps no other waiting until its end.
fn check_all(
    mempool: &Mempool,
    waiting: &Waiting,
    mut queued: mpsc::Receiver<FromPeer>,
) -> Result<(), AppError> {
    // Messages whose turn is over before they are; each still has its peer's share.
    let mut long = VecDeque::new();
    let mut prefer_new = true;
    loop {
        prefer_new = !prefer_new;
        let new = if long.is_empty() {
            queued.blocking_recv()
        } else if prefer_new {
            queued.try_recv().ok()
        } else {
            None
        };
        let Some(mut message) = new.or_else(|| long.pop_front()) else {
            return Ok(());
        };
        if check_some(mempool, &mut message)? {
            waiting.give_back(message.bytes);
        } else if queued.is_closed() {
            return Ok(());
        } else {
            long.push_back(message);
        }
    }
}

/// Checks a message's transactions for one turn; whether they are all checked.
fn check_some(mempool: &Mempool, message: &mut FromPeer) -> Result<bool, AppError> {
    let from = message.from;
    for _ in 0..TURN {
        let Some(tx) = message.txs.next() else {
            return Ok(true);
        };
        match mempool.check_tx(&tx, Some(from)) {
            Ok(checked) => {
                debug!(peer = %from, fate = ?checked.fate, "transaction checked");
            }
            Err(CheckTxError::App(error)) => return Err(error),
            Err(error) => debug!(peer = %from, %error, "transaction not checked"),
        }
    }
    Ok(false)
}

impl std::fmt::Debug for MempoolReactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MempoolReactor")
            .field("peers", &self.gossip_tasks.len())
            .finish_non_exhaustive()
    }
}
