//! From a request to the application's method, and back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::{
    AppError, AppFault, Application, CallName, Finalized,
    connection::panic_text,
    remote::frame::{disclose, put_enclosed, put_message},
    types::{
        Response, ResponseEcho, ResponseException, ResponseFlush, request::Value as Asked,
        response::Value as Answered,
    },
};

/// The application that is served. Once it has failed in a way that may have left it half changed,
/// it is not called again: a node would take its state for whole.
pub(super) struct Served {
    app: Arc<dyn Application>,
    failure: Mutex<Failure>,
}

#[derive(Default)]
struct Failure {
    first: Option<AppError>,
    told: Option<Box<dyn FnOnce(AppError) + Send>>,
}

impl Served {
    pub(super) fn new(
        app: Arc<dyn Application>,
        failed: impl FnOnce(AppError) + Send + 'static,
    ) -> Self {
        let failure = Failure {
            first: None,
            told: Some(Box::new(failed)),
        };
        Self {
            app,
            failure: Mutex::new(failure),
        }
    }

    /// Calls the application.
    pub(super) fn answer(&self, request: Asked) -> Result<Reply, AppError> {
        let call = name(&request);
        let to_error = |reason| AppError {
            call,
            height: None,
            reason,
        };
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = &failure.first {
            return Err(to_error(AppFault::failed(format!(
                "it failed before: {first}"
            ))));
        }
        drop(failure);
        let outcome = catch_unwind(AssertUnwindSafe(|| dispatch(&*self.app, request)))
            .unwrap_or_else(|panic| Err(AppFault::Panicked(panic_text(&*panic))));
        outcome.map_err(|reason| {
            let error = to_error(reason);
            if changes_state(call) || matches!(error.reason, AppFault::Panicked(_)) {
                self.fail(&error);
            }
            error
        })
    }

    fn fail(&self, error: &AppError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.first.get_or_insert_with(|| error.clone());
        let told = failure.told.take();
        drop(failure);
        if let Some(told) = told {
            told(error.clone());
        }
    }
}

/// What the application answers.
pub(super) enum Reply {
    Value(Answered),
    /// An answer to `FinalizeBlock`, which the application may have encoded itself.
    Finalized(Finalized),
}

impl Reply {
    /// That there is no answer. The connection ends with it.
    pub(super) fn exception(reason: impl ToString) -> Self {
        Self::Value(Answered::Exception(ResponseException {
            error: reason.to_string(),
        }))
    }

    /// Appends it as a message of the socket protocol.
    pub(super) fn put(self, buffer: &mut Vec<u8>) {
        match self {
            Self::Value(value) => put_message(&Response { value: Some(value) }, buffer),
            Self::Finalized(finalized) => {
                put_enclosed(FINALIZED, finalized.encoded(), buffer);
            }
        }
    }

    /// The response alone, as gRPC carries it.
    ///
    /// # Errors
    /// Never: it was just encoded.
    pub(super) fn into_body(self) -> Result<Bytes, DecodeError> {
        match self {
            Self::Value(value) => {
                let response = Response { value: Some(value) };
                disclose(response.encode_to_vec().into())
            }
            Self::Finalized(finalized) => Ok(finalized.into_encoded()),
        }
    }
}

/// The field of `Response` that holds the answer to `FinalizeBlock`.
const FINALIZED: u32 = CallName::FinalizeBlock.field() + 1;

const fn changes_state(call: CallName) -> bool {
    matches!(
        call,
        CallName::InitChain
            | CallName::FinalizeBlock
            | CallName::Commit
            | CallName::OfferSnapshot
            | CallName::ApplySnapshotChunk
    )
}

const fn name(request: &Asked) -> CallName {
    match request {
        Asked::Echo(_) => CallName::Echo,
        Asked::Flush(_) => CallName::Flush,
        Asked::Info(_) => CallName::Info,
        Asked::InitChain(_) => CallName::InitChain,
        Asked::Query(_) => CallName::Query,
        Asked::CheckTx(_) => CallName::CheckTx,
        Asked::Commit(_) => CallName::Commit,
        Asked::ListSnapshots(_) => CallName::ListSnapshots,
        Asked::OfferSnapshot(_) => CallName::OfferSnapshot,
        Asked::LoadSnapshotChunk(_) => CallName::LoadSnapshotChunk,
        Asked::ApplySnapshotChunk(_) => CallName::ApplySnapshotChunk,
        Asked::PrepareProposal(_) => CallName::PrepareProposal,
        Asked::ProcessProposal(_) => CallName::ProcessProposal,
        Asked::ExtendVote(_) => CallName::ExtendVote,
        Asked::VerifyVoteExtension(_) => CallName::VerifyVoteExtension,
        Asked::FinalizeBlock(_) => CallName::FinalizeBlock,
    }
}

fn dispatch(app: &dyn Application, request: Asked) -> Result<Reply, AppFault> {
    Ok(Reply::Value(match request {
        Asked::Echo(request) => Answered::Echo(ResponseEcho {
            message: app.echo(&request.message)?,
        }),
        Asked::Flush(_) => {
            app.flush()?;
            Answered::Flush(ResponseFlush {})
        }
        Asked::Info(request) => Answered::Info(app.info(&request)?),
        Asked::InitChain(request) => Answered::InitChain(app.init_chain(&request)?),
        Asked::Query(request) => Answered::Query(app.query(&request)?),
        Asked::CheckTx(request) => Answered::CheckTx(app.check_tx(&request)?),
        Asked::Commit(request) => Answered::Commit(app.commit(&request)?),
        Asked::ListSnapshots(request) => Answered::ListSnapshots(app.list_snapshots(&request)?),
        Asked::OfferSnapshot(request) => Answered::OfferSnapshot(app.offer_snapshot(&request)?),
        Asked::LoadSnapshotChunk(request) => {
            Answered::LoadSnapshotChunk(app.load_snapshot_chunk(&request)?)
        }
        Asked::ApplySnapshotChunk(request) => {
            Answered::ApplySnapshotChunk(app.apply_snapshot_chunk(&request)?)
        }
        Asked::PrepareProposal(request) => {
            Answered::PrepareProposal(app.prepare_proposal(&request)?)
        }
        Asked::ProcessProposal(request) => {
            Answered::ProcessProposal(app.process_proposal(&request)?)
        }
        Asked::ExtendVote(request) => Answered::ExtendVote(app.extend_vote(&request)?),
        Asked::VerifyVoteExtension(request) => {
            Answered::VerifyVoteExtension(app.verify_vote_extension(&request)?)
        }
        Asked::FinalizeBlock(request) => {
            return app.finalize_block_encoded(&request).map(Reply::Finalized);
        }
    }))
}
