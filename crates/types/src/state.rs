//! The state that validates the next block.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_proto::tendermint::{state as pb, types, version};

use crate::{
    BlockId, ConsensusParams, DecodeError, Genesis, Hash, Height, InvalidError, Time, ValidatorSet,
    header::Version,
};

/// The version of the block protocol that headers carry.
pub const BLOCK_PROTOCOL: u64 = 11;

/// Everything that is needed to validate the next block (`tendermint.state.State`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Versions that the next header must carry.
    pub version: Version,
    /// Version of the software that made the chain's first state, as CometBFT records it; no rule
    /// depends on it.
    pub software: String,
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
    pub next_validators: Arc<ValidatorSet>,
    /// Validators of `last_block_height + 1`.
    pub validators: Arc<ValidatorSet>,
    /// Validators of `last_block_height`; empty before the first block.
    pub last_validators: Arc<ValidatorSet>,
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
    /// The state before the first block, as the genesis gives it: its validators for the first two
    /// heights, or none when the application is to give them. `software` names the version that is
    /// recorded.
    ///
    /// # Errors
    /// When the genesis breaks a rule, or its validators are no valid set.
    pub fn from_genesis(genesis: &Genesis, software: &str) -> Result<Self, InvalidError> {
        genesis.validate_basic()?;
        let validators = genesis.validator_set()?;
        let mut next_validators = validators.clone();
        if !next_validators.is_empty() {
            next_validators.increment_proposer_priority(1)?;
        }
        Ok(Self {
            version: Version {
                block: BLOCK_PROTOCOL,
                app: 0,
            },
            software: software.to_owned(),
            chain_id: genesis.chain_id.clone(),
            initial_height: genesis.initial_height,
            last_block_height: Height::ZERO,
            last_block_id: BlockId::NIL,
            last_block_time: genesis.genesis_time,
            next_validators: Arc::new(next_validators),
            validators: Arc::new(validators),
            last_validators: Arc::new(ValidatorSet::empty()),
            last_height_validators_changed: genesis.initial_height,
            consensus_params: genesis.consensus_params.clone(),
            last_height_consensus_params_changed: genesis.initial_height,
            last_results_hash: Hash::EMPTY,
            app_hash: genesis.app_hash.clone(),
        })
    }

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

impl TryFrom<pb::State> for State {
    type Error = DecodeError;

    /// The last validators are read from height 1 on, and empty before.
    fn try_from(state: pb::State) -> Result<Self, DecodeError> {
        let version = state.version.unwrap_or_default();
        let consensus = version.consensus.unwrap_or_default();
        let last_validators = if state.last_block_height >= 1 {
            validators(state.last_validators, "last validators")?
        } else {
            Arc::new(ValidatorSet::empty())
        };
        Ok(Self {
            version: Version {
                block: consensus.block,
                app: consensus.app,
            },
            software: version.software,
            chain_id: state.chain_id,
            initial_height: Height::new(state.initial_height),
            last_block_height: Height::new(state.last_block_height),
            last_block_id: state.last_block_id.unwrap_or_default().try_into()?,
            last_block_time: state.last_block_time.try_into()?,
            next_validators: validators(state.next_validators, "next validators")?,
            validators: validators(state.validators, "validators")?,
            last_validators,
            last_height_validators_changed: Height::new(state.last_height_validators_changed),
            consensus_params: state
                .consensus_params
                .ok_or(DecodeError::Missing("consensus parameters"))?
                .try_into()?,
            last_height_consensus_params_changed: Height::new(
                state.last_height_consensus_params_changed,
            ),
            last_results_hash: Hash::try_from(&state.last_results_hash[..])?,
            app_hash: state.app_hash,
        })
    }
}

fn validators(
    set: Option<types::ValidatorSet>,
    name: &'static str,
) -> Result<Arc<ValidatorSet>, DecodeError> {
    Ok(Arc::new(set.ok_or(DecodeError::Missing(name))?.try_into()?))
}

impl State {
    /// The encoded form without the validator sets, for who keeps those elsewhere.
    #[must_use]
    pub fn to_proto_without_sets(&self) -> pb::State {
        pb::State {
            version: Some(pb::Version {
                consensus: Some(version::Consensus {
                    block: self.version.block,
                    app: self.version.app,
                }),
                software: self.software.clone(),
            }),
            chain_id: self.chain_id.clone(),
            initial_height: self.initial_height.get(),
            last_block_height: self.last_block_height.get(),
            last_block_id: Some((&self.last_block_id).into()),
            last_block_time: Some(self.last_block_time.into()),
            next_validators: None,
            validators: None,
            last_validators: None,
            last_height_validators_changed: self.last_height_validators_changed.get(),
            consensus_params: Some((&self.consensus_params).into()),
            last_height_consensus_params_changed: self.last_height_consensus_params_changed.get(),
            last_results_hash: Bytes::copy_from_slice(self.last_results_hash.as_bytes()),
            app_hash: self.app_hash.clone(),
        }
    }
}

impl From<&State> for pb::State {
    /// The last validators are written from height 1 on.
    fn from(state: &State) -> Self {
        Self {
            next_validators: Some((&*state.next_validators).into()),
            validators: Some((&*state.validators).into()),
            last_validators: (state.last_block_height.get() >= 1)
                .then(|| (&*state.last_validators).into()),
            ..state.to_proto_without_sets()
        }
    }
}
