//! Applications for the tests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use perihelion_abci::{
    AppFault, AppWrite, Application, Persistence,
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

/// The key-value application with a state of its own that is durable at once when it commits, as
/// an application in another process has it. Made anew, it is where it committed last.
pub(crate) struct External {
    disk: Arc<perihelion_abci::MemoryAppStore>,
    app: perihelion_abci::KvStore,
}

impl External {
    pub(crate) fn open(
        disk: &Arc<perihelion_abci::MemoryAppStore>,
        options: perihelion_abci::KvStoreOptions,
    ) -> Arc<Self> {
        let app = perihelion_abci::KvStore::persistent(Arc::clone(disk) as _, options).unwrap();
        Arc::new(Self {
            disk: Arc::clone(disk),
            app,
        })
    }

    fn write(&self) {
        self.disk.write(self.app.take_writes().unwrap());
    }
}

impl Application for External {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.app.info(request)
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        let response = self.app.init_chain(request)?;
        self.write();
        Ok(response)
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        self.app.finalize_block(request)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        let response = self.app.commit(request)?;
        self.write();
        Ok(response)
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
