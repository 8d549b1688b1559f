use crate::{
    AppFault, AppWrite,
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

/// An application of ABCI 2.0.
///
/// The calls of one connection come one after another; those of the four connections come at
/// the same time. Each default answer is that of CometBFT's base application.
///
/// # Errors
/// Each call may refuse to answer. CometBFT's applications panic then; a panic is caught by the
/// connection and has the same effect.
#[allow(missing_docs, clippy::missing_errors_doc)]
pub trait Application: Send + Sync + 'static {
    fn echo(&self, message: &str) -> Result<String, AppFault> {
        Ok(message.to_owned())
    }

    fn flush(&self) -> Result<(), AppFault> {
        Ok(())
    }

    fn info(&self, _request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        Ok(ResponseInfo::default())
    }

    fn query(&self, _request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        Ok(ResponseQuery::default())
    }

    fn check_tx(&self, _request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        Ok(ResponseCheckTx::default())
    }

    fn init_chain(&self, _request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        Ok(ResponseInitChain::default())
    }

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

    /// By default: accepted.
    fn process_proposal(
        &self,
        _request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        Ok(ResponseProcessProposal {
            status: response_process_proposal::ProposalStatus::Accept.into(),
        })
    }

    fn extend_vote(&self, _request: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        Ok(ResponseExtendVote::default())
    }

    /// By default: accepted.
    fn verify_vote_extension(
        &self,
        _request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        Ok(ResponseVerifyVoteExtension {
            status: response_verify_vote_extension::VerifyStatus::Accept.into(),
        })
    }

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

    fn commit(&self, _request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        Ok(ResponseCommit::default())
    }

    fn list_snapshots(
        &self,
        _request: &RequestListSnapshots,
    ) -> Result<ResponseListSnapshots, AppFault> {
        Ok(ResponseListSnapshots::default())
    }

    fn offer_snapshot(
        &self,
        _request: &RequestOfferSnapshot,
    ) -> Result<ResponseOfferSnapshot, AppFault> {
        Ok(ResponseOfferSnapshot::default())
    }

    fn load_snapshot_chunk(
        &self,
        _request: &RequestLoadSnapshotChunk,
    ) -> Result<ResponseLoadSnapshotChunk, AppFault> {
        Ok(ResponseLoadSnapshotChunk::default())
    }

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
