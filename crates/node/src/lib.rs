//! Configuration, wiring and the `perihelion` binary.

pub mod cometbft;
pub mod commands;
pub mod config;
pub mod files;
pub mod home;
pub mod logging;
pub mod memory;
mod metrics;
pub mod prepare;
pub mod progress;
pub mod run;
pub mod signals;
