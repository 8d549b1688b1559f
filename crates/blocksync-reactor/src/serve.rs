//! Serving blocks: one task a peer, so that a slow peer waits for nobody but itself.

use std::{collections::VecDeque, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use perihelion_p2p::PeerHandle;
use perihelion_store::{Store, StoreError};
use perihelion_types::Height;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::debug;

use crate::{
    room::{PeerRoom, Place, Response, Room},
    wire,
};

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

/// Bytes after which one reading leaves the rest to the next.
const READ_BYTES: usize = 512 << 10;

/// Answers of one reading: the height and the response, or `None` where there is no block.
type Answers = Vec<(Height, Option<Bytes>)>;

/// What one reading brought.
struct Reading {
    answers: Answers,
    /// Heights that are left, the next one first.
    rest: VecDeque<Height>,
    /// The size of the next response, if there was no room for it.
    short_of: Option<usize>,
}

/// What a serving task needs.
#[derive(Clone)]
struct Server {
    store: Arc<Store>,
    room: PeerRoom,
}

/// Starts serving `peer` within `room`; the task ends when the sender is dropped or the peer is
/// gone.
pub(crate) fn start(peer: PeerHandle, store: Arc<Store>, room: PeerRoom) -> mpsc::Sender<Height> {
    let (requests, receiver) = mpsc::channel(REQUESTS);
    let server = Server { store, room };
    tokio::spawn(serve(peer, server, receiver));
    requests
}

async fn serve(peer: PeerHandle, server: Server, mut requests: mpsc::Receiver<Height>) {
    let mut no_blocks = NoBlockLimit::new();
    let mut batch = Vec::with_capacity(READ_BATCH);
    while requests.recv_many(&mut batch, READ_BATCH).await > 0 {
        let mut heights = VecDeque::from(std::mem::take(&mut batch));
        let mut room = None;
        while !heights.is_empty() {
            let Some(reading) = server.read(heights, room.take()).await else {
                return;
            };
            heights = reading.rest;
            for (height, response) in reading.answers {
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
            // Waiting holds back nobody else: nothing is read meanwhile.
            if let Some(bytes) = reading.short_of {
                match server.room.take(bytes).await {
                    Some(Place::Whole(found)) => room = Some(found),
                    Some(Place::InParts) => {
                        let Some(height) = heights.pop_front() else {
                            continue;
                        };
                        if server.send_in_parts(&peer, height, bytes).await.is_none() {
                            return;
                        }
                    }
                    None => return,
                }
            }
        }
    }
}

impl Server {
    /// Reads the next responses, the first of them into `room`; `None` when the node stops.
    async fn read(&self, heights: VecDeque<Height>, room: Option<Room>) -> Option<Reading> {
        let _reading = Arc::clone(&self.room.limits.reading)
            .acquire_owned()
            .await
            .ok()?;
        let server = self.clone();
        let read = tokio::task::spawn_blocking(move || server.read_now(heights, room));
        read.await.ok()
    }

    /// Reads until enough bytes are at hand, or there is no room for more.
    fn read_now(&self, mut rest: VecDeque<Height>, mut room: Option<Room>) -> Reading {
        let (mut answers, mut bytes) = (Vec::with_capacity(rest.len()), 0);
        let mut short_of = None;
        while bytes < READ_BYTES
            && let Some(&height) = rest.front()
        {
            let response = self.load(height);
            let response = match response {
                None => None,
                Some(response) => {
                    let length = response.len();
                    let Some(room) = room.take().or_else(|| self.room.try_take(length)) else {
                        short_of = Some(length);
                        break;
                    };
                    bytes += length;
                    Some(Bytes::from_owner(Response {
                        bytes: response,
                        _room: room,
                    }))
                }
            };
            rest.pop_front();
            answers.push((height, response));
        }
        Reading {
            answers,
            rest,
            short_of,
        }
    }

    /// Sends the response for a height, of `length` bytes, in parts: there is room for no more. Each is
    /// read anew once the one before has left. `None` when the connection is over, or has to be: the
    /// block has been pruned meanwhile.
    async fn send_in_parts(&self, peer: &PeerHandle, height: Height, length: usize) -> Option<()> {
        let mut message = peer.send_in_parts(wire::CHANNEL).await.ok()?;
        let mut sent = 0;
        while sent < length {
            let end = length.min(sent + self.room.part_bytes());
            let room = self.room.take_part().await?;
            let part = self.read_part(height, sent..end, length, room).await?;
            message.send(part, end == length).await.ok()?;
            sent = end;
        }
        Some(())
    }

    /// Reads a part of a response of `length` bytes.
    async fn read_part(
        &self,
        height: Height,
        part: Range<usize>,
        length: usize,
        room: Room,
    ) -> Option<Bytes> {
        let _reading = Arc::clone(&self.room.limits.reading)
            .acquire_owned()
            .await
            .ok()?;
        let server = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let response = server.load(height).filter(|it| it.len() == length)?;
            // Copied, so that the whole of it is not kept.
            Some(Bytes::from_owner(Response {
                bytes: Bytes::copy_from_slice(&response[part]),
                _room: room,
            }))
        });
        read.await.ok()?
    }

    /// The response with the block of a height; none where there is no such block, or it cannot be
    /// read.
    fn load(&self, height: Height) -> Option<Bytes> {
        load(&self.store, height).unwrap_or_else(|error| {
            self.store.report_unreadable(&error);
            debug!(%height, %error, "a stored block cannot be served");
            None
        })
    }
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
}
