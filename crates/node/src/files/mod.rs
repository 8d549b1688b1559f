//! The files of a home, in CometBFT's forms. All are written atomically and durably; those with a
//! secret can be read by their owner only, and their content never stands in an error.

mod genesis;
mod node_key;

pub use genesis::{
    GenesisFile, genesis_id, genesis_json, load_genesis, new_genesis, random_text, read_genesis,
};
pub use node_key::{generate_node_key, load_node_key, node_key_json};
pub use perihelion_consensus_reactor::{
    files::{FileError, create_folder, write_atomically},
    privval::{SignState, ValidatorKey},
};
