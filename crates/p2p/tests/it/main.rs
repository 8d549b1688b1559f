//! Golden vectors, properties of the pure state machines, whole switches over loopback, and a real
//! CometBFT where there is one.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod cometbft;
mod messages;
mod properties;
mod purity;
mod switch;
mod switch_limits;
mod util;
mod vectors;
