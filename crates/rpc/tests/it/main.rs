//! The server over loopback: the vectors of a real CometBFT's RPC, and bad clients.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chain;
mod client;
mod control;
mod listen;
mod orders;
mod robust;
mod search;
mod vectors;
mod websocket;
