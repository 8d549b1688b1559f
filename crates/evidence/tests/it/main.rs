//! The pool of evidence and its reactor.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod gossip;
mod node;
mod pool;
mod votes;
mod wire;
