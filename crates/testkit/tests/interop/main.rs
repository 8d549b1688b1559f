//! Perihelion beside a real CometBFT, both ways: it syncs from CometBFT, and CometBFT from it.
//!
//! It takes long: nothing here runs, and says so, unless `PERIHELION_INTEROP` is set, as
//! `make interop` does. `COMETBFT` names CometBFT's binary (else it is looked for on the PATH);
//! `ABCI_CLI` names CometBFT's `abci-cli` (else it is looked for on the PATH; without one the tests
//! that need it say so); `CHAIN_MAKER` names the chain maker (else it is built with Go from
//! `tests/chain-maker`); `PERIHELION` names our binary (else the one of the same build). Chains are
//! kept in the target folder.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod applications;
mod both_ways;
mod crashes;
mod liars;
mod logs;
mod mixed;
mod setup;
mod validators;
