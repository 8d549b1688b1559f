//! At start: brings state and application to the height of the last stored block, whatever a crash
//! left behind.
//!
//! With the application at height A, the state at S and the last stored block B:
//!
//! | | |
//! |---|---|
//! | A = S = B | level; the app hashes must be equal |
//! | A < S = B | the application is behind: blocks A+1 to B are executed for it alone |
//! | A <= S, B = S + 1 | a crash between storing a block and its state: A+1 to S as above, then block B is applied |
//! | A = B = S + 1 | the application has committed block B already: the state follows from the stored results, nothing is executed |
//! | else | refused, with heights and hashes |
//!
//! An application at height 0 gets InitChain first.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use perihelion_abci::{
    AppError, AppFault, CallName, ConsensusConnection, Persistence, QueryConnection,
    types::{ResponseFinalizeBlock, ResponseInfo, ResponseInitChain},
};
use perihelion_store::{StateSave, Store, Sync};
use perihelion_types::{Block, BlockId, Genesis, Hash, Height, State, ValidatorSet, merkle};
use prost::Message as _;

use crate::{
    COMETBFT_VERSION, ExecutorConfig, LastCommit, StartError,
    execution::{execute, mark_evidence, not_valid, store_writes, transition},
    genesis::rotated,
    request,
    transition::{ResponseError, decode_validators, updated_params},
    validation::validate_against_state,
};

/// A block is about to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayProgress {
    /// The first height that the application lacked.
    pub first: Height,
    /// The height that is replayed now.
    pub height: Height,
    /// The last one that will be.
    pub target: Height,
}

/// What the start needs.
pub(crate) struct Handshake<'a> {
    pub(crate) store: &'a Store,
    pub(crate) genesis: &'a Genesis,
    pub(crate) app: &'a ConsensusConnection,
    pub(crate) query: &'a QueryConnection,
    pub(crate) config: &'a ExecutorConfig,
}

/// Where the application stands.
struct AppPoint {
    height: Height,
    hash: Bytes,
}

impl Handshake<'_> {
    /// The state at the height of the last stored block, with the application at the same.
    pub(crate) fn run(
        &self,
        mut report: impl FnMut(ReplayProgress) -> ControlFlow<()>,
    ) -> Result<State, StartError> {
        let info = self.query.info(&request::info())?;
        let mut state = self.load_or_make(&info)?;
        let mut app = AppPoint {
            height: Height::new(info.last_block_height),
            hash: info.last_block_app_hash,
        };
        tracing::info!(
            app = app.height.get(),
            state = state.last_block_height.get(),
            store = self.store.height().get(),
            "handshake with the application"
        );
        self.check_heights(&app, &state)?;
        if app.height == Height::ZERO {
            (state, app.hash) = self.init_chain(state)?;
        }
        let (first, executed) = (self.first_to_replay(&app), app.height);
        if self.app.persistence() == Persistence::Own && first <= self.store.height() {
            // It will remember what it is given; so must we, however the blocks were written.
            self.store.sync()?;
        }
        let (at, last) = (state.last_block_height, self.store.height());
        let mut replay = Replay::new(app.hash);
        for height in first.get()..=at.get() {
            let height = Height::new(height);
            proceed(&mut report, first, height, last)?;
            self.replay(height, &mut replay)?;
        }
        if executed <= at {
            check_hash(at, &replay.app_hash, &state.app_hash)?;
        }
        if last > at {
            proceed(&mut report, first.min(last), last, last)?;
            state = if executed == last {
                self.apply_from_results(&state, last, &replay.app_hash)?
            } else {
                self.apply_stored(&state, last)?
            };
        }
        if last.is_positive() {
            // A crash may have come between the block and this record of it.
            let (block, _) = self.load(last)?;
            mark_evidence(self.store, &block)?;
        }
        Ok(state)
    }

    /// The stored state; before the first block the application's own version is part of it.
    fn load_or_make(&self, info: &ResponseInfo) -> Result<State, StartError> {
        let stored = self.store.load_state()?;
        if let Some(stored) = &stored
            && stored.chain_id != self.genesis.chain_id
        {
            return Err(StartError::OtherChain {
                stored: stored.chain_id.clone(),
                genesis: self.genesis.chain_id.clone(),
            });
        }
        match stored {
            // Asked again, an application at height 0 makes it anew out of the genesis.
            Some(state) if state.last_block_height.is_positive() || info.last_block_height > 0 => {
                Ok(state)
            }
            _ => {
                let mut state = State::from_genesis(self.genesis, COMETBFT_VERSION)?;
                state.version.app = info.app_version;
                Ok(state)
            }
        }
    }

    /// Sends InitChain. Its answer changes the state before the first block, and no later one.
    fn init_chain(&self, mut state: State) -> Result<(State, Bytes), StartError> {
        let validators = self.genesis.validator_set()?;
        let response = self
            .app
            .init_chain(&request::init_chain(self.genesis, &validators))?;
        let writes = self.app.take_writes(self.genesis.initial_height)?;
        let app_writes = store_writes(writes.unwrap_or_default());
        if state.last_block_height == Height::ZERO {
            self.apply_init_chain(&mut state, &response)?;
            let save = StateSave {
                state: &state,
                previous: &state,
                app_writes: &app_writes,
            };
            self.store.save_state(&save, Sync::Yes)?;
        } else {
            self.store.save_app_writes(&app_writes, Sync::No)?;
        }
        Ok((state, response.app_hash))
    }

    fn apply_init_chain(
        &self,
        state: &mut State,
        response: &ResponseInitChain,
    ) -> Result<(), StartError> {
        let contradiction = |error: String| AppError {
            call: CallName::InitChain,
            height: Some(self.genesis.initial_height),
            reason: AppFault::Contradiction(error),
        };
        if !response.app_hash.is_empty() {
            state.app_hash = response.app_hash.clone();
        }
        if !response.validators.is_empty() {
            let validators = decode_validators(&response.validators)
                .map_err(|error| contradiction(error.to_string()))?;
            let set =
                ValidatorSet::new(validators).map_err(|error| contradiction(error.to_string()))?;
            state.next_validators = Arc::new(rotated(&set)?);
            state.validators = Arc::new(set);
        } else if self.genesis.validators.is_empty() {
            return Err(StartError::NoValidators);
        }
        if let Some(update) = &response.consensus_params {
            let (params, _) = updated_params(&state.consensus_params, update)
                .map_err(|error: ResponseError| contradiction(error.to_string()))?;
            state.version.app = params.version.app;
            state.consensus_params = params;
        }
        state.last_results_hash = empty_root();
        Ok(())
    }

    /// Refuses what no crash of ours can leave behind.
    fn check_heights(&self, app: &AppPoint, state: &State) -> Result<(), StartError> {
        let (base, last) = (self.store.base(), self.store.height());
        let at = state.last_block_height;
        // A store without blocks is level with its state: before the first block, or restored from
        // a snapshot.
        let blocks_end = if last == Height::ZERO { at } else { last };
        if app.height > blocks_end {
            return Err(StartError::AppAhead {
                app: app.height,
                app_hash: app.hash.clone(),
                store: last,
                state: at,
                state_hash: state.app_hash.clone(),
            });
        }
        if blocks_end != at && blocks_end != state.next_height() {
            return Err(StartError::StoreAndState {
                store: last,
                state: at,
            });
        }
        let lacks_blocks =
            app.height < blocks_end && (last == Height::ZERO || self.first_to_replay(app) < base);
        if lacks_blocks {
            return Err(StartError::AppTooFarBehind {
                app: app.height,
                app_hash: app.hash.clone(),
                base,
                state: at,
                state_hash: state.app_hash.clone(),
            });
        }
        Ok(())
    }

    /// The first block that the application has not executed.
    fn first_to_replay(&self, app: &AppPoint) -> Height {
        if app.height == Height::ZERO {
            self.genesis.initial_height
        } else {
            app.height.next()
        }
    }

    /// Executes and commits a block that the state has behind it, for the application alone.
    fn replay(&self, height: Height, replay: &mut Replay) -> Result<(), StartError> {
        let (block, block_id) = self.load(height)?;
        // A hash that the application does not tell cannot be compared.
        if !replay.app_hash.is_empty() {
            check_hash(height.prev(), &replay.app_hash, &block.header.app_hash)?;
        }
        let initial = height == self.genesis.initial_height;
        if !initial {
            self.load_last_validators(height.prev(), replay)?;
        }
        let request = request::finalize_block(&block, block_id.hash, &replay.validators, initial)
            .map_err(|fault| not_valid(height, block_id, fault.into()))?;
        let response = self.app.finalize_block(&request)?;
        self.app.commit(height)?;
        if let Some(writes) = self.app.take_writes(height)? {
            self.store
                .save_app_writes(&store_writes(writes), Sync::No)?;
        }
        replay.app_hash = response.app_hash;
        replay.last_validators_hash = block.header.validators_hash;
        Ok(())
    }

    /// Makes `replay` hold members and powers of `height`, the one below the block that is
    /// replayed. The priorities do not matter, so a set that is known by its hash is not loaded.
    fn load_last_validators(&self, height: Height, replay: &mut Replay) -> Result<(), StartError> {
        let hash = replay.last_validators_hash;
        if hash.is_empty() || replay.validators.is_empty() || replay.validators.hash() != hash {
            replay.validators = self.validators_of(height)?;
        }
        Ok(())
    }

    fn validators_of(&self, height: Height) -> Result<ValidatorSet, StartError> {
        self.store
            .load_validators(height)?
            .ok_or(StartError::Missing {
                what: "the validator set",
                height,
            })
    }

    /// Applies a stored block that neither state nor application has executed. Its evidence was
    /// judged before it was stored.
    fn apply_stored(&self, state: &State, height: Height) -> Result<State, StartError> {
        let (block, block_id) = self.load(height)?;
        self.validate(state, &block, block_id)?;
        let (finalized, next) = execute(self.app, state, &block, block_id)?;
        self.store
            .save_results(height, finalized.encoded(), Sync::Yes)?;
        self.app.commit(height)?;
        let writes = self.app.take_writes(height)?.unwrap_or_default();
        self.save(state, &next.state, writes)?;
        Ok(next.state)
    }

    /// Applies a stored block that the application has committed: its answer is stored.
    fn apply_from_results(
        &self,
        state: &State,
        height: Height,
        app_hash: &Bytes,
    ) -> Result<State, StartError> {
        let (block, block_id) = self.load(height)?;
        self.validate(state, &block, block_id)?;
        let bytes = self
            .store
            .load_results(height)?
            .ok_or(StartError::Missing {
                what: "the response to FinalizeBlock",
                height,
            })?;
        let response =
            ResponseFinalizeBlock::decode(bytes).map_err(|error| StartError::Unreadable {
                what: "the response to FinalizeBlock",
                height,
                reason: error.to_string(),
            })?;
        check_hash(height, app_hash, &response.app_hash)?;
        let next = transition(state, &block, block_id, &response)?;
        self.save(state, &next.state, Vec::new())?;
        Ok(next.state)
    }

    fn save(
        &self,
        previous: &State,
        state: &State,
        writes: Vec<perihelion_abci::AppWrite>,
    ) -> Result<(), StartError> {
        let app_writes = store_writes(writes);
        let save = StateSave {
            state,
            previous,
            app_writes: &app_writes,
        };
        Ok(self.store.save_state(&save, Sync::Yes)?)
    }

    fn validate(&self, state: &State, block: &Block, id: BlockId) -> Result<(), StartError> {
        let height = block.header.height;
        let rules = self.config.rules.at(height);
        validate_against_state(state, block, LastCommit::Trust, rules)
            .map_err(|fault| not_valid(height, id, fault).into())
    }

    fn load(&self, height: Height) -> Result<(Block, BlockId), StartError> {
        let missing = StartError::Missing {
            what: "the block",
            height,
        };
        self.store.load_block_and_id(height)?.ok_or(missing)
    }
}

/// Where replaying for the application alone stands.
struct Replay {
    /// The application's hash after the last block it executed.
    app_hash: Bytes,
    /// Validators of the last block replayed, by its header; empty before the first.
    last_validators_hash: Hash,
    /// The set that was needed last.
    validators: ValidatorSet,
}

impl Replay {
    fn new(app_hash: Bytes) -> Self {
        Self {
            app_hash,
            last_validators_hash: Hash::EMPTY,
            validators: ValidatorSet::empty(),
        }
    }
}

fn proceed(
    report: &mut impl FnMut(ReplayProgress) -> ControlFlow<()>,
    first: Height,
    height: Height,
    target: Height,
) -> Result<(), StartError> {
    let progress = ReplayProgress {
        first,
        height,
        target,
    };
    match report(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(StartError::Interrupted { height }),
    }
}

fn check_hash(height: Height, app_hash: &Bytes, chain_hash: &Bytes) -> Result<(), StartError> {
    if app_hash == chain_hash {
        return Ok(());
    }
    Err(StartError::AppHash {
        height,
        app_hash: app_hash.clone(),
        chain_hash: chain_hash.clone(),
    })
}

/// The results hash of a block without transactions, by RFC 6962.
fn empty_root() -> Hash {
    merkle::root::<&[u8]>(&[])
}
