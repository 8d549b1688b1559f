use bytes::Bytes;

use crate::{Address, ConsensusParams, Height, PublicKey, Time};

/// A chain's genesis document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Genesis {
    pub genesis_time: Time,
    pub chain_id: String,
    pub initial_height: Height,
    pub consensus_params: ConsensusParams,
    pub validators: Vec<GenesisValidator>,
    pub app_hash: Bytes,
    /// Raw JSON for the application.
    pub app_state: Bytes,
}

/// A validator of the genesis.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GenesisValidator {
    pub address: Address,
    pub pub_key: PublicKey,
    pub power: i64,
    pub name: String,
}
