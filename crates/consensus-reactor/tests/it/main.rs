//! Messages and gossip, the log and the signer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apps;
#[path = "../../../consensus/tests/it/chain.rs"]
#[allow(
    dead_code,
    reason = "shared with the state machine's own tests, which use more of it"
)]
mod chain;
mod disk;
mod floods;
mod gossip;
mod messages;
mod messages_on_wire;
mod network;
mod nodes;
mod odd_encodings;
mod recovering;
mod risk;
mod running;
mod signing;
mod signing_vectors;
mod standing;
mod strangers;
mod switches;
mod wal_crashes;
mod wal_files;
mod wal_vectors;
