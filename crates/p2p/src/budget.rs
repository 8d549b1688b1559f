use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this many, rounded up, so that a budget may exceed the 4 GiB that
/// one semaphore acquisition can express.
const UNIT: usize = 64;

/// A message above one part in this many of the budget counts as large. Each connection has one
/// message on its way at a time, so that with fewer connections than half of this, those that are
/// not large cannot take the half that the large ones leave. A larger figure would call ordinary
/// blocks large.
const LARGE: usize = 128;

/// A number of bytes that the messages of all peers share. Clones share the same bytes.
///
/// A connection takes a [`Permit`] for a whole message before it buffers more than the message's
/// first packet. When nothing is left it stops reading from its peer, without blaming it. Waiters
/// are served in the order in which they came.
///
/// Large messages that are still on their way take half of the bytes at the most, or one of them
/// stands alone: a few peers that announce much and send slowly do not keep all others waiting.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    units: Arc<Semaphore>,
    total_units: usize,
    /// What large messages on their way may take.
    arriving: Arc<Semaphore>,
    arriving_units: usize,
    waiting: AtomicUsize,
}

impl ByteBudget {
    /// A budget of `bytes` bytes, all of them free.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total_units = bytes
            .div_ceil(UNIT)
            .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            shared: Arc::new(Shared {
                units: Arc::new(Semaphore::new(total_units)),
                total_units,
                arriving: Arc::new(Semaphore::new(total_units.div_ceil(2))),
                arriving_units: total_units.div_ceil(2),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// All bytes of the budget, free or taken.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.total_units * UNIT
    }

    /// Bytes that nobody holds.
    #[must_use]
    pub fn available(&self) -> usize {
        self.shared.units.available_permits() * UNIT
    }

    /// How many connections wait for room.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` bytes are free and takes them. More than the whole budget counts as the
    /// whole budget, so that one message of any size gets through alone.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        let waiting = Waiting::enter(Arc::clone(&self.shared));
        let arriving = match self.large_units(bytes) {
            Some(units) => Some(
                Arc::clone(&self.shared.arriving)
                    .acquire_many_owned(units)
                    .await
                    .expect("the semaphore is never closed"),
            ),
            None => None,
        };
        let units = Arc::clone(&self.shared.units)
            .acquire_many_owned(self.units(bytes))
            .await
            .expect("the semaphore is never closed");
        drop(waiting);
        Permit {
            bytes,
            _units: Some(units),
            arriving,
            _unhandled: None,
        }
    }

    /// Takes `bytes` bytes if they are free now and nobody waits for them.
    #[must_use]
    pub fn try_acquire(&self, bytes: usize) -> Option<Permit> {
        let arriving = match self.large_units(bytes) {
            Some(units) => Some(
                Arc::clone(&self.shared.arriving)
                    .try_acquire_many_owned(units)
                    .ok()?,
            ),
            None => None,
        };
        let units = Arc::clone(&self.shared.units)
            .try_acquire_many_owned(self.units(bytes))
            .ok()?;
        Some(Permit {
            bytes,
            _units: Some(units),
            arriving,
            _unhandled: None,
        })
    }

    /// What a large message takes while it is on its way.
    fn large_units(&self, bytes: usize) -> Option<u32> {
        let units = self.units(bytes);
        let most = u32::try_from(self.shared.arriving_units).unwrap_or(u32::MAX);
        (units as usize > self.shared.total_units / LARGE).then(|| units.min(most))
    }

    fn units(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).clamp(1, self.shared.total_units);
        u32::try_from(units).expect("the total is at most u32::MAX units")
    }
}

/// Counts a waiter for as long as it waits, however its wait ends.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn enter(shared: Arc<Shared>) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes taken of a [`ByteBudget`], and of what a reactor may have in hand of one peer; dropping it
/// gives them back. Whoever keeps the message keeps its permit.
#[derive(Debug)]
pub struct Permit {
    bytes: usize,
    _units: Option<OwnedSemaphorePermit>,
    arriving: Option<OwnedSemaphorePermit>,
    /// The message's share of what its reactor may have in hand of this peer.
    _unhandled: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// Adds a message's share of what its reactor may have in hand of its peer.
    pub(crate) fn with_unhandled(
        permit: Option<Self>,
        bytes: usize,
        unhandled: OwnedSemaphorePermit,
    ) -> Self {
        let permit = permit.unwrap_or_else(|| Self::exempt(bytes));
        Self {
            _unhandled: Some(unhandled),
            ..permit
        }
    }

    /// A permit outside of any budget, for a message that was let through on purpose.
    pub(crate) const fn exempt(bytes: usize) -> Self {
        Self {
            bytes,
            _units: None,
            arriving: None,
            _unhandled: None,
        }
    }

    /// The message is whole.
    pub(crate) fn arrived(mut self) -> Self {
        self.arriving = None;
        self
    }

    /// The size of the message that it was taken for.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_come_back_when_dropped() {
        let budget = ByteBudget::new(1000);
        let total = budget.total();
        let first = budget.acquire(900).await;
        assert!(budget.try_acquire(200).is_none());
        drop(first);
        assert_eq!(budget.available(), total);
        assert!(budget.try_acquire(200).is_some());
    }

    #[tokio::test]
    async fn a_message_above_the_budget_gets_through_alone() {
        let budget = ByteBudget::new(1000);
        let all = budget.acquire(1_000_000).await;
        assert_eq!((all.bytes(), budget.available()), (1_000_000, 0));
    }

    #[tokio::test]
    async fn large_messages_on_their_way_leave_half_to_small_ones() {
        let budget = ByteBudget::new(1 << 20);
        let slow = budget.try_acquire(500 << 10).expect("all is free");
        assert!(budget.try_acquire(500 << 10).is_none());
        let small: Vec<_> = (0..50).map(|_| budget.try_acquire(8 << 10)).collect();
        assert!(small.iter().all(Option::is_some));
        drop(small);
        let _whole = slow.arrived();
        assert!(budget.try_acquire(500 << 10).is_some());
    }

    #[tokio::test]
    async fn an_abandoned_wait_is_not_counted() {
        let budget = ByteBudget::new(64);
        let held = budget.acquire(64).await;
        {
            let wait = budget.acquire(1);
            tokio::pin!(wait);
            assert!(futures::poll!(wait.as_mut()).is_pending());
            assert_eq!(budget.waiting(), 1);
        }
        assert_eq!(budget.waiting(), 0);
        drop(held);
        assert_eq!(budget.available(), 64);
    }
}
