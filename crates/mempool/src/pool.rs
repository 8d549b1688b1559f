//! What the mempool's callers and its threads share.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use perihelion_abci::{
    AppError, MempoolConnection, PendingCheckTx,
    types::{CheckTxType, RequestCheckTx, ResponseCheckTx},
};
use perihelion_types::{Height, PeerId, tx};
use tokio::sync::watch;

use crate::{
    CheckTxError, Checked, Excess, Fate, MempoolConfig, TxKey, TxLimits,
    cache::Cache,
    checks::{Answered, Order, Tell},
    gate::Gate,
    list::List,
    stats::{Stats, count},
};

/// Code of a transaction that the application finds good.
pub(crate) const OK: u32 = 0;

/// New transactions under way to the application at a time, of one that answers quickly. Fewer: an
/// application in another process idles while requests and answers travel. More than a connection
/// takes at a time would wait there.
const CHECKS_UNDER_WAY: usize = 128;

/// A mempool without its threads.
pub(crate) struct Shared {
    pub(crate) config: MempoolConfig,
    pub(crate) app: MempoolConnection,
    /// No check is under way while a block is committed.
    pub(crate) gate: Gate,
    /// Held for moments only.
    chain: Mutex<Chain>,
    pool: Mutex<Pool>,
    /// Told when there is an order, or something to be checked again, or never will be another one.
    pub(crate) ordered: Condvar,
    pub(crate) added: watch::Sender<u64>,
    pub(crate) available: watch::Sender<u64>,
    /// Why the application is not asked any more.
    failure: watch::Sender<Option<AppError>>,
    pub(crate) stats: Stats,
}

/// Where the chain stands, as the last block left it.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    pub(crate) limits: TxLimits,
    /// The last block.
    pub(crate) height: Height,
}

/// The transactions.
#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) list: List,
    pub(crate) cache: Cache,
    /// New ones that are to be checked, in the order in which they came.
    pub(crate) orders: VecDeque<Order>,
    /// Transactions, and their bytes, that room is kept for: in `orders` and under way.
    kept_txs: usize,
    kept_bytes: u64,
    /// The mempool is gone.
    pub(crate) over: bool,
    /// Whether it was told since the last block that there are transactions to propose.
    pub(crate) notified: bool,
}

impl Shared {
    pub(crate) fn new(
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
            gate: Gate::new(CHECKS_UNDER_WAY),
            chain: Mutex::new(Chain { limits, height }),
            pool: Mutex::new(pool),
            ordered: Condvar::new(),
            added: watch::Sender::new(0),
            available: watch::Sender::new(0),
            failure: watch::Sender::new(None),
            stats: Stats::default(),
        }
    }

    pub(crate) fn chain(&self) -> MutexGuard<'_, Chain> {
        lock(&self.chain)
    }

    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }

    /// Begins to ask the application.
    pub(crate) fn begin(&self, tx: &Bytes, kind: CheckTxType) -> Result<PendingCheckTx, AppError> {
        self.heed(self.app.begin_check_tx(&request(tx, kind)))
    }

    /// Notes an application that failed: it is asked for nothing more.
    pub(crate) fn heed<T>(&self, outcome: Result<T, AppError>) -> Result<T, AppError> {
        outcome.inspect_err(|error| self.fail(error.clone()))
    }

    /// Notes why the application is not asked any more; the first reason stays.
    pub(crate) fn fail(&self, error: AppError) {
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            failure.get_or_insert(error);
            is_first
        });
    }

    /// Fails once the application has.
    pub(crate) fn check_alive(&self) -> Result<(), AppError> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    /// Told of an application that fails.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<AppError>> {
        self.failure.subscribe()
    }

    /// Keeps room for a transaction that the application may be asked about, and counts it as seen.
    /// `tell` is not called where it is refused.
    pub(crate) fn admit(
        &self,
        tx: &Bytes,
        sender: Option<PeerId>,
        tell: Tell,
    ) -> Result<(), CheckTxError> {
        let key = tx::hash(tx);
        let limits = self.chain().limits;
        let mut pool = self.pool();
        // With the pool held: a thread that panics fails first, and takes the orders back then.
        self.check_alive()?;
        self.check_room(&pool, tx.len())?;
        let max = self.config.max_tx_bytes;
        if tx.len() > max {
            let size = tx.len();
            return Err(CheckTxError::TooLarge { size, max });
        }
        check_size(tx, limits)?;
        if !pool.cache.push(key) {
            if let Some(sender) = sender {
                pool.list.add_sender(&key, sender);
            }
            return Err(CheckTxError::InCache);
        }
        pool.kept_txs += 1;
        pool.kept_bytes += tx.len() as u64;
        pool.orders.push_back(Order {
            tx: tx.clone(),
            key,
            sender,
            answered: Answered::new(tell),
        });
        drop(pool);
        self.ordered.notify_all();
        Ok(())
    }

    /// Whether the application can be asked about a transaction, as of the last block.
    ///
    /// # Errors
    /// The reason to be told; the transaction is forgotten.
    pub(crate) fn confirm(&self, order: &Order) -> Result<(), CheckTxError> {
        let limits = self.chain().limits;
        let alive = self.check_alive().map_err(CheckTxError::from);
        let refusal = alive.and_then(|()| check_size(&order.tx, limits));
        if refusal.is_err() {
            let mut pool = self.pool();
            pool.release(order);
            pool.cache.remove(&order.key);
        }
        refusal
    }

    /// Takes in a transaction that was checked, or not.
    pub(crate) fn take(
        &self,
        order: &Order,
        response: Result<ResponseCheckTx, AppError>,
    ) -> Result<Checked, CheckTxError> {
        let Chain { limits, height } = *self.chain();
        let mut pool = self.pool();
        pool.release(order);
        let response = response?;
        let fate = if !is_good(&response, limits) {
            if !self.config.keep_invalid_txs_in_cache {
                pool.cache.remove(&order.key);
            }
            count(&self.stats.refused);
            Fate::Refused
        } else if pool.list.has(&order.key) {
            if let Some(sender) = order.sender {
                pool.list.add_sender(&order.key, sender);
            }
            Fate::Known
        } else {
            let gas_wanted = response.gas_wanted;
            pool.list
                .push(order.key, &order.tx, height, gas_wanted, order.sender);
            count(&self.stats.added);
            self.notify_available(&mut pool);
            Fate::Added
        };
        drop(pool);
        if fate == Fate::Added {
            self.added.send_modify(|count| *count += 1);
        }
        Ok(Checked { response, fate })
    }

    /// Takes note of what the application says of a transaction that waits; whether it goes on
    /// waiting.
    pub(crate) fn take_again(&self, key: &TxKey, response: &ResponseCheckTx) -> bool {
        count(&self.stats.rechecked);
        if is_good(response, self.chain().limits) {
            return true;
        }
        let mut pool = self.pool();
        pool.list.remove(key);
        if !self.config.keep_invalid_txs_in_cache {
            pool.cache.remove(key);
        }
        count(&self.stats.evicted);
        false
    }

    fn check_room(&self, pool: &Pool, bytes: usize) -> Result<(), Excess> {
        let txs = pool.list.len().saturating_add(pool.kept_txs);
        let before = pool.list.bytes().saturating_add(pool.kept_bytes);
        let after = before.saturating_add(bytes as u64);
        if txs < self.config.size && after <= self.config.max_txs_bytes {
            return Ok(());
        }
        Err(Excess {
            txs,
            max_txs: self.config.size,
            bytes: before,
            max_bytes: self.config.max_txs_bytes,
        })
    }

    /// Tells that there are transactions, if any may be proposed and it was not told since the last
    /// block.
    pub(crate) fn notify_available(&self, pool: &mut Pool) {
        if !pool.notified && pool.list.checked().next().is_some() {
            pool.notified = true;
            self.available.send_modify(|count| *count += 1);
        }
    }

    /// What is to be checked again now, since nothing may be proposed before it.
    pub(crate) fn first_left(&self, pool: &Pool) -> Option<(TxKey, Bytes)> {
        let left = pool.list.first_left()?;
        let is_asked = self.check_alive().is_ok();
        is_asked.then(|| (left.key, left.tx.clone()))
    }

    /// The application was asked again about the first transaction.
    pub(crate) fn take_first_left(&self, key: &TxKey, response: &ResponseCheckTx) {
        if self.take_again(key, response) {
            let mut pool = self.pool();
            if pool.list.first_left().is_some_and(|left| left.key == *key) {
                pool.list.first_checked();
            }
            self.notify_available(&mut pool);
        }
    }
}

impl Pool {
    /// Gives back the room that was kept for a transaction.
    pub(crate) fn release(&mut self, order: &Order) {
        self.kept_txs -= 1;
        self.kept_bytes -= order.tx.len() as u64;
    }

    /// Takes orders back that the application was not asked about yet.
    pub(crate) fn withdraw(&mut self, mut which: impl FnMut(&Order) -> bool) -> Vec<Order> {
        let mut withdrawn = Vec::new();
        for order in std::mem::take(&mut self.orders) {
            if which(&order) {
                self.release(&order);
                withdrawn.push(order);
            } else {
                self.orders.push_back(order);
            }
        }
        withdrawn
    }

    /// Whether nothing waits, and nothing is to be checked.
    pub(crate) fn is_idle(&self) -> bool {
        self.list.len() == 0 && self.kept_txs == 0
    }
}

pub(crate) fn request(tx: &Bytes, kind: CheckTxType) -> RequestCheckTx {
    RequestCheckTx {
        tx: tx.clone(),
        r#type: kind.into(),
    }
}

/// Whether a checked transaction may wait for a block.
fn is_good(response: &ResponseCheckTx, limits: TxLimits) -> bool {
    let gas = response.gas_wanted;
    response.code == OK && (limits.max_gas < 0 || (0..=limits.max_gas).contains(&gas))
}

/// Whether a block has room for a transaction.
fn check_size(tx: &Bytes, limits: TxLimits) -> Result<(), CheckTxError> {
    let (size, max) = (data_bytes(tx), limits.max_data_bytes);
    if i64::try_from(size).is_ok_and(|size| size > max) {
        return Err(CheckTxError::PreCheck { size, max });
    }
    Ok(())
}

/// Bytes of a transaction in a block's data: with tag and length.
pub(crate) fn data_bytes(tx: &[u8]) -> u64 {
    (1 + prost::length_delimiter_len(tx.len()) + tx.len()) as u64
}

/// The content of a mutex whose holders never leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
