//! The pool with a real executor, against peers that the test plays.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chain_id;
mod clock;
mod connections;
mod last_commit;
mod standstill;
mod switching;
mod threads;
mod unsolicited;
mod util;
