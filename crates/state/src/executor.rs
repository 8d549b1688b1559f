//! Applies certified blocks, strictly in order.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_abci::{
    AppError, AppFault, AppWrite, CallName, ConsensusConnection, Persistence, QueryConnection,
    types::ResponseFinalizeBlock,
};
use perihelion_certify::{CertifiedBlock, CommitVerification, EvidenceError, verify_evidence_list};
use perihelion_store::{BlockSave, StateSave, Store, StoreError, Sync};
use perihelion_types::{Block, BlockId, Commit, Genesis, Hash, Height, State};
use prost::Message as _;

use crate::{
    ApplyError, ExecutorConfig, LastCommit, ReplayProgress, StartError, StoreHistory,
    ValidationError,
    handshake::Handshake,
    pruner::Pruner,
    request,
    sync_group::SyncGroup,
    transition::{Transition, next_state},
    validate_block,
    validation::validate_against_state,
};

/// Sole owner of the chain's state and of the application's consensus connection. All calls block;
/// it lives on one thread.
///
/// Invariant: state, application and store are at one height between two calls, until a call
/// fails; then no further block is taken.
pub struct Executor {
    store: Arc<Store>,
    app: ConsensusConnection,
    state: Arc<State>,
    config: ExecutorConfig,
    group: SyncGroup,
    pruner: Pruner,
    stopped: Option<Height>,
}

/// A block was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its height.
    pub height: Height,
    /// Its id.
    pub block_id: BlockId,
    /// The application's hash after it.
    pub app_hash: Bytes,
    /// Root over its results.
    pub results_hash: Hash,
    /// Transactions in it.
    pub num_txs: usize,
    /// Those that the application gave a code other than 0.
    pub failed_txs: usize,
    /// The code of each.
    pub tx_codes: Vec<u32>,
    /// Gas that they took.
    pub gas_used: i64,
    /// Validators that it changes, two heights on.
    pub validator_updates: usize,
    /// Whether it changes the consensus parameters.
    pub params_changed: bool,
    /// The first height that the application wants to be kept, when it allows pruning.
    pub retain_height: Option<Height>,
    /// Whether it survives a power cut by now.
    pub synced: bool,
    /// Where the time went.
    pub times: StageTimes,
}

/// Time that the stages of applying one block took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    /// Judging it by the state.
    pub validate: Duration,
    /// In the application: FinalizeBlock and Commit.
    pub execute: Duration,
    /// Making the next state, encoding and writing.
    pub store: Duration,
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
        Ok(Self {
            group: SyncGroup::new(config.sync_blocks, config.sync_interval),
            state: Arc::new(state),
            pruner: Pruner::default(),
            store,
            app,
            config,
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
    pub fn busy_call(&self) -> impl Fn() -> Option<(CallName, Duration)> + Send + 'static {
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

    /// Applies the next block: validates it, has it executed, and stores block, results and state.
    ///
    /// # Errors
    /// Any error ends the executor: the application may have executed what was not stored. See
    /// [`ApplyError`].
    pub fn apply(&mut self, block: &CertifiedBlock) -> Result<Applied, ApplyError> {
        self.apply_locked(block, || ()).map(|(applied, ())| applied)
    }

    /// [`Self::apply`] that calls `lock` when the block has been executed, right before the
    /// application commits it: the mempool's lock, which keeps transactions from being checked
    /// against a state that is about to change. What `lock` gives is kept until then and returned,
    /// for the mempool to be updated before it is opened again.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_locked<L>(
        &mut self,
        block: &CertifiedBlock,
        lock: impl FnOnce() -> L,
    ) -> Result<(Applied, L), ApplyError> {
        let height = block.height();
        if let Some(stopped) = self.stopped {
            return Err(ApplyError::Stopped { height, stopped });
        }
        let applied = self.apply_next(block, lock);
        if applied.is_err() {
            self.stopped = Some(height);
        }
        applied
    }

    /// Keeps `commit` as the commit for the last applied block, which a block that became final in
    /// the middle of a run was stored without; entering consensus needs it. It is verified in full
    /// first. Tells whether it was kept: not when it is for another block or does not hold.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep_last_commit(&mut self, commit: &Commit) -> Result<bool, ApplyError> {
        let (height, id) = (self.state.last_block_height, self.state.last_block_id);
        let set = &self.state.last_validators;
        let verified = CommitVerification::new(&self.state.chain_id, set, commit)
            .rules(self.config.rules.at(height.next()))
            .full(id, height);
        if verified.is_err() {
            return Ok(false);
        }
        self.store
            .save_seen_commit(commit, Sync::Yes)
            .map_err(storage(height))?;
        Ok(true)
    }

    /// Makes everything applied so far survive a power cut.
    ///
    /// # Errors
    /// When the store cannot be synced.
    pub fn flush(&mut self) -> Result<(), ApplyError> {
        if self.group.is_open() {
            let height = self.state.last_block_height;
            self.store.sync().map_err(storage(height))?;
            self.group.synced();
        }
        Ok(())
    }

    /// When [`Self::flush`] is to be called, unless a block comes before: blocks wait for their group
    /// to fill up, and at the head of the chain the next one may be long in coming.
    #[must_use]
    pub fn flush_deadline(&self) -> Option<Instant> {
        self.group.deadline()
    }

    fn apply_next<L>(
        &mut self,
        block: &CertifiedBlock,
        lock: impl FnOnce() -> L,
    ) -> Result<(Applied, L), ApplyError> {
        let height = block.height();
        let mut times = StageTimes::default();
        let mut clock = Stopwatch::start();
        self.validate_certified(block.block())
            .map_err(|fault| not_valid(height, block.block_id(), fault))?;
        times.validate = clock.lap();
        let (response, transition) =
            execute(&self.app, &self.state, block.block(), block.block_id())?;
        times.execute = clock.lap();
        let results = response.encode_to_vec();
        let save = BlockSave {
            block: block.fetched(),
            commit: block.commit(),
            extended_commit: block.extended_commit(),
            results: Some(&results),
        };
        let own = self.app.persistence() == Persistence::Own;
        if own {
            // The application will remember the block; so must we, before it does.
            self.store
                .save_block(&save, Sync::Yes)
                .map_err(storage(height))?;
        }
        times.store = clock.lap();
        let locked = lock();
        let committed = self.app.commit(height)?;
        let writes = self.app.take_writes(height)?.unwrap_or_default();
        times.execute += clock.lap();
        let synced = self.save(&save, &transition.state, writes, own)?;
        self.state = Arc::new(transition.state);
        mark_evidence(&self.store, block.block()).map_err(storage(height))?;
        let retain_height = self.prune(Height::new(committed.retain_height));
        times.store += clock.lap();
        let applied = Applied {
            height,
            block_id: block.block_id(),
            app_hash: self.state.app_hash.clone(),
            results_hash: self.state.last_results_hash,
            num_txs: response.tx_results.len(),
            failed_txs: response.tx_results.iter().filter(|tx| tx.code != 0).count(),
            tx_codes: response.tx_results.iter().map(|tx| tx.code).collect(),
            gas_used: response
                .tx_results
                .iter()
                .fold(0, |sum: i64, tx| sum.saturating_add(tx.gas_used)),
            validator_updates: transition.validator_updates,
            params_changed: transition.params_changed,
            retain_height,
            synced,
            times,
        };
        Ok((applied, locked))
    }

    /// A certified block has passed decoding, and its last commit is final with it.
    fn validate_certified(&self, block: &Block) -> Result<(), ValidationError> {
        let rules = self.config.rules.at(block.header.height);
        validate_against_state(&self.state, block, LastCommit::Trust, rules)?;
        let history = StoreHistory::new(&self.store, self.state.last_block_height);
        Ok(verify_evidence_list(
            &block.evidence,
            &self.state,
            &history,
        )?)
    }

    /// Stores the state, and the block with it unless that was done; returns whether both survive
    /// a power cut by now.
    fn save(
        &mut self,
        block: &BlockSave<'_>,
        state: &State,
        writes: Vec<AppWrite>,
        block_is_stored: bool,
    ) -> Result<bool, ApplyError> {
        let height = state.last_block_height;
        let app_writes = store_writes(writes);
        let save = StateSave {
            state,
            previous: &self.state,
            app_writes: &app_writes,
        };
        if block_is_stored {
            // Lost by a power cut, it is made again from the stored results. The next block's sync
            // takes this write along, so it is never more than one.
            self.store
                .save_state(&save, Sync::No)
                .map_err(storage(height))?;
            return Ok(true);
        }
        let now = Instant::now();
        let sync = self.group.is_due(now);
        let wait = if sync { Sync::Yes } else { Sync::No };
        self.store
            .save_block_and_state(block, &save, wait)
            .map_err(storage(height))?;
        if sync {
            self.group.synced();
        } else {
            self.group.written(now);
        }
        Ok(sync)
    }

    fn prune(&mut self, retain: Height) -> Option<Height> {
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
        retain.is_positive().then_some(retain)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the last blocks are not synced");
        }
    }
}

/// Has the application execute `block`, and makes the next state of its answer. Nothing is
/// committed.
pub(crate) fn execute(
    app: &ConsensusConnection,
    state: &State,
    block: &Block,
    block_id: BlockId,
) -> Result<(ResponseFinalizeBlock, Transition), ApplyError> {
    let height = block.header.height;
    let initial = height == state.initial_height;
    let request = request::finalize_block(block, block_id.hash, &state.last_validators, initial)
        .map_err(|fault| not_valid(height, block_id, fault.into()))?;
    let response = app.finalize_block(&request)?;
    let transition = transition(state, block, block_id, &response)?;
    Ok((response, transition))
}

/// The state that follows from `block` and the application's answer to it.
pub(crate) fn transition(
    state: &State,
    block: &Block,
    block_id: BlockId,
    response: &ResponseFinalizeBlock,
) -> Result<Transition, AppError> {
    next_state(state, block_id, &block.header, response).map_err(|error| AppError {
        call: CallName::FinalizeBlock,
        height: Some(block.header.height),
        reason: AppFault::Contradiction(error.to_string()),
    })
}

/// Records the evidence of a stored block as committed. Behind the block, so that a crash between
/// loses the record; the next start makes it again.
pub(crate) fn mark_evidence(store: &Store, block: &Block) -> Result<(), StoreError> {
    for evidence in &block.evidence {
        store.mark_evidence_committed(evidence.height(), &evidence.hash())?;
    }
    Ok(())
}

/// The same writes as the store names them.
pub(crate) fn store_writes(writes: Vec<AppWrite>) -> Vec<perihelion_store::AppWrite> {
    writes
        .into_iter()
        .map(|AppWrite { key, value }| perihelion_store::AppWrite { key, value })
        .collect()
}

/// What it means that a final block does not follow from the state.
pub(crate) fn not_valid(height: Height, block: BlockId, fault: ValidationError) -> ApplyError {
    if let ValidationError::Evidence(error) = &fault
        && let EvidenceError::History(source) = &**error
    {
        let source = source.clone();
        return ApplyError::History { height, source };
    }
    ApplyError::LocalFault {
        height,
        block: Box::new(block),
        fault: Box::new(fault),
    }
}

pub(crate) fn storage(height: Height) -> impl Fn(StoreError) -> ApplyError {
    move |source| ApplyError::Storage {
        height,
        source: Box::new(source),
    }
}

/// Time between its laps.
struct Stopwatch(Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now.saturating_duration_since(self.0);
        self.0 = now;
        lap
    }
}
