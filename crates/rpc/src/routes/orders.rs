//! Transactions and evidence that clients send.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_abci::types::{ExecTxResult, ResponseCheckTx};
use perihelion_events::{EventData, Query, SubscribeError};
use perihelion_evidence::{AddError, Added};
use perihelion_mempool::{CheckTxError, Checked};
use perihelion_types::{
    Hash, Height,
    json::{Base64, Hex, Text},
};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{Answer, CallError, forms, write};
use crate::{
    arguments::Arguments,
    calls::{Caller, Calls},
    context::Backend,
    evidence_argument::Reported,
};

/// Transactions on a page by default.
const DEFAULT_LIMIT: usize = 30;
/// Transactions on a page at most.
const MAX_LIMIT: usize = 100;

fn tx(arguments: &Arguments) -> Bytes {
    arguments.bytes(0).cloned().unwrap_or_default()
}

#[derive(Serialize)]
struct Broadcast<'a> {
    code: u32,
    data: Hex<'a>,
    log: &'a str,
    codespace: &'a str,
    hash: Hash,
}

/// Does not wait for what the application says of it.
pub(super) fn broadcast_tx_async(backend: &Backend, arguments: &Arguments) -> Answer {
    let tx = tx(arguments);
    backend.context.mempool.check_tx_then(&tx, None, |_| ())?;
    write(&Broadcast {
        code: 0,
        data: Hex(&[]),
        log: "",
        codespace: "",
        hash: Hash::of(&tx),
    })
}

/// Has the application asked about a transaction. Waiting for it takes no thread.
async fn checked(
    calls: &Arc<Calls>,
    tx: &Bytes,
) -> Result<Result<Checked, CheckTxError>, CallError> {
    let (tell, told) = oneshot::channel();
    let mempool = &calls.backend.context.mempool;
    let given = mempool.check_tx_then(tx, None, |outcome| {
        // The client may be gone.
        let _unheard = tell.send(outcome);
    });
    if let Err(error) = given {
        return Ok(Err(error));
    }
    let over = |_| CallError::Unfinished("the mempool is gone".to_owned());
    told.await.map_err(over)
}

/// Waits for what the application says of it.
pub(crate) async fn broadcast_tx_sync(calls: &Arc<Calls>, arguments: &Arguments) -> Answer {
    let tx = tx(arguments);
    let response = checked(calls, &tx).await??.response;
    write(&Broadcast {
        code: response.code,
        data: Hex(&response.data),
        log: &response.log,
        codespace: &response.codespace,
        hash: Hash::of(&tx),
    })
}

/// Asks the application alone: the transaction does not wait for a block.
pub(super) fn check_tx(backend: &Backend, arguments: &Arguments) -> Answer {
    let response = backend.context.mempool.ask_application(&tx(arguments))?;
    write(&forms::check_tx(&response))
}

#[derive(Serialize)]
struct BroadcastCommit<'a> {
    check_tx: forms::TxResultForm<'a>,
    tx_result: forms::TxResultForm<'a>,
    hash: Hash,
    height: Height,
}

fn committed(
    tx: &[u8],
    checked: &ResponseCheckTx,
    result: &ExecTxResult,
    height: Height,
) -> Answer {
    write(&BroadcastCommit {
        check_tx: forms::check_tx(checked),
        tx_result: forms::TxResultForm::of(result),
        hash: Hash::of(tx),
        height,
    })
}

/// Waits until a block has the transaction. It is listened for before it is checked, so that no
/// block can come in between.
pub(crate) async fn broadcast_tx_commit(
    calls: &Arc<Calls>,
    caller: &Caller,
    arguments: &Arguments,
) -> Answer {
    let tx = tx(arguments);
    let context = &calls.backend.context;
    let limits = calls.subscription_limits;
    context.events.check(limits, &caller.remote)?;
    let query = Query::for_tx(&Hash::of(&tx).to_string());
    let mut subscription = context
        .events
        .subscribe_within(limits, &caller.remote, query, 1)
        .map_err(|error| match error {
            SubscribeError::Clients(_) | SubscribeError::PerClient(_) => error.into(),
            SubscribeError::Already | SubscribeError::Thread(_) => {
                CallError::SubscribeToTx(error.to_string())
            }
        })?;
    let checked = checked(calls, &tx)
        .await?
        .map_err(|error| CallError::BroadcastCommit(error.to_string()))?;
    if checked.response.code != 0 {
        return committed(
            &tx,
            &checked.response,
            &ExecTxResult::default(),
            Height::ZERO,
        );
    }
    let waiting = tokio::time::timeout(calls.commit_patience, subscription.next());
    let message = match waiting.await {
        Err(_) => return Err(CallError::NotCommitted),
        Ok(Err(reason)) => return Err(CallError::Cancelled(reason)),
        Ok(Ok(message)) => message,
    };
    match message.data() {
        EventData::Tx { height, result, .. } => committed(&tx, &checked.response, result, *height),
        // The query asks for nothing else.
        _ => Err(CallError::NotCommitted),
    }
}

#[derive(Serialize)]
struct Unconfirmed<'a> {
    n_txs: Text<usize>,
    total: Text<usize>,
    total_bytes: Text<u64>,
    txs: Option<Vec<Base64<'a>>>,
}

/// One more than the limit, as in CometBFT v0.38.
pub(super) fn unconfirmed_txs(backend: &Backend, arguments: &Arguments) -> Answer {
    let limit = match arguments.integer(0) {
        Some(wanted @ 1..) => usize::try_from(wanted).map_or(MAX_LIMIT, |n| n.min(MAX_LIMIT)),
        _ => DEFAULT_LIMIT,
    };
    let mempool = &backend.context.mempool;
    let txs = mempool.reap_max_txs(Some(limit + 1));
    let stats = mempool.stats();
    write(&Unconfirmed {
        n_txs: Text(txs.len()),
        total: Text(stats.size),
        total_bytes: Text(stats.size_bytes),
        txs: Some(txs.iter().map(|tx| Base64(tx)).collect()),
    })
}

pub(super) fn num_unconfirmed_txs(backend: &Backend, _: &Arguments) -> Answer {
    let stats = backend.context.mempool.stats();
    write(&Unconfirmed {
        n_txs: Text(stats.size),
        total: Text(stats.size),
        total_bytes: Text(stats.size_bytes),
        txs: None,
    })
}

#[derive(Serialize)]
struct EvidenceHash {
    hash: Hash,
}

pub(super) fn broadcast_evidence(backend: &Backend, arguments: &Arguments) -> Answer {
    let evidence = match arguments.evidence(0) {
        None => return Err(CallError::NoEvidence),
        Some(Reported::Lacking(why)) => return Err(CallError::EvidenceForm(why.clone())),
        Some(Reported::Whole(evidence)) => (**evidence).clone(),
    };
    let hash = evidence.hash();
    match backend.context.evidence.add(evidence) {
        Ok(Added::New | Added::Known | Added::Committed) => write(&EvidenceHash { hash }),
        Ok(Added::NoRoom) => Err(CallError::NoRoomForEvidence),
        Ok(Added::Changed) => Err(CallError::ChangedEvidence),
        Err(AddError::Malformed(error)) => Err(CallError::EvidenceForm(error.to_string())),
        Err(AddError::Invalid(error)) => Err(CallError::Evidence(error)),
        Err(AddError::Store(error)) => Err(error.into()),
    }
}

impl From<CheckTxError> for CallError {
    fn from(error: CheckTxError) -> Self {
        match error {
            CheckTxError::App(error) => Self::App(error),
            other => Self::CheckTx(other),
        }
    }
}
