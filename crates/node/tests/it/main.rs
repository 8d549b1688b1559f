//! The configuration and the binary, against what CometBFT makes and prints.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod applications;
mod bad_config;
mod bad_input;
mod bad_store;
mod bench;
mod beside_cometbft;
mod binary;
mod changed_bytes;
mod command_vectors;
mod config_effects;
mod config_vectors;
mod file_vectors;
mod homes;
mod running;
mod status;
