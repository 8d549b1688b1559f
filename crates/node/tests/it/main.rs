//! The configuration and the binary, against what CometBFT makes and prints.
#![allow(clippy::unwrap_used, missing_docs)]

mod config_vectors;
