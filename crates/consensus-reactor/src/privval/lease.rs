//! Who may sign: only who has the executor for consensus.

use std::sync::Arc;

use perihelion_state::Executor;

/// The right to sign, which consensus has while it has the executor. There is one for each
/// executor, it cannot be copied, and blocksync gets the executor back only for it. So a node in
/// blocksync cannot sign: it has nothing to show to the signer.
///
/// ```compile_fail
/// fn copy(lease: &perihelion_consensus_reactor::privval::SigningLease)
///     -> perihelion_consensus_reactor::privval::SigningLease {
///     lease.clone()
/// }
/// ```
///
/// ```compile_fail
/// let lease = perihelion_consensus_reactor::privval::SigningLease { of: Default::default() };
/// ```
#[derive(Debug)]
pub struct SigningLease {
    of: Arc<()>,
}

/// The executor while consensus has it. It can be used, and taken out only by giving the right to
/// sign back.
///
/// ```compile_fail
/// fn take(leased: perihelion_consensus_reactor::privval::LeasedExecutor)
///     -> perihelion_state::Executor {
///     leased.executor
/// }
/// ```
pub struct LeasedExecutor {
    executor: Executor,
    lease: Arc<()>,
}

impl LeasedExecutor {
    /// Takes the executor for consensus.
    #[must_use]
    pub fn new(executor: Executor) -> (Self, SigningLease) {
        let of = Arc::new(());
        let lease = Arc::clone(&of);
        (Self { executor, lease }, SigningLease { of })
    }

    /// The executor.
    #[must_use]
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The executor, to apply blocks with.
    #[must_use]
    pub fn executor_mut(&mut self) -> &mut Executor {
        &mut self.executor
    }

    /// Gives up signing, and gets the executor for blocksync.
    ///
    /// # Errors
    /// Gives both back when the right to sign belongs to another executor.
    pub fn end(self, signing: SigningLease) -> Result<Executor, Box<(Self, SigningLease)>> {
        if Arc::ptr_eq(&self.lease, &signing.of) {
            Ok(self.executor)
        } else {
            Err(Box::new((self, signing)))
        }
    }
}

impl std::fmt::Debug for LeasedExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let height = self.executor.state().last_block_height;
        f.debug_struct("LeasedExecutor")
            .field("height", &height)
            .finish_non_exhaustive()
    }
}
