//! Nodes as real processes on loopback: Perihelion's or CometBFT's, since both take the same
//! home and the same command line.

mod client;
mod home;
mod launch;
mod node;
mod usage;

pub use client::{NodeClient, NodeStatus, http_get};
pub use home::{edit_config, init, init_home, node_id};
pub use launch::{Launch, free_ports};
pub use node::NodeProcess;
pub use usage::{Usage, disk_bytes, usage};

#[cfg(test)]
mod tests;
