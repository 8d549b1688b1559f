//! Whole chains through the executor, block validation, and crashes at every point.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apps;
mod chain_file;
mod chains;
mod crashes;
mod decided;
mod handshake;
mod history;
mod judging;
mod proposals;
mod proposer;
mod remote;
mod unsettled;
mod validation_vectors;
