//! The log and the signer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod messages;
mod risk;
mod signing;
mod signing_vectors;
mod wal_crashes;
mod wal_files;
mod wal_vectors;
