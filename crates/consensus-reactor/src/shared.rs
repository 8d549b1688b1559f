//! What the routine, the gossip tasks and the handles share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_consensus::{Announce, Maj23, Message};
use perihelion_p2p::{DisconnectReason, PeerHandle, Permit};
use perihelion_types::{Height, PeerId, Rules, RulesByHeight, State};
use tokio::sync::{Notify, OwnedSemaphorePermit, broadcast, mpsc, watch};

use crate::{
    ConsensusError,
    peer::{PeerState, View},
    stored::StoredBlocks,
    wire::{Channel, PeerMessage},
};

/// The reactor's name in logs and in reasons for a disconnect.
pub(crate) const NAME: &str = "consensus";
/// Proposals, parts and votes of peers that may wait for the state machine. CometBFT's figure, as a
/// power of two; beyond it peers wait.
pub(crate) const CORE_QUEUE: usize = 1_024;
/// Of these, how many may be one peer's. More, and a peer that floods would delay the others'
/// votes by the time that many signatures take; fewer, and a peer that sends much waits for each
/// turn of the routine.
pub(crate) const CORE_QUEUE_OF_ONE: usize = 32;
/// Claims of majorities that may wait; beyond they are dropped, since they come again.
pub(crate) const CLAIM_QUEUE: usize = 256;
/// News that a peer's task may be behind; beyond it the peer is told where this node is instead.
pub(crate) const NEWS_QUEUE: usize = 1_024;

/// A message on its way to the state machine.
pub(crate) struct FromPeer {
    pub(crate) peer: PeerId,
    pub(crate) message: Message,
    /// The peer's place in the queue, and its share of what is kept of it.
    pub(crate) _place: OwnedSemaphorePermit,
    pub(crate) _permit: Option<Permit>,
}

/// A claim on its way to the state machine.
pub(crate) struct Claim {
    pub(crate) peer: PeerId,
    pub(crate) claim: Maj23,
}

/// Something that all peers are told.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) channel: Channel,
    pub(crate) bytes: Bytes,
}

/// A connected peer.
pub(crate) struct Peer {
    pub(crate) handle: PeerHandle,
    /// Written by the peer's task alone; never locked across a wait.
    pub(crate) state: Mutex<PeerState>,
    pub(crate) votes: AtomicI64,
    pub(crate) parts: AtomicI64,
    /// The highest height of which something was passed over since consensus was left; 0 for none.
    passed_over: AtomicI64,
}

impl Peer {
    pub(crate) fn new(handle: PeerHandle, state: PeerState) -> Self {
        Self {
            handle,
            state: Mutex::new(state),
            votes: AtomicI64::new(0),
            parts: AtomicI64::new(0),
            passed_over: AtomicI64::new(0),
        }
    }

    /// Whether something of `height`, at which this node is in consensus now, was passed over since
    /// it had left.
    pub(crate) fn take_passed_over(&self, height: Height) -> bool {
        self.passed_over.swap(0, Ordering::AcqRel) == height.get()
    }
}

pub(crate) struct Shared {
    pub(crate) own_id: PeerId,
    pub(crate) initial_height: Height,
    pub(crate) rules: RulesByHeight,
    pub(crate) stored: StoredBlocks,
    pub(crate) gossip_sleep: Duration,
    pub(crate) maj23_sleep: Duration,
    peers: Mutex<HashMap<PeerId, Arc<Peer>>>,
    /// `None` while not in consensus.
    pub(crate) view: watch::Sender<Option<Arc<View>>>,
    /// Taken out by peers' tasks whenever they are woken; nobody waits for them.
    pub(crate) news: broadcast::Sender<News>,
    /// A view was shown: the reactor's task is to wake those of the peers.
    pub(crate) shown: Notify,
    pub(crate) to_core: mpsc::Sender<FromPeer>,
    pub(crate) claims: mpsc::Sender<Claim>,
    pub(crate) decided: watch::Sender<Option<Arc<State>>>,
    pub(crate) ended: watch::Sender<Option<ConsensusError>>,
    pinned: AtomicI64,
    /// The highest height that peers were told this node is at.
    told: AtomicI64,
    /// Consensus is to be left: nothing is signed any more.
    pub(crate) leaving: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        setup: &crate::ConsensusSetup,
        to_core: mpsc::Sender<FromPeer>,
        claims: mpsc::Sender<Claim>,
    ) -> Self {
        Self {
            own_id: setup.own_id,
            initial_height: setup.evidence.state().initial_height,
            rules: setup.rules.clone(),
            stored: StoredBlocks::new(Arc::clone(&setup.store)),
            gossip_sleep: setup.gossip_sleep,
            maj23_sleep: setup.maj23_sleep,
            peers: Mutex::default(),
            view: watch::Sender::new(None),
            news: broadcast::Sender::new(NEWS_QUEUE),
            shown: Notify::new(),
            to_core,
            claims,
            decided: watch::Sender::new(None),
            ended: watch::Sender::new(None),
            pinned: AtomicI64::new(0),
            told: AtomicI64::new(0),
            leaving: AtomicBool::new(false),
        }
    }

    pub(crate) fn peers(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Peer>>> {
        lock(&self.peers)
    }

    pub(crate) fn peer(&self, id: &PeerId) -> Option<Arc<Peer>> {
        self.peers().get(id).cloned()
    }

    /// The rules by which messages of peers are decoded.
    pub(crate) fn rules_now(&self, view: Option<&View>) -> Rules {
        match view {
            Some(view) => self.rules.at(view.height()),
            None => self.rules.at(self.stored.next_height()),
        }
    }

    /// Shows a view, and has peers' tasks look at it and at the news. The thread that shows it wakes
    /// one task, whatever the number of peers: each that is woken from outside the runtime costs a
    /// thread or two their sleep.
    pub(crate) fn show(&self, view: Arc<View>) {
        self.view.send_if_modified(|shown| {
            *shown = Some(view);
            // Who waits is woken by the reactor's task.
            false
        });
        self.shown.notify_one();
    }

    /// Tells all peers, together with the next view; those that do not follow are told where this
    /// node is later.
    pub(crate) fn announce(&self, announce: &Announce) {
        if let Announce::RoundStep(step) = announce {
            self.told.fetch_max(step.height.get(), Ordering::AcqRel);
        }
        if let Some(message) = PeerMessage::announcing(announce, Instant::now()) {
            // Without peers nobody listens.
            drop(self.news.send(News {
                channel: message.channel(),
                bytes: message.encode(),
            }));
        }
    }

    /// A proposal, part or vote of `height` that the peer has sent is not taken, since this node is
    /// not in consensus. A peer that was told of that height goes on believing that it is here,
    /// until it is told of another height or round.
    pub(crate) fn pass_over(&self, peer: &Peer, height: Height) {
        if height.get() <= self.told.load(Ordering::Acquire) {
            peer.passed_over.fetch_max(height.get(), Ordering::AcqRel);
        }
    }

    /// The same for a message that waited for the state machine.
    pub(crate) fn pass_over_queued(&self, from: &FromPeer) {
        if let Some(peer) = self.peer(&from.peer) {
            self.pass_over(&peer, from.message.height());
        }
    }

    /// Disconnects a peer for what it sent.
    pub(crate) fn punish(&self, peer: &PeerId, fault: &dyn std::fmt::Display) {
        if let Some(peer) = self.peer(peer) {
            disconnect(&peer.handle, fault);
        }
    }

    /// Nothing is signed at `height` or below from now on.
    pub(crate) fn pin(&self, height: Height) {
        self.pinned.fetch_max(height.get(), Ordering::AcqRel);
    }

    pub(crate) fn pinned(&self) -> Height {
        Height::new(self.pinned.load(Ordering::Acquire))
    }

    /// The first reason counts.
    pub(crate) fn end(&self, error: ConsensusError) {
        self.view.send_replace(None);
        self.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(error);
            is_first
        });
    }

    /// Why it has ended; that this node stops, while it has not.
    pub(crate) fn end_reason(&self) -> ConsensusError {
        let ended = self.ended.borrow().clone();
        ended.unwrap_or(ConsensusError::Stopped)
    }
}

pub(crate) fn disconnect(peer: &PeerHandle, fault: &dyn std::fmt::Display) {
    peer.disconnect(DisconnectReason::Misbehaviour {
        reactor: NAME,
        fault: fault.to_string(),
    });
}

/// The content of a mutex whose holders never panic while it is half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
