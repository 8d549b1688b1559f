//! Stateful property tests of the schedule: any inputs in any order, and its books agree after
//! each.
#![allow(clippy::unwrap_used, missing_docs)]

mod blocks;
mod properties;
