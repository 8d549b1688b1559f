//! The block pool: owns a schedule, has runs certified on worker threads, applies blocks in order.
//!
//! `pool_routine` is the shell around `perihelion-schedule`'s pure core. It takes what peers and
//! workers report, feeds it to the [`Schedule`](perihelion_schedule::Schedule), and carries out the
//! effects that the schedule yields: requests go to the reactor, runs to the workers, certified
//! blocks to the thread that owns the executor. Once caught up the executor goes to consensus, and
//! comes back when consensus is behind.

mod applier;
mod certified;
mod config;
mod explain;
mod gather;
mod handover;
mod input;
mod later_rules;
mod routine;
mod translate;
mod workers;

pub use config::{Absence, PoolConfig, VerifyMode};
pub use handover::Handover;
pub use input::{Command, ConnectionId, PoolInput};
pub use routine::{LastCommitKnown, PoolError, PoolExit, PoolHandle, start};
