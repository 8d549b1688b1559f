//! The chains of the vectors, replayed: the state before and after each block, computed from the
//! application's answers alone.

use std::sync::Arc;

use perihelion_proto::tendermint::{abci, state, types as pb};
use perihelion_test_support::{Hex, Moment, folder, load, load_lines, read};
use perihelion_types::{
    ConsensusParams, DeterministicResult, Genesis, GenesisDefaults, Height, PublicKey, State, Time,
    Validator, ValidatorSet, results,
};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "for tests of other crates")]
pub(crate) struct Start {
    pub(crate) keys: Vec<serde::de::IgnoredAny>,
    pub(crate) genesis_validators_hash: Hex,
    pub(crate) info_request: Hex,
    pub(crate) info_response: Hex,
    pub(crate) init_chain_request: Hex,
    pub(crate) init_chain_response: Hex,
    pub(crate) state_from_genesis: Hex,
    pub(crate) state_after_init_chain: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "for tests of other crates")]
pub(crate) struct BlockCase {
    pub(crate) height: i64,
    pub(crate) round: i32,
    pub(crate) time: Moment,
    pub(crate) block: Hex,
    pub(crate) block_id: Hex,
    pub(crate) header_hash: Hex,
    pub(crate) parts_total: u32,
    pub(crate) parts_hash: Hex,
    pub(crate) last_commit_hash: Hex,
    pub(crate) data_hash: Hex,
    pub(crate) evidence_hash: Hex,
    pub(crate) evidence_count: Option<usize>,
    pub(crate) tx_hashes: Vec<Hex>,
    /// Address, public key, power, priority.
    pub(crate) validators: Vec<(Hex, Hex, i64, i64)>,
    pub(crate) validators_hash: Hex,
    pub(crate) next_validators_hash: Hex,
    pub(crate) proposer: Hex,
    pub(crate) round_0_proposer: Hex,
    pub(crate) consensus_params: Hex,
    pub(crate) consensus_hash: Hex,
    pub(crate) consensus_param_updates: Option<Hex>,
    pub(crate) prepare_request: Hex,
    pub(crate) prepare_response: Hex,
    pub(crate) process_request: Hex,
    pub(crate) finalize_request: Hex,
    pub(crate) finalize_response: Hex,
    pub(crate) app_hash_after: Hex,
    pub(crate) results_hash_after: Hex,
    pub(crate) seen_commit: Hex,
    pub(crate) seen_commit_hash: Hex,
    pub(crate) flags: String,
    pub(crate) median_time_of_seen_commit: Moment,
    pub(crate) extended_commit: Option<Hex>,
    pub(crate) state_after: Option<Hex>,
}

/// A block with the states around it.
pub(crate) struct Replayed {
    pub(crate) case: BlockCase,
    pub(crate) before: State,
    pub(crate) after: State,
}

pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) genesis: Genesis,
    pub(crate) start: Start,
    pub(crate) blocks: Vec<Replayed>,
}

/// Names of all chains' folders.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("chain_"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "the vectors hold no chain");
    names
}

pub(crate) fn read_genesis(text: &str) -> Genesis {
    let defaults = GenesisDefaults {
        time: Time::new(0, 0),
        consensus_params: ConsensusParams::default_v038(),
    };
    Genesis::from_json(text.as_bytes(), &defaults).unwrap()
}

pub(crate) fn decode_state(bytes: &[u8]) -> State {
    state::State::decode(bytes).unwrap().try_into().unwrap()
}

pub(crate) fn encode_state(state: &State) -> Hex {
    Hex(state::State::from(state).encode_to_vec())
}

pub(crate) fn validators(updates: Vec<abci::ValidatorUpdate>) -> Vec<Validator> {
    updates
        .into_iter()
        .map(|update| {
            let key = PublicKey::try_from(update.pub_key.unwrap()).unwrap();
            Validator::new(key, update.power)
        })
        .collect()
}

impl Chain {
    pub(crate) fn replay(name: &str) -> Self {
        let genesis = read_genesis(&read(&format!("{name}/genesis.json")));
        let start: Start = load(&format!("{name}/start.json"));
        let mut state = decode_state(&start.state_after_init_chain);
        let blocks = load_lines::<BlockCase>(&format!("{name}/blocks.jsonl"))
            .into_iter()
            .map(|case| {
                let before = state.clone();
                state = next_state(&before, &case);
                Replayed {
                    after: state.clone(),
                    before,
                    case,
                }
            })
            .collect();
        Self {
            name: name.to_owned(),
            genesis,
            start,
            blocks,
        }
    }
}

/// What the block's results make of the state, by the protocol's rules.
fn next_state(state: &State, case: &BlockCase) -> State {
    let height = Height::new(case.height);
    assert_eq!(state.next_height(), height);
    let response = abci::ResponseFinalizeBlock::decode(&case.finalize_response[..]).unwrap();

    let mut next_validators = ValidatorSet::clone(&state.next_validators);
    let updates = validators(response.validator_updates);
    let changed = !updates.is_empty();
    next_validators.update(updates).unwrap();
    next_validators.increment_proposer_priority(1).unwrap();

    let mut next = State {
        last_block_height: height,
        last_block_id: block_id(&case.block_id),
        last_block_time: Time::new(case.time.seconds, case.time.nanos),
        last_validators: state.validators.clone(),
        validators: state.next_validators.clone(),
        next_validators: Arc::new(next_validators),
        app_hash: response.app_hash,
        last_results_hash: results::hash(response.tx_results.iter().map(DeterministicResult::from)),
        ..state.clone()
    };
    if changed {
        next.last_height_validators_changed = height.plus(2);
    }
    if let Some(update) = response.consensus_param_updates {
        let update = update.try_into().unwrap();
        state
            .consensus_params
            .validate_update(&update, height)
            .unwrap();
        next.consensus_params = state.consensus_params.updated(&update);
        next.consensus_params.validate_basic().unwrap();
        next.version.app = next.consensus_params.version.app;
        next.last_height_consensus_params_changed = height.next();
    }
    next
}

/// The block's id, read by way of the state that holds one.
fn block_id(proto: &Hex) -> perihelion_types::BlockId {
    let message = pb::BlockId::decode(&proto[..]).unwrap();
    message.try_into().unwrap()
}
