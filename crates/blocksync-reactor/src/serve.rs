//! Serving blocks: one task a peer, so that a slow peer waits for nobody but itself.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use perihelion_p2p::PeerHandle;
use perihelion_store::{Store, StoreError};
use perihelion_types::Height;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until},
};
use tracing::warn;

use crate::wire;

/// Requests of one peer that may wait. CometBFT asks for at most 20 at a time in v0.38 and our own
/// nodes for 500; what goes beyond is dropped, and the peer asks again.
const REQUESTS: usize = 1000;

/// Blocks that are read in one go, so that a hand-over to the reading thread costs less than the
/// reading.
const READ_BATCH: usize = 32;

/// NoBlockResponses that a peer gets at once, and how long each further one waits: CometBFT asks
/// again immediately, and would otherwise spin with us as fast as the wire allows.
const NO_BLOCK_BURST: u32 = 64;
const NO_BLOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Bounds on the memory that serving takes, all peers together.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// Responses that wait to be sent, in KiB; a permit is held until the bytes are sent.
    sending: Arc<Semaphore>,
    /// Reads at once, each holding one batch.
    reading: Arc<Semaphore>,
    total_kib: u32,
}

impl ServeLimits {
    /// At most `kib` KiB of responses waiting to be sent (one larger response may stand alone), and
    /// `reads` reads at once.
    #[must_use]
    pub fn new(kib: u32, reads: usize) -> Self {
        Self {
            sending: Arc::new(Semaphore::new(kib as usize)),
            reading: Arc::new(Semaphore::new(reads)),
            total_kib: kib,
        }
    }

    fn kib(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1024))
            .unwrap_or(u32::MAX)
            .clamp(1, self.total_kib)
    }
}

impl Default for ServeLimits {
    /// 64 MiB of responses and two reads: enough for any link, and little beside a sync.
    fn default() -> Self {
        Self::new(64 << 10, 2)
    }
}

/// A response that gives its room back when it is sent, and its batch's place with the last of it.
struct Response {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
    _batch: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Response {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Starts serving `peer`; the task ends when the sender is dropped or the peer is gone.
pub(crate) fn start(
    peer: PeerHandle,
    store: Arc<Store>,
    limits: ServeLimits,
) -> mpsc::Sender<Height> {
    let (requests, receiver) = mpsc::channel(REQUESTS);
    tokio::spawn(serve(peer, store, limits, receiver));
    requests
}

/// Answers of one reading: the height and the response, or `None` where there is no block.
type Answers = Vec<(Height, Option<Bytes>)>;

async fn serve(
    peer: PeerHandle,
    store: Arc<Store>,
    limits: ServeLimits,
    mut requests: mpsc::Receiver<Height>,
) {
    let mut no_blocks = NoBlockLimit::new();
    let unsent = Arc::new(Semaphore::new(UNSENT_BATCHES));
    let mut batch = Vec::with_capacity(READ_BATCH);
    while requests.recv_many(&mut batch, READ_BATCH).await > 0 {
        let mut heights = std::mem::take(&mut batch);
        while !heights.is_empty() {
            // A peer that takes nothing gets nothing read, and waits without what others need.
            let Ok(place) = Arc::clone(&unsent).acquire_owned().await else {
                return;
            };
            let Some((messages, rest)) = responses(&store, &limits, place, heights).await else {
                return;
            };
            heights = rest;
            for (height, response) in messages {
                let message = match response {
                    Some(response) => response,
                    None => {
                        no_blocks.wait().await;
                        wire::no_block_response(height)
                    }
                };
                if peer.send(wire::CHANNEL, message).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads one batch and finds room for it; `None` when the node stops. Whoever reads waits for
/// nothing but room, of which each peer can take only a small part.
async fn responses(
    store: &Arc<Store>,
    limits: &ServeLimits,
    place: OwnedSemaphorePermit,
    heights: Vec<Height>,
) -> Option<(Answers, Vec<Height>)> {
    let place = Arc::new(place);
    let _reading = Arc::clone(&limits.reading).acquire_owned().await.ok()?;
    let store = Arc::clone(store);
    let read = tokio::task::spawn_blocking(move || read(&store, heights)).await;
    let (mut answers, rest) = read.ok()?;
    for (_, response) in &mut answers {
        if let Some(bytes) = response.take() {
            let kib = limits.kib(bytes.len());
            let room = Arc::clone(&limits.sending).acquire_many_owned(kib).await;
            *response = Some(Bytes::from_owner(Response {
                bytes,
                _room: room.ok()?,
                _batch: Arc::clone(&place),
            }));
        }
    }
    Some((answers, rest))
}

/// Bytes after which one reading leaves the rest to the next. With [`UNSENT_BATCHES`] it bounds what
/// one peer can take of the room of all: more would let a few that read nothing starve the others,
/// less would read in pieces that are too small.
const READ_BYTES: usize = 512 << 10;
/// Batches of one peer that were read and are not sent: one on its way, and the next.
const UNSENT_BATCHES: usize = 2;

/// Reads blocks until enough bytes are at hand; gives back the heights that are left.
fn read(store: &Store, heights: Vec<Height>) -> (Answers, Vec<Height>) {
    let (mut answers, mut bytes) = (Vec::with_capacity(heights.len()), 0);
    let mut heights = heights.into_iter();
    while bytes < READ_BYTES
        && let Some(height) = heights.next()
    {
        let response = match load(store, height) {
            Ok(response) => response,
            Err(error) => {
                warn!(%height, %error, "a stored block cannot be served");
                None
            }
        };
        bytes += response.as_ref().map_or(0, Bytes::len);
        answers.push((height, response));
    }
    (answers, heights.collect())
}

fn load(store: &Store, height: Height) -> Result<Option<Bytes>, StoreError> {
    let Some(block) = store.load_block_bytes(height)? else {
        return Ok(None);
    };
    let extended = store.load_extended_commit_bytes(height)?;
    Ok(Some(wire::block_response(&block, extended.as_deref())))
}

/// A token bucket over NoBlockResponses.
struct NoBlockLimit {
    /// When the bucket will have been filled again.
    full_at: Instant,
}

impl NoBlockLimit {
    fn new() -> Self {
        Self {
            full_at: Instant::now(),
        }
    }

    async fn wait(&mut self) {
        let now = Instant::now();
        let full_at = self.full_at.max(now) + NO_BLOCK_INTERVAL;
        self.full_at = full_at;
        let allowed_at = full_at.checked_sub(NO_BLOCK_INTERVAL * NO_BLOCK_BURST);
        if let Some(at) = allowed_at.filter(|at| *at > now) {
            sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_block_responses_are_spaced_after_a_burst() {
        let mut limit = NoBlockLimit::new();
        let start = Instant::now();
        for _ in 0..NO_BLOCK_BURST {
            limit.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            limit.wait().await;
        }
        assert_eq!(start.elapsed(), NO_BLOCK_INTERVAL * 50);
    }

    #[tokio::test]
    async fn a_response_gives_its_room_back_when_it_is_dropped() {
        let limits = ServeLimits::new(10, 1);
        let room = Arc::clone(&limits.sending)
            .acquire_many_owned(4)
            .await
            .expect("open");
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let message = Bytes::from_owner(Response {
            bytes: Bytes::from_static(b"block"),
            _room: room,
            _batch: Arc::new(place),
        });
        let part = message.slice(1..3);
        drop(message);
        assert_eq!(limits.sending.available_permits(), 6);
        assert_eq!(places.available_permits(), 0);
        drop(part);
        assert_eq!(limits.sending.available_permits(), 10);
        assert_eq!(places.available_permits(), 1);
    }
}
