use crate::{
    AppFault, AppWrite, Finalized,
    types::{
        ExecTxResult, RequestApplySnapshotChunk, RequestCheckTx, RequestCommit, RequestExtendVote,
        RequestFinalizeBlock, RequestInfo, RequestInitChain, RequestListSnapshots,
        RequestLoadSnapshotChunk, RequestOfferSnapshot, RequestPrepareProposal,
        RequestProcessProposal, RequestQuery, RequestVerifyVoteExtension,
        ResponseApplySnapshotChunk, ResponseCheckTx, ResponseCommit, ResponseExtendVote,
        ResponseFinalizeBlock, ResponseInfo, ResponseInitChain, ResponseListSnapshots,
        ResponseLoadSnapshotChunk, ResponseOfferSnapshot, ResponsePrepareProposal,
        ResponseProcessProposal, ResponseQuery, ResponseVerifyVoteExtension,
        response_process_proposal, response_verify_vote_extension,
    },
};

/// Who makes an application's state durable, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// The application itself, before it answers `Commit`. So everything that its state rests on
    /// must be durable before `Commit` is sent.
    Own,
    /// The node: what [`Application::take_writes`] returns after `Commit` goes into the block's
    /// own write batch, so block, state and application can never disagree.
    InBlock,
    /// Nobody: the application begins anew with each process and is replayed to the head.
    Volatile,
}

/// The answer to a call that has begun.
pub enum Answer<R> {
    /// It is here.
    Now(R),
    /// It comes later: this waits for it.
    Later(Box<dyn FnOnce() -> Result<R, AppFault> + Send>),
}

impl<R> Answer<R> {
    /// One that `wait` waits for.
    pub fn later(wait: impl FnOnce() -> Result<R, AppFault> + Send + 'static) -> Self {
        Self::Later(Box::new(wait))
    }

    /// Waits until it is here.
    ///
    /// # Errors
    /// When the application refuses to answer, or is gone.
    pub fn wait(self) -> Result<R, AppFault> {
        match self {
            Self::Now(response) => Ok(response),
            Self::Later(wait) => wait(),
        }
    }
}

/// An application of ABCI 2.0.
///
/// The calls of one connection come one after another; those of the four connections come at
/// the same time. Each default answer is that of CometBFT's base application.
///
/// # Errors
/// Each call may refuse to answer. CometBFT's applications panic then; a panic is caught by the
/// connection and has the same effect.
#[allow(
    clippy::missing_errors_doc,
    reason = "the errors are the same for every call: see above"
)]
pub trait Application: Send + Sync + 'static {
    /// Answers with `message`.
    fn echo(&self, message: &str) -> Result<String, AppFault> {
        Ok(message.to_owned())
    }

    /// Asks for everything that is still under way; nothing is, as each call waits for its answer.
    fn flush(&self) -> Result<(), AppFault> {
        Ok(())
    }

    /// How far the application is: its last height and the hash of its state.
    fn info(&self, _request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        Ok(ResponseInfo::default())
    }

    /// Answers a question about the application's state.
    fn query(&self, _request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        Ok(ResponseQuery::default())
    }

    /// Whether a transaction may enter the mempool.
    fn check_tx(&self, _request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        Ok(ResponseCheckTx::default())
    }

    /// Gives a transaction to be checked; the answer is waited for by [`Answer::wait`]. So
    /// many can be under way at once. They are checked in the order in which they were given.
    ///
    /// By default: checked at once.
    fn begin_check_tx(
        &self,
        request: &RequestCheckTx,
    ) -> Result<Answer<ResponseCheckTx>, AppFault> {
        self.check_tx(request).map(Answer::Now)
    }

    /// Tells the genesis, before the first block; the answer may replace validators and parameters.
    fn init_chain(&self, _request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        Ok(ResponseInitChain::default())
    }

    /// Arranges the transactions of a block that this node is to propose.
    ///
    /// By default: the transactions as offered, up to `max_tx_bytes`.
    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        let mut left = request.max_tx_bytes;
        let txs = request
            .txs
            .iter()
            .take_while(|tx| {
                left = left.saturating_sub(i64::try_from(tx.len()).unwrap_or(i64::MAX));
                left >= 0
            })
            .cloned()
            .collect();
        Ok(ResponsePrepareProposal { txs })
    }

    /// Whether a proposed block is to be accepted.
    ///
    /// By default: accepted.
    fn process_proposal(
        &self,
        _request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        Ok(ResponseProcessProposal {
            status: response_process_proposal::ProposalStatus::Accept.into(),
        })
    }

    /// The extension for this validator's precommit.
    fn extend_vote(&self, _request: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        Ok(ResponseExtendVote::default())
    }

    /// Whether another validator's extension is to be accepted.
    ///
    /// By default: accepted.
    fn verify_vote_extension(
        &self,
        _request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        Ok(ResponseVerifyVoteExtension {
            status: response_verify_vote_extension::VerifyStatus::Accept.into(),
        })
    }

    /// Executes a decided block.
    ///
    /// By default: every transaction succeeds, without an app hash.
    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        Ok(ResponseFinalizeBlock {
            tx_results: vec![ExecTxResult::default(); request.txs.len()],
            ..ResponseFinalizeBlock::default()
        })
    }

    /// [`Self::finalize_block`] for a caller that stores the answer: an application in this process
    /// that can encode its results without making them one by one does so here. Either is called
    /// for a block, with the same effect.
    ///
    /// By default: what `finalize_block` answers, encoded.
    fn finalize_block_encoded(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<Finalized, AppFault> {
        self.finalize_block(request).map(Finalized::from)
    }

    /// Gives a decided block to be executed; the answer is waited for by [`Answer::wait`].
    /// Nothing else is asked on this connection before.
    ///
    /// By default: executed at once, by [`Self::finalize_block_encoded`].
    fn begin_finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<Answer<Finalized>, AppFault> {
        self.finalize_block_encoded(request).map(Answer::Now)
    }

    /// Makes the state after the last finalized block the application's own.
    fn commit(&self, _request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        Ok(ResponseCommit::default())
    }

    /// [`Self::commit`] whose answer is waited for by [`Answer::wait`]. Nothing else is asked on
    /// this connection before.
    ///
    /// By default: committed at once.
    fn begin_commit(&self, request: &RequestCommit) -> Result<Answer<ResponseCommit>, AppFault> {
        self.commit(request).map(Answer::Now)
    }

    /// The snapshots that the application can give to others.
    fn list_snapshots(
        &self,
        _request: &RequestListSnapshots,
    ) -> Result<ResponseListSnapshots, AppFault> {
        Ok(ResponseListSnapshots::default())
    }

    /// Offers a snapshot that a peer has.
    fn offer_snapshot(
        &self,
        _request: &RequestOfferSnapshot,
    ) -> Result<ResponseOfferSnapshot, AppFault> {
        Ok(ResponseOfferSnapshot::default())
    }

    /// A chunk of one of the application's own snapshots.
    fn load_snapshot_chunk(
        &self,
        _request: &RequestLoadSnapshotChunk,
    ) -> Result<ResponseLoadSnapshotChunk, AppFault> {
        Ok(ResponseLoadSnapshotChunk::default())
    }

    /// Gives the next chunk of the snapshot that was accepted.
    fn apply_snapshot_chunk(
        &self,
        _request: &RequestApplySnapshotChunk,
    ) -> Result<ResponseApplySnapshotChunk, AppFault> {
        Ok(ResponseApplySnapshotChunk::default())
    }

    /// Who keeps this application's state; the same during its whole life.
    fn persistence(&self) -> Persistence {
        Persistence::Own
    }

    /// The changes since the last call, for an application whose persistence is
    /// [`Persistence::InBlock`]; `None` for any other. The caller puts them into its store before
    /// it calls again.
    fn take_writes(&self) -> Option<Vec<AppWrite>> {
        None
    }
}
