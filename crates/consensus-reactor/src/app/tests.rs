#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chain;
mod deciding;
mod failures;
mod pools;
