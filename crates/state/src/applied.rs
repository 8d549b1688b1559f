use std::time::{Duration, Instant};

use bytes::Bytes;
use perihelion_abci::types::ResponseFinalizeBlock;
use perihelion_types::{BlockId, Hash, Height, State};

use crate::transition::Transition;

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
    /// Making the next state, encoding and writing, and telling who follows.
    pub store: Duration,
}

impl Applied {
    /// Of the block that led to the state of `transition`.
    pub(crate) fn of(transition: &Transition, response: &ResponseFinalizeBlock) -> Self {
        let state: &State = &transition.state;
        let results = &response.tx_results;
        Self {
            height: state.last_block_height,
            block_id: state.last_block_id,
            app_hash: state.app_hash.clone(),
            results_hash: state.last_results_hash,
            num_txs: results.len(),
            failed_txs: results.iter().filter(|tx| tx.code != 0).count(),
            tx_codes: results.iter().map(|tx| tx.code).collect(),
            gas_used: results
                .iter()
                .fold(0, |sum: i64, tx| sum.saturating_add(tx.gas_used)),
            validator_updates: transition.validator_updates,
            params_changed: transition.params_changed,
            retain_height: None,
            synced: false,
            times: StageTimes::default(),
        }
    }
}

/// Time between its laps.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now.saturating_duration_since(self.0);
        self.0 = now;
        lap
    }
}
