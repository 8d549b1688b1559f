//! Golden vectors and properties of the types.
#![allow(clippy::unwrap_used)]

mod block_rules;
mod bounds;
mod chains;
mod hashes;
mod merkle;
mod part_sets;
mod properties;
mod sign_bytes;
