//! The write-ahead log of consensus, in CometBFT's format and files: what a validator took in since
//! the last block, so that after a crash it comes to the same state and never signs differently.
//!
//! Reading order: `record` (what is written), `log` (the writer),
//! `recovery` (what a crash leaves), `group` and [`files`] (the files).

mod error;
pub mod files;
mod group;
mod log;
mod message;
mod reader;
mod record;
mod recovery;

pub use error::WalError;
pub use log::{SYNC_INTERVAL, Wal, WalOptions, check};
pub use message::{from_proto, to_proto};
pub use reader::{WalEntry, WalReader};
pub use record::{
    HEADER_BYTES, MAX_DATA_BYTES, RecordFault, decode, encode, end_height, is_synced,
};
pub use recovery::TornTail;
