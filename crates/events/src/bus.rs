//! Who subscribed to what, and the thread that hands it out.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use thiserror::Error;

use crate::{
    AppliedBlock, Attributes, Cancelled, EventData, Message, Query, RoundEvent, Subscription,
    subscription::{Outlet, ends},
};

/// Blocks and steps that wait to be handed out at most. Where that is not enough, matching is slower
/// than the chain: all subscribers are cancelled, as they would miss something otherwise.
const MAX_WAITING: usize = 1_024;
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
    /// Bytes of blocks that wait to be handed out.
    waiting: AtomicUsize,
    /// Whether something could not be handed out.
    lost: AtomicBool,
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

/// Subscriptions by their query, so that each query is compared once, and by subscriber.
#[derive(Debug, Default)]
struct Subscribers {
    by_query: BTreeMap<String, OneQuery>,
    /// How many each has.
    clients: BTreeMap<String, usize>,
    last_id: u64,
}

#[derive(Debug)]
struct OneQuery {
    query: Query,
    outlets: BTreeMap<String, (u64, Outlet)>,
}

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
        let before = shared.waiting.fetch_add(size, Ordering::AcqRel);
        let fits = before == 0 || before.saturating_add(size) <= MAX_WAITING_BYTES;
        if !fits || !self.put(Item::Block(block, size)) {
            shared.waiting.fetch_sub(size, Ordering::AcqRel);
            shared.lost.store(true, Ordering::Release);
        }
    }

    /// Tells of a step of consensus. Never waits.
    pub fn publish_round(&self, event: RoundEvent) {
        if self.has_subscribers() && !self.put(Item::Round(event)) {
            self.inner.shared.lost.store(true, Ordering::Release);
        }
    }

    /// Whether there was room.
    fn put(&self, item: Item) -> bool {
        match self.inner.items.try_send(item) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
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
        let entry = subscribers.by_query.entry(key);
        let one = entry.or_insert_with(|| OneQuery {
            query,
            outlets: BTreeMap::new(),
        });
        one.outlets.insert(subscriber.to_owned(), (id, outlet));
        let count = subscribers.clients.entry(subscriber.to_owned());
        *count.or_default() += 1;
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
                    .spawn(move || run(&shared, &items))?;
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

    /// Hands one event to those who asked for it; `make` makes its data once somebody did.
    fn send(&self, attributes: Attributes, make: impl FnOnce() -> EventData) {
        let mut subscribers = self.lock();
        let wanted: Vec<String> = subscribers
            .by_query
            .iter()
            .filter(|(_, one)| one.query.matches(&attributes))
            .map(|(key, _)| key.clone())
            .collect();
        if wanted.is_empty() {
            return;
        }
        let message = Arc::new(Message::new(make(), attributes));
        for key in wanted {
            subscribers.give(&key, &message);
        }
        self.count(&subscribers);
    }

    fn send_block(&self, block: &Arc<AppliedBlock>) {
        let (applied, response) = (&block.block, &block.response);
        let height = applied.header.height;
        self.send(Attributes::of_events(&response.events, "NewBlock"), || {
            EventData::NewBlock(Arc::clone(block))
        });
        self.send(Attributes::of_name("NewBlockHeader"), || {
            EventData::NewBlockHeader(Arc::clone(block))
        });
        self.send(
            Attributes::of_events(&response.events, "NewBlockEvents"),
            || EventData::NewBlockEvents(Arc::clone(block)),
        );
        for index in 0..applied.evidence.len() {
            self.send(Attributes::of_name("NewEvidence"), || {
                let block = Arc::clone(block);
                EventData::NewEvidence { block, index }
            });
        }
        let txs = applied.data.iter().zip(&response.tx_results);
        for ((tx, result), index) in txs.zip(0_u32..) {
            self.send(Attributes::of_tx(height, tx, &result.events), || {
                EventData::of_tx(height, index, tx, result)
            });
        }
        if !response.validator_updates.is_empty() {
            self.send(Attributes::of_name("ValidatorSetUpdates"), || {
                EventData::ValidatorSetUpdates(Arc::clone(block))
            });
        }
    }

    fn cancel_all(&self, reason: Cancelled) {
        let mut subscribers = self.lock();
        for (_, one) in std::mem::take(&mut subscribers.by_query) {
            for (_, (_, outlet)) in one.outlets {
                outlet.cancel(reason);
            }
        }
        subscribers.clients.clear();
        self.count(&subscribers);
    }
}

/// Hands out what is published until the bus is gone.
fn run(shared: &Shared, items: &Receiver<Item>) {
    while let Ok(item) = items.recv() {
        if shared.lost.swap(false, Ordering::AcqRel) {
            tracing::warn!("more happens than can be handed out: subscribers are cancelled");
            shared.cancel_all(Cancelled::OutOfCapacity);
        }
        match item {
            Item::Block(block, size) => {
                shared.send_block(&block);
                drop(block);
                shared.waiting.fetch_sub(size, Ordering::AcqRel);
            }
            Item::Round(event) => {
                shared.send(Attributes::of_name(event.name()), || {
                    EventData::Round(event)
                });
            }
        }
    }
    shared.cancel_all(Cancelled::Exited);
}

impl Subscribers {
    fn check(&self, limits: Limits, subscriber: &str) -> Result<(), SubscribeError> {
        if self.clients.len() >= limits.clients {
            return Err(SubscribeError::Clients(limits.clients));
        }
        let own = self.clients.get(subscriber).copied().unwrap_or(0);
        if own >= limits.per_client {
            return Err(SubscribeError::PerClient(limits.per_client));
        }
        Ok(())
    }

    fn id_of(&self, query: &str, subscriber: &str) -> Option<u64> {
        let (id, _) = self.by_query.get(query)?.outlets.get(subscriber)?;
        Some(*id)
    }

    fn queries_of(&self, subscriber: &str) -> Vec<String> {
        self.by_query
            .iter()
            .filter(|(_, one)| one.outlets.contains_key(subscriber))
            .map(|(query, _)| query.clone())
            .collect()
    }

    /// Removes a subscription; whether there was one.
    fn remove(&mut self, query: &str, subscriber: &str, reason: Cancelled) -> bool {
        let Some(one) = self.by_query.get_mut(query) else {
            return false;
        };
        let Some((_, outlet)) = one.outlets.remove(subscriber) else {
            return false;
        };
        outlet.cancel(reason);
        if one.outlets.is_empty() {
            self.by_query.remove(query);
        }
        if let Some(count) = self.clients.get_mut(subscriber) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(subscriber);
            }
        }
        true
    }

    /// Hands a message to all who subscribed to a query, and removes those who cannot take it.
    fn give(&mut self, query: &str, message: &Arc<Message>) {
        let Some(one) = self.by_query.get(query) else {
            return;
        };
        let failed: Vec<(String, Cancelled)> = one
            .outlets
            .iter()
            .filter_map(|(subscriber, (_, outlet))| {
                let reason = outlet.give(message).err()?;
                Some((subscriber.clone(), reason))
            })
            .collect();
        for (subscriber, reason) in failed {
            self.remove(query, &subscriber, reason);
        }
    }
}

#[cfg(test)]
mod tests;
