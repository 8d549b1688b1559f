//! Golden vectors, properties of the pure state machines, whole switches over loopback, and a real
//! CometBFT where there is one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "tells what was not run")]

mod cometbft;
mod messages;
mod orders;
mod properties;
mod purity;
mod switch;
mod switch_limits;
mod util;
mod vectors;
