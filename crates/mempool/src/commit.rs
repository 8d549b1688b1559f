//! The mempool while a block is committed, and what is left behind it.

use std::{
    collections::{HashSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use perihelion_abci::{AppError, PendingCheckTx, types::CheckTxType};
use perihelion_types::{Height, tx};

use crate::{
    CheckTxError, MempoolKind, TxKey, TxLimits,
    gate::Closed,
    pool::{OK, Shared},
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
    /// Transactions that were not checked again for want of time. They are not proposed until they
    /// are: behind a later block, or at once where nothing else may be proposed; nor is what waits
    /// behind them.
    pub unchecked: usize,
}

/// A mempool while a block is committed: nothing is checked.
pub struct MempoolLock<'a> {
    shared: &'a Shared,
    _closed: Closed,
}

impl<'a> MempoolLock<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            _closed: shared.gate.close(),
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
        if self.shared.config.kind == MempoolKind::Nop {
            return 0;
        }
        let mut chain = self.shared.chain();
        chain.height = height;
        chain.limits = limits;
        drop(chain);
        self.remove(txs, codes)
    }

    /// The second half of [`Self::update`]: what waits is checked again, and told to be available where
    /// any of it may be proposed.
    ///
    /// # Errors
    /// When the application fails; the node is to stop.
    pub fn recheck_left(&mut self) -> Result<Updated, AppError> {
        let shared = self.shared;
        let mut updated = Updated::default();
        if shared.config.kind == MempoolKind::Nop {
            return Ok(updated);
        }
        shared.check_alive()?;
        if shared.config.recheck {
            self.recheck(&mut updated)?;
        }
        let mut pool = shared.pool();
        pool.notified = false;
        shared.notify_available(&mut pool);
        drop(pool);
        // Where nothing may be proposed, what is left is checked without another block.
        shared.ordered.notify_all();
        Ok(updated)
    }

    fn remove(&self, txs: &[Bytes], codes: &[u32]) -> usize {
        let config = &self.shared.config;
        let keys: Vec<TxKey> = txs.iter().map(|tx| tx::hash(tx)).collect();
        let mut executed = HashSet::new();
        let mut pool = self.shared.pool();
        let mut removed = 0;
        for (index, key) in keys.iter().enumerate() {
            if codes.get(index) == Some(&OK) {
                pool.cache.push(*key);
                executed.insert(*key);
            } else if !config.keep_invalid_txs_in_cache {
                pool.cache.remove(key);
            }
            removed += usize::from(pool.list.remove(key));
        }
        // The application would take them for new ones.
        let late = pool.withdraw(|order| executed.contains(&order.key));
        drop(pool);
        for order in late {
            order.answered.tell(Err(CheckTxError::InCache));
        }
        removed
    }

    fn recheck(&mut self, updated: &mut Updated) -> Result<(), AppError> {
        let shared = self.shared;
        let mut pool = shared.pool();
        pool.list.leave_unchecked([]);
        let left: Vec<(TxKey, Bytes)> = pool
            .list
            .iter()
            .map(|entry| (entry.key, entry.tx.clone()))
            .collect();
        drop(pool);
        let deadline = Instant::now() + shared.config.recheck_timeout;
        let mut under_way = VecDeque::with_capacity(RECHECKS_UNDER_WAY);
        for (index, (key, tx)) in left.iter().enumerate() {
            // At least one, so that a short time does not mean never.
            if index > 0 && Instant::now() >= deadline {
                updated.unchecked = left.len() - index;
                let rest = left[index..].iter().map(|(key, _)| key);
                shared.pool().list.leave_unchecked(rest);
                tracing::warn!(
                    unchecked = updated.unchecked,
                    "no time to check all transactions again: the rest waits for a later block"
                );
                break;
            }
            if under_way.len() >= RECHECKS_UNDER_WAY
                && let Some((key, pending)) = under_way.pop_front()
            {
                self.take_recheck(key, pending, updated)?;
            }
            let pending = shared.begin(tx, CheckTxType::Recheck)?;
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
        let response = self.shared.heed(pending.wait())?;
        updated.rechecked += 1;
        updated.evicted += usize::from(!self.shared.take_again(key, &response));
        Ok(())
    }
}

impl std::fmt::Debug for MempoolLock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MempoolLock")
    }
}
