//! Networks of real processes: validators that are killed, stopped and suspended, nodes that come
//! late, sets that change.
//!
//! They need the node's binary of the same build (`cargo test --workspace` makes it, or
//! `cargo build -p perihelion-node`), or the one that `PERIHELION` names.
#![allow(clippy::unwrap_used, reason = "tests")]

mod changes;
mod late;
mod localnet;
mod refusals;
mod restarts;
mod setup;
mod switches;
