use std::fmt;

use perihelion_types::Height;
use thiserror::Error;

use crate::{AppStoreError, types::response::Value};

/// A call of ABCI 2.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallName {
    /// [`Echo`](crate::Application::echo).
    Echo,
    /// [`Flush`](crate::Application::flush).
    Flush,
    /// [`Info`](crate::Application::info).
    Info,
    /// [`Query`](crate::Application::query).
    Query,
    /// [`CheckTx`](crate::Application::check_tx).
    CheckTx,
    /// [`InitChain`](crate::Application::init_chain).
    InitChain,
    /// [`PrepareProposal`](crate::Application::prepare_proposal).
    PrepareProposal,
    /// [`ProcessProposal`](crate::Application::process_proposal).
    ProcessProposal,
    /// [`ExtendVote`](crate::Application::extend_vote).
    ExtendVote,
    /// [`VerifyVoteExtension`](crate::Application::verify_vote_extension).
    VerifyVoteExtension,
    /// [`FinalizeBlock`](crate::Application::finalize_block).
    FinalizeBlock,
    /// [`Commit`](crate::Application::commit).
    Commit,
    /// [`ListSnapshots`](crate::Application::list_snapshots).
    ListSnapshots,
    /// [`OfferSnapshot`](crate::Application::offer_snapshot).
    OfferSnapshot,
    /// [`LoadSnapshotChunk`](crate::Application::load_snapshot_chunk).
    LoadSnapshotChunk,
    /// [`ApplySnapshotChunk`](crate::Application::apply_snapshot_chunk).
    ApplySnapshotChunk,
}

impl CallName {
    /// Every call, in the order of the schema.
    pub const ALL: [Self; 16] = [
        Self::Echo,
        Self::Flush,
        Self::Info,
        Self::InitChain,
        Self::Query,
        Self::CheckTx,
        Self::Commit,
        Self::ListSnapshots,
        Self::OfferSnapshot,
        Self::LoadSnapshotChunk,
        Self::ApplySnapshotChunk,
        Self::PrepareProposal,
        Self::ProcessProposal,
        Self::ExtendVote,
        Self::VerifyVoteExtension,
        Self::FinalizeBlock,
    ];

    /// The field of `Request` that holds the call's request. Its response's field in `Response` is
    /// the next number.
    pub(crate) const fn field(self) -> u32 {
        match self {
            Self::Echo => 1,
            Self::Flush => 2,
            Self::Info => 3,
            Self::InitChain => 5,
            Self::Query => 6,
            Self::CheckTx => 8,
            Self::Commit => 11,
            Self::ListSnapshots => 12,
            Self::OfferSnapshot => 13,
            Self::LoadSnapshotChunk => 14,
            Self::ApplySnapshotChunk => 15,
            Self::PrepareProposal => 16,
            Self::ProcessProposal => 17,
            Self::ExtendVote => 18,
            Self::VerifyVoteExtension => 19,
            Self::FinalizeBlock => 20,
        }
    }

    /// Whether `value` is of the kind of this call's responses.
    pub(crate) const fn is_answered_by(self, value: &Value) -> bool {
        match self {
            Self::Echo => matches!(value, Value::Echo(_)),
            Self::Flush => matches!(value, Value::Flush(_)),
            Self::Info => matches!(value, Value::Info(_)),
            Self::InitChain => matches!(value, Value::InitChain(_)),
            Self::Query => matches!(value, Value::Query(_)),
            Self::CheckTx => matches!(value, Value::CheckTx(_)),
            Self::Commit => matches!(value, Value::Commit(_)),
            Self::ListSnapshots => matches!(value, Value::ListSnapshots(_)),
            Self::OfferSnapshot => matches!(value, Value::OfferSnapshot(_)),
            Self::LoadSnapshotChunk => matches!(value, Value::LoadSnapshotChunk(_)),
            Self::ApplySnapshotChunk => matches!(value, Value::ApplySnapshotChunk(_)),
            Self::PrepareProposal => matches!(value, Value::PrepareProposal(_)),
            Self::ProcessProposal => matches!(value, Value::ProcessProposal(_)),
            Self::ExtendVote => matches!(value, Value::ExtendVote(_)),
            Self::VerifyVoteExtension => matches!(value, Value::VerifyVoteExtension(_)),
            Self::FinalizeBlock => matches!(value, Value::FinalizeBlock(_)),
        }
    }
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What went wrong inside an application.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppFault {
    /// The application said that it cannot answer.
    #[error("{0}")]
    Failed(String),
    /// The application panicked; its state is unknown from here on.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// The answer breaks a rule of ABCI.
    #[error("its answer breaks a rule: {0}")]
    Contradiction(String),
    /// The application could not read what it keeps.
    #[error(transparent)]
    Store(#[from] AppStoreError),
    /// The connection to the application is closed.
    #[error("the connection is closed: {0}")]
    Closed(String),
}

/// A call of the application failed: which, at what height, and why.
///
/// The application must be taken for broken: the node stops without storing the block that was
/// being executed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct AppError {
    /// The call.
    pub call: CallName,
    /// The height that the call was about, where it is about one.
    pub height: Option<Height>,
    /// What went wrong.
    pub reason: AppFault,
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "application, call {}", self.call)?;
        if let Some(height) = self.height {
            write!(f, " at height {height}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl AppFault {
    /// The application cannot answer, for `reason`.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }
}
