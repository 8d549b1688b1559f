//! What of peers' messages waits to be verified.

use std::{collections::HashMap, sync::Arc};

use perihelion_types::PeerId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::wire::MAX_MESSAGE_BYTES;

/// Bytes of one peer's messages that may wait: one of the largest. More, and many peers together
/// take much memory; less, and the largest could not be taken.
const SHARE_BYTES: usize = MAX_MESSAGE_BYTES;
/// Messages of one peer that may wait. More, and a peer that floods delays the others' evidence by
/// the time that so many take; fewer, and more of a peer that has much comes only when it says it
/// again.
pub(crate) const SHARE: usize = 32;
/// What a message counts at least.
const LEAST_BYTES: usize = SHARE_BYTES / SHARE;
/// Messages of all peers that may wait: more peers than are ever connected have their share.
const QUEUE: usize = 8_192;

/// The sending end. Each peer has a share, and what is beyond it is dropped: peers say it again.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    sender: mpsc::Sender<Queued<T>>,
    shares: HashMap<PeerId, Arc<Semaphore>>,
}

/// A message; its place in the peer's share is free once this is dropped.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    pub(crate) item: T,
    _share: OwnedSemaphorePermit,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Queued<T>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let shares = HashMap::new();
        (Self { sender, shares }, receiver)
    }

    /// The peer is gone. What waits of it still counts for nobody else.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.shares.remove(peer);
    }

    /// Puts a message of so many bytes behind the others; `false` when it is dropped.
    pub(crate) fn put(&mut self, peer: PeerId, bytes: usize, item: T) -> bool {
        let share = self
            .shares
            .entry(peer)
            .or_insert_with(|| Arc::new(Semaphore::new(SHARE_BYTES)));
        let counts = bytes.clamp(LEAST_BYTES, SHARE_BYTES);
        let Ok(counts) = u32::try_from(counts) else {
            return false;
        };
        let Ok(share) = Arc::clone(share).try_acquire_many_owned(counts) else {
            return false;
        };
        let queued = Queued {
            item,
            _share: share,
        };
        self.sender.try_send(queued).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use perihelion_types::NodeId;

    use super::*;

    fn id(byte: u8) -> PeerId {
        NodeId::new([byte; 20])
    }

    #[test]
    fn a_flood_of_one_peer_leaves_the_others_their_room() {
        let (mut queue, mut queued) = Queue::new();
        let taken = (0..10_000).filter(|number| queue.put(id(1), 100, *number));
        assert_eq!(taken.count(), SHARE);
        for peer in 2..200 {
            assert!(queue.put(id(peer), 100, 0));
        }
        // Each that was handled makes room for one.
        drop(queued.try_recv().unwrap());
        assert!(queue.put(id(1), 100, 0));
        assert!(!queue.put(id(1), 100, 0));
    }

    #[test]
    fn bytes_of_one_peer_are_bounded_and_the_largest_message_fits() {
        let (mut queue, mut queued) = Queue::new();
        assert!(queue.put(id(1), MAX_MESSAGE_BYTES, "largest"));
        assert!(!queue.put(id(1), 0, "small"));
        let first = queued.try_recv().unwrap();
        // It counts while it is handled.
        assert!(!queue.put(id(1), 0, "small"));
        assert_eq!(first.item, "largest");
        drop(first);
        assert!(queue.put(id(1), MAX_MESSAGE_BYTES / 2, "half"));
        assert!(queue.put(id(1), MAX_MESSAGE_BYTES / 2, "half"));
        assert!(!queue.put(id(1), MAX_MESSAGE_BYTES / 2, "half"));
    }

    #[test]
    fn a_peer_that_is_gone_is_forgotten() {
        let (mut queue, mut queued) = Queue::new();
        assert!(queue.put(id(1), MAX_MESSAGE_BYTES, ()));
        queue.forget(&id(1));
        assert!(queue.shares.is_empty());
        assert!(queued.try_recv().is_ok());
    }
}
