//! From one state to the next, by a block and the application's answer to it.

use std::sync::Arc;

use perihelion_abci::types::{
    ConsensusParams as WireParams, ResponseFinalizeBlock, ValidatorUpdate,
};
use perihelion_types::{
    BlockId, ConsensusParams, Hash, Header, Height, PublicKey, State, Validator, ValidatorSet,
    header::Version, params::ParamsUpdate, results,
};
use thiserror::Error;

/// An application's answer cannot become part of the state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ResponseError {
    /// A validator's power is negative.
    #[error("validator update {index} has the negative power {power}")]
    NegativePower {
        /// Which of the updates.
        index: usize,
        /// Its power.
        power: i64,
    },
    /// A validator's key cannot be read.
    #[error("validator update {index} has no usable key: {reason}")]
    Key {
        /// Which of the updates.
        index: usize,
        /// What is wrong with the key.
        reason: String,
    },
    /// A validator's key is of a type that the parameters do not allow.
    #[error("validator update {index} has a key of type {key_type}, which is not allowed")]
    KeyType {
        /// Which of the updates.
        index: usize,
        /// The type's name.
        key_type: &'static str,
    },
    /// The updates do not make a valid set.
    #[error("validator updates: {0}")]
    ValidatorSet(String),
    /// The new parameters are not allowed.
    #[error("consensus parameter updates: {0}")]
    Params(String),
}

/// What executing a block yields: the next state, and its summary.
pub(crate) struct Transition {
    pub(crate) state: State,
    pub(crate) validator_updates: usize,
    pub(crate) params_changed: bool,
}

/// The state after the block with `header` and `block_id`.
///
/// Updates of validators take effect two heights on, updates of parameters at the next height.
pub(crate) fn next_state(
    state: &State,
    block_id: BlockId,
    header: &Header,
    response: &ResponseFinalizeBlock,
) -> Result<Transition, ResponseError> {
    check_powers_and_types(&response.validator_updates, &state.consensus_params)?;
    let changes = decode_validators(&response.validator_updates)?;
    let validator_updates = changes.len();
    let next_validators = next_set(&state.next_validators, changes)?;
    let params = match &response.consensus_param_updates {
        None => None,
        Some(update) => Some(next_params(&state.consensus_params, update, header.height)?),
    };
    let params_changed = params.is_some();
    let consensus_params = params.unwrap_or_else(|| state.consensus_params.clone());
    Ok(Transition {
        state: State {
            version: Version {
                block: state.version.block,
                app: if params_changed {
                    consensus_params.version.app
                } else {
                    state.version.app
                },
            },
            software: state.software.clone(),
            chain_id: state.chain_id.clone(),
            initial_height: state.initial_height,
            last_block_height: header.height,
            last_block_id: block_id,
            last_block_time: header.time,
            next_validators: Arc::new(next_validators),
            validators: Arc::clone(&state.next_validators),
            last_validators: Arc::clone(&state.validators),
            last_height_validators_changed: if validator_updates > 0 {
                header.height.plus(2)
            } else {
                state.last_height_validators_changed
            },
            last_height_consensus_params_changed: if params_changed {
                header.height.next()
            } else {
                state.last_height_consensus_params_changed
            },
            consensus_params,
            last_results_hash: results_hash(response),
            app_hash: response.app_hash.clone(),
        },
        validator_updates,
        params_changed,
    })
}

/// Root over what all nodes agree on in the results.
pub(crate) fn results_hash(response: &ResponseFinalizeBlock) -> Hash {
    results::hash(response.tx_results.iter().map(Into::into))
}

/// The validators of an application's updates; an InitChain's are taken as they are.
pub(crate) fn decode_validators(
    updates: &[ValidatorUpdate],
) -> Result<Vec<Validator>, ResponseError> {
    updates
        .iter()
        .enumerate()
        .map(|(index, update)| Ok(Validator::new(decode_key(index, update)?, update.power)))
        .collect()
}

/// `params` with an application's updates.
pub(crate) fn updated_params(
    params: &ConsensusParams,
    update: &WireParams,
) -> Result<(ConsensusParams, ParamsUpdate), ResponseError> {
    let update = ParamsUpdate::try_from(update.clone())
        .map_err(|error| ResponseError::Params(error.to_string()))?;
    Ok((params.updated(&update), update))
}

fn decode_key(index: usize, update: &ValidatorUpdate) -> Result<PublicKey, ResponseError> {
    let key = update.pub_key.clone().unwrap_or_default();
    PublicKey::try_from(key).map_err(|error| ResponseError::Key {
        index,
        reason: error.to_string(),
    })
}

fn check_powers_and_types(
    updates: &[ValidatorUpdate],
    params: &ConsensusParams,
) -> Result<(), ResponseError> {
    for (index, update) in updates.iter().enumerate() {
        let power = update.power;
        if power < 0 {
            return Err(ResponseError::NegativePower { index, power });
        }
        if power == 0 {
            continue; // a removal, whatever the key
        }
        let key_type = decode_key(index, update)?.key_type().name();
        if !params.allows_key_type(key_type) {
            return Err(ResponseError::KeyType { index, key_type });
        }
    }
    Ok(())
}

fn next_set(set: &ValidatorSet, changes: Vec<Validator>) -> Result<ValidatorSet, ResponseError> {
    let invalid =
        |error: perihelion_types::InvalidError| ResponseError::ValidatorSet(error.to_string());
    let mut next = set.clone();
    if !changes.is_empty() {
        next.update(changes).map_err(invalid)?;
    }
    next.increment_proposer_priority(1).map_err(invalid)?;
    Ok(next)
}

fn next_params(
    params: &ConsensusParams,
    update: &WireParams,
    height: Height,
) -> Result<ConsensusParams, ResponseError> {
    let invalid = |error: perihelion_types::InvalidError| ResponseError::Params(error.to_string());
    let (next, update) = updated_params(params, update)?;
    next.validate_basic().map_err(invalid)?;
    params.validate_update(&update, height).map_err(invalid)?;
    Ok(next)
}
