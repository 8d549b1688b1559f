//! Applications for the tests.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use perihelion_abci::{
    AppFault, AppWrite, Application, KvStore, KvStoreOptions, MemoryAppStore, Persistence,
    types::{
        ExecTxResult, RequestCommit, RequestExtendVote, RequestFinalizeBlock, RequestInfo,
        RequestInitChain, RequestPrepareProposal, RequestProcessProposal,
        RequestVerifyVoteExtension, ResponseCommit, ResponseExtendVote, ResponseFinalizeBlock,
        ResponseInfo, ResponseInitChain, ResponsePrepareProposal, ResponseProcessProposal,
        ResponseVerifyVoteExtension, response_process_proposal::ProposalStatus,
        response_verify_vote_extension::VerifyStatus,
    },
};

/// What an application was asked, in order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) infos: Vec<RequestInfo>,
    pub(crate) init_chains: Vec<RequestInitChain>,
    pub(crate) prepared: Vec<(RequestPrepareProposal, ResponsePrepareProposal)>,
    pub(crate) processed: Vec<RequestProcessProposal>,
    pub(crate) finalized: Vec<(RequestFinalizeBlock, ResponseFinalizeBlock)>,
    /// How often each height was committed.
    pub(crate) commits: BTreeMap<i64, usize>,
}

/// Where the application is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// Panics in FinalizeBlock at this height, before it does anything.
    PanicsFinalizing(i64),
    /// Panics in Commit at this height, before it does anything.
    PanicsCommitting(i64),
    /// Panics in Commit at this height, after it has committed: a crash before the state is saved.
    PanicsCommitted(i64),
    /// Gives a result too many at this height.
    MiscountsResults(i64),
    /// Gives another app hash at this height.
    OtherHash(i64),
    /// Gives a validator a negative power at this height.
    NegativePower(i64),
}

/// Passes calls on, keeps them, and fails where it is told to.
pub(crate) struct Recorded {
    app: Arc<dyn Application>,
    pub(crate) log: Arc<Mutex<Log>>,
    trouble: Trouble,
}

impl Recorded {
    pub(crate) fn new(app: Arc<dyn Application>, trouble: Trouble) -> (Arc<Self>, Arc<Mutex<Log>>) {
        let log = Arc::<Mutex<Log>>::default();
        let recorded = Self {
            app,
            log: Arc::clone(&log),
            trouble,
        };
        (Arc::new(recorded), log)
    }
}

impl Application for Recorded {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.log.lock().unwrap().infos.push(request.clone());
        self.app.info(request)
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.log.lock().unwrap().init_chains.push(request.clone());
        self.app.init_chain(request)
    }

    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        let response = self.app.prepare_proposal(request)?;
        let kept = (request.clone(), response.clone());
        self.log.lock().unwrap().prepared.push(kept);
        Ok(response)
    }

    fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        self.log.lock().unwrap().processed.push(request.clone());
        self.app.process_proposal(request)
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        let at = request.height;
        assert!(
            self.trouble != Trouble::PanicsFinalizing(at),
            "out of ideas"
        );
        let mut response = self.app.finalize_block(request)?;
        if self.trouble == Trouble::MiscountsResults(at) {
            response.tx_results.push(ExecTxResult::default());
        }
        if self.trouble == Trouble::OtherHash(at) {
            response.app_hash = vec![0xba; 8].into();
        }
        if self.trouble == Trouble::NegativePower(at) {
            response
                .validator_updates
                .push(perihelion_abci::types::ValidatorUpdate {
                    pub_key: None,
                    power: -1,
                });
        }
        let kept = (request.clone(), response.clone());
        self.log.lock().unwrap().finalized.push(kept);
        Ok(response)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        let at = {
            let log = self.log.lock().unwrap();
            log.finalized
                .last()
                .map_or(0, |(request, _)| request.height)
        };
        assert!(
            self.trouble != Trouble::PanicsCommitting(at),
            "no commitment"
        );
        let response = self.app.commit(request)?;
        *self.log.lock().unwrap().commits.entry(at).or_default() += 1;
        assert!(
            self.trouble != Trouble::PanicsCommitted(at),
            "the power is gone"
        );
        Ok(response)
    }

    fn persistence(&self) -> Persistence {
        self.app.persistence()
    }

    fn take_writes(&self) -> Option<Vec<AppWrite>> {
        self.app.take_writes()
    }
}

/// The key-value application that keeps its own state on `disk`, as one in another process does. Made
/// anew, it is where it committed last.
pub(crate) fn standalone(disk: &Arc<MemoryAppStore>, options: KvStoreOptions) -> Arc<KvStore> {
    let store = Arc::clone(disk) as _;
    Arc::new(KvStore::standalone(store, options).unwrap())
}

/// What an application is about to do with the block of a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Execute(i64),
    Commit(i64),
}

/// Passes calls on; what is done before a block is executed or committed, the test says.
pub(crate) struct Hooked<F> {
    app: Arc<dyn Application>,
    /// The block that was executed last.
    executed: AtomicI64,
    before: F,
}

impl<F: Fn(Task) + Send + Sync + 'static> Hooked<F> {
    pub(crate) fn new(app: Arc<dyn Application>, before: F) -> Arc<Self> {
        let executed = AtomicI64::new(0);
        Arc::new(Self {
            app,
            executed,
            before,
        })
    }
}

impl<F: Fn(Task) + Send + Sync + 'static> Application for Hooked<F> {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.app.info(request)
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.app.init_chain(request)
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        (self.before)(Task::Execute(request.height));
        self.executed.store(request.height, Ordering::SeqCst);
        self.app.finalize_block(request)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        (self.before)(Task::Commit(self.executed.load(Ordering::SeqCst)));
        self.app.commit(request)
    }
}

/// Answers to the questions of consensus as it is told to, and keeps what it was asked.
pub(crate) struct Opinions {
    /// What PrepareProposal returns; what it was given where there is none.
    pub(crate) txs: Option<Vec<Bytes>>,
    pub(crate) proposal: ProposalStatus,
    pub(crate) extension: Bytes,
    pub(crate) verdict: VerifyStatus,
    pub(crate) asked: Arc<Mutex<Asked>>,
}

/// What [`Opinions`] was asked, in order.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) prepared: Vec<RequestPrepareProposal>,
    pub(crate) extended: Vec<RequestExtendVote>,
    pub(crate) verified: Vec<RequestVerifyVoteExtension>,
}

impl Default for Opinions {
    fn default() -> Self {
        Self {
            txs: None,
            proposal: ProposalStatus::Accept,
            extension: Bytes::new(),
            verdict: VerifyStatus::Accept,
            asked: Arc::default(),
        }
    }
}

impl Application for Opinions {
    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        self.asked.lock().unwrap().prepared.push(request.clone());
        let txs = self.txs.clone().unwrap_or_else(|| request.txs.clone());
        Ok(ResponsePrepareProposal { txs })
    }

    fn process_proposal(
        &self,
        _: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        Ok(ResponseProcessProposal {
            status: self.proposal.into(),
        })
    }

    fn extend_vote(&self, request: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        self.asked.lock().unwrap().extended.push(request.clone());
        Ok(ResponseExtendVote {
            vote_extension: self.extension.clone(),
        })
    }

    fn verify_vote_extension(
        &self,
        request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        self.asked.lock().unwrap().verified.push(request.clone());
        Ok(ResponseVerifyVoteExtension {
            status: self.verdict.into(),
        })
    }
}
