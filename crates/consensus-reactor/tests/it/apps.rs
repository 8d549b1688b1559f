//! The key-value application behind a gate.

use std::sync::{
    Arc, Condvar, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use perihelion_abci::{
    AppFault, AppWrite, Application, Persistence,
    types::{
        RequestCheckTx, RequestCommit, RequestExtendVote, RequestFinalizeBlock, RequestInfo,
        RequestInitChain, RequestPrepareProposal, RequestProcessProposal, RequestQuery,
        RequestVerifyVoteExtension, ResponseCheckTx, ResponseCommit, ResponseExtendVote,
        ResponseFinalizeBlock, ResponseInfo, ResponseInitChain, ResponsePrepareProposal,
        ResponseProcessProposal, ResponseQuery, ResponseVerifyVoteExtension,
        response_verify_vote_extension::VerifyStatus,
    },
};

use crate::nodes::{Home, Node, kvstore};

/// The extension of every honest vote.
pub(crate) const EXTENSION: &[u8] = b"seen";

/// Calls of the consensus connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    PrepareProposal,
    ProcessProposal,
    ExtendVote,
    VerifyVoteExtension,
    FinalizeBlock,
    Commit,
}

impl Call {
    pub(crate) const ALL: [Self; 6] = [
        Self::PrepareProposal,
        Self::ProcessProposal,
        Self::ExtendVote,
        Self::VerifyVoteExtension,
        Self::FinalizeBlock,
        Self::Commit,
    ];
}

/// Holds up one kind of call while it is shut. The state machine waits meanwhile, and so does the
/// disk.
#[derive(Default)]
pub(crate) struct Gate {
    shut: Mutex<Option<Call>>,
    moved: Condvar,
    waiting: AtomicUsize,
    verified: AtomicUsize,
    broken: Mutex<Option<Call>>,
}

impl Gate {
    /// From now on this call fails.
    pub(crate) fn fail(&self, call: Call) {
        *self.broken.lock().unwrap() = Some(call);
    }

    pub(crate) fn shut(&self, call: Call) {
        *self.shut.lock().unwrap() = Some(call);
    }

    pub(crate) fn open(&self) {
        *self.shut.lock().unwrap() = None;
        self.moved.notify_all();
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// How many extensions the application was asked about.
    pub(crate) fn verified(&self) -> usize {
        self.verified.load(Ordering::SeqCst)
    }

    fn pass(&self, call: Call) -> Result<(), AppFault> {
        let shut = self.shut.lock().unwrap();
        self.waiting
            .fetch_add(usize::from(*shut == Some(call)), Ordering::SeqCst);
        let was_shut = *shut == Some(call);
        drop(
            self.moved
                .wait_while(shut, |shut| *shut == Some(call))
                .unwrap(),
        );
        self.waiting
            .fetch_sub(usize::from(was_shut), Ordering::SeqCst);
        if *self.broken.lock().unwrap() == Some(call) {
            return Err(AppFault::failed("it is broken"));
        }
        Ok(())
    }
}

struct Gated {
    app: Arc<dyn Application>,
    gate: Arc<Gate>,
}

/// A node whose application is behind `gate`.
pub(crate) async fn gated(home: Home, gate: &Arc<Gate>) -> Node {
    let gate = Arc::clone(gate);
    Node::open_with(home, move |store| {
        Arc::new(Gated {
            app: kvstore(store),
            gate,
        })
    })
    .await
}

impl Application for Gated {
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.app.info(request)
    }

    fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        self.app.query(request)
    }

    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        self.app.check_tx(request)
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.app.init_chain(request)
    }

    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        self.gate.pass(Call::PrepareProposal)?;
        self.app.prepare_proposal(request)
    }

    fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        self.gate.pass(Call::ProcessProposal)?;
        self.app.process_proposal(request)
    }

    fn extend_vote(&self, _: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        self.gate.pass(Call::ExtendVote)?;
        Ok(ResponseExtendVote {
            vote_extension: Bytes::from_static(EXTENSION),
        })
    }

    fn verify_vote_extension(
        &self,
        request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        self.gate.pass(Call::VerifyVoteExtension)?;
        self.gate.verified.fetch_add(1, Ordering::SeqCst);
        let status = if request.vote_extension == EXTENSION {
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
        self.gate.pass(Call::FinalizeBlock)?;
        self.app.finalize_block(request)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.gate.pass(Call::Commit)?;
        self.app.commit(request)
    }

    fn persistence(&self) -> Persistence {
        self.app.persistence()
    }

    fn take_writes(&self) -> Option<Vec<AppWrite>> {
        self.app.take_writes()
    }
}
