//! The reactor against peers that misbehave, over loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod looks;
mod util;
