//! Who subscribed to what.
//!
//! Whoever publishes never waits, so what is published may pile up before the thread that hands it
//! out. Work is counted for each subscriber: when much waits, those who cause most of it are
//! cancelled, so that the others go on. What is lost all the same cancels those who would miss it.
//!
//! Reading order: this file (the bus), `hand_out` (its thread), `subscribers`.

mod hand_out;
mod subscribers;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use thiserror::Error;

use crate::{AppliedBlock, Cancelled, Query, RoundEvent, Subscription, subscription::ends};
use subscribers::Subscribers;

/// Blocks and steps that wait to be handed out at most. Where that is not enough, matching is slower
/// than the chain, and what finds no room is lost.
const MAX_WAITING: usize = 1_024;
/// With so many waiting, steps find no room any more: the rest is for blocks. With fewer, a burst of
/// votes is too much; with more, blocks are lost behind votes.
const MAX_WAITING_STEPS: usize = 768;
/// Bytes of blocks among them at most.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Hands events to subscribers. Clones are handles of the same bus.
#[derive(Debug, Clone, Default)]
pub struct EventBus {
    inner: Arc<Inner>,
}

/// The bus for those who publish and subscribe; its thread holds only what is in `shared`.
#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    items: SyncSender<Item>,
    thread: Mutex<Thread>,
}

/// The thread that hands out starts with the first subscription.
#[derive(Debug)]
enum Thread {
    Unstarted(Receiver<Item>),
    Started,
    Failed,
}

#[derive(Debug, Default)]
struct Shared {
    subscribers: Mutex<Subscribers>,
    /// Subscriptions, for a look without the lock.
    count: AtomicUsize,
    /// What waits to be handed out.
    waiting: AtomicUsize,
    /// Bytes of blocks among it, with the one that is handed out now.
    waiting_bytes: AtomicUsize,
    /// Bytes of that one.
    in_hand: AtomicUsize,
    /// Whether a block found no room.
    lost_block: AtomicBool,
    /// Whether a step found none.
    lost_step: AtomicBool,
}

/// What was published.
#[derive(Debug)]
enum Item {
    Block(Arc<AppliedBlock>, usize),
    Round(RoundEvent),
}

/// Bounds on who may subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Subscribers at most.
    pub clients: usize,
    /// Subscriptions of each at most.
    pub per_client: usize,
}

impl Limits {
    /// None: for the node itself.
    pub const NONE: Self = Self {
        clients: usize::MAX,
        per_client: usize::MAX,
    };
}

/// There is no subscription. The texts are CometBFT's.
#[derive(Debug, Error)]
pub enum SubscribeError {
    /// There are as many subscribers as there may be.
    #[error("max_subscription_clients {0} reached")]
    Clients(usize),
    /// The subscriber has as many subscriptions as it may have.
    #[error("max_subscriptions_per_client {0} reached")]
    PerClient(usize),
    /// It has one for the same query.
    #[error("already subscribed")]
    Already,
    /// The system gives no thread.
    #[error("events cannot be handed out: {0}")]
    Thread(#[from] io::Error),
}

/// Nothing to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("subscription not found")]
pub struct NotSubscribed;

/// A subscription's place in the bus, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    shared: Weak<Shared>,
    query: String,
    subscriber: String,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut subscribers = shared.lock();
            if subscribers.id_of(&self.query, &self.subscriber) == Some(self.id) {
                subscribers.remove(&self.query, &self.subscriber, Cancelled::Unsubscribed);
                shared.count(&subscribers);
            }
        }
    }
}

impl Default for Inner {
    fn default() -> Self {
        let (items, receiver) = sync_channel(MAX_WAITING);
        Self {
            shared: Arc::default(),
            items,
            thread: Mutex::new(Thread::Unstarted(receiver)),
        }
    }
}

impl EventBus {
    /// Whether anybody would hear of what is published.
    #[must_use]
    pub fn has_subscribers(&self) -> bool {
        self.inner.shared.count.load(Ordering::Acquire) > 0
    }

    /// Tells of a block that was applied: `NewBlock`, `NewBlockHeader`, `NewBlockEvents`,
    /// `NewEvidence` and `Tx` for each, `ValidatorSetUpdates`. Never waits.
    pub fn publish_block(&self, block: Arc<AppliedBlock>) {
        if !self.has_subscribers() {
            return;
        }
        let shared = &self.inner.shared;
        let size = block.size();
        let before = shared.waiting_bytes.fetch_add(size, Ordering::AcqRel);
        let fits = before == 0 || before.saturating_add(size) <= MAX_WAITING_BYTES;
        if !fits || !self.put(Item::Block(block, size), MAX_WAITING) {
            shared.waiting_bytes.fetch_sub(size, Ordering::AcqRel);
            shared.lost_block.store(true, Ordering::Release);
        }
    }

    /// Tells of a step of consensus. Never waits.
    pub fn publish_round(&self, event: RoundEvent) {
        if self.has_subscribers() && !self.put(Item::Round(event), MAX_WAITING_STEPS) {
            self.inner.shared.lost_step.store(true, Ordering::Release);
        }
    }

    /// Whether there was room among the first `most`.
    fn put(&self, item: Item, most: usize) -> bool {
        let waiting = &self.inner.shared.waiting;
        let had_room = waiting.fetch_add(1, Ordering::AcqRel) < most
            && match self.inner.items.try_send(item) {
                Ok(()) => true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
            };
        if !had_room {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
        had_room
    }

    /// Subscribes `subscriber` to what matches `query`; `capacity` messages may wait for it.
    ///
    /// # Errors
    /// When it is subscribed to that already, or there is no thread.
    pub fn subscribe(
        &self,
        subscriber: &str,
        query: Query,
        capacity: usize,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe_within(Limits::NONE, subscriber, query, capacity)
    }

    /// The same within bounds.
    ///
    /// # Errors
    /// When a bound is reached, it is subscribed to that already, or there is no thread.
    pub fn subscribe_within(
        &self,
        limits: Limits,
        subscriber: &str,
        query: Query,
        capacity: usize,
    ) -> Result<Subscription, SubscribeError> {
        self.start_thread()?;
        let shared = &self.inner.shared;
        let key = query.to_string();
        let mut subscribers = shared.lock();
        subscribers.check(limits, subscriber)?;
        if subscribers.id_of(&key, subscriber).is_some() {
            return Err(SubscribeError::Already);
        }
        subscribers.last_id += 1;
        let id = subscribers.last_id;
        let registered = Registered {
            shared: Arc::downgrade(shared),
            query: key.clone(),
            subscriber: subscriber.to_owned(),
            id,
        };
        let (outlet, subscription) = ends(capacity, registered);
        subscribers.add(key, query, subscriber, (id, outlet));
        shared.count(&subscribers);
        Ok(subscription)
    }

    /// Checks the bounds that [`subscribe_within`](Self::subscribe_within) would.
    ///
    /// # Errors
    /// When one is reached.
    pub fn check(&self, limits: Limits, subscriber: &str) -> Result<(), SubscribeError> {
        self.inner.shared.lock().check(limits, subscriber)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// When there is none.
    pub fn unsubscribe(&self, subscriber: &str, query: &Query) -> Result<(), NotSubscribed> {
        let shared = &self.inner.shared;
        let mut subscribers = shared.lock();
        let removed = subscribers.remove(&query.to_string(), subscriber, Cancelled::Unsubscribed);
        shared.count(&subscribers);
        if removed { Ok(()) } else { Err(NotSubscribed) }
    }

    /// Ends all subscriptions of a subscriber.
    ///
    /// # Errors
    /// When it has none.
    pub fn unsubscribe_all(&self, subscriber: &str) -> Result<(), NotSubscribed> {
        let shared = &self.inner.shared;
        let mut subscribers = shared.lock();
        let queries = subscribers.queries_of(subscriber);
        for query in &queries {
            subscribers.remove(query, subscriber, Cancelled::Unsubscribed);
        }
        shared.count(&subscribers);
        if queries.is_empty() {
            return Err(NotSubscribed);
        }
        Ok(())
    }

    /// How many subscribers there are.
    #[must_use]
    pub fn num_clients(&self) -> usize {
        self.inner.shared.lock().clients.len()
    }

    /// How many subscriptions a subscriber has.
    #[must_use]
    pub fn num_client_subscriptions(&self, subscriber: &str) -> usize {
        let subscribers = self.inner.shared.lock();
        subscribers.clients.get(subscriber).copied().unwrap_or(0)
    }

    fn start_thread(&self) -> io::Result<()> {
        let thread = &self.inner.thread;
        let mut thread = thread.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *thread, Thread::Failed) {
            Thread::Unstarted(items) => {
                let shared = Arc::clone(&self.inner.shared);
                // It ends with the last handle of the bus.
                thread::Builder::new()
                    .name("events".into())
                    .spawn(move || hand_out::run(&shared, &items))?;
            }
            Thread::Started => {}
            Thread::Failed => return Err(io::Error::other("their thread could not be started")),
        }
        *thread = Thread::Started;
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how many subscriptions there are.
    fn count(&self, subscribers: &Subscribers) {
        let count = subscribers.clients.values().sum();
        self.count.store(count, Ordering::Release);
    }

    fn cancel_all(&self, reason: Cancelled) {
        let mut subscribers = self.lock();
        subscribers.cancel_all(reason);
        self.count(&subscribers);
    }
}

#[cfg(test)]
mod tests;
