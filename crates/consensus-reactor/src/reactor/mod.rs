//! The reactor on channels 0x20 to 0x23: hands each peer's messages to that peer's task.
//!
//! Each peer has one task (`gossip`), which knows what the peer has and sends it what it lacks.
//! What of a peer's messages waits anywhere counts against that peer alone: when its share is used
//! up nothing more is read from it, and all others go on.

mod gossip;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use perihelion_p2p::{DisconnectReason, MIN_UNHANDLED_BYTES, PeerEvent, PeerHandle, Permit};
use perihelion_types::PeerId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    peer::PeerState,
    shared::{NAME, Peer, Shared},
    wire::Channel,
};
use gossip::Gossip;

/// Messages of one peer that may wait for its task: as many as its shares of all channels hold.
const PEER_QUEUE: usize = Channel::ALL_UNHANDLED_BYTES / MIN_UNHANDLED_BYTES + Channel::ALL.len();

/// A message as it came.
pub(crate) struct Incoming {
    channel: u8,
    bytes: Bytes,
    permit: Option<Permit>,
}

struct Entry {
    peer: PeerHandle,
    queue: mpsc::Sender<Incoming>,
    stop: CancellationToken,
}

/// Runs until `stop`, or until the switch is gone.
pub(crate) async fn run(
    shared: Arc<Shared>,
    mut events: mpsc::Receiver<PeerEvent>,
    stop: CancellationToken,
) {
    let mut entries: HashMap<PeerId, Entry> = HashMap::new();
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = shared.shown.notified() => {
                // It is there already: whoever waits is woken.
                shared.view.send_modify(|_| {});
                continue;
            }
            event = events.recv() => event,
        };
        match event {
            None => break,
            Some(PeerEvent::Added(peer)) => {
                if let Some(entry) = add_peer(&shared, peer, &stop) {
                    entries.insert(entry.peer.id(), entry);
                }
            }
            Some(PeerEvent::Removed { id, .. }) => {
                if let Some(entry) = entries.remove(&id) {
                    entry.stop.cancel();
                }
                shared.peers().remove(&id);
            }
            Some(PeerEvent::Message {
                from,
                channel,
                bytes,
                permit,
            }) => {
                if let Some(entry) = entries.get(&from.id()) {
                    entry.take(Incoming {
                        channel,
                        bytes,
                        permit,
                    });
                }
            }
        }
    }
    for entry in entries.values() {
        entry.stop.cancel();
    }
    shared.peers().clear();
}

/// Starts the peer's task. A peer that does not speak the channel that tells of states takes no
/// part in consensus.
fn add_peer(shared: &Arc<Shared>, handle: PeerHandle, stop: &CancellationToken) -> Option<Entry> {
    if !handle.has_channel(Channel::State.id()) {
        return None;
    }
    let id = handle.id();
    let state = PeerState::new(&shared.own_id, &id, shared.initial_height);
    let peer = Arc::new(Peer::new(handle.clone(), state));
    shared.peers().insert(id, Arc::clone(&peer));
    let (queue, incoming) = mpsc::channel(PEER_QUEUE);
    let stop = stop.child_token();
    let gossip = Gossip::new(Arc::clone(shared), peer, incoming);
    tokio::spawn(gossip.run(stop.clone()));
    Some(Entry {
        peer: handle,
        queue,
        stop,
    })
}

impl Entry {
    fn take(&self, incoming: Incoming) {
        match self.queue.try_send(incoming) {
            // Its task has ended: it is being disconnected.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            // Its shares are smaller than the queue. Were a message dropped all the same, the peer
            // would never send it again.
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.peer.disconnect(DisconnectReason::ReactorStopped(NAME));
            }
        }
    }
}

#[cfg(test)]
mod tests;
