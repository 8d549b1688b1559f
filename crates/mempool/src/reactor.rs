//! The reactor on channel 0x30.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use perihelion_abci::AppError;
use perihelion_p2p::{
    ChannelDescriptor, DisconnectReason, MIN_UNHANDLED_BYTES, PeerEvent, PeerHandle, Permit,
};
use perihelion_types::PeerId;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Mempool, MempoolConfig, MempoolKind, PeerHeights,
    gossip::Gossip,
    incoming::{Checks, FromPeer, Waiting, check_all},
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
/// Bytes of these, of which each counts for its peer's share at most: one that is longer takes all of
/// that, and nothing more is read from its peer. So it is 64 times the longest where 64 peers send it:
/// 256 MiB, or 64 times `max_tx_bytes` where that is more than 4 MiB. While more peers than these fill
/// their shares, what comes is dropped.
const QUEUE_BYTES: usize = 64 * UNHANDLED_BYTES;
/// Known transactions of a message that are passed over before it has to wait with the others: the
/// reactor's one task looks at them.
const KNOWN_AT_ONCE: usize = 256;

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
    checks: Arc<Checks>,
    waiting: Waiting,
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
        let waiting = Waiting::new(QUEUE_BYTES, UNHANDLED_BYTES);
        let gossip = Gossip {
            persistent: places(config.max_gossip_to_persistent_peers),
            others: places(config.max_gossip_to_other_peers),
            mempool,
            heights,
            active,
        };
        let (queue, queued) = mpsc::channel(QUEUE);
        let checks = Arc::<Checks>::default();
        let (checked, counted) = (Arc::clone(&gossip.mempool), Arc::clone(&checks));
        tokio::task::spawn_blocking(move || check_all(&checked, &counted, queued));
        Self {
            gossip,
            unconditional,
            gossip_tasks: HashMap::new(),
            queue,
            checks,
            waiting,
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
        let mut failure = self.gossip.mempool.failure();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Ok(error) = failure.wait_for(Option::is_some) => {
                    return error.clone().map_or(Ok(()), Err);
                }
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
        let id = from.id();
        // Most often another peer was first.
        let seen = |tx: &Bytes| self.gossip.mempool.is_seen(tx, id);
        let Some(first) = first_unseen(&mut txs, seen) else {
            return;
        };
        // The shares of 64 peers have room; it is dropped only where more fill theirs, or peers that
        // are gone have left too many behind.
        let item = self.waiting.take(message.len(), share).map(|share| {
            let (peer, active) = (from.clone(), self.gossip.active.clone());
            let is_idle = Box::new(move || peer.is_closing() || !*active.borrow());
            FromPeer::new(first, txs, id, is_idle, share)
        });
        let mempool = &self.gossip.mempool;
        if !item.is_some_and(|item| self.checks.take(mempool, item, &self.queue)) {
            count(&mempool.counters().unhandled);
        }
    }
}

/// The first transaction that was not seen before, or the one behind so many that were: the rest of a
/// message is looked at where others do not wait for it.
fn first_unseen(
    txs: &mut impl Iterator<Item = Bytes>,
    mut is_seen: impl FnMut(&Bytes) -> bool,
) -> Option<Bytes> {
    let known = txs.by_ref().take(KNOWN_AT_ONCE).find(|tx| !is_seen(tx));
    known.or_else(|| txs.next())
}

impl std::fmt::Debug for MempoolReactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MempoolReactor")
            .field("peers", &self.gossip_tasks.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest message of a peer takes the whole share of that peer, and not that of others.
    #[test]
    fn every_peers_share_has_room_however_long_its_message_is() {
        let waiting = Waiting::new(QUEUE_BYTES, UNHANDLED_BYTES);
        let longest = wire::message_bytes(WIDEST_TX_BYTES);
        let mut taken: Vec<_> = (0..64).map(|_| waiting.take(longest, None)).collect();
        assert!(taken.iter().all(Option::is_some));
        assert!(waiting.take(1, None).is_none());
        taken.pop();
        assert!(waiting.take(longest, None).is_some());
    }

    #[test]
    fn only_so_many_known_transactions_are_passed_over_at_once() {
        let tx = |number: usize| Bytes::from(number.to_string());
        for (unknown, expected) in [
            (0, 0),
            (KNOWN_AT_ONCE - 1, KNOWN_AT_ONCE - 1),
            (KNOWN_AT_ONCE, KNOWN_AT_ONCE),
            (10 * KNOWN_AT_ONCE, KNOWN_AT_ONCE),
        ] {
            let mut looks = 0;
            let mut txs = (0..20 * KNOWN_AT_ONCE).map(tx);
            let first = first_unseen(&mut txs, |other| {
                looks += 1;
                *other != tx(unknown)
            });
            assert_eq!(first, Some(tx(expected)));
            assert_eq!(txs.next(), Some(tx(expected + 1)));
            assert!(looks <= KNOWN_AT_ONCE, "{looks}");
        }
        let known = |_: &Bytes| true;
        assert_eq!(first_unseen(&mut (0..3).map(tx), known), None);
        let mut all = (0..KNOWN_AT_ONCE).map(tx);
        assert_eq!(first_unseen(&mut all, known), None);
    }
}
