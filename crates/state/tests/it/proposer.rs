//! A node that makes blocks to be proposed and judges those of others.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use perihelion_abci::{AppConnections, Application, KvStore, KvStoreOptions};
use perihelion_certify::verify_evidence_list;
use perihelion_proto::tendermint::types as pb;
use perihelion_state::{
    ApplyError, BlockContents, Executor, ExecutorConfig, StoreHistory, ValidationError,
};
use perihelion_store::{Store, StoreOptions};
use perihelion_types::{
    Block, BlockId, Evidence, ExtendedCommit, FetchedBlock, Genesis, Height, Round, Rules,
    RulesByHeight,
};
use prost::Message as _;

use crate::{
    apps::{Asked, Opinions},
    chain_file::Chain,
};

/// What waits, and what was asked for.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) txs: Vec<Bytes>,
    pub(crate) asked: Mutex<Vec<(i64, i64)>>,
    pub(crate) asked_evidence: Mutex<Vec<i64>>,
}

impl BlockContents for Waiting {
    fn evidence(&self, max_bytes: i64) -> (Vec<Evidence>, i64) {
        self.asked_evidence.lock().unwrap().push(max_bytes);
        let list = pb::EvidenceList {
            evidence: self.evidence.iter().map(Into::into).collect(),
        };
        (self.evidence.clone(), list.encoded_len() as i64)
    }

    fn txs(&self, max_bytes: i64, max_gas: i64) -> Vec<Bytes> {
        self.asked.lock().unwrap().push((max_bytes, max_gas));
        self.txs.clone()
    }
}

pub(crate) struct Node {
    _folder: tempfile::TempDir,
    pub(crate) store: Arc<Store>,
    pub(crate) executor: Executor,
}

impl Node {
    pub(crate) fn start(genesis: &Genesis, app: Arc<dyn Application>, rules: Rules) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), &StoreOptions::default()).unwrap());
        let app = AppConnections::in_process(app);
        let config = ExecutorConfig {
            rules: RulesByHeight::always(rules),
            ..ExecutorConfig::default()
        };
        let (consensus, query) = (app.consensus, app.query);
        let executor =
            Executor::start(Arc::clone(&store), genesis, consensus, &query, config).unwrap();
        Self {
            _folder: folder,
            store,
            executor,
        }
    }

    pub(crate) fn judge(
        &self,
        block: &FetchedBlock,
    ) -> Result<Result<(), ValidationError>, ApplyError> {
        self.executor.validate_proposed(block, None, |list| {
            let state = self.executor.state();
            let history = StoreHistory::new(&self.store, state.last_block_height);
            verify_evidence_list(list, state, &history)
        })
    }

    pub(crate) fn make(
        &self,
        last: &ExtendedCommit,
        waiting: &Waiting,
    ) -> Result<Option<Block>, ApplyError> {
        let state = self.executor.state();
        let proposer = state.validators.validators()[0].address;
        let height = state.next_height();
        self.executor.make_block(height, proposer, last, waiting)
    }
}

pub(crate) fn no_commit() -> ExtendedCommit {
    ExtendedCommit {
        height: Height::ZERO,
        round: Round::ZERO,
        block_id: BlockId::NIL,
        extended_signatures: Vec::new(),
    }
}

/// A node before its first block, with an application of these opinions.
pub(crate) fn opinionated(
    opinions: Opinions,
    change: impl FnOnce(&mut Genesis),
) -> (Node, Arc<Mutex<Asked>>) {
    let mut genesis = Chain::load("chain_basic").genesis;
    change(&mut genesis);
    let asked = Arc::clone(&opinions.asked);
    (
        Node::start(&genesis, Arc::new(opinions), Rules::V038),
        asked,
    )
}

pub(crate) fn fetched(block: &Block) -> FetchedBlock {
    FetchedBlock::decode(block.encode(), None).unwrap()
}

pub(crate) fn kvstore() -> Arc<dyn Application> {
    Arc::new(KvStore::in_memory(KvStoreOptions::default()))
}
