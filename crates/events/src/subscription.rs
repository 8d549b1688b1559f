//! What a subscriber holds.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use thiserror::Error;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{Message, bus::Registered};

/// Bytes of messages that wait for one subscriber at most. More: many slow subscribers hold more
/// memory; less: those of chains with large blocks are cancelled after a few of them.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Why a subscription has ended. The texts are CometBFT's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Cancelled {
    /// The subscriber has left.
    #[error("client unsubscribed")]
    Unsubscribed,
    /// It did not take its messages fast enough.
    #[error("internal subscription event buffer is out of capacity")]
    OutOfCapacity,
    /// The bus is gone.
    #[error("CometBFT exited")]
    Exited,
}

/// Messages that match a query. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Arc<Message>>,
    shared: Arc<Shared>,
    _registered: Registered,
}

/// The bus's end of it.
#[derive(Debug)]
pub(crate) struct Outlet {
    messages: mpsc::Sender<Arc<Message>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes of messages that wait.
    waiting: AtomicUsize,
    reason: OnceLock<Cancelled>,
}

/// Both ends; `capacity` messages may wait.
pub(crate) fn ends(capacity: usize, registered: Registered) -> (Outlet, Subscription) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let shared = Arc::new(Shared::default());
    let outlet = Outlet {
        messages: sender,
        shared: Arc::clone(&shared),
    };
    let subscription = Subscription {
        messages: receiver,
        shared,
        _registered: registered,
    };
    (outlet, subscription)
}

impl Outlet {
    /// Hands on a message, never waiting.
    ///
    /// # Errors
    /// When too much waits already, or nobody takes messages any more.
    pub(crate) fn give(&self, message: &Arc<Message>) -> Result<(), Cancelled> {
        let waiting = &self.shared.waiting;
        let before = waiting.fetch_add(message.size(), Ordering::AcqRel);
        // A single one may be larger.
        if before > 0 && before.saturating_add(message.size()) > MAX_WAITING_BYTES {
            return Err(Cancelled::OutOfCapacity);
        }
        self.messages
            .try_send(Arc::clone(message))
            .map_err(|error| match error {
                TrySendError::Full(_) => Cancelled::OutOfCapacity,
                TrySendError::Closed(_) => Cancelled::Unsubscribed,
            })
    }

    /// Ends the subscription; what waits can still be taken.
    pub(crate) fn cancel(self, reason: Cancelled) {
        // The first reason counts.
        let _ = self.shared.reason.set(reason);
    }
}

impl Subscription {
    /// The next message, as soon as there is one. May be dropped and called again.
    ///
    /// # Errors
    /// Once the subscription was cancelled and nothing waits any more; at once where the subscriber
    /// has left.
    pub async fn next(&mut self) -> Result<Arc<Message>, Cancelled> {
        let message = self.messages.recv().await;
        let Some(message) = message.filter(|_| !self.has_left()) else {
            return Err(self.reason());
        };
        let waiting = &self.shared.waiting;
        waiting.fetch_sub(message.size(), Ordering::AcqRel);
        Ok(message)
    }

    /// Whether the subscriber wants nothing more.
    fn has_left(&self) -> bool {
        self.shared.reason.get() == Some(&Cancelled::Unsubscribed)
    }

    fn reason(&self) -> Cancelled {
        self.shared
            .reason
            .get()
            .copied()
            .unwrap_or(Cancelled::Exited)
    }
}
