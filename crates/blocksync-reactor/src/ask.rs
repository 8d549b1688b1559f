//! Asking peers: one task a peer, so that a peer whose connection is clogged holds back no request
//! to another.

use perihelion_p2p::PeerHandle;
use perihelion_types::Height;
use tokio::sync::mpsc;
use tracing::debug;

use crate::wire;

/// Requests to one peer that may wait. The schedule has at most a few hundred in flight; more wait
/// only for a peer that reads nothing, and of that nothing is expected.
const ASKS: usize = 2048;

/// What a peer can be asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// A block.
    Block(Height),
    /// Its range.
    Status,
}

/// Starts asking `peer`; the task ends when the sender is dropped or the peer is gone.
pub(crate) fn start(peer: PeerHandle) -> mpsc::Sender<Ask> {
    let (asks, receiver) = mpsc::channel(ASKS);
    tokio::spawn(ask(peer, receiver));
    asks
}

async fn ask(peer: PeerHandle, mut asks: mpsc::Receiver<Ask>) {
    while let Some(ask) = asks.recv().await {
        let message = match ask {
            Ask::Block(height) => wire::block_request(height),
            Ask::Status => wire::status_request(),
        };
        if let Err(error) = peer.send(wire::CHANNEL, message).await {
            debug!(peer = %peer.id(), %error, "request not sent");
            return;
        }
    }
}
