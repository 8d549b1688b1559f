use bytes::Bytes;

use crate::{BlockId, ConsensusParams, Hash, Height, Time, ValidatorSet, header::Version};

/// Everything that is needed to validate the next block (`tendermint.state.State`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Versions that the next header must carry.
    pub version: Version,
    /// The chain.
    pub chain_id: String,
    /// The height of the chain's first block.
    pub initial_height: Height,
    /// The height of the last applied block; 0 before the first.
    pub last_block_height: Height,
    /// Its id.
    pub last_block_id: BlockId,
    /// Its time; the genesis time before the first.
    pub last_block_time: Time,
    /// Validators of `last_block_height + 2`.
    pub next_validators: std::sync::Arc<ValidatorSet>,
    /// Validators of `last_block_height + 1`.
    pub validators: std::sync::Arc<ValidatorSet>,
    /// Validators of `last_block_height`; empty before the first block.
    pub last_validators: std::sync::Arc<ValidatorSet>,
    /// The height from which `next_validators` (or later) holds.
    pub last_height_validators_changed: Height,
    /// Parameters of the next block.
    pub consensus_params: ConsensusParams,
    /// The height from which they hold.
    pub last_height_consensus_params_changed: Height,
    /// Root over the results of the last block.
    pub last_results_hash: Hash,
    /// The application's hash after the last block.
    pub app_hash: Bytes,
}

impl State {
    /// The height of the next block.
    #[must_use]
    pub fn next_height(&self) -> Height {
        if self.last_block_height == Height::ZERO {
            self.initial_height
        } else {
            self.last_block_height.next()
        }
    }
}
