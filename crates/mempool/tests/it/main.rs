//! The mempool and its reactor.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apps;
mod gossip;
mod model;
mod network;
mod pipeline;
mod rules;
mod wire;
