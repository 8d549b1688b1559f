//! The mempool as its users have it.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use perihelion_abci::{
    AppError, MempoolConnection,
    types::{CheckTxType, ResponseCheckTx},
};
use perihelion_types::{Height, PeerId, tx};
use tokio::sync::watch;

use crate::{
    CheckTxError, MempoolConfig, MempoolKind, MempoolLock, PendingCheck, StatsSnapshot, TxLimits,
    checks,
    list::Next,
    pool::{Shared, data_bytes, request},
    stats::{Stats, count},
};

/// A transaction's hash: SHA-256 of its bytes.
pub type TxKey = [u8; 32];

/// Transactions that wait for a block. Shared as `Arc<Mempool>`.
///
/// [`Self::check_tx`] and the lock of [`Self::lock`] wait for the application: from an asynchronous
/// task they are called on a thread where that is allowed. All else returns at once.
///
/// Never more than the configured transactions and bytes are kept, those that are being checked
/// included. The application is asked in the order in which they came, about many at a time.
pub struct Mempool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What became of a transaction that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It waits for a block now.
    Added,
    /// It waited already.
    Known,
    /// The application refused it, or wants more gas for it than a block has.
    Refused,
}

/// A transaction was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The application's answer.
    pub response: ResponseCheckTx,
    /// What became of it.
    pub fate: Fate,
}

impl Mempool {
    /// An empty mempool behind the block of `height`.
    #[must_use]
    pub fn new(
        config: MempoolConfig,
        app: MempoolConnection,
        height: Height,
        limits: TxLimits,
    ) -> Self {
        let shared = Arc::new(Shared::new(config, app, height, limits));
        let threads = checks::start(&shared);
        Self { shared, threads }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &MempoolConfig {
        &self.shared.config
    }

    /// Has the application check a transaction, which waits for a block from then on if it is good.
    /// `sender` is the peer that sent it, which is not sent it back. Waits for the answer.
    ///
    /// # Errors
    /// When it is not asked (too large, seen lately, no room), or fails: then the node is to stop.
    pub fn check_tx(&self, tx: &Bytes, sender: Option<PeerId>) -> Result<Checked, CheckTxError> {
        self.begin_check_tx(tx, sender)?.wait()
    }

    /// As [`Self::check_tx`], but the answer is waited for by [`PendingCheck::wait`], so that one
    /// caller can have many on their way.
    ///
    /// # Errors
    /// When the application will not be asked.
    pub fn begin_check_tx(
        &self,
        tx: &Bytes,
        sender: Option<PeerId>,
    ) -> Result<PendingCheck, CheckTxError> {
        let (answered, pending) = PendingCheck::new();
        self.check_tx_then(tx, sender, answered)?;
        Ok(pending)
    }

    /// Counts a transaction for which there was no room.
    pub(crate) fn note(&self, error: &CheckTxError) {
        if matches!(error, CheckTxError::Full(_)) {
            count(&self.shared.stats.no_room);
        }
    }

    /// As [`Self::check_tx`], but `answered` is told what became of it, which must not wait for
    /// anything; of an error when the mempool is dropped before.
    ///
    /// # Errors
    /// When the application will not be asked; nothing is told then.
    pub fn check_tx_then(
        &self,
        tx: &Bytes,
        sender: Option<PeerId>,
        answered: impl FnOnce(Result<Checked, CheckTxError>) + Send + 'static,
    ) -> Result<(), CheckTxError> {
        let begun = self.try_check_tx(tx, sender, answered);
        begun.inspect_err(|error| self.note(error))
    }

    /// As [`Self::check_tx_then`], for who tries again where there is no room.
    pub(crate) fn try_check_tx(
        &self,
        tx: &Bytes,
        sender: Option<PeerId>,
        answered: impl FnOnce(Result<Checked, CheckTxError>) + Send + 'static,
    ) -> Result<(), CheckTxError> {
        if self.shared.config.kind == MempoolKind::Nop {
            return Err(CheckTxError::NotAllowed);
        }
        self.shared.admit(tx, sender, Box::new(answered))
    }

    /// Asks the application about a transaction that is to wait for no block.
    ///
    /// # Errors
    /// When the application fails.
    pub fn ask_application(&self, tx: &Bytes) -> Result<ResponseCheckTx, AppError> {
        self.shared.app.check_tx(&request(tx, CheckTxType::New))
    }

    /// Whether a transaction was seen lately; if it waits, `sender` counts as one of its senders.
    pub(crate) fn is_seen(&self, tx: &[u8], sender: PeerId) -> bool {
        let key = tx::hash(tx);
        let mut pool = self.shared.pool();
        let seen = pool.cache.has(&key);
        if seen {
            pool.cache.push(key);
            pool.list.add_sender(&key, sender);
        }
        seen
    }

    /// Forgets a peer as a sender.
    pub(crate) fn forget_sender(&self, sender: &PeerId) {
        self.shared.pool().list.remove_sender(sender);
    }

    /// The first transaction behind a place, for a peer.
    pub(crate) fn next_for(&self, peer: &PeerId, place: u64) -> Option<Next> {
        self.shared.pool().list.next(place, peer)
    }

    /// Counts transactions that were added.
    pub(crate) fn subscribe_added(&self) -> watch::Receiver<u64> {
        self.shared.added.subscribe()
    }

    /// Told of an application that fails, whoever had it asked.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<AppError>> {
        self.shared.failure()
    }

    /// Changes once for each block behind which there are transactions to propose: when the first one
    /// comes, or at once when some are left, as soon as one of them was checked again.
    #[must_use]
    pub fn txs_available(&self) -> watch::Receiver<u64> {
        self.shared.available.subscribe()
    }

    /// Waits until the application is asked nothing, and keeps it so: for the time in which it
    /// commits a block, up to [`MempoolLock::update`]. It waits for the checks under way alone,
    /// however many callers have one more.
    #[must_use]
    pub fn lock(&self) -> MempoolLock<'_> {
        MempoolLock::new(&self.shared)
    }

    /// The first transactions, in order, as far as together they take at most `max_bytes` of a
    /// block's data and `max_gas`; negative for no bound. Up to the first that there was no time to
    /// check again behind the last block: it may have become invalid.
    #[must_use]
    pub fn reap_max_bytes_max_gas(&self, max_bytes: i64, max_gas: i64) -> Vec<Bytes> {
        let pool = self.shared.pool();
        let max_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        let (mut bytes, mut gas, mut txs) = (0_u64, 0_i64, Vec::new());
        for entry in pool.list.checked() {
            bytes = bytes.saturating_add(data_bytes(&entry.tx));
            if bytes > max_bytes {
                break;
            }
            if max_gas >= 0 {
                match gas.checked_add(entry.gas_wanted) {
                    Some(sum) if sum <= max_gas => gas = sum,
                    _ => break,
                }
            }
            txs.push(entry.tx.clone());
        }
        txs
    }

    /// The first `max` transactions, or all.
    #[must_use]
    pub fn reap_max_txs(&self, max: Option<usize>) -> Vec<Bytes> {
        let pool = self.shared.pool();
        let max = max.unwrap_or(usize::MAX);
        pool.list.iter().take(max).map(|it| it.tx.clone()).collect()
    }

    /// Removes a transaction; whether it was there. It stays remembered.
    pub fn remove_tx(&self, key: &TxKey) -> bool {
        let removed = self.shared.pool().list.remove(key);
        // What is the first one now may have to be checked again.
        self.shared.ordered.notify_all();
        removed
    }

    /// Removes all, and forgets what was seen.
    pub fn flush(&self) {
        let mut pool = self.shared.pool();
        pool.list.clear();
        pool.cache.clear();
        // Who was told finds none.
        pool.notified = false;
    }

    /// Transactions that wait.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shared.pool().list.len()
    }

    /// Their bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.pool().list.bytes()
    }

    /// Whether nothing waits, and nothing is being checked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.pool().is_idle()
    }

    pub(crate) fn counters(&self) -> &Stats {
        &self.shared.stats
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        let pool = self.shared.pool();
        self.shared
            .stats
            .snapshot(pool.list.len(), pool.list.bytes())
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        let mut pool = self.shared.pool();
        pool.over = true;
        let given_up = std::mem::take(&mut pool.orders);
        drop(pool);
        self.shared.ordered.notify_all();
        // Outside of the lock: whoever waits for them is told.
        drop(given_up);
        // The threads hold the application. One that does not answer is not waited for, and neither
        // waits for the other one.
        let this = thread::current().id();
        let is_one = self.threads.iter().any(|it| it.thread().id() == this);
        if self.shared.gate.is_idle() && !is_one {
            for thread in self.threads.drain(..) {
                // A panic was told where it happened.
                let _ended = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mempool")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
