//! Steps of executing a block, which applying and replaying share.

use perihelion_abci::{
    AppError, AppFault, AppWrite, CallName, ConsensusConnection, Finalized, PendingFinalizeBlock,
    types::{RequestFinalizeBlock, ResponseFinalizeBlock},
};
use perihelion_certify::EvidenceError;
use perihelion_store::{Store, StoreError};
use perihelion_types::{Block, BlockId, Height, State};

use crate::{
    ApplyError, ValidationError, request,
    transition::{Transition, next_state},
};

/// Has the application execute `block`, and makes the next state of its answer. Nothing is
/// committed.
pub(crate) fn execute(
    app: &ConsensusConnection,
    state: &State,
    block: &Block,
    block_id: BlockId,
) -> Result<(Finalized, Transition), ApplyError> {
    let finalized = begin(app, state, block, block_id)?.wait()?;
    let transition = transition(state, block, block_id, finalized.response())?;
    Ok((finalized, transition))
}

/// Gives `block` to the application, which executes it.
pub(crate) fn begin(
    app: &ConsensusConnection,
    state: &State,
    block: &Block,
    block_id: BlockId,
) -> Result<PendingFinalizeBlock, ApplyError> {
    Ok(app.begin_finalize_block(&request(state, block, block_id)?)?)
}

/// What the application is given of `block`.
pub(crate) fn request(
    state: &State,
    block: &Block,
    block_id: BlockId,
) -> Result<RequestFinalizeBlock, ApplyError> {
    let height = block.header.height;
    let initial = height == state.initial_height;
    request::finalize_block(block, block_id.hash, &state.last_validators, initial)
        .map_err(|fault| not_valid(height, block_id, fault.into()))
}

/// Whether an answer changes validators or parameters, which may be against the rules; nothing else
/// in one may.
pub(crate) fn has_updates(response: &ResponseFinalizeBlock) -> bool {
    !response.validator_updates.is_empty() || response.consensus_param_updates.is_some()
}

/// The state that follows from `block` and the application's answer to it.
pub(crate) fn transition(
    state: &State,
    block: &Block,
    block_id: BlockId,
    response: &ResponseFinalizeBlock,
) -> Result<Transition, AppError> {
    next_state(state, block_id, &block.header, response).map_err(|error| AppError {
        call: CallName::FinalizeBlock,
        height: Some(block.header.height),
        reason: AppFault::Contradiction(error.to_string()),
    })
}

/// The whole answer to the block of `height`.
pub(crate) fn complete(
    finalized: Finalized,
    height: Height,
) -> Result<ResponseFinalizeBlock, AppError> {
    finalized.into_response().map_err(|reason| AppError {
        call: CallName::FinalizeBlock,
        height: Some(height),
        reason,
    })
}

/// Records the evidence of a stored block as committed. Behind the block, so that a crash between
/// loses the record; the next start makes it again.
pub(crate) fn mark_evidence(store: &Store, block: &Block) -> Result<(), StoreError> {
    for evidence in &block.evidence {
        store.mark_evidence_committed(evidence.height(), &evidence.hash())?;
    }
    Ok(())
}

/// The same writes as the store names them.
pub(crate) fn store_writes(writes: Vec<AppWrite>) -> Vec<perihelion_store::AppWrite> {
    writes
        .into_iter()
        .map(|AppWrite { key, value }| perihelion_store::AppWrite { key, value })
        .collect()
}

/// What it means that a final block does not follow from the state.
pub(crate) fn not_valid(height: Height, block: BlockId, fault: ValidationError) -> ApplyError {
    if let ValidationError::Evidence(error) = &fault
        && let EvidenceError::History(source) = &**error
    {
        let source = source.clone();
        return ApplyError::History { height, source };
    }
    ApplyError::LocalFault {
        height,
        block: Box::new(block),
        fault: Box::new(fault),
    }
}

pub(crate) fn storage(height: Height) -> impl Fn(StoreError) -> ApplyError {
    move |source| ApplyError::Storage {
        height,
        source: Box::new(source),
    }
}
