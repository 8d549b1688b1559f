//! The mempool while a block is committed, and what is left behind it.

use std::{collections::VecDeque, sync::MutexGuard, time::Instant};

use bytes::Bytes;
use perihelion_abci::{AppError, PendingCheckTx};
use perihelion_types::{Height, tx};

use crate::{
    Mempool, MempoolKind, TxKey, TxLimits,
    gate::Closed,
    mempool::{Checking, OK, is_good, lock},
    stats::count,
};

/// Transactions that are checked again at a time: an application in another process works while
/// requests and answers are on their way.
const RECHECKS_UNDER_WAY: usize = 128;

/// What a block changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Updated {
    /// Transactions of the block that had waited here.
    pub removed: usize,
    /// Transactions that were checked again.
    pub rechecked: usize,
    /// Those of them that are not valid any more.
    pub evicted: usize,
    /// Transactions that were not checked again for want of time.
    pub unchecked: usize,
}

/// A mempool while a block is committed: nothing is checked.
pub struct MempoolLock<'a> {
    mempool: &'a Mempool,
    checking: MutexGuard<'a, Checking>,
    /// Opens the gate, after the others are dropped.
    _closed: Closed,
}

impl<'a> MempoolLock<'a> {
    pub(crate) fn new(
        mempool: &'a Mempool,
        checking: MutexGuard<'a, Checking>,
        closed: Closed,
    ) -> Self {
        Self {
            mempool,
            checking,
            _closed: closed,
        }
    }

    /// Takes the transactions of a block, of which the application gave each a code, out; from now
    /// on `limits` hold. What is left is checked again, in order.
    ///
    /// # Errors
    /// When the application fails; the node is to stop.
    pub fn update(
        &mut self,
        height: Height,
        txs: &[Bytes],
        codes: &[u32],
        limits: TxLimits,
    ) -> Result<Updated, AppError> {
        let removed = self.settle(height, txs, codes, limits);
        let rest = self.recheck_left()?;
        Ok(Updated { removed, ..rest })
    }

    /// The first half of [`Self::update`], which does not wait for the application: how many were
    /// taken out. What is left is checked again by [`Self::recheck_left`], after this block or,
    /// where many follow one another quickly, after the last one.
    pub fn settle(
        &mut self,
        height: Height,
        txs: &[Bytes],
        codes: &[u32],
        limits: TxLimits,
    ) -> usize {
        if self.mempool.config.kind == MempoolKind::Nop {
            return 0;
        }
        self.checking.height = height;
        self.checking.limits = limits;
        self.remove(txs, codes)
    }

    /// The second half of [`Self::update`]: what waits is checked again, and told to be available.
    ///
    /// # Errors
    /// When the application fails; the node is to stop.
    pub fn recheck_left(&mut self) -> Result<Updated, AppError> {
        let mempool = self.mempool;
        let mut updated = Updated::default();
        if mempool.config.kind == MempoolKind::Nop {
            return Ok(updated);
        }
        if mempool.config.recheck {
            self.recheck(&mut updated)?;
        }
        let mut pool = lock(&mempool.pool);
        pool.notified = false;
        if pool.list.len() > 0 {
            mempool.notify_available(&mut pool);
        }
        Ok(updated)
    }

    fn remove(&self, txs: &[Bytes], codes: &[u32]) -> usize {
        let config = &self.mempool.config;
        let keys: Vec<TxKey> = txs.iter().map(|tx| tx::hash(tx)).collect();
        let mut pool = lock(&self.mempool.pool);
        let mut removed = 0;
        for (index, key) in keys.iter().enumerate() {
            if codes.get(index) == Some(&OK) {
                pool.cache.push(*key);
            } else if !config.keep_invalid_txs_in_cache {
                pool.cache.remove(key);
            }
            removed += usize::from(pool.list.remove(key));
        }
        removed
    }

    fn recheck(&mut self, updated: &mut Updated) -> Result<(), AppError> {
        let mempool = self.mempool;
        let left: Vec<(TxKey, Bytes)> = lock(&mempool.pool)
            .list
            .iter()
            .map(|entry| (entry.key, entry.tx.clone()))
            .collect();
        let deadline = Instant::now() + mempool.config.recheck_timeout;
        let mut under_way = VecDeque::with_capacity(RECHECKS_UNDER_WAY);
        for (index, (key, tx)) in left.iter().enumerate() {
            // At least one, so that a short time does not mean never.
            if index > 0 && Instant::now() >= deadline {
                updated.unchecked = left.len() - index;
                tracing::warn!(
                    unchecked = updated.unchecked,
                    "no time to check all transactions again"
                );
                break;
            }
            if under_way.len() >= RECHECKS_UNDER_WAY
                && let Some((key, pending)) = under_way.pop_front()
            {
                self.take_recheck(key, pending, updated)?;
            }
            let pending = self.checking.begin_recheck(&mempool.app, tx)?;
            under_way.push_back((key, pending));
        }
        for (key, pending) in under_way {
            self.take_recheck(key, pending, updated)?;
        }
        Ok(())
    }

    /// Waits for what the application says of a transaction that is checked again.
    fn take_recheck(
        &mut self,
        key: &TxKey,
        pending: PendingCheckTx,
        updated: &mut Updated,
    ) -> Result<(), AppError> {
        let mempool = self.mempool;
        let response = self.checking.heed(pending.wait())?;
        updated.rechecked += 1;
        count(&mempool.stats.rechecked);
        if !is_good(&response, self.checking.limits) {
            let mut pool = lock(&mempool.pool);
            pool.list.remove(key);
            if !mempool.config.keep_invalid_txs_in_cache {
                pool.cache.remove(key);
            }
            updated.evicted += 1;
            count(&mempool.stats.evicted);
        }
        Ok(())
    }
}

impl std::fmt::Debug for MempoolLock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MempoolLock")
    }
}
