//! Tests of the simulated network and of the scheduler within it.
#![allow(clippy::unwrap_used, missing_docs)]

mod rules;
mod scenarios;
mod seeds;
