use perihelion_state::Executor;
use perihelion_types::Height;

/// What the pool tells the owner of consensus, in this order.
#[derive(Debug)]
pub enum Handover {
    /// The chain has been caught up with: the executor goes to consensus. Everything that it has
    /// applied is durable, and the last block's commit is stored, with its extended commit where
    /// there must be one. It comes back by [`PoolInput::Executor`](crate::PoolInput::Executor).
    CaughtUp(Box<Executor>),
    /// A block of this height is final, and consensus has not told of it
    /// ([`PoolInput::Decided`](crate::PoolInput::Decided)): it must not vote there, nor below. Of
    /// several in a row the last one may be told alone.
    Pinned(Height),
    /// Consensus is behind what is final: the executor is wanted back.
    FallenBehind {
        /// The last height that is known to be final.
        pinned: Height,
    },
}
