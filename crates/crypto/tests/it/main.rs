//! Golden vectors and properties of keys and signatures.
#![allow(clippy::unwrap_used)]

mod keys;
mod properties;
