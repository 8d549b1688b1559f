//! The mempool as its users have it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use perihelion_abci::{
    AppError, MempoolConnection, PendingCheckTx,
    types::{CheckTxType, RequestCheckTx, ResponseCheckTx},
};
use perihelion_types::{Height, PeerId, tx};
use tokio::sync::watch;

use crate::{
    CheckTxError, Excess, MempoolConfig, MempoolKind, MempoolLock, StatsSnapshot, TxLimits,
    cache::Cache,
    gate::Gate,
    list::{List, Next},
    stats::{Stats, count},
};

/// A transaction's hash: SHA-256 of its bytes.
pub type TxKey = [u8; 32];

/// Code of a transaction that the application finds good.
pub(crate) const OK: u32 = 0;

/// Transactions that wait for a block. Shared as `Arc<Mempool>`.
///
/// [`Self::check_tx`] and the lock of [`Self::lock`] wait for the application, one after the other:
/// from an asynchronous task they are called on a thread where that is allowed. All else returns at
/// once.
///
/// Never more than the configured transactions and bytes are kept.
pub struct Mempool {
    pub(crate) config: MempoolConfig,
    pub(crate) app: MempoolConnection,
    /// One check at a time, so that transactions enter in the order in which they were checked, and
    /// none while a block is committed.
    gate: Gate,
    checking: Mutex<Checking>,
    pub(crate) pool: Mutex<Pool>,
    added: watch::Sender<u64>,
    available: watch::Sender<u64>,
    pub(crate) stats: Stats,
}

/// Held by whoever asks the application.
pub(crate) struct Checking {
    pub(crate) limits: TxLimits,
    /// The last block.
    pub(crate) height: Height,
    /// Why the application is not asked any more.
    failed: Option<AppError>,
}

#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) list: List,
    pub(crate) cache: Cache,
    /// Whether it was told since the last block that there are transactions.
    pub(crate) notified: bool,
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
        let pool = Pool {
            cache: Cache::new(config.cache_size),
            ..Pool::default()
        };
        Self {
            config,
            app,
            gate: Gate::new(1),
            checking: Mutex::new(Checking {
                limits,
                height,
                failed: None,
            }),
            pool: Mutex::new(pool),
            added: watch::Sender::new(0),
            available: watch::Sender::new(0),
            stats: Stats::default(),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &MempoolConfig {
        &self.config
    }

    /// Has the application check a transaction, which waits for a block from then on if it is good.
    /// `sender` is the peer that sent it, which is not sent it back.
    ///
    /// # Errors
    /// When it is not asked (too large, seen lately, no room), or fails: then the node is to stop.
    pub fn check_tx(&self, tx: &Bytes, sender: Option<PeerId>) -> Result<Checked, CheckTxError> {
        if self.config.kind == MempoolKind::Nop {
            return Err(CheckTxError::NotAllowed);
        }
        let _pass = self.gate.enter();
        let mut checking = lock(&self.checking);
        if let Some(error) = &checking.failed {
            return Err(error.clone().into());
        }
        let key = tx::hash(tx);
        self.admit(tx, key, sender, checking.limits)?;
        let response = checking.ask(&self.app, tx)?;
        let fate = self.take(tx, key, sender, &checking, &response);
        Ok(Checked { response, fate })
    }

    /// Asks the application about a transaction that is to wait for no block.
    ///
    /// # Errors
    /// When the application fails.
    pub fn ask_application(&self, tx: &Bytes) -> Result<ResponseCheckTx, AppError> {
        self.app.check_tx(&check(tx, CheckTxType::New))
    }

    /// Whether the application may be asked about a transaction, which counts as seen then.
    fn admit(
        &self,
        tx: &Bytes,
        key: TxKey,
        sender: Option<PeerId>,
        limits: TxLimits,
    ) -> Result<(), CheckTxError> {
        let mut pool = lock(&self.pool);
        if let Err(excess) = self.check_room(&pool.list, tx.len()) {
            count(&self.stats.no_room);
            return Err(excess.into());
        }
        let max = self.config.max_tx_bytes;
        if tx.len() > max {
            let size = tx.len();
            return Err(CheckTxError::TooLarge { size, max });
        }
        let (size, max) = (data_bytes(tx), limits.max_data_bytes);
        if i64::try_from(size).is_ok_and(|size| size > max) {
            return Err(CheckTxError::PreCheck { size, max });
        }
        if pool.cache.push(key) {
            return Ok(());
        }
        if let Some(sender) = sender {
            pool.list.add_sender(&key, sender);
        }
        Err(CheckTxError::InCache)
    }

    /// Takes in a transaction that was checked, or not.
    fn take(
        &self,
        tx: &Bytes,
        key: TxKey,
        sender: Option<PeerId>,
        checking: &Checking,
        response: &ResponseCheckTx,
    ) -> Fate {
        let mut pool = lock(&self.pool);
        if !is_good(response, checking.limits) {
            if !self.config.keep_invalid_txs_in_cache {
                pool.cache.remove(&key);
            }
            count(&self.stats.refused);
            return Fate::Refused;
        }
        if pool.list.has(&key) {
            if let Some(sender) = sender {
                pool.list.add_sender(&key, sender);
            }
            return Fate::Known;
        }
        // There still is room: nothing was added while the application was asked.
        let gas_wanted = response.gas_wanted;
        pool.list.push(key, tx, checking.height, gas_wanted, sender);
        count(&self.stats.added);
        self.notify_available(&mut pool);
        drop(pool);
        self.added.send_modify(|count| *count += 1);
        Fate::Added
    }

    fn check_room(&self, list: &List, bytes: usize) -> Result<(), Excess> {
        let after = list.bytes().saturating_add(bytes as u64);
        if list.len() < self.config.size && after <= self.config.max_txs_bytes {
            return Ok(());
        }
        Err(Excess {
            txs: list.len(),
            max_txs: self.config.size,
            bytes: list.bytes(),
            max_bytes: self.config.max_txs_bytes,
        })
    }

    /// Whether a transaction was seen lately; if it waits, `sender` counts as one of its senders.
    pub(crate) fn is_seen(&self, tx: &[u8], sender: PeerId) -> bool {
        let key = tx::hash(tx);
        let mut pool = lock(&self.pool);
        let seen = pool.cache.has(&key);
        if seen {
            pool.cache.push(key);
            pool.list.add_sender(&key, sender);
        }
        seen
    }

    /// Forgets a peer as a sender.
    pub(crate) fn forget_sender(&self, sender: &PeerId) {
        lock(&self.pool).list.remove_sender(sender);
    }

    /// The first transaction behind a place, for a peer.
    pub(crate) fn next_for(&self, peer: &PeerId, place: u64) -> Option<Next> {
        lock(&self.pool).list.next(place, peer)
    }

    /// Counts transactions that were added.
    pub(crate) fn subscribe_added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// Changes once for each block behind which there are transactions: when the first one comes,
    /// or at once when some are left.
    #[must_use]
    pub fn txs_available(&self) -> watch::Receiver<u64> {
        self.available.subscribe()
    }

    pub(crate) fn notify_available(&self, pool: &mut Pool) {
        if !std::mem::replace(&mut pool.notified, true) {
            self.available.send_modify(|count| *count += 1);
        }
    }

    /// Waits until the application is asked nothing, and keeps it so: for the time in which it
    /// commits a block, up to [`MempoolLock::update`]. It waits for the checks under way alone,
    /// however many callers have one more.
    #[must_use]
    pub fn lock(&self) -> MempoolLock<'_> {
        let closed = self.gate.close();
        MempoolLock::new(self, lock(&self.checking), closed)
    }

    /// The first transactions, in order, as far as together they take at most `max_bytes` of a
    /// block's data and `max_gas`; negative for no bound.
    #[must_use]
    pub fn reap_max_bytes_max_gas(&self, max_bytes: i64, max_gas: i64) -> Vec<Bytes> {
        let pool = lock(&self.pool);
        let max_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        let (mut bytes, mut gas, mut txs) = (0_u64, 0_i64, Vec::new());
        for entry in pool.list.iter() {
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
        let pool = lock(&self.pool);
        let max = max.unwrap_or(usize::MAX);
        pool.list.iter().take(max).map(|it| it.tx.clone()).collect()
    }

    /// Removes a transaction; whether it was there. It stays remembered.
    pub fn remove_tx(&self, key: &TxKey) -> bool {
        lock(&self.pool).list.remove(key)
    }

    /// Removes all, and forgets what was seen.
    pub fn flush(&self) {
        let mut pool = lock(&self.pool);
        pool.list.clear();
        pool.cache.clear();
    }

    /// Transactions that wait.
    #[must_use]
    pub fn size(&self) -> usize {
        lock(&self.pool).list.len()
    }

    /// Their bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        lock(&self.pool).list.bytes()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        let pool = lock(&self.pool);
        self.stats.snapshot(pool.list.len(), pool.list.bytes())
    }
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mempool")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Checking {
    /// Asks the application about a new transaction; never again once it failed.
    fn ask(&mut self, app: &MempoolConnection, tx: &Bytes) -> Result<ResponseCheckTx, AppError> {
        self.heed(app.check_tx(&check(tx, CheckTxType::New)))
    }

    /// Begins to ask about one that waits.
    pub(crate) fn begin_recheck(
        &mut self,
        app: &MempoolConnection,
        tx: &Bytes,
    ) -> Result<PendingCheckTx, AppError> {
        self.heed(app.begin_check_tx(&check(tx, CheckTxType::Recheck)))
    }

    /// Notes an application that failed.
    pub(crate) fn heed<T>(&mut self, outcome: Result<T, AppError>) -> Result<T, AppError> {
        outcome.inspect_err(|error| self.failed = Some(error.clone()))
    }
}

fn check(tx: &Bytes, kind: CheckTxType) -> RequestCheckTx {
    RequestCheckTx {
        tx: tx.clone(),
        r#type: kind.into(),
    }
}

/// Whether a checked transaction may wait for a block.
pub(crate) fn is_good(response: &ResponseCheckTx, limits: TxLimits) -> bool {
    let gas = response.gas_wanted;
    response.code == OK && (limits.max_gas < 0 || (0..=limits.max_gas).contains(&gas))
}

/// Bytes of a transaction in a block's data: with tag and length.
fn data_bytes(tx: &[u8]) -> u64 {
    (1 + prost::length_delimiter_len(tx.len()) + tx.len()) as u64
}

/// The content of a mutex whose holders never leave it half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
