//! Who decides blocks: blocksync or consensus. Hands the executor, of which there is one, from one
//! to the other.
//!
//! ```text
//! pool ── caught up: executor ─▶ modes ── enter ─▶ consensus
//!   ▲  ── pinned, fallen behind ─▶ │ ── pinned, leave ─▶ │
//!   └───── executor ───────────────┴◀──── executor ──────┤
//!   ◀───── decided ────────────────┴◀──── decided ───────┘
//! ```

use std::sync::Arc;

use perihelion_consensus_reactor::{ConsensusError, ConsensusHandle};
use perihelion_crypto::Address;
use perihelion_pool::{Handover, PoolInput};
use perihelion_state::Executor;
use perihelion_types::State;
use tokio::sync::{
    mpsc::{self, error::SendError},
    watch,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The task that switches.
pub(super) struct Modes {
    pub(super) consensus: ConsensusHandle,
    /// The state after each block that consensus decides.
    pub(super) decided: watch::Receiver<Option<Arc<State>>>,
    pub(super) handover: mpsc::Receiver<Handover>,
    /// The way back to the pool.
    pub(super) inputs: mpsc::Sender<PoolInput>,
    /// Whether consensus decides blocks: for the reactors that are idle in blocksync.
    pub(super) active: watch::Sender<bool>,
    /// The address of our validator key.
    pub(super) own_address: Option<Address>,
}

impl Modes {
    /// Switches until `stop`, and then ends consensus: what it gives back is the executor, where
    /// blocksync does not have it.
    ///
    /// # Errors
    /// When consensus cannot be entered or has failed; the node is to stop.
    pub(super) async fn run(
        mut self,
        stop: CancellationToken,
    ) -> Result<Option<Executor>, ConsensusError> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                handover = self.handover.recv() => match handover {
                    Some(handover) => if let Some(executor) = self.take(handover).await? {
                        return Ok(Some(executor));
                    },
                    // The pool has ended; the node ends with it.
                    None => break,
                },
                Ok(()) = self.decided.changed() => self.tell_decided().await,
            }
        }
        self.end().await
    }

    /// The executor stays here where it is to go to a pool that is gone: the node ends.
    async fn take(&mut self, handover: Handover) -> Result<Option<Executor>, ConsensusError> {
        match handover {
            Handover::CaughtUp(executor) => {
                self.enter(*executor).await?;
                Ok(None)
            }
            Handover::Pinned(height) => {
                self.consensus.pinned(height);
                Ok(None)
            }
            Handover::FallenBehind { pinned } => {
                let executor = self.leave().await?;
                info!(
                    height = %executor.state().last_block_height,
                    %pinned,
                    "consensus is behind the chain: back to blocksync"
                );
                let input = PoolInput::Executor(Box::new(executor));
                Ok(match self.inputs.send(input).await {
                    Err(SendError(PoolInput::Executor(executor))) => Some(*executor),
                    _ => None,
                })
            }
        }
    }

    async fn enter(&mut self, executor: Executor) -> Result<(), ConsensusError> {
        let state = executor.state_arc();
        let height = state.next_height();
        self.consensus.enter(executor).await?;
        self.active.send_replace(true);
        let power = self.own_address.and_then(|address| {
            let (_, validator) = state.validators.by_address(&address)?;
            Some(validator.voting_power)
        });
        match power {
            Some(power) => info!(%height, power, "caught up: in consensus, as a validator"),
            None => info!(%height, "caught up: in consensus, without a vote"),
        }
        Ok(())
    }

    async fn leave(&mut self) -> Result<Executor, ConsensusError> {
        self.active.send_replace(false);
        let executor = self.consensus.leave().await?;
        // Its state is the newest one.
        self.decided.mark_unchanged();
        Ok(executor)
    }

    async fn tell_decided(&mut self) {
        let state = self.decided.borrow_and_update().clone();
        if let Some(state) = state {
            // Where the pool is gone the node ends.
            drop(self.inputs.send(PoolInput::Decided(state)).await);
        }
    }

    /// Stops voting, and takes the executor where the pool does not have it.
    async fn end(mut self) -> Result<Option<Executor>, ConsensusError> {
        if *self.active.borrow() {
            return self.leave().await.map(Some);
        }
        // It may be on its way.
        self.handover.close();
        while let Some(handover) = self.handover.recv().await {
            if let Handover::CaughtUp(executor) = handover {
                return Ok(Some(*executor));
            }
        }
        Ok(None)
    }
}
