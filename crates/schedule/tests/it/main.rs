//! Stateful property tests of the schedule: any inputs in any order, and its books agree after
//! each.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blocks;
mod large;
mod properties;
