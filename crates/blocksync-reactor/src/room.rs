//! Room for responses: a share for each peer, and one room for all beyond it. What finds none there
//! goes out in parts of the share's size, so that no peer ever waits for another one's room.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Responses in KiB that may wait for one peer without touching the room of all. Less, and while the
/// room of all is taken, large blocks would be read more often for each time they are sent; more, and
/// each peer that reads nothing would cost that much memory.
const SHARE_KIB: u32 = 1024;

/// Bounds on the memory that serving takes.
///
/// Each peer has a share of its own, which no other peer can take. A response that is larger than
/// the share, one at a time for each peer, takes room that all peers have together. Peers that read
/// little or nothing may hold all of that: then a large response goes out in parts that fit the
/// peer's share, each read from the store anew, which costs reading and holds up nobody.
///
/// So responses take the room of all and each peer's share at the most, and each read twice its
/// block while it lasts.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// The room of all, in KiB; a permit is held until the bytes are sent.
    sending: Arc<Semaphore>,
    total_kib: u32,
    share_kib: u32,
    /// Reads at once, each holding one batch.
    pub(crate) reading: Arc<Semaphore>,
}

impl ServeLimits {
    /// At most `kib` KiB of large responses waiting to be sent (one larger response may stand
    /// alone; with 0 there is no such room), `share_kib` KiB of others for each peer, and `reads`
    /// reads at once.
    #[must_use]
    pub fn new(kib: u32, share_kib: u32, reads: usize) -> Self {
        Self {
            sending: Arc::new(Semaphore::new(kib as usize)),
            total_kib: kib,
            share_kib,
            reading: Arc::new(Semaphore::new(reads)),
        }
    }
}

impl Default for ServeLimits {
    /// 64 MiB of large responses, 1 MiB for each peer and two reads: enough for any link, and
    /// little beside a sync.
    fn default() -> Self {
        Self::new(64 << 10, SHARE_KIB, 2)
    }
}

/// The room of one peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerRoom {
    pub(crate) limits: ServeLimits,
    share: Arc<Semaphore>,
    /// Its one response beyond the share.
    beyond: Arc<Semaphore>,
}

/// Room that is taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// How a response can be sent.
#[derive(Debug)]
pub(crate) enum Place {
    /// As a whole.
    Whole(Room),
    /// In parts of [`PeerRoom::part_bytes`].
    InParts,
}

impl PeerRoom {
    pub(crate) fn new(limits: ServeLimits) -> Self {
        Self {
            share: Arc::new(Semaphore::new(limits.share_kib as usize)),
            beyond: Arc::new(Semaphore::new(1)),
            limits,
        }
    }

    /// Room for a whole response, if there is some now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Room> {
        let kib = kib(bytes);
        if kib > self.limits.share_kib {
            let beyond = Arc::clone(&self.beyond).try_acquire_owned().ok()?;
            return self.try_take_of_all(kib, beyond);
        }
        let share = Arc::clone(&self.share).try_acquire_many_owned(kib).ok()?;
        Some(Room {
            _permits: (share, None),
        })
    }

    fn try_take_of_all(&self, kib: u32, beyond: OwnedSemaphorePermit) -> Option<Room> {
        let kib = kib.min(self.limits.total_kib);
        let all = Arc::clone(&self.limits.sending).try_acquire_many_owned(kib);
        let all = all.ok().filter(|_| kib > 0)?;
        Some(Room {
            _permits: (beyond, Some(all)),
        })
    }

    /// Waits until a response can be sent: for what this peer itself has yet to take, and for no
    /// other. `None` is never returned while the node runs.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Place> {
        let kib = kib(bytes);
        if kib <= self.limits.share_kib {
            let share = Arc::clone(&self.share).acquire_many_owned(kib).await.ok()?;
            return Some(Place::Whole(Room {
                _permits: (share, None),
            }));
        }
        let beyond = Arc::clone(&self.beyond).acquire_owned().await.ok()?;
        let whole = self.try_take_of_all(kib, beyond);
        Some(whole.map_or(Place::InParts, Place::Whole))
    }

    /// Waits for room for one part.
    pub(crate) async fn take_part(&self) -> Option<Room> {
        let kib = self.limits.share_kib;
        let share = Arc::clone(&self.share).acquire_many_owned(kib).await.ok()?;
        Some(Room {
            _permits: (share, None),
        })
    }

    /// Bytes of a part at the most.
    pub(crate) fn part_bytes(&self) -> usize {
        self.limits.share_kib as usize * 1024
    }

    /// Whether responses wait to be sent.
    pub(crate) fn is_taken(&self) -> bool {
        self.share.available_permits() < self.limits.share_kib as usize
            || self.beyond.available_permits() == 0
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024))
        .unwrap_or(u32::MAX)
        .max(1)
}

/// A response that gives its room back when it is sent.
pub(crate) struct Response {
    pub(crate) bytes: Bytes,
    pub(crate) _room: Room,
}

impl AsRef<[u8]> for Response {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How long a peer may leave responses waiting while it takes next to nothing. Shorter, and a peer
/// whose network stalls would lose its connection; longer, and those that read nothing would hold
/// the room of all for that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that a peer which responses wait for must take in that time, at least. Answers to its
/// pings stay below.
const LEAST: u64 = 64 << 10;

/// Notices a peer that asks and does not take the answers.
#[derive(Debug, Default)]
pub(crate) struct Reluctance {
    /// Since when responses have been waiting, and what was sent until then.
    since: Option<(Instant, u64)>,
}

impl Reluctance {
    /// Whether it is time to let the peer go; `sent` are the bytes that it has taken so far.
    pub(crate) fn check(&mut self, now: Instant, waiting: bool, sent: u64) -> bool {
        match self.since {
            Some((since, before)) if waiting => {
                if now.duration_since(since) < PATIENCE {
                    return false;
                }
                self.since = Some((now, sent));
                sent.saturating_sub(before) < LEAST
            }
            _ => {
                self.since = waiting.then_some((now, sent));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_whatever_others_hold() {
        let limits = ServeLimits::new(10, 4, 1);
        let (first, second) = (PeerRoom::new(limits.clone()), PeerRoom::new(limits.clone()));
        let large = first.try_take(8 << 10).unwrap();
        assert!(first.is_taken());
        assert!(
            first.try_take(5 << 10).is_none(),
            "one large response at a time"
        );
        assert!(
            second.try_take(5 << 10).is_none(),
            "the room of all is taken"
        );
        let small = second.try_take(4 << 10).unwrap();
        assert!(second.try_take(1).is_none());
        drop((large, small));
        assert!(!first.is_taken() && !second.is_taken());
        let alone = second.try_take(1 << 20).unwrap();
        assert_eq!(limits.sending.available_permits(), 0);
        drop(alone);
        assert_eq!(limits.sending.available_permits(), 10);
    }

    #[tokio::test]
    async fn no_peer_waits_for_the_room_that_others_hold() {
        let limits = ServeLimits::new(10, 4, 1);
        let (first, second) = (PeerRoom::new(limits.clone()), PeerRoom::new(limits));
        let Some(Place::Whole(large)) = first.take(8 << 10).await else {
            panic!("the room of all was free");
        };
        assert!(matches!(second.take(5 << 10).await, Some(Place::InParts)));
        let part = second.take_part().await.unwrap();
        assert!(second.is_taken());
        drop(part);
        drop(large);
        let whole = second.take(5 << 10).await;
        assert!(matches!(whole, Some(Place::Whole(_))));
        // Nobody has room that is not there.
        let none = PeerRoom::new(ServeLimits::new(0, 4, 1));
        assert!(none.try_take(5 << 10).is_none());
        assert!(matches!(none.take(5 << 10).await, Some(Place::InParts)));
    }

    #[test]
    fn a_response_gives_its_room_back_when_all_of_it_is_dropped() {
        let room = PeerRoom::new(ServeLimits::new(10, 4, 1));
        let message = Bytes::from_owner(Response {
            bytes: Bytes::from_static(b"block"),
            _room: room.try_take(5).unwrap(),
        });
        let part = message.slice(1..3);
        drop(message);
        assert!(room.is_taken());
        drop(part);
        assert!(!room.is_taken());
    }

    #[test]
    fn a_peer_that_takes_nothing_is_let_go() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut peer = Reluctance::default();
        assert!(!peer.check(at(0), true, 1000));
        assert!(!peer.check(at(29), true, 1000));
        // Answers to pings are not what it asked for.
        assert!(peer.check(at(30), true, 40_000));
        // Slow is not reluctant.
        assert!(!peer.check(at(60), true, 110_000));
        assert!(peer.check(at(90), true, 110_000));
        // With nothing to take, nothing is expected.
        assert!(!peer.check(at(119), false, 110_000));
        assert!(!peer.check(at(120), true, 110_000));
        assert!(!peer.check(at(149), true, 110_000));
    }
}
