//! What consensus needs of the machine it runs on.
//!
//! [`wal`] is its write-ahead log, [`privval`] its signer, [`files`] how files of a home are read
//! and written.

pub mod files;
pub mod privval;
pub mod wal;
