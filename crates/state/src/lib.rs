//! The executor: certified block and state in, state out.
//!
//! [`Executor`] is the sole owner of the chain's state and of the application's consensus
//! connection. It starts by bringing state and application to the same height,
//! and then applies one [`CertifiedBlock`](perihelion_certify::CertifiedBlock) after another:
//! [validate](validate_block) it against the state, have it executed, store block, results and
//! state. For consensus it also makes blocks to propose, judges those of others, and asks the
//! application about both. Everything here blocks; it lives on one thread.

mod app_column;
mod applied;
mod config;
mod error;
mod execution;
mod executor;
mod follower;
mod genesis;
mod handshake;
mod history;
mod proposal;
mod pruner;
mod request;
mod sync_group;
mod transition;
mod validation;

pub use app_column::AppColumn;
pub use applied::{Applied, StageTimes};
pub use config::ExecutorConfig;
pub use error::{ApplyError, StartError};
pub use executor::Executor;
pub use follower::{CommitHold, Follower};
pub use genesis::until_genesis;
pub use handshake::ReplayProgress;
pub use history::StoreHistory;
pub use perihelion_certify::Rules;
pub use perihelion_types::state::BLOCK_PROTOCOL;
pub use proposal::{BlockContents, MAX_OWN_EXTENSION_BYTES, ProposalFault};
pub use request::LastCommitSize;
pub use validation::{LastCommit, ValidationError, validate_block};

/// The release of CometBFT whose behaviour this node follows; told to applications, and recorded
/// in the state as CometBFT does.
pub const COMETBFT_VERSION: &str = "0.38.25";
/// The protocol between peers.
pub const P2P_PROTOCOL: u64 = 8;
