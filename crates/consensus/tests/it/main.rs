//! The rules one by one, recovery, and a simulated network.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "an origin for made-up instants, and the simulation's settings"
)]

mod chain;
mod extensions;
mod halts;
mod heights;
mod lone;
mod messages;
mod recovery;
mod rules;
mod sim;
mod vote_sets;
