//! Golden vectors and properties of keys and signatures.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod keys;
mod properties;
