//! The store over real chains: saved, restored, cut short, pruned, damaged.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chain;
mod crash;
mod home;
mod ids;
mod index;
mod odd_encodings;
mod pending_evidence;
mod prune;
mod restore;
mod vectors;
