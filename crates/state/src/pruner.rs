use std::time::Instant;

use perihelion_store::{Store, StoreError};
use perihelion_types::{Height, State};

use crate::ExecutorConfig;

/// Heights that one step removes at most. Larger: one block waits longer for its turn; smaller than
/// what a step is made for, pruning falls behind.
const STEP: i64 = 500;

/// Removes old blocks between two blocks that are applied, a bounded step at a time: the store has
/// one writer. Each step moves the base durably, so steps are as rare as syncs are.
#[derive(Debug, Default)]
pub(crate) struct Pruner {
    retain: Option<Height>,
    last_step: Option<Instant>,
}

impl Pruner {
    /// Keep blocks from `retain` on.
    pub(crate) fn retain(&mut self, retain: Height) {
        self.retain = self.retain.max(Some(retain));
    }

    /// Takes a step toward what is to be retained, when it is time; returns the blocks removed.
    pub(crate) fn step(
        &mut self,
        store: &Store,
        state: &State,
        config: &ExecutorConfig,
        now: Instant,
    ) -> Result<u64, StoreError> {
        let Some(retain) = self.retain else {
            return Ok(0);
        };
        let base = store.base();
        if base >= retain {
            self.retain = None;
            return Ok(0);
        }
        let enough = retain.since(base) >= i64::from(config.sync_blocks.max(1));
        let late = self
            .last_step
            .is_none_or(|last| now.saturating_duration_since(last) >= config.sync_interval);
        if !enough && !late {
            return Ok(0);
        }
        self.last_step = Some(now);
        store.prune(base.plus(STEP).min(retain), state)
    }
}
