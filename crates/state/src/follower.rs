//! What takes note of each block that is applied: the pools of transactions and of evidence.

use std::sync::Arc;

use perihelion_types::{Block, State};

use crate::{Applied, ApplyError};

/// Takes note of each block that [`Executor::apply`](crate::Executor::apply) applies, whoever
/// decided it.
pub trait Follower: Send + Sync {
    /// Called when a block has been executed, right before the application commits it: from now on
    /// transactions are not checked, as the state that they would be checked against is about to
    /// change. They are again when what is returned is dropped.
    fn hold(&self) -> Box<dyn CommitHold + '_>;
}

/// Kept while the application commits a block and the block is stored.
pub trait CommitHold {
    /// The block is committed and stored; `state` is the one after it. Not called when that failed.
    ///
    /// # Errors
    /// When the block cannot be taken note of; then no further one is applied.
    fn applied(
        &mut self,
        block: &Block,
        applied: &Applied,
        state: &Arc<State>,
    ) -> Result<(), ApplyError>;
}

/// Nobody follows.
impl CommitHold for () {
    fn applied(&mut self, _: &Block, _: &Applied, _: &Arc<State>) -> Result<(), ApplyError> {
        Ok(())
    }
}

impl<H: CommitHold + ?Sized> CommitHold for Box<H> {
    fn applied(
        &mut self,
        block: &Block,
        applied: &Applied,
        state: &Arc<State>,
    ) -> Result<(), ApplyError> {
        (**self).applied(block, applied, state)
    }
}
