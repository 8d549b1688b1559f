//! Stateful property tests of the schedule: any inputs in any order, and its books agree after
//! each. And single rules, each seen in whom is asked for what.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod blocks;
mod consensus;
mod driver;
mod large;
mod properties;
mod strangers;
