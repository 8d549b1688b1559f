//! The server over loopback: the vectors of a real CometBFT's RPC, and bad clients.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod chain;
mod client;
mod robust;
mod vectors;
