//! Applies certified blocks, strictly in order.

mod sync_thread;
mod unsettled;

use std::{
    fmt,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_abci::{
    AppWrite, CallName, ConsensusConnection, PendingFinalizeBlock, Persistence, QueryConnection,
};
use perihelion_certify::{CertifiedBlock, CommitVerification, verify_evidence_list};
use perihelion_events::AppliedBlock;
use perihelion_store::{BlockSave, SeenCommit, StateSave, Store, Sync};
use perihelion_types::{Block, BlockId, Commit, Genesis, Height, State};

use crate::{
    Applied, ApplyError, CommitHold, ExecutorConfig, Follower, LastCommit, ReplayProgress,
    StageTimes, StartError, StoreHistory, ValidationError,
    applied::Stopwatch,
    execution::{
        begin, complete, has_updates, mark_evidence, not_valid, storage, store_writes, transition,
    },
    handshake::Handshake,
    pruner::Pruner,
    sync_group::SyncGroup,
    validate_block,
    validation::validate_against_state,
};
use sync_thread::SyncThread;
use unsettled::Unsettled;

/// Blocks that are worth writing tables out for before it is time.
const CATCH_UP_BLOCKS: u32 = 500;

/// Sole owner of the chain's state and of the application's consensus connection. All calls block;
/// it lives on one thread.
///
/// Invariant: state, application and store are at one height between two calls, until a call
/// fails; then no further block is taken. After [`Self::apply_unsettled`] the store has the block
/// and lacks its state until [`Self::settle`].
pub struct Executor {
    pub(crate) store: Arc<Store>,
    pub(crate) app: ConsensusConnection,
    pub(crate) state: Arc<State>,
    pub(crate) config: ExecutorConfig,
    group: SyncGroup,
    pruner: Pruner,
    follower: Option<Arc<dyn Follower>>,
    /// The block of the next height, when it is stored already.
    decided: Option<BlockId>,
    /// Where the application keeps its own state.
    syncs: Option<SyncThread>,
    /// How long the answer to the last block was waited for.
    waited: Duration,
    /// What is still to be done for the last block.
    unsettled: Option<Unsettled>,
    /// The block of the next height, when the application executes it already.
    begun: Option<(BlockId, PendingFinalizeBlock)>,
    stopped: Option<Height>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("height", &self.state.last_block_height)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// Loads the state, or makes it from `genesis`, and brings the application to its height.
    /// A genesis time in the future is the caller's wait ([`crate::until_genesis`]).
    ///
    /// # Errors
    /// When state and application cannot be brought to one height.
    pub fn start(
        store: Arc<Store>,
        genesis: &Genesis,
        app: ConsensusConnection,
        query: &QueryConnection,
        config: ExecutorConfig,
    ) -> Result<Self, StartError> {
        Self::start_reporting(store, genesis, app, query, config, |_| {
            ControlFlow::Continue(())
        })
    }

    /// [`Self::start`] that calls `report` before each block that is replayed, and ends where it
    /// breaks.
    ///
    /// # Errors
    /// As [`Self::start`], and [`StartError::Interrupted`].
    pub fn start_reporting(
        store: Arc<Store>,
        genesis: &Genesis,
        app: ConsensusConnection,
        query: &QueryConnection,
        config: ExecutorConfig,
        report: impl FnMut(ReplayProgress) -> ControlFlow<()>,
    ) -> Result<Self, StartError> {
        let handshake = Handshake {
            store: &store,
            genesis,
            app: &app,
            query,
            config: &config,
        };
        let state = handshake.run(report)?;
        let keeps_own = app.persistence() == Persistence::Own;
        let syncs = keeps_own.then(|| SyncThread::start(&store)).transpose();
        Ok(Self {
            syncs: syncs.map_err(StartError::Thread)?,
            waited: Duration::ZERO,
            group: SyncGroup::new(config.sync_blocks, config.sync_interval),
            state: Arc::new(state),
            pruner: Pruner::default(),
            store,
            app,
            config,
            follower: None,
            decided: None,
            unsettled: None,
            begun: None,
            stopped: None,
        })
    }

    /// The state after the last block applied.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, to be kept.
    #[must_use]
    pub fn state_arc(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Tells, from any thread and as long as it is kept, which call of the application is running
    /// and for how long.
    pub fn busy_call(
        &self,
    ) -> impl Fn() -> Option<(CallName, Duration)> + Send + std::marker::Sync + 'static {
        let app = self.app.clone();
        move || app.busy()
    }

    /// Validates a block as the one that follows the state, without executing it.
    ///
    /// # Errors
    /// Names the first rule that it breaks.
    pub fn validate(&self, block: &Block, last_commit: LastCommit) -> Result<(), ValidationError> {
        let history = StoreHistory::new(&self.store, self.state.last_block_height);
        let rules = self.config.rules.at(block.header.height);
        validate_block(&self.state, block, last_commit, rules, &history)
    }

    /// Has `follower` take note of each block that [`Self::apply`] applies from now on, instead of
    /// who did so far.
    pub fn follow(&mut self, follower: Arc<dyn Follower>) {
        self.follower = Some(follower);
    }

    /// Stores the next block, which consensus has decided, with its commit, or extended commit
    /// where vote extensions are enabled: both survive a power cut from now on. It is to be
    /// applied next; after a crash before that, the next start executes it.
    ///
    /// # Errors
    /// As [`Self::apply`]; nothing is stored of a block that does not follow from the state.
    pub fn store_decided(&mut self, block: &CertifiedBlock) -> Result<(), ApplyError> {
        self.unless_stopped(block.height(), |executor| executor.store_next(block))
    }

    /// Applies the next block: validates it, has it executed, and stores block, results and state.
    /// A block that [`Self::store_decided`] has stored is not validated and stored again.
    ///
    /// # Errors
    /// Any error ends the executor: the application may have executed what was not stored. See
    /// [`ApplyError`].
    pub fn apply(&mut self, block: &CertifiedBlock) -> Result<Applied, ApplyError> {
        let Some(follower) = self.follower.clone() else {
            return self.apply_locked(block, || ()).map(|(applied, ())| applied);
        };
        self.apply_locked(block, || follower.hold())
            .map(|(applied, _)| applied)
    }

    /// [`Self::apply`] with `hold` in the place of the follower's: called when the block has been
    /// executed, right before the application commits it. What it gives is told of the block once
    /// that is stored, and returned.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_locked<H: CommitHold>(
        &mut self,
        block: &CertifiedBlock,
        hold: impl FnOnce() -> H,
    ) -> Result<(Applied, H), ApplyError> {
        self.unless_stopped(block.height(), |executor| {
            let applied = executor.apply_next(block, None, hold)?;
            executor.settle()?;
            Ok(applied)
        })
    }

    /// Does something with the block of `height`, unless an earlier attempt has failed.
    fn unless_stopped<R>(
        &mut self,
        height: Height,
        run: impl FnOnce(&mut Self) -> Result<R, ApplyError>,
    ) -> Result<R, ApplyError> {
        if let Some(stopped) = self.stopped {
            return Err(ApplyError::Stopped { height, stopped });
        }
        let outcome = run(self);
        if outcome.is_err() {
            self.stopped = Some(height);
        }
        outcome
    }

    /// Keeps `commit` as the commit for the last applied block, which a block that became final in
    /// the middle of a run was stored without; entering consensus needs it. It is verified in full
    /// first. Tells whether it was kept: not when it is for another block or does not hold.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep_last_commit(&mut self, commit: &Commit) -> Result<bool, ApplyError> {
        self.settle()?;
        let (height, id) = (self.state.last_block_height, self.state.last_block_id);
        let set = &self.state.last_validators;
        let verified = CommitVerification::new(&self.state.chain_id, set, commit)
            .rules(self.config.rules.at(height.next()))
            .full(id, height);
        if verified.is_err() {
            return Ok(false);
        }
        // Catching up it is as durable as its block: the end of that is before consensus begins.
        let sync = if self.store.skips_log() {
            Sync::No
        } else {
            Sync::Yes
        };
        self.store
            .save_seen_commit(commit, sync)
            .map_err(storage(height))?;
        if sync == Sync::No {
            self.group.written(Instant::now());
        }
        Ok(true)
    }

    /// Makes everything applied so far survive a power cut.
    ///
    /// # Errors
    /// When the store cannot be synced.
    pub fn flush(&mut self) -> Result<(), ApplyError> {
        self.settle()?;
        if self.group.is_open() {
            let height = self.state.last_block_height;
            self.store.sync().map_err(storage(height))?;
            self.group = self.next_group();
        }
        Ok(())
    }

    /// Catching up, the first blocks were waited for; nobody waits for those that follow.
    fn next_group(&self) -> SyncGroup {
        if self.store.skips_log() {
            let interval = self.config.catch_up_interval;
            SyncGroup::new(CATCH_UP_BLOCKS, interval).in_background(interval / 8)
        } else {
            SyncGroup::new(self.config.sync_blocks, self.config.sync_interval)
        }
    }

    /// Many blocks are coming that can be fetched and executed again: unless the application keeps
    /// its own state, what is stored skips the log. The first of them are made durable as ever, so
    /// that who is stopped again and again gets on; then a crash costs the blocks of
    /// [`ExecutorConfig::catch_up_interval`], with the one that is executed and those that are being
    /// written out, or of the store's tables in memory. Block, application and state are lost
    /// together.
    pub fn begin_catch_up(&mut self) {
        if self.app.persistence() != Persistence::Own {
            self.store.skip_log();
        }
    }

    /// Ends what [`Self::begin_catch_up`] began; everything applied so far survives a power cut.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn end_catch_up(&mut self) -> Result<(), ApplyError> {
        self.settle()?;
        let height = self.state.last_block_height;
        self.store.use_log().map_err(storage(height))?;
        self.flush()?;
        self.group = self.next_group();
        Ok(())
    }

    /// When [`Self::flush`] is to be called, unless a block comes before: blocks wait for their group
    /// to fill up, and at the head of the chain the next one may be long in coming.
    #[must_use]
    pub fn flush_deadline(&self) -> Option<Instant> {
        self.group.deadline()
    }

    fn store_next(&mut self, block: &CertifiedBlock) -> Result<(), ApplyError> {
        self.settle()?;
        let height = block.height();
        self.validate_certified(&self.state, block.block())
            .map_err(|fault| not_valid(height, block.block_id(), fault))?;
        self.store
            .save_block(&save_of(block, None), Sync::Yes)
            .map_err(storage(height))?;
        self.group.synced();
        self.decided = Some(block.block_id());
        Ok(())
    }

    fn apply_next<H: CommitHold>(
        &mut self,
        block: &CertifiedBlock,
        following: Option<&CertifiedBlock>,
        hold: impl FnOnce() -> H,
    ) -> Result<(Applied, H), ApplyError> {
        let height = block.height();
        let mut times = StageTimes::default();
        let mut clock = Stopwatch::start();
        let is_stored = self.decided == Some(block.block_id());
        let begun = self.begun.take().filter(|(id, _)| *id == block.block_id());
        if !is_stored && begun.is_none() {
            self.validate_certified(&self.state, block.block())
                .map_err(|fault| not_valid(height, block.block_id(), fault))?;
        }
        times.validate = clock.lap();
        let pending = match begun {
            Some((_, pending)) => pending,
            None => begin(&self.app, &self.state, block.block(), block.block_id())?,
        };
        self.use_waiting_time(block, is_stored)?;
        times.store = clock.lap();
        let finalized = pending.wait()?;
        self.waited = clock.lap();
        times.execute = self.waited;
        // What can be wrong with an answer is found before it is stored. All else is done beside
        // the sync.
        let next_state = |executor: &Self| {
            let (block, id) = (block.block(), block.block_id());
            transition(&executor.state, block, id, finalized.response())
        };
        let checked = has_updates(finalized.response()).then(|| next_state(self));
        let checked = checked.transpose()?;
        let results = finalized.encoded();
        self.save_before_commit(block, results)?;
        let transition = checked.map_or_else(|| next_state(self), Ok)?;
        let mut applied = Applied::of(&transition, finalized.response());
        let state = Arc::new(transition.state);
        let keeps_own = self.app.persistence() == Persistence::Own;
        // Evidence in it is not marked yet, by which that in the next block is judged.
        let following = following.filter(|_| keeps_own && block.block().evidence.is_empty());
        let prepare = |executor: &Self| executor.prepare(following?, &state);
        let is_syncing = self.is_syncing(height)?;
        let mut next = is_syncing.then(|| prepare(self)).flatten();
        self.await_sync(height)?;
        times.store += clock.lap();
        let mut hold = hold();
        let committing = self.app.begin_commit(height)?;
        if !is_syncing {
            next = prepare(self);
        }
        let committed = committing.wait()?;
        if let Some(next) = &next {
            self.begin_prepared(next);
        }
        let writes = self.app.take_writes(height)?.unwrap_or_default();
        times.execute += clock.lap();
        applied.synced = keeps_own || self.save(block, is_stored, results, &state, writes)?;
        let previous = std::mem::replace(&mut self.state, Arc::clone(&state));
        self.decided = None;
        let retain = Height::new(committed.retain_height);
        applied.retain_height = retain.is_positive().then_some(retain);
        self.unsettled = keeps_own.then_some(Unsettled {
            previous,
            state,
            retain,
            told: None,
        });
        mark_evidence(&self.store, block.block()).map_err(storage(height))?;
        hold.applied(block.block(), &applied, &self.state)?;
        let told = if self.config.events.has_subscribers() {
            let response = complete(finalized, height)?;
            Some(AppliedBlock::new(block.fetched(), response))
        } else {
            None
        };
        match &mut self.unsettled {
            Some(rest) => rest.told = told,
            None => {
                self.prune(retain);
                self.publish(told);
            }
        }
        times.store += clock.lap();
        applied.times = times;
        Ok((applied, hold))
    }

    fn publish(&self, told: Option<AppliedBlock>) {
        if let Some(told) = told {
            self.config.events.publish_block(Arc::new(told));
        }
    }

    /// A certified block has passed decoding, and its last commit is final with it.
    fn validate_certified(&self, state: &State, block: &Block) -> Result<(), ValidationError> {
        let rules = self.config.rules.at(block.header.height);
        validate_against_state(state, block, LastCommit::Trust, rules)?;
        let history = StoreHistory::new(&self.store, state.last_block_height);
        Ok(verify_evidence_list(&block.evidence, state, &history)?)
    }

    /// Stores the state, and with it what is not stored yet of the block; returns whether the block
    /// survives a power cut by now.
    fn save(
        &mut self,
        block: &CertifiedBlock,
        is_stored: bool,
        results: &[u8],
        state: &State,
        writes: Vec<AppWrite>,
    ) -> Result<bool, ApplyError> {
        let height = state.last_block_height;
        let app_writes = store_writes(writes);
        let save = StateSave {
            state,
            previous: &self.state,
            app_writes: &app_writes,
        };
        // Of a block that is synced already, state and results that a power cut takes are made
        // again at the next start.
        if is_stored {
            self.store
                .save_block_and_state(&rest_of(block, results), &save, Sync::No)
                .map_err(storage(height))?;
            return Ok(true);
        }
        let now = Instant::now();
        let is_due = self.group.is_due(now);
        let sync = is_due && self.group.is_awaited();
        let wait = if sync { Sync::Yes } else { Sync::No };
        self.store
            .save_block_and_state(&save_of(block, Some(results)), &save, wait)
            .map_err(storage(height))?;
        if !is_due {
            self.group.written(now);
            return Ok(false);
        }
        if !sync {
            self.store.write_out().map_err(storage(height))?;
        }
        self.group = self.next_group();
        Ok(sync)
    }

    fn prune(&mut self, retain: Height) {
        let height = self.state.last_block_height;
        if retain > height {
            let (retain, height) = (retain.get(), height.get());
            tracing::warn!(
                retain,
                height,
                "the application retains above its height; ignored"
            );
        } else if retain.is_positive() {
            self.pruner.retain(retain);
        }
        let now = Instant::now();
        match self
            .pruner
            .step(&self.store, &self.state, &self.config, now)
        {
            Ok(0) => {}
            Ok(pruned) => tracing::debug!(pruned, base = self.store.base().get(), "pruned"),
            // What is not pruned now is pruned later; a store that cannot write stops the next block.
            Err(error) => tracing::error!(%error, "cannot prune"),
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the last blocks are not synced");
        }
    }
}

/// The whole block as it is saved.
fn save_of<'a>(block: &'a CertifiedBlock, results: Option<&'a [u8]>) -> BlockSave<'a> {
    let next = block.next().map(SeenCommit::LastOf);
    BlockSave {
        block: block.fetched(),
        commit: next.or_else(|| block.commit().map(SeenCommit::Apart)),
        extended_commit: block.extended_commit(),
        results,
    }
}

/// What was not known of a block when it was stored.
fn rest_of<'a>(block: &'a CertifiedBlock, results: &'a [u8]) -> BlockSave<'a> {
    BlockSave {
        block: block.fetched(),
        commit: None,
        extended_commit: None,
        results: Some(results),
    }
}
