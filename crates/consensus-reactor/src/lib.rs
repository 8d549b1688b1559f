//! What consensus needs of its peers and of the machine it runs on.
//!
//! [`wire`] has the messages of its channels, [`peer`] what each peer has and what to send it next;
//! both are pure. [`wal`] is its write-ahead log, [`privval`] its signer, [`files`] how files of a
//! home are read and written.

mod app;
pub mod files;
pub mod peer;
pub mod privval;
pub mod wal;
pub mod wire;

pub use app::PoolFollower;
