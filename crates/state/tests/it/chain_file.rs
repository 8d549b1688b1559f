//! A chain of the vectors, as the tests need it.

use std::sync::Arc;

use perihelion_certify::CertifiedBlock;
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Moment, load, load_lines, read};
use perihelion_types::{
    Commit, ConsensusParams, FetchedBlock, Genesis, State, genesis::GenesisDefaults,
};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    pub(crate) genesis_validators_hash: Hex,
    pub(crate) info_request: Hex,
    pub(crate) info_response: Hex,
    pub(crate) init_chain_request: Hex,
    pub(crate) init_chain_response: Hex,
    #[serde(rename = "keys")]
    _keys: serde_json::Value,
    pub(crate) state_from_genesis: Hex,
    pub(crate) state_after_init_chain: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) height: i64,
    pub(crate) block: Hex,
    pub(crate) block_id: Hex,
    pub(crate) app_hash_after: Hex,
    pub(crate) results_hash_after: Hex,
    pub(crate) consensus_hash: Hex,
    pub(crate) consensus_params: Hex,
    pub(crate) consensus_param_updates: Option<Hex>,
    #[serde(rename = "data_hash")]
    _data_hash: Hex,
    pub(crate) evidence_count: Option<usize>,
    #[serde(rename = "evidence_hash")]
    _evidence_hash: Hex,
    pub(crate) finalize_request: Hex,
    pub(crate) finalize_response: Hex,
    #[serde(rename = "flags")]
    _flags: String,
    pub(crate) header_hash: Hex,
    #[serde(rename = "last_commit_hash")]
    _last_commit_hash: Hex,
    #[serde(rename = "median_time_of_seen_commit")]
    _median_time: Moment,
    pub(crate) validators_hash: Hex,
    pub(crate) next_validators_hash: Hex,
    #[serde(rename = "parts_hash")]
    _parts_hash: Hex,
    #[serde(rename = "parts_total")]
    _parts_total: u32,
    pub(crate) prepare_request: Hex,
    pub(crate) prepare_response: Hex,
    pub(crate) process_request: Hex,
    #[serde(rename = "proposer")]
    _proposer: Hex,
    #[serde(rename = "round")]
    _round: i32,
    #[serde(rename = "round_0_proposer")]
    _round_0_proposer: Hex,
    pub(crate) seen_commit: Hex,
    #[serde(rename = "seen_commit_hash")]
    _seen_commit_hash: Hex,
    pub(crate) state_after: Option<Hex>,
    #[serde(rename = "time")]
    _time: Moment,
    #[serde(rename = "tx_hashes")]
    pub(crate) tx_hashes: Vec<Hex>,
    /// Address, public key, power, priority.
    pub(crate) validators: Vec<(Hex, Hex, i64, i64)>,
    pub(crate) extended_commit: Option<Hex>,
}

pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) genesis: Genesis,
    pub(crate) start: Start,
    pub(crate) blocks: Vec<Line>,
}

impl Chain {
    pub(crate) fn load(name: &'static str) -> Self {
        let genesis = read(&format!("{name}/genesis.json"));
        let defaults = GenesisDefaults {
            time: perihelion_types::Time::ZERO,
            consensus_params: ConsensusParams::default_v038(),
        };
        let blocks: Vec<Line> = load_lines(&format!("{name}/blocks.jsonl"));
        assert!(!blocks.is_empty(), "{name} has no blocks");
        Self {
            name,
            genesis: Genesis::from_json(genesis.as_bytes(), &defaults).unwrap(),
            start: load(&format!("{name}/start.json")),
            blocks,
        }
    }
}

impl Line {
    /// The block as it would come out of certification by `state`.
    pub(crate) fn certified(&self, state: &State) -> CertifiedBlock {
        let extended = self
            .extended_commit
            .as_ref()
            .map(|raw| raw.0.clone().into());
        let fetched = FetchedBlock::decode(self.block.0.clone().into(), extended).unwrap();
        let fetched = Arc::new(fetched);
        if self.extended_commit.is_some() {
            let (set, chain) = (&state.validators, &state.chain_id);
            return CertifiedBlock::decided_extended(fetched, set, chain).unwrap();
        }
        let commit = pb::Commit::decode(&self.seen_commit[..]).unwrap();
        let commit = Commit::try_from(commit).unwrap();
        CertifiedBlock::decided(fetched, commit, &state.validators, &state.chain_id).unwrap()
    }
}
