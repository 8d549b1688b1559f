//! Chains, simulated networks and lying peers for tests and benchmarks.

pub mod chain;
pub mod cluster;
pub mod evil;
pub mod home;
pub mod load;
pub mod measure;
pub mod network;
pub mod params_app;
#[cfg(target_os = "linux")]
pub mod power;
pub mod process;
pub mod sim;

pub use params_app::ParamsApp;
