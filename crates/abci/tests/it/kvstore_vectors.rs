//! Every recorded call of CometBFT's key-value application, in order, run by run.

use std::sync::Arc;

use perihelion_abci::{
    AppFault, Application, KvStore, KvStoreOptions, MemoryAppStore,
    types::{
        RequestApplySnapshotChunk, RequestCheckTx, RequestCommit, RequestExtendVote,
        RequestFinalizeBlock, RequestInfo, RequestInitChain, RequestListSnapshots,
        RequestLoadSnapshotChunk, RequestOfferSnapshot, RequestPrepareProposal,
        RequestProcessProposal, RequestQuery, RequestVerifyVoteExtension,
    },
};
use perihelion_test_support::{Hex, each, load};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "made_by")]
    _made_by: String,
    #[serde(rename = "calls")]
    _calls: String,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    name: String,
    calls: Vec<(String, Hex, Answer)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Response(Hex),
    Refused(Refusal),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    error: Option<String>,
    panic: Option<String>,
}

/// Decodes the request, calls, and encodes the response.
fn answer<Q: Message + Default, R: Message>(
    request: &[u8],
    call: impl FnOnce(&Q) -> Result<R, AppFault>,
) -> Result<Vec<u8>, AppFault> {
    let decoded = Q::decode(request).unwrap();
    assert_eq!(
        hex::encode(decoded.encode_to_vec()),
        hex::encode(request),
        "the request has fields that were not read"
    );
    call(&decoded).map(|response| response.encode_to_vec())
}

fn dispatch(app: &KvStore, method: &str, q: &[u8]) -> Result<Vec<u8>, AppFault> {
    match method {
        "Info" => answer(q, |q: &RequestInfo| app.info(q)),
        "InitChain" => answer(q, |q: &RequestInitChain| app.init_chain(q)),
        "CheckTx" => answer(q, |q: &RequestCheckTx| app.check_tx(q)),
        "Query" => answer(q, |q: &RequestQuery| app.query(q)),
        "PrepareProposal" => answer(q, |q: &RequestPrepareProposal| app.prepare_proposal(q)),
        "ProcessProposal" => answer(q, |q: &RequestProcessProposal| app.process_proposal(q)),
        "FinalizeBlock" => answer(q, |q: &RequestFinalizeBlock| app.finalize_block(q)),
        "Commit" => answer(q, |q: &RequestCommit| app.commit(q)),
        "ExtendVote" => answer(q, |q: &RequestExtendVote| app.extend_vote(q)),
        "VerifyVoteExtension" => answer(q, |q: &RequestVerifyVoteExtension| {
            app.verify_vote_extension(q)
        }),
        "ListSnapshots" => answer(q, |q: &RequestListSnapshots| app.list_snapshots(q)),
        "OfferSnapshot" => answer(q, |q: &RequestOfferSnapshot| app.offer_snapshot(q)),
        "LoadSnapshotChunk" => answer(q, |q: &RequestLoadSnapshotChunk| app.load_snapshot_chunk(q)),
        "ApplySnapshotChunk" => answer(q, |q: &RequestApplySnapshotChunk| {
            app.apply_snapshot_chunk(q)
        }),
        other => panic!("no such call: {other}"),
    }
}

/// The recorder sets these two on the run that it names so, and the file does not tell them.
fn options(run: &Run) -> KvStoreOptions {
    if run.name == "with block events and three blocks retained" {
        KvStoreOptions {
            retain_blocks: 3,
            block_events: true,
        }
    } else {
        KvStoreOptions::default()
    }
}

/// Runs all calls; after each call `settle` gets the application.
fn replay(run: &Run, app: &KvStore, settle: impl Fn(&KvStore)) {
    each(
        &run.name,
        &run.calls,
        |index, (method, request, expected)| {
            let what = format!("{}, call {index}, {method}", run.name);
            let got = dispatch(app, method, request);
            settle(app);
            match expected {
                Answer::Response(response) => assert_eq!(
                    hex::encode(got.unwrap_or_else(|fault| panic!("{what}: {fault}"))),
                    hex::encode(&**response),
                    "{what}"
                ),
                Answer::Refused(refusal) => assert!(
                    got.is_err() && (refusal.error.is_some() || refusal.panic.is_some()),
                    "{what}: it answered {got:?}"
                ),
            }
        },
    );
}

#[test]
fn vector_runs_in_memory() {
    let file: File = load("kvstore.json");
    each("runs", &file.runs, |_, run| {
        replay(run, &KvStore::in_memory(options(run)), |_| ());
    });
}

#[test]
fn vector_runs_with_a_store_that_is_written_after_each_call() {
    let file: File = load("kvstore.json");
    each("runs", &file.runs, |_, run| {
        let store = Arc::new(MemoryAppStore::new());
        let app = KvStore::persistent(Arc::clone(&store) as _, options(run)).unwrap();
        replay(run, &app, |app| store.write(app.take_writes().unwrap()));
    });
}
