//! The applications against CometBFT's, and what the connections promise.
#![allow(clippy::unwrap_used, missing_docs)]

mod connections;
mod kvstore;
mod kvstore_vectors;
