//! Passing transactions on to one peer.

use std::{sync::Arc, time::Duration};

use perihelion_p2p::PeerHandle;
use perihelion_types::{Height, PeerId};
use tokio::{
    sync::{Semaphore, watch},
    time::sleep,
};

use crate::{Mempool, wire};

/// How long to wait for a peer that is behind. CometBFT's figure.
const BEHIND_PAUSE: Duration = Duration::from_millis(100);

/// How long to gather transactions behind some that were sent at once, since a message for each wakes
/// both ends for each; and before those of other peers are passed on, since most of them come to this
/// peer as well meanwhile. CometBFT holds back whatever it sends for 10 to 100 ms
/// (`p2p.flush_throttle_timeout`), votes too.
const GATHER: Duration = Duration::from_millis(20);

/// How far peers are: the height that a peer works on, as it said last; `None` where it has not said
/// yet.
pub type PeerHeights = Arc<dyn Fn(&PeerId) -> Option<Height> + Send + Sync>;

/// What the tasks share.
#[derive(Clone)]
pub(crate) struct Gossip {
    pub(crate) mempool: Arc<Mempool>,
    pub(crate) heights: PeerHeights,
    pub(crate) active: watch::Receiver<bool>,
    /// Where only so many peers are sent transactions at a time.
    pub(crate) persistent: Option<Arc<Semaphore>>,
    pub(crate) others: Option<Arc<Semaphore>>,
}

impl Gossip {
    /// Sends a peer all transactions but its own, in order, until it is gone. `free` peers wait
    /// for no place among those that are sent transactions.
    pub(crate) async fn run(mut self, peer: PeerHandle, free: bool) {
        let places = match (free, peer.is_persistent()) {
            (true, _) => None,
            (false, true) => self.persistent.clone(),
            (false, false) => self.others.clone(),
        };
        let _place = match places {
            None => None,
            Some(places) => match places.acquire_owned().await {
                Ok(place) => Some(place),
                Err(_) => return,
            },
        };
        let id = peer.id();
        let mut added = self.mempool.subscribe_added();
        let mut place = 0;
        let mut has_sent = false;
        let mut has_gathered = false;
        loop {
            if self.active.wait_for(|active| *active).await.is_err() {
                return;
            }
            added.mark_unchanged();
            let Some(next) = self.mempool.next_for(&id, place) else {
                if std::mem::take(&mut has_sent) {
                    sleep(GATHER).await;
                    has_gathered = true;
                } else {
                    has_gathered = false;
                    if added.changed().await.is_err() {
                        return;
                    }
                }
                continue;
            };
            if next.is_relayed && !next.from_peer && !has_gathered {
                sleep(GATHER).await;
                has_gathered = true;
                continue;
            }
            // One block behind is as far as consensus itself lets a peer be.
            let height = (self.heights)(&id);
            if height.is_none_or(|height| height < next.height.prev()) {
                sleep(BEHIND_PAUSE).await;
                continue;
            }
            if !next.from_peer {
                if peer.send(wire::CHANNEL, next.message).await.is_err() {
                    return;
                }
                has_sent = true;
            }
            place = next.place;
        }
    }
}
