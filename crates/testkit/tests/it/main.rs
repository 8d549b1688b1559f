//! Tests of the simulated network and of the scheduler within it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod entering;
mod liars;
mod network;
mod rules;
mod scenarios;
mod seeds;
mod sieges;
mod speeds;
mod switching;
