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
    way: Mutex<Way>,
    moved: Condvar,
    verified: AtomicUsize,
    broken: Mutex<Option<Call>>,
}

#[derive(Default)]
struct Way {
    shut: Option<(Call, Heights)>,
    /// Calls that were held up, with their heights.
    waiting: Vec<(Call, i64)>,
}

/// Of which heights calls are held up.
type Heights = Box<dyn Fn(i64) -> bool + Send>;

impl Way {
    fn is_shut(&self, call: Call, height: i64) -> bool {
        let shut = self.shut.as_ref();
        shut.is_some_and(|(shut, heights)| *shut == call && heights(height))
    }
}

impl Gate {
    /// From now on this call fails.
    pub(crate) fn fail(&self, call: Call) {
        *self.broken.lock().unwrap() = Some(call);
    }

    /// Holds up this call, and no longer the one before.
    pub(crate) fn shut(&self, call: Call) {
        self.shut_at(call, |_| true);
    }

    /// The same for blocks of some heights only. [`Call::Commit`] has no height, and counts as 0.
    pub(crate) fn shut_at(&self, call: Call, heights: impl Fn(i64) -> bool + Send + 'static) {
        self.way.lock().unwrap().shut = Some((call, Box::new(heights)));
        self.moved.notify_all();
    }

    pub(crate) fn open(&self) {
        self.way.lock().unwrap().shut = None;
        self.moved.notify_all();
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waits_at().is_some()
    }

    /// The height of the call that is held up.
    pub(crate) fn waits_at(&self) -> Option<i64> {
        let way = self.way.lock().unwrap();
        let mut waiting = way.waiting.iter();
        let held = waiting.find(|(call, height)| way.is_shut(*call, *height));
        held.map(|(_, height)| *height)
    }

    /// How many extensions the application was asked about.
    pub(crate) fn verified(&self) -> usize {
        self.verified.load(Ordering::SeqCst)
    }

    fn pass(&self, call: Call, height: i64) -> Result<(), AppFault> {
        let mut way = self.way.lock().unwrap();
        way.waiting.push((call, height));
        let held = |way: &mut Way| way.is_shut(call, height);
        way = self.moved.wait_while(way, held).unwrap();
        let here = way.waiting.iter().position(|it| *it == (call, height));
        way.waiting.swap_remove(here.unwrap());
        drop(way);
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
        self.gate.pass(Call::PrepareProposal, request.height)?;
        self.app.prepare_proposal(request)
    }

    fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        self.gate.pass(Call::ProcessProposal, request.height)?;
        self.app.process_proposal(request)
    }

    fn extend_vote(&self, request: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        self.gate.pass(Call::ExtendVote, request.height)?;
        Ok(ResponseExtendVote {
            vote_extension: Bytes::from_static(EXTENSION),
        })
    }

    fn verify_vote_extension(
        &self,
        request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        self.gate.pass(Call::VerifyVoteExtension, request.height)?;
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
        self.gate.pass(Call::FinalizeBlock, request.height)?;
        self.app.finalize_block(request)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.gate.pass(Call::Commit, 0)?;
        self.app.commit(request)
    }

    fn persistence(&self) -> Persistence {
        self.app.persistence()
    }

    fn take_writes(&self) -> Option<Vec<AppWrite>> {
        self.app.take_writes()
    }
}
