//! Golden vectors and properties of the types.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the vectors are files")]

mod block_encodings;
mod block_rules;
mod bounds;
mod chains;
mod genesis;
mod hashes;
mod json;
mod make_block;
mod median_time;
mod merkle;
mod params;
mod part_sets;
mod properties;
mod replay;
mod rules;
mod sign_bytes;
mod states;
mod validator_sets;
mod validator_sets_random;
