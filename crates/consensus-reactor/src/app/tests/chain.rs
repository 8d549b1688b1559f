//! A chain of a few validators, whose application is driven through its thread.

use std::sync::{
    Arc, Mutex,
    mpsc::{self, Receiver},
};

use bytes::Bytes;
use perihelion_abci::{
    AppConnections, AppFault, Application, KvStore, KvStoreOptions, MempoolConnection,
    types::{
        RequestCheckTx, RequestCommit, RequestExtendVote, RequestFinalizeBlock, RequestInfo,
        RequestInitChain, RequestPrepareProposal, RequestProcessProposal,
        RequestVerifyVoteExtension, ResponseCheckTx, ResponseCommit, ResponseExtendVote,
        ResponseFinalizeBlock, ResponseInfo, ResponseInitChain, ResponsePrepareProposal,
        ResponseProcessProposal, ResponseVerifyVoteExtension,
        response_process_proposal::ProposalStatus, response_verify_vote_extension::VerifyStatus,
    },
};
use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{Answer, Ask, BlockVerdict, RequestId};
use perihelion_crypto::PrivateKey;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::{Mempool, MempoolConfig, TxLimits};
use perihelion_state::{ApplyError, Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_types::{
    Address, Block, BlockId, BlockIdFlag, CommitSig, ConsensusParams, ExtendedCommit,
    ExtendedCommitSig, FetchedBlock, Genesis, GenesisValidator, Height, Round, RulesByHeight,
    SignedMsgType, State, Time, Vote,
};

use crate::{
    app::{AppReport, AppThread, Pools},
    privval::{LeasedExecutor, SigningLease},
};

const CHAIN_ID: &str = "application";

/// What the application does besides being a key-value store.
pub(super) type Hook = dyn Fn(&Call<'_>) -> Option<AppFault> + Send + Sync;

/// What it is asked.
pub(super) enum Call<'a> {
    Check(&'a RequestCheckTx),
    Prepare(&'a RequestPrepareProposal),
    Finalize(&'a RequestFinalizeBlock),
    Commit,
}

/// A key-value store with a hook before each call, and opinions.
pub(super) struct App {
    pub(super) store: KvStore,
    pub(super) hook: Box<Hook>,
    pub(super) extension: Bytes,
    pub(super) accepts: fn(&[Bytes]) -> bool,
    pub(super) accepts_extension: fn(&[u8]) -> bool,
    pub(super) retain: fn(i64) -> i64,
    pub(super) prepared: Option<Vec<Bytes>>,
    pub(super) height: Mutex<i64>,
}

impl App {
    pub(super) fn new() -> Self {
        Self::hooked(|_| None)
    }

    pub(super) fn hooked(
        hook: impl Fn(&Call<'_>) -> Option<AppFault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            store: KvStore::in_memory(KvStoreOptions::default()),
            hook: Box::new(hook),
            extension: Bytes::new(),
            accepts: |_| true,
            accepts_extension: |_| true,
            retain: |_| 0,
            prepared: None,
            height: Mutex::new(0),
        }
    }

    fn call(&self, call: &Call<'_>) -> Result<(), AppFault> {
        (self.hook)(call).map_or(Ok(()), Err)
    }
}

impl Application for App {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.store.info(request)
    }

    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        self.call(&Call::Check(request))?;
        self.store.check_tx(request)
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.store.init_chain(request)
    }

    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        self.call(&Call::Prepare(request))?;
        let txs = self.prepared.clone().unwrap_or_else(|| request.txs.clone());
        Ok(ResponsePrepareProposal { txs })
    }

    fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        let status = if (self.accepts)(&request.txs) {
            ProposalStatus::Accept
        } else {
            ProposalStatus::Reject
        };
        Ok(ResponseProcessProposal {
            status: status.into(),
        })
    }

    fn extend_vote(&self, _: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        Ok(ResponseExtendVote {
            vote_extension: self.extension.clone(),
        })
    }

    fn verify_vote_extension(
        &self,
        request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        let status = if (self.accepts_extension)(&request.vote_extension) {
            VerifyStatus::Accept
        } else {
            VerifyStatus::Reject
        };
        Ok(ResponseVerifyVoteExtension {
            status: status.into(),
        })
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        self.call(&Call::Finalize(request))?;
        *self.height.lock().unwrap() = request.height;
        self.store.finalize_block(request)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.call(&Call::Commit)?;
        self.store.commit(request)?;
        Ok(ResponseCommit {
            retain_height: (self.retain)(*self.height.lock().unwrap()),
        })
    }
}

/// What the chain begins with.
pub(super) struct Setup {
    pub(super) app: App,
    pub(super) validators: usize,
    pub(super) params: ConsensusParams,
    pub(super) genesis_time: Time,
    pub(super) config: ExecutorConfig,
}

impl Setup {
    pub(super) fn of(app: App) -> Self {
        Self {
            app,
            validators: 4,
            params: ConsensusParams::default_v038(),
            genesis_time: Time::new(1_700_000_000, 0),
            config: ExecutorConfig::default(),
        }
    }
}

/// The pools and the store behind the thread, and what the validators have signed.
pub(super) struct Chain {
    _folder: tempfile::TempDir,
    pub(super) store: Arc<Store>,
    pub(super) mempool: Arc<Mempool>,
    pub(super) evidence: Arc<EvidencePool>,
    /// By the set's order.
    pub(super) keys: Vec<PrivateKey>,
    pub(super) last_commit: ExtendedCommit,
    pub(super) state: Arc<State>,
    genesis_time: Time,
}

/// The thread with its reports.
pub(super) struct Running {
    pub(super) thread: AppThread,
    pub(super) reports: Receiver<AppReport>,
    pub(super) signing: SigningLease,
    asked: u64,
}

fn genesis(setup: &Setup) -> (Genesis, Vec<PrivateKey>) {
    let keys: Vec<PrivateKey> = (0..setup.validators)
        .map(|number| PrivateKey::ed25519_from_secret(format!("validator {number}").as_bytes()))
        .collect();
    let validators = keys.iter().map(|key| GenesisValidator {
        address: key.public_key().address(),
        pub_key: key.public_key(),
        power: 10,
        name: String::new(),
    });
    let genesis = Genesis {
        genesis_time: setup.genesis_time,
        chain_id: CHAIN_ID.to_owned(),
        initial_height: Height::new(1),
        consensus_params: setup.params.clone(),
        validators: validators.collect(),
        app_hash: Bytes::new(),
        app_state: Bytes::new(),
    };
    (genesis, keys)
}

impl Chain {
    /// A chain before its first block, and its executor.
    pub(super) fn new(setup: Setup) -> (Self, Executor) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), &StoreOptions::default()).unwrap());
        let (genesis, keys) = genesis(&setup);
        let app = AppConnections::in_process(Arc::new(setup.app));
        let executor = Executor::start(
            Arc::clone(&store),
            &genesis,
            app.consensus,
            &app.query,
            setup.config,
        )
        .unwrap();
        let state = executor.state_arc();
        let (mempool, evidence) = pools(&store, &state, app.mempool);
        let members = state.validators.validators().iter();
        let key_of = |address: Address| {
            let mut keys = keys.iter();
            keys.find(|key| key.public_key().address() == address)
                .cloned()
                .unwrap()
        };
        let chain = Self {
            _folder: folder,
            store,
            mempool,
            evidence,
            keys: members.map(|member| key_of(member.address)).collect(),
            last_commit: ExtendedCommit {
                height: Height::ZERO,
                round: Round::ZERO,
                block_id: BlockId::NIL,
                extended_signatures: Vec::new(),
            },
            state,
            genesis_time: genesis.genesis_time,
        };
        (chain, executor)
    }

    /// The thread of the executor.
    pub(super) fn run(&self, executor: Executor) -> Running {
        let (sender, reports) = mpsc::channel();
        self.run_reporting(executor, move |report| drop(sender.send(report)), reports)
    }

    /// The same, which tells by `report` what comes out of `reports`.
    pub(super) fn run_reporting(
        &self,
        executor: Executor,
        report: impl Fn(AppReport) + Send + 'static,
        reports: mpsc::Receiver<AppReport>,
    ) -> Running {
        let (leased, signing) = LeasedExecutor::new(executor);
        let pools = Pools {
            mempool: Arc::clone(&self.mempool),
            evidence: Arc::clone(&self.evidence),
        };
        let rules = RulesByHeight::default();
        Running {
            thread: AppThread::start(leased, pools, rules, report).unwrap(),
            reports,
            signing,
            asked: 0,
        }
    }

    /// Both, running.
    pub(super) fn start(setup: Setup) -> (Self, Running) {
        let (chain, executor) = Self::new(setup);
        let running = chain.run(executor);
        (chain, running)
    }

    /// A validator's signed vote.
    pub(super) fn vote(&self, index: usize, vote_type: SignedMsgType, block_id: BlockId) -> Vote {
        let member = &self.state.validators.validators()[index];
        // A second a height, so that the time of blocks rises.
        let since_genesis = self.state.next_height().get() * 1_000_000_000;
        let time = self.genesis_time.checked_add_nanos(since_genesis);
        let mut vote = Vote {
            vote_type,
            height: self.state.next_height(),
            round: Round::ZERO,
            block_id,
            timestamp: time.unwrap(),
            validator_address: Bytes::copy_from_slice(member.address.as_bytes()),
            validator_index: i32::try_from(index).unwrap(),
            signature: Bytes::new(),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        vote.signature = self.keys[index].sign(&vote.sign_bytes(CHAIN_ID));
        vote
    }

    /// Everybody's precommits for a block; with `extension` where there is one.
    pub(super) fn precommits(&self, id: BlockId, extension: Option<&[u8]>) -> ExtendedCommit {
        let places = (0..self.keys.len()).map(|index| {
            let mut vote = self.vote(index, SignedMsgType::Precommit, id);
            if let Some(extension) = extension {
                vote.extension = Bytes::copy_from_slice(extension);
                let bytes = vote.extension_sign_bytes(CHAIN_ID);
                vote.extension_signature = self.keys[index].sign(&bytes);
            }
            ExtendedCommitSig {
                commit_sig: CommitSig {
                    block_id_flag: BlockIdFlag::Commit,
                    validator_address: vote.validator_address,
                    timestamp: vote.timestamp,
                    signature: vote.signature,
                },
                extension: vote.extension,
                extension_signature: vote.extension_signature,
            }
        });
        ExtendedCommit {
            height: self.state.next_height(),
            round: Round::ZERO,
            block_id: id,
            extended_signatures: places.collect(),
        }
    }

    /// A block, decided.
    pub(super) fn decide(&mut self, block: &Block) -> Arc<CertifiedBlock> {
        let fetched = fetched(block);
        let enabled = self
            .state
            .consensus_params
            .vote_extensions_enabled(block.header.height);
        let extension = enabled.then_some(&b"signed"[..]);
        let commit = self.precommits(fetched.block_id(), extension);
        self.last_commit = commit.clone();
        let set = &self.state.validators;
        let certified = if enabled {
            let block = Arc::new(fetched.with_extended_commit(commit));
            CertifiedBlock::decided_extended(block, set, CHAIN_ID)
        } else {
            CertifiedBlock::decided(fetched, commit.to_commit(), set, CHAIN_ID)
        };
        Arc::new(certified.unwrap())
    }

    /// The question for the next block.
    pub(super) fn wants_block(&self) -> Ask {
        Ask::MakeBlock {
            height: self.state.next_height(),
            round: Round::ZERO,
            proposer: self.state.validators.validators()[0].address,
            last_commit: Box::new(self.last_commit.clone()),
        }
    }

    pub(super) fn send(&self, tx: &'static str) {
        let tx = Bytes::from_static(tx.as_bytes());
        let checked = self.mempool.check_tx(&tx, None).unwrap();
        assert_eq!(checked.response.code, 0);
    }
}

/// Pools behind the last block of `state`.
fn pools(
    store: &Arc<Store>,
    state: &Arc<State>,
    app: MempoolConnection,
) -> (Arc<Mempool>, Arc<EvidencePool>) {
    let config = MempoolConfig::default();
    let mempool = Mempool::new(config, app, state.last_block_height, TxLimits::NONE);
    let rules = RulesByHeight::default();
    let evidence = EvidencePool::open(Arc::clone(store), Arc::clone(state), rules).unwrap();
    (Arc::new(mempool), Arc::new(evidence))
}

pub(super) fn fetched(block: &Block) -> Arc<FetchedBlock> {
    Arc::new(FetchedBlock::decode(block.encode(), None).unwrap())
}

impl Running {
    fn next_id(&mut self) -> RequestId {
        self.asked += 1;
        RequestId::new(self.asked)
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&mut self, ask: Ask) -> Answer {
        let id = self.next_id();
        self.thread.ask(id, ask);
        match self.reports.recv().unwrap() {
            AppReport::Answer { id: to, answer } => {
                assert_eq!(to, id);
                answer
            }
            AppReport::Failed(error) => panic!("{error}"),
        }
    }

    pub(super) fn verdict(&mut self, block: &Block) -> BlockVerdict {
        let block = fetched(block);
        match self.ask(Ask::ProcessProposal { block }) {
            Answer::Verdict(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    /// Has the next block made.
    pub(super) fn make(&mut self, chain: &Chain) -> Block {
        match self.ask(chain.wants_block()) {
            Answer::Block(block) => *block,
            other => panic!("{other:?}"),
        }
    }

    /// Stores a decided block, and has it executed.
    pub(super) fn apply(&mut self, chain: &mut Chain, block: &Arc<CertifiedBlock>) {
        self.thread.commit(block).unwrap();
        assert_eq!(chain.store.height(), block.height());
        assert_eq!(chain.store.state_height(), block.height().prev());
        let id = self.next_id();
        self.thread.apply(id, Arc::clone(block));
        match self.reports.recv().unwrap() {
            AppReport::Answer {
                id: to,
                answer: Answer::Applied { state, .. },
            } => {
                assert_eq!(to, id);
                assert_eq!(state.last_block_id, block.block_id());
                chain.state = state;
            }
            AppReport::Answer { answer, .. } => panic!("{answer:?}"),
            AppReport::Failed(error) => panic!("{error}"),
        }
    }

    /// One height: made, judged, decided, applied.
    pub(super) fn advance(&mut self, chain: &mut Chain) -> Block {
        let block = self.make(chain);
        assert_eq!(self.verdict(&block), BlockVerdict::Accepted);
        let decided = chain.decide(&block);
        self.apply(chain, &decided);
        block
    }

    /// Why the thread has ended.
    pub(super) fn failure(&self) -> ApplyError {
        match self.reports.recv().unwrap() {
            AppReport::Failed(error) => *error,
            AppReport::Answer { answer, .. } => panic!("{answer:?}"),
        }
    }

    /// Ends the thread.
    pub(super) fn end(self) -> Executor {
        let leased = self.thread.end().unwrap();
        leased.end(self.signing).unwrap()
    }
}
