use std::sync::Arc;

use bytes::Bytes;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::{Mempool, MempoolLock, TxLimits};
use perihelion_state::{Applied, ApplyError, BlockContents, CommitHold, Follower};
use perihelion_store::StoreError;
use perihelion_types::{Block, Evidence, Height, RulesByHeight, State};

/// The pools of transactions and evidence, as the executor knows them: given to
/// [`Executor::follow`](perihelion_state::Executor::follow), they take note of each block that
/// blocksync applies, and no transaction is checked while one is committed. Consensus does so by
/// itself.
///
/// In blocksync, what waits is not checked again after each block; entering consensus does so once.
pub struct PoolFollower {
    mempool: Arc<Mempool>,
    pub(super) evidence: Arc<EvidencePool>,
    pub(super) rules: RulesByHeight,
}

impl PoolFollower {
    /// `rules` judge a block, by its height.
    #[must_use]
    pub const fn new(
        mempool: Arc<Mempool>,
        evidence: Arc<EvidencePool>,
        rules: RulesByHeight,
    ) -> Self {
        Self {
            mempool,
            evidence,
            rules,
        }
    }

    /// Takes note of all blocks up to that of `state`, whoever applied them.
    pub(super) fn catch_up(&self, state: &Arc<State>) -> Result<(), ApplyError> {
        let mut lock = self.mempool.lock();
        lock.settle(state.last_block_height, &[], &[], self.limits(state));
        lock.recheck_left()?;
        drop(lock);
        let caught_up = self.evidence.catch_up(Arc::clone(state));
        caught_up.map_err(storage(state.last_block_height))?;
        Ok(())
    }

    /// Taken between the execution of a block and its commit.
    pub(super) fn hold_for_consensus(&self) -> PoolHold<'_> {
        PoolHold {
            pools: self,
            lock: self.mempool.lock(),
            is_syncing: false,
        }
    }

    fn limits(&self, state: &State) -> TxLimits {
        TxLimits::of(state, self.rules.at(state.next_height()))
    }
}

impl Follower for PoolFollower {
    fn hold(&self) -> Box<dyn CommitHold + '_> {
        Box::new(PoolHold {
            pools: self,
            lock: self.mempool.lock(),
            is_syncing: true,
        })
    }
}

impl BlockContents for PoolFollower {
    fn evidence(&self, max_bytes: i64) -> (Vec<Evidence>, i64) {
        self.evidence.pending_evidence(max_bytes)
    }

    fn txs(&self, max_bytes: i64, max_gas: i64) -> Vec<Bytes> {
        self.mempool.reap_max_bytes_max_gas(max_bytes, max_gas)
    }
}

/// The pools while a block is committed.
pub(super) struct PoolHold<'a> {
    pools: &'a PoolFollower,
    lock: MempoolLock<'a>,
    is_syncing: bool,
}

impl PoolHold<'_> {
    /// Has what is left checked again.
    pub(super) fn recheck(mut self) -> Result<(), ApplyError> {
        self.lock.recheck_left()?;
        Ok(())
    }
}

impl CommitHold for PoolHold<'_> {
    fn applied(
        &mut self,
        block: &Block,
        applied: &Applied,
        state: &Arc<State>,
    ) -> Result<(), ApplyError> {
        // While nobody sends transactions, none can be old: nothing need be hashed.
        let is_idle = self.is_syncing && self.pools.mempool.is_idle();
        let txs = if is_idle {
            Vec::new()
        } else {
            block.data.to_vec()
        };
        let limits = self.pools.limits(state);
        self.lock
            .settle(applied.height, &txs, &applied.tx_codes, limits);
        let updated = self
            .pools
            .evidence
            .update(Arc::clone(state), &block.evidence);
        updated.map_err(storage(applied.height))?;
        Ok(())
    }
}

fn storage(height: Height) -> impl Fn(StoreError) -> ApplyError {
    move |source| ApplyError::Storage {
        height,
        source: Box::new(source),
    }
}
