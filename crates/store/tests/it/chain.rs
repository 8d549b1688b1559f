//! Chains of the vectors, and endless ones made from their first state.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use perihelion_proto::tendermint::{state as pb_state, types as pb};
use perihelion_store::{BlockSave, IndexKind, StateSave, Store, StoreOptions, Sync};
use perihelion_test_support::{self as vectors, Hex};
use perihelion_types::{
    BlockId, Commit, ConsensusParams, ExtendedCommit, FetchedBlock, Hash, Header, Height, State,
    Time,
};
use prost::Message;
use serde::Deserialize;

pub(crate) const CHAINS: [&str; 5] = [
    "chain_basic",
    "chain_initial_height",
    "chain_extensions",
    "chain_params",
    "chain_params_v0.40",
];

/// Fields of a row that say nothing about storage.
const OTHER_FIELDS: [&str; 25] = [
    "app_hash_after",
    "consensus_hash",
    "consensus_param_updates",
    "data_hash",
    "evidence_count",
    "evidence_hash",
    "finalize_request",
    "flags",
    "header_hash",
    "last_commit_hash",
    "median_time_of_seen_commit",
    "next_validators_hash",
    "parts_hash",
    "parts_total",
    "prepare_request",
    "prepare_response",
    "process_request",
    "proposer",
    "results_hash_after",
    "round",
    "round_0_proposer",
    "seen_commit_hash",
    "time",
    "validators",
    "validators_hash",
];

/// The fields that these tests read, and the names of the others.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    pub(crate) height: i64,
    pub(crate) block: Hex,
    pub(crate) block_id: Hex,
    pub(crate) finalize_response: Hex,
    pub(crate) seen_commit: Hex,
    pub(crate) tx_hashes: Vec<Hex>,
    #[serde(default)]
    pub(crate) extended_commit: Option<Hex>,
    #[serde(default)]
    pub(crate) state_after: Option<Hex>,
    pub(crate) consensus_params: Hex,
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

impl Row {
    pub(crate) fn block(&self) -> FetchedBlock {
        let raw = Bytes::copy_from_slice(&self.block);
        let extended = self
            .extended_commit
            .as_ref()
            .map(|commit| Bytes::copy_from_slice(commit));
        FetchedBlock::decode(raw, extended).unwrap()
    }

    pub(crate) fn id(&self) -> BlockId {
        pb::BlockId::decode(&self.block_id[..])
            .unwrap()
            .try_into()
            .unwrap()
    }

    pub(crate) fn commit(&self) -> Commit {
        pb::Commit::decode(&self.seen_commit[..])
            .unwrap()
            .try_into()
            .unwrap()
    }

    pub(crate) fn extended_commit(&self) -> Option<ExtendedCommit> {
        let raw = self.extended_commit.as_ref()?;
        Some(ExtendedCommit::decode(Bytes::copy_from_slice(raw)).unwrap())
    }
}

pub(crate) fn rows(chain: &str) -> Vec<Row> {
    let rows: Vec<Row> = vectors::load_lines(&format!("{chain}/blocks.jsonl"));
    assert!(!rows.is_empty(), "{chain} has no blocks");
    for name in rows.iter().flat_map(|row| row.rest.keys()) {
        assert!(
            OTHER_FIELDS.contains(&&**name),
            "{chain}: unknown field {name}"
        );
    }
    rows
}

pub(crate) fn state(raw: &[u8]) -> State {
    pb_state::State::decode(raw).unwrap().try_into().unwrap()
}

pub(crate) fn encoded(state: &State) -> Vec<u8> {
    pb_state::State::from(state).encode_to_vec()
}

/// The state after InitChain.
pub(crate) fn start(chain: &str) -> State {
    let start: serde_json::Value = vectors::load(&format!("{chain}/start.json"));
    state(&hex::decode(start["state_after_init_chain"].as_str().unwrap()).unwrap())
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        memtable_bytes: 4 << 20,
        index: IndexKind::Null,
        discard_abci_responses: false,
    }
}

/// A block that follows from `state`: what the store looks at is right, signatures are not there.
pub(crate) fn next_block(
    state: &State,
    last: Option<&FetchedBlock>,
    txs: &[Bytes],
) -> FetchedBlock {
    let height = state.next_height();
    let commit = last.map_or(
        pb::Commit {
            block_id: Some((&BlockId::NIL).into()),
            ..Default::default()
        },
        |last| pb::Commit {
            height: last.height().get(),
            round: 0,
            block_id: Some((&last.block_id()).into()),
            signatures: vec![signature(last)],
        },
    );
    let commit_value: Commit = commit.clone().try_into().unwrap();
    let data = perihelion_types::Data::new(txs);
    let header = Header {
        version: state.version,
        chain_id: state.chain_id.clone(),
        height,
        time: Time::new(state.last_block_time.seconds() + 1, 0),
        last_block_id: last.map_or(BlockId::NIL, FetchedBlock::block_id),
        last_commit_hash: commit_value.hash(),
        data_hash: data.hash(),
        validators_hash: state.validators.hash(),
        next_validators_hash: state.next_validators.hash(),
        consensus_hash: state.consensus_params.hash(),
        app_hash: state.app_hash.clone(),
        last_results_hash: state.last_results_hash,
        evidence_hash: perihelion_types::evidence::hash_list(&[]),
        proposer_address: Bytes::copy_from_slice(&[7; 20]),
    };
    let block = pb::Block {
        header: Some((&header).into()),
        data: Some(pb::Data { txs: txs.to_vec() }),
        evidence: Some(pb::EvidenceList::default()),
        last_commit: Some(commit),
    };
    FetchedBlock::decode(block.encode_to_vec().into(), None).unwrap()
}

fn signature(block: &FetchedBlock) -> pb::CommitSig {
    pb::CommitSig {
        block_id_flag: 2,
        validator_address: Bytes::copy_from_slice(&[7; 20]),
        timestamp: Some(block.block().header.time.into()),
        signature: Bytes::copy_from_slice(&[9; 64]),
    }
}

/// What a block changes in the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) validators: Vec<perihelion_types::Validator>,
    pub(crate) params: Option<ConsensusParams>,
}

/// The state after `block`, by the rules of the protocol.
pub(crate) fn next_state(state: &State, block: &FetchedBlock, changes: &Changes) -> State {
    let height = block.height();
    let mut next = state.next_validators.as_ref().clone();
    let mut validators_changed = state.last_height_validators_changed;
    if !changes.validators.is_empty() && next.update(changes.validators.clone()).is_ok() {
        validators_changed = height.plus(2);
    }
    next.increment_proposer_priority(1).unwrap();
    let mut after = State {
        last_block_height: height,
        last_block_id: block.block_id(),
        last_block_time: block.block().header.time,
        next_validators: Arc::new(next),
        validators: Arc::clone(&state.next_validators),
        last_validators: Arc::clone(&state.validators),
        last_height_validators_changed: validators_changed,
        last_results_hash: Hash::of(&height.get().to_be_bytes()),
        app_hash: Bytes::copy_from_slice(&height.get().to_be_bytes()),
        ..state.clone()
    };
    if let Some(params) = &changes.params {
        after.consensus_params = params.clone();
        after.last_height_consensus_params_changed = height.next();
    }
    after
}

/// A chain as it grows.
pub(crate) struct Growing {
    pub(crate) state: State,
    pub(crate) last: Option<FetchedBlock>,
}

impl Growing {
    pub(crate) fn new(store: &Store) -> Self {
        let state = start("chain_basic");
        let save = StateSave {
            state: &state,
            previous: &state,
            app_writes: &[],
        };
        store.save_state(&save, Sync::Yes).unwrap();
        Self { state, last: None }
    }

    /// Makes and saves one block with its state.
    pub(crate) fn grow(
        &mut self,
        store: &Store,
        txs: &[Bytes],
        changes: &Changes,
        results: &[u8],
        sync: Sync,
    ) {
        let block = next_block(&self.state, self.last.as_ref(), txs);
        let state = next_state(&self.state, &block, changes);
        let save = BlockSave {
            block: &block,
            commit: None,
            extended_commit: None,
            results: Some(results),
        };
        let state_save = StateSave {
            state: &state,
            previous: &self.state,
            app_writes: &[],
        };
        store
            .save_block_and_state(&save, &state_save, sync)
            .unwrap();
        self.state = state;
        self.last = Some(block);
    }
}

pub(crate) fn height(height: i64) -> Height {
    Height::new(height)
}
