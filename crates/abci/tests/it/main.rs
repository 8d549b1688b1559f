//! The applications against CometBFT's, and what the connections promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connections;
mod kvstore;
mod kvstore_vectors;
mod wire;
