//! The store over real chains: saved, restored, cut short, pruned, damaged.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::too_many_lines
)]

mod chain;
mod crash;
mod home;
mod index;
mod prune;
mod restore;
mod vectors;
