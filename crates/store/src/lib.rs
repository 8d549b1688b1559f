//! Blocks, commits, state and indexes in RocksDB.
//!
//! One database, opened once as a [`Store`] and shared as `Arc<Store>`; all calls block. A block's
//! bytes are stored once, as received; header and commit are read out of them. One write batch a
//! block, deltas only: validator sets and parameters are written when they change, and priorities
//! are computed again from the last stored set.
//!
//! Reading order: [`store`] (opening, what is remembered of the range), `blocks` (saving and
//! loading), `state` (state, validator sets, parameters), [`prune`], [`index`]; below them
//! `database` (the only place that calls RocksDB), `columns` (what lies where), and `packed` and
//! `compressible` (what is made shorter, and when).

mod blob_files;
mod blocks;
mod columns;
mod compressible;
mod database;
mod direct_io;
mod error;
mod evidence;
mod home;
pub mod index;
mod live_files;
mod options;
mod packed;
pub mod prune;
mod record;
mod state;
pub mod store;

pub use blocks::{BlockMeta, BlockSave, SeenCommit};
pub use database::Entry;
pub use error::StoreError;
pub use evidence::PendingEvidence;
pub use home::{FORMAT, StoreLock, check_store, lock_store};
pub use index::{Indexer, TxLocation};
pub use options::{IndexKind, StoreOptions, Sync};
pub use state::{AppWrite, StateSave};
pub use store::Store;
