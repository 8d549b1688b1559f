//! Configuration, wiring and the `perihelion` binary.

pub mod config;
pub mod logging;
