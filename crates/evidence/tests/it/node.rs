//! A node that holds a chain of the vectors, which carries evidence of both kinds.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_abci::AppConnections;
use perihelion_certify::CertifiedBlock;
use perihelion_crypto::{KeyType, PrivateKey};
use perihelion_evidence::EvidencePool;
use perihelion_proto::tendermint::types as pb;
use perihelion_state::{Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_test_support::{Hex, load, load_lines, read};
use perihelion_testkit::ParamsApp;
use perihelion_types::{
    Address, Commit, ConsensusParams, Evidence, FetchedBlock, Genesis, GenesisDefaults,
    RulesByHeight, State, Time,
};
use prost::Message as _;
use serde::Deserialize;

const CHAIN: &str = "chain_params";

#[derive(Deserialize)]
struct Row {
    block: Hex,
    seen_commit: Hex,
    #[serde(default)]
    extended_commit: Option<Hex>,
}

#[derive(Deserialize)]
struct Start {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    private: Hex,
}

pub(crate) struct Node {
    _folder: tempfile::TempDir,
    pub(crate) store: Arc<Store>,
    pub(crate) executor: Executor,
    rows: Vec<Row>,
}

impl Node {
    /// A node at a height of the chain.
    pub(crate) fn at(height: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), &StoreOptions::default()).unwrap());
        let app = AppConnections::in_process(Arc::new(ParamsApp::new()));
        let defaults = GenesisDefaults {
            time: Time::ZERO,
            consensus_params: ConsensusParams::default_v038(),
        };
        let genesis = read(&format!("{CHAIN}/genesis.json"));
        let genesis = Genesis::from_json(genesis.as_bytes(), &defaults).unwrap();
        let config = ExecutorConfig::default();
        let executor = Executor::start(
            Arc::clone(&store),
            &genesis,
            app.consensus,
            &app.query,
            config,
        )
        .unwrap();
        let mut node = Self {
            _folder: folder,
            store,
            executor,
            rows: load_lines(&format!("{CHAIN}/blocks.jsonl")),
        };
        while node.height() < height {
            node.apply();
        }
        node
    }

    pub(crate) fn height(&self) -> i64 {
        self.executor.state().last_block_height.get()
    }

    fn row(&self, height: i64) -> &Row {
        &self.rows[usize::try_from(height).unwrap() - 1]
    }

    /// The evidence in the block of a height.
    pub(crate) fn evidence(&self, height: i64) -> Vec<Evidence> {
        let raw = Bytes::copy_from_slice(&self.row(height).block);
        FetchedBlock::decode(raw, None)
            .unwrap()
            .block()
            .evidence
            .clone()
    }

    /// Whether the chain goes on.
    pub(crate) fn has_next(&self) -> bool {
        usize::try_from(self.height()).unwrap() < self.rows.len()
    }

    /// Applies the next block; its evidence.
    pub(crate) fn apply(&mut self) -> Vec<Evidence> {
        let height = self.height() + 1;
        let row = self.row(height);
        let state = self.executor.state();
        let (set, chain_id) = (&state.validators, &state.chain_id);
        let bytes = |hex: &Hex| Bytes::copy_from_slice(hex);
        let extended = row.extended_commit.as_ref().map(bytes);
        let is_extended = extended.is_some();
        let fetched = Arc::new(FetchedBlock::decode(bytes(&row.block), extended).unwrap());
        let certified = if is_extended {
            CertifiedBlock::decided_extended(fetched, set, chain_id).unwrap()
        } else {
            let commit = pb::Commit::decode(&row.seen_commit[..]).unwrap();
            let commit = Commit::try_from(commit).unwrap();
            CertifiedBlock::decided(fetched, commit, set, chain_id).unwrap()
        };
        self.executor.apply(&certified).unwrap();
        self.evidence(height)
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.executor.state_arc()
    }

    pub(crate) fn pool(&self) -> EvidencePool {
        let rules = RulesByHeight::default();
        EvidencePool::open(Arc::clone(&self.store), self.state(), rules).unwrap()
    }
}

/// The heights whose blocks carry evidence.
pub(crate) fn heights_with_evidence() -> Vec<i64> {
    let node = Node::at(0);
    let last = i64::try_from(node.rows.len()).unwrap();
    let heights: Vec<i64> = (1..=last)
        .filter(|height| !node.evidence(*height).is_empty())
        .collect();
    assert!(!heights.is_empty(), "{CHAIN} has no evidence");
    heights
}

/// All evidence of the chain, with the height of its block.
pub(crate) fn all_evidence() -> Vec<(i64, Evidence)> {
    let node = Node::at(0);
    heights_with_evidence()
        .into_iter()
        .flat_map(|height| {
            let evidence = node.evidence(height);
            evidence.into_iter().map(move |one| (height, one))
        })
        .collect()
}

/// The key of a validator of the chain.
pub(crate) fn key_of(address: &Address) -> PrivateKey {
    let start: Start = load(&format!("{CHAIN}/start.json"));
    start
        .keys
        .iter()
        .map(|key| PrivateKey::from_bytes(KeyType::Ed25519, &key.private).unwrap())
        .find(|key| key.public_key().address() == *address)
        .unwrap()
}
