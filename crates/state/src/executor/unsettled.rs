//! Blocks in a row for an application that keeps its own state: it executes the next one while what is
//! left of the last one is done.

use std::sync::Arc;

use perihelion_abci::{Persistence, types::RequestFinalizeBlock};
use perihelion_certify::CertifiedBlock;
use perihelion_events::AppliedBlock;
use perihelion_store::{StateSave, Sync};
use perihelion_types::{BlockId, Height, State};

use super::{Executor, rest_of, save_of};
use crate::{
    Applied, ApplyError,
    execution::{request, storage},
};

/// How many times as long as a sync takes the last block was waited for, where the next one's is
/// synced early: less, and the sync that counts would wait for the early one.
const EARLY_SYNC: u32 = 2;

/// What is left of a block that an application which keeps its own state has committed.
pub(super) struct Unsettled {
    pub(super) previous: Arc<State>,
    pub(super) state: Arc<State>,
    /// The height that the application wants to retain from; zero where it names none.
    pub(super) retain: Height,
    /// What subscribers are to be told.
    pub(super) told: Option<AppliedBlock>,
}

/// A block that the application can be given.
pub(super) struct Prepared {
    id: BlockId,
    request: RequestFinalizeBlock,
}

impl Executor {
    /// [`Self::apply`] for many blocks in a row, where the application keeps its own state: once it
    /// has committed `block` it is given `following`, and what is left of `block` is done while it
    /// executes that. Who has no following block calls [`Self::settle`].
    ///
    /// The state stands in the log before the next block, so a crash leaves the store at most one
    /// block above its state, as ever.
    ///
    /// Whoever gives `following` applies it next ([`Self::has_begun`]). A block that cannot be begun
    /// is not: applying it tells why.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_unsettled(
        &mut self,
        block: &CertifiedBlock,
        following: Option<&CertifiedBlock>,
    ) -> Result<Applied, ApplyError> {
        let follower = self.follower.clone();
        self.unless_stopped(block.height(), |executor| match follower {
            None => executor
                .apply_next(block, following, || ())
                .map(|(applied, ())| applied),
            Some(follower) => executor
                .apply_next(block, following, || follower.hold())
                .map(|(applied, _)| applied),
        })
    }

    /// Whether the application executes the next block already, as [`Self::apply_unsettled`] was told
    /// to have it: nothing else may be asked of it before that block is applied.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Ends what [`Self::apply_unsettled`] began; nothing otherwise.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn settle(&mut self) -> Result<(), ApplyError> {
        let Some(rest) = self.unsettled.take() else {
            return Ok(());
        };
        let save = StateSave {
            state: &rest.state,
            previous: &rest.previous,
            app_writes: &[],
        };
        // Of a block that is synced already, state and results that a power cut takes are made
        // again at the next start. The next block's sync takes this write along, so it is never
        // more than one.
        self.store
            .save_state(&save, Sync::No)
            .map_err(storage(rest.state.last_block_height))?;
        self.prune(rest.retain);
        self.publish(rest.told);
        Ok(())
    }

    /// What the application is to be given next, if nothing speaks against it; what does is told when
    /// that block is applied. `state` is the one that it follows.
    pub(super) fn prepare(&self, block: &CertifiedBlock, state: &State) -> Option<Prepared> {
        let params = &state.consensus_params;
        let is_whole =
            block.extended_commit().is_some() || !params.vote_extensions_enabled(block.height());
        if !is_whole || self.validate_certified(state, block.block()).is_err() {
            return None;
        }
        let id = block.block_id();
        let request = request(state, block.block(), id).ok()?;
        Some(Prepared { id, request })
    }

    /// Gives the application the block that was prepared.
    pub(super) fn begin_prepared(&mut self, prepared: &Prepared) {
        let begun = self.app.begin_finalize_block(&prepared.request);
        self.begun = begun.ok().map(|pending| (prepared.id, pending));
    }

    /// While an application in another process executes `block`: what is left of the block below,
    /// and all of this one that is known. In this order: a crash that takes the end of both leaves
    /// the store at most one block above its state.
    pub(super) fn use_waiting_time(
        &mut self,
        block: &CertifiedBlock,
        is_stored: bool,
    ) -> Result<(), ApplyError> {
        self.settle()?;
        if is_stored || self.app.persistence() != Persistence::Own {
            return Ok(());
        }
        self.store
            .save_block(&save_of(block, None), Sync::No)
            .map_err(storage(block.height()))?;
        // Most of what the block's sync will have to write is here: less is left for it, where the
        // application leaves time for a sync of its own.
        if let Some(syncs) = &mut self.syncs
            && self.waited > EARLY_SYNC * syncs.took()
        {
            syncs.begin();
        }
        Ok(())
    }

    /// An application that keeps its own state will remember the block; so must we, before it does:
    /// the block, which stands in the log by now, and what it yielded. Nothing else does it wait for,
    /// so what can be done beside the sync is: see [`Self::await_sync`].
    pub(super) fn save_before_commit(
        &mut self,
        block: &CertifiedBlock,
        results: &[u8],
    ) -> Result<(), ApplyError> {
        let Some(syncs) = &mut self.syncs else {
            return Ok(());
        };
        self.store
            .save_block(&rest_of(block, results), Sync::No)
            .map_err(storage(block.height()))?;
        syncs.begin();
        Ok(())
    }

    /// Whether what [`Self::save_before_commit`] wrote is not durable yet.
    pub(super) fn is_syncing(&mut self, height: Height) -> Result<bool, ApplyError> {
        match &mut self.syncs {
            Some(syncs) => syncs.is_under_way().map_err(storage(height)),
            None => Ok(false),
        }
    }

    /// Waits until what [`Self::save_before_commit`] wrote survives a power cut.
    pub(super) fn await_sync(&mut self, height: Height) -> Result<(), ApplyError> {
        match &mut self.syncs {
            Some(syncs) => syncs.wait().map_err(storage(height)),
            None => Ok(()),
        }
    }
}
