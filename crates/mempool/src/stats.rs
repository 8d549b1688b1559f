use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What happened since the start; counts.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) added: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) no_room: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) rechecked: AtomicU64,
    pub(crate) unhandled: AtomicU64,
}

/// Figures of a mempool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatsSnapshot {
    /// Transactions that wait.
    pub size: usize,
    /// Their bytes.
    pub size_bytes: u64,
    /// Transactions accepted.
    pub added: u64,
    /// Transactions that the application refused when they came.
    pub refused: u64,
    /// Transactions for which there was no room.
    pub no_room: u64,
    /// Transactions that became invalid while they waited.
    pub evicted: u64,
    /// Checks of transactions that waited.
    pub rechecked: u64,
    /// Messages of peers that were dropped before all in them was checked: since too many waited, or
    /// since nobody waited any more for one of many transactions.
    pub unhandled: u64,
}

impl Stats {
    pub(crate) fn snapshot(&self, size: usize, size_bytes: u64) -> StatsSnapshot {
        StatsSnapshot {
            size,
            size_bytes,
            added: self.added.load(Relaxed),
            refused: self.refused.load(Relaxed),
            no_room: self.no_room.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            rechecked: self.rechecked.load(Relaxed),
            unhandled: self.unhandled.load(Relaxed),
        }
    }
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
