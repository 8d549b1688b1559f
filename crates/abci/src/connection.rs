use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use perihelion_types::Height;

use crate::{
    AppAddress, AppError, AppFault, AppTransport, AppWrite, Application, CallName, ConnectError,
    ConnectionName, LostConnection, Persistence, RunningCall,
    calls::Calls,
    pending::{PendingCheckTx, PendingCommit, PendingFinalizeBlock, one_result_a_transaction},
    remote::{Dialer, Link},
    types::{
        RequestApplySnapshotChunk, RequestCheckTx, RequestExtendVote, RequestFinalizeBlock,
        RequestInfo, RequestInitChain, RequestListSnapshots, RequestLoadSnapshotChunk,
        RequestOfferSnapshot, RequestPrepareProposal, RequestProcessProposal, RequestQuery,
        RequestVerifyVoteExtension, ResponseApplySnapshotChunk, ResponseCheckTx, ResponseCommit,
        ResponseExtendVote, ResponseFinalizeBlock, ResponseInfo, ResponseInitChain,
        ResponseListSnapshots, ResponseLoadSnapshotChunk, ResponseOfferSnapshot,
        ResponsePrepareProposal, ResponseProcessProposal, ResponseQuery,
        ResponseVerifyVoteExtension, response_process_proposal::ProposalStatus,
        response_verify_vote_extension::VerifyStatus,
    },
};

/// The four connections to one application, each with the calls of its role.
#[derive(Clone)]
pub struct AppConnections {
    /// Decides and executes blocks; owned by the executor.
    pub consensus: ConsensusConnection,
    /// Checks transactions.
    pub mempool: MempoolConnection,
    /// Answers about the application's state.
    pub query: QueryConnection,
    /// Makes and restores snapshots.
    pub snapshot: SnapshotConnection,
    link: Arc<Link>,
}

impl AppConnections {
    /// Connections to an application in this process.
    #[must_use]
    pub fn in_process(app: Arc<dyn Application>) -> Self {
        let line = |name| Line::new(Arc::new(Calls::of(name)), Arc::clone(&app));
        Self {
            consensus: ConsensusConnection(line(ConnectionName::Consensus)),
            mempool: MempoolConnection(line(ConnectionName::Mempool)),
            query: QueryConnection(line(ConnectionName::Query)),
            snapshot: SnapshotConnection(line(ConnectionName::Snapshot)),
            link: Arc::default(),
        }
    }

    /// Connects to an application in another process, which keeps its own state
    /// ([`Persistence::Own`]). One attempt; none of its calls is ever given up, however long it
    /// takes: see [`Self::running`], [`Self::on_lost`] and [`Self::close`].
    ///
    /// # Errors
    /// When nobody listens there. Whether the application speaks the protocol shows at the first
    /// call.
    pub fn connect(address: &AppAddress, transport: AppTransport) -> Result<Self, ConnectError> {
        let link = Arc::<Link>::default();
        let connect = || {
            let dialer = Dialer::new(address, transport, Arc::clone(&link))?;
            let line = |name| -> io::Result<Line> {
                let calls = Arc::new(Calls::of(name));
                let remote = dialer.dial(&calls)?;
                Ok(Line::new(calls, Arc::new(remote)))
            };
            // In CometBFT's order.
            let query = line(ConnectionName::Query)?;
            let snapshot = line(ConnectionName::Snapshot)?;
            let mempool = line(ConnectionName::Mempool)?;
            let consensus = line(ConnectionName::Consensus)?;
            Ok(Self {
                consensus: ConsensusConnection(consensus),
                mempool: MempoolConnection(mempool),
                query: QueryConnection(query),
                snapshot: SnapshotConnection(snapshot),
                link: Arc::clone(&link),
            })
        };
        connect().map_err(|source| ConnectError {
            address: address.clone(),
            transport,
            source,
        })
    }

    /// The call that has run longest on each connection that has one.
    #[must_use]
    pub fn running(&self) -> Vec<RunningCall> {
        [
            &self.consensus.0,
            &self.mempool.0,
            &self.query.0,
            &self.snapshot.0,
        ]
        .into_iter()
        .filter_map(|line| line.calls.longest())
        .collect()
    }

    /// Calls `told` once when the first connection is lost, at once when one is already; the others
    /// are closed by then. Never for an application in this process, and not after [`Self::close`].
    pub fn on_lost(&self, told: impl FnOnce(LostConnection) + Send + 'static) {
        self.link.on_lost(told);
    }

    /// Closes the connections to an application in another process: calls that run end with
    /// [`AppFault::Closed`], for whoever cannot wait for them any longer.
    pub fn close(&self) {
        self.link.close();
    }
}

/// The connection that executes blocks. Clones share the application and [`Self::busy`].
#[derive(Clone)]
pub struct ConsensusConnection(Line);
/// The connection that checks transactions.
#[derive(Clone)]
pub struct MempoolConnection(Line);
/// The connection that answers questions.
#[derive(Clone)]
pub struct QueryConnection(Line);
/// The connection for snapshots.
#[derive(Clone)]
pub struct SnapshotConnection(Line);

impl ConsensusConnection {
    /// The call that has run longest, and for how long.
    #[must_use]
    pub fn busy(&self) -> Option<(CallName, Duration)> {
        self.0.busy()
    }

    /// Who keeps the application's state.
    #[must_use]
    pub fn persistence(&self) -> Persistence {
        self.0.app.persistence()
    }

    /// See [`Application::take_writes`].
    ///
    /// # Errors
    /// When the application panics; told as of `Commit`, whose changes these are.
    pub fn take_writes(&self, height: Height) -> Result<Option<Vec<AppWrite>>, AppError> {
        self.0
            .call(CallName::Commit, Some(height), |app| Ok(app.take_writes()))
    }

    /// Tells the genesis, before the first block; the answer may replace validators and parameters.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppError> {
        let height = Height::new(request.initial_height);
        self.0.call(CallName::InitChain, Some(height), |app| {
            app.init_chain(request)
        })
    }

    /// Arranges the transactions of a block that this node is to propose.
    ///
    /// # Errors
    /// When the application fails or panics, or returns more bytes than it was allowed.
    pub fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppError> {
        let height = Some(Height::new(request.height));
        self.0.call(CallName::PrepareProposal, height, |app| {
            let response = app.prepare_proposal(request)?;
            let size: usize = response.txs.iter().map(|tx| encoded_tx_size(tx)).sum();
            let allowed = usize::try_from(request.max_tx_bytes).unwrap_or(0);
            if size > allowed {
                return Err(AppFault::Contradiction(format!(
                    "transactions of {size} bytes, at most {allowed} were asked for"
                )));
            }
            Ok(response)
        })
    }

    /// Whether a proposed block is to be accepted.
    ///
    /// # Errors
    /// When the application fails or panics, or neither accepts nor rejects.
    pub fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppError> {
        let height = Some(Height::new(request.height));
        self.0.call(CallName::ProcessProposal, height, |app| {
            let response = app.process_proposal(request)?;
            match response.status() {
                ProposalStatus::Accept | ProposalStatus::Reject => Ok(response),
                ProposalStatus::Unknown => Err(unknown_status(response.status)),
            }
        })
    }

    /// The extension for this validator's precommit.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn extend_vote(&self, request: &RequestExtendVote) -> Result<ResponseExtendVote, AppError> {
        let height = Some(Height::new(request.height));
        self.0
            .call(CallName::ExtendVote, height, |app| app.extend_vote(request))
    }

    /// Whether another validator's extension is to be accepted.
    ///
    /// # Errors
    /// When the application fails or panics, or neither accepts nor rejects.
    pub fn verify_vote_extension(
        &self,
        request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppError> {
        let height = Some(Height::new(request.height));
        self.0.call(CallName::VerifyVoteExtension, height, |app| {
            let response = app.verify_vote_extension(request)?;
            match response.status() {
                VerifyStatus::Accept | VerifyStatus::Reject => Ok(response),
                VerifyStatus::Unknown => Err(unknown_status(response.status)),
            }
        })
    }

    /// Executes a decided block.
    ///
    /// # Errors
    /// When the application fails or panics, or does not give one result a transaction.
    pub fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppError> {
        let height = Some(Height::new(request.height));
        self.0.call(CallName::FinalizeBlock, height, |app| {
            let response = app.finalize_block(request)?;
            one_result_a_transaction(request.txs.len(), &response)?;
            Ok(response)
        })
    }

    /// Gives a decided block to be executed; the answer is waited for by
    /// [`PendingFinalizeBlock::wait`], before anything else is asked. An application in another
    /// process executes it meanwhile, one in this process has done so already.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn begin_finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<PendingFinalizeBlock, AppError> {
        PendingFinalizeBlock::begin(&self.0, request)
    }

    /// Commits the block of `height`, the last one that was finalized.
    ///
    /// # Errors
    /// When the application fails or panics, or asks to retain from a negative height.
    pub fn commit(&self, height: Height) -> Result<ResponseCommit, AppError> {
        self.begin_commit(height)?.wait()
    }

    /// The same; the answer is waited for by [`PendingCommit::wait`], before anything else is asked.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn begin_commit(&self, height: Height) -> Result<PendingCommit, AppError> {
        PendingCommit::begin(&self.0, height)
    }
}

impl MempoolConnection {
    /// The call that has run longest, and for how long.
    #[must_use]
    pub fn busy(&self) -> Option<(CallName, Duration)> {
        self.0.busy()
    }

    /// Whether a transaction may enter the mempool.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppError> {
        self.0
            .call(CallName::CheckTx, None, |app| app.check_tx(request))
    }

    /// Gives a transaction to be checked; the answer is waited for by [`PendingCheckTx::wait`]. So
    /// many can be under way at once: they are checked in the order in which they were given, and
    /// where many are under way already, this waits.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn begin_check_tx(&self, request: &RequestCheckTx) -> Result<PendingCheckTx, AppError> {
        PendingCheckTx::begin(&self.0, |app| app.begin_check_tx(request))
    }

    /// Asks for everything that is still under way.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn flush(&self) -> Result<(), AppError> {
        self.0.call(CallName::Flush, None, |app| app.flush())
    }
}

impl QueryConnection {
    /// The call that has run longest, and for how long.
    #[must_use]
    pub fn busy(&self) -> Option<(CallName, Duration)> {
        self.0.busy()
    }

    /// Answers with `message`.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn echo(&self, message: &str) -> Result<String, AppError> {
        self.0.call(CallName::Echo, None, |app| app.echo(message))
    }

    /// How far the application is: its last height and the hash of its state.
    ///
    /// # Errors
    /// When the application fails or panics, or says that it has a negative height.
    pub fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppError> {
        self.0.call(CallName::Info, None, |app| {
            let response = app.info(request)?;
            if response.last_block_height < 0 {
                return Err(AppFault::Contradiction(format!(
                    "last block height {}",
                    response.last_block_height
                )));
            }
            Ok(response)
        })
    }

    /// Answers a question about the application's state.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppError> {
        self.0.call(CallName::Query, None, |app| app.query(request))
    }
}

impl SnapshotConnection {
    /// The call that has run longest, and for how long.
    #[must_use]
    pub fn busy(&self) -> Option<(CallName, Duration)> {
        self.0.busy()
    }

    /// The snapshots that the application can give to others.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn list_snapshots(
        &self,
        request: &RequestListSnapshots,
    ) -> Result<ResponseListSnapshots, AppError> {
        self.0.call(CallName::ListSnapshots, None, |app| {
            app.list_snapshots(request)
        })
    }

    /// Offers a snapshot that a peer has.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn offer_snapshot(
        &self,
        request: &RequestOfferSnapshot,
    ) -> Result<ResponseOfferSnapshot, AppError> {
        let height = request.snapshot.as_ref().map(|snapshot| snapshot.height);
        self.0.call(
            CallName::OfferSnapshot,
            height.map(snapshot_height),
            |app| app.offer_snapshot(request),
        )
    }

    /// A chunk of one of the application's own snapshots.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn load_snapshot_chunk(
        &self,
        request: &RequestLoadSnapshotChunk,
    ) -> Result<ResponseLoadSnapshotChunk, AppError> {
        let height = Some(snapshot_height(request.height));
        self.0.call(CallName::LoadSnapshotChunk, height, |app| {
            app.load_snapshot_chunk(request)
        })
    }

    /// Gives the next chunk of the snapshot that was accepted.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn apply_snapshot_chunk(
        &self,
        request: &RequestApplySnapshotChunk,
    ) -> Result<ResponseApplySnapshotChunk, AppError> {
        self.0.call(CallName::ApplySnapshotChunk, None, |app| {
            app.apply_snapshot_chunk(request)
        })
    }
}

/// One connection: the application and the calls that run.
#[derive(Clone)]
pub(crate) struct Line {
    app: Arc<dyn Application>,
    calls: Arc<Calls>,
}

impl Line {
    fn new(calls: Arc<Calls>, app: Arc<dyn Application>) -> Self {
        Self { app, calls }
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    fn busy(&self) -> Option<(CallName, Duration)> {
        let running = self.calls.longest()?;
        Some((running.call, running.elapsed))
    }

    /// Runs one call, with its name readable meanwhile and its panic turned into an error.
    fn call<R>(
        &self,
        call: CallName,
        height: Option<Height>,
        run: impl FnOnce(&dyn Application) -> Result<R, AppFault>,
    ) -> Result<R, AppError> {
        let number = self.calls.begin(call, height);
        let outcome = self.run(call, height, run);
        self.calls.end(number);
        outcome
    }

    /// The same for a call that is noted already.
    pub(crate) fn run<R>(
        &self,
        call: CallName,
        height: Option<Height>,
        run: impl FnOnce(&dyn Application) -> Result<R, AppFault>,
    ) -> Result<R, AppError> {
        // A half-changed application is never called again: its caller stops at the first error.
        catch_unwind(AssertUnwindSafe(|| run(&*self.app)))
            .unwrap_or_else(|panic| Err(AppFault::Panicked(panic_text(&*panic))))
            .map_err(|reason| AppError {
                call,
                height,
                reason,
            })
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "without a message".to_owned()
    }
}

fn unknown_status(status: i32) -> AppFault {
    AppFault::Contradiction(format!("status {status} neither accepts nor rejects"))
}

fn snapshot_height(height: u64) -> Height {
    Height::new(i64::try_from(height).unwrap_or(i64::MAX))
}

/// Bytes of a transaction as a block's data holds it: tag, length, content.
fn encoded_tx_size(tx: &[u8]) -> usize {
    1 + prost::length_delimiter_len(tx.len()) + tx.len()
}
