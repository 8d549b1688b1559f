//! What comes through.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use perihelion_abci::{
    AppAddress, AppConnections, AppFault, Application, CallName, Persistence,
    types::{
        ExecTxResult, RequestApplySnapshotChunk, RequestCheckTx, RequestCommit, RequestExtendVote,
        RequestFinalizeBlock, RequestInfo, RequestInitChain, RequestListSnapshots,
        RequestLoadSnapshotChunk, RequestOfferSnapshot, RequestPrepareProposal,
        RequestProcessProposal, RequestQuery, RequestVerifyVoteExtension,
        ResponseApplySnapshotChunk, ResponseCheckTx, ResponseCommit, ResponseExtendVote,
        ResponseFinalizeBlock, ResponseInfo, ResponseInitChain, ResponseListSnapshots,
        ResponseLoadSnapshotChunk, ResponseOfferSnapshot, ResponsePrepareProposal,
        ResponseProcessProposal, ResponseQuery, ResponseVerifyVoteExtension, Snapshot,
        response_process_proposal::ProposalStatus, response_verify_vote_extension::VerifyStatus,
    },
};
use perihelion_types::Height;

use super::{Service, TRANSPORTS, loopback};

/// Answers each call with something of its request, and keeps the names of the calls.
#[derive(Default)]
struct Mirror(Mutex<Vec<CallName>>);

impl Mirror {
    fn note(&self, call: CallName) {
        self.0.lock().unwrap().push(call);
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Application for Mirror {
    fn echo(&self, message: &str) -> Result<String, AppFault> {
        self.note(CallName::Echo);
        Ok(format!("{message} {message}"))
    }
    fn flush(&self) -> Result<(), AppFault> {
        Ok(())
    }
    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.note(CallName::Info);
        Ok(ResponseInfo {
            data: request.version.clone(),
            last_block_height: 9,
            ..ResponseInfo::default()
        })
    }
    fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        self.note(CallName::Query);
        Ok(ResponseQuery {
            value: request.data.clone(),
            ..ResponseQuery::default()
        })
    }
    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        self.note(CallName::CheckTx);
        Ok(ResponseCheckTx {
            data: request.tx.clone(),
            ..ResponseCheckTx::default()
        })
    }
    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.note(CallName::InitChain);
        Ok(ResponseInitChain {
            app_hash: request.app_state_bytes.clone(),
            ..ResponseInitChain::default()
        })
    }
    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        self.note(CallName::PrepareProposal);
        Ok(ResponsePrepareProposal {
            txs: request.txs.iter().rev().cloned().collect(),
        })
    }
    fn process_proposal(
        &self,
        _: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        self.note(CallName::ProcessProposal);
        Ok(ResponseProcessProposal {
            status: ProposalStatus::Reject.into(),
        })
    }
    fn extend_vote(&self, request: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        self.note(CallName::ExtendVote);
        Ok(ResponseExtendVote {
            vote_extension: request.hash.clone(),
        })
    }
    fn verify_vote_extension(
        &self,
        _: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        self.note(CallName::VerifyVoteExtension);
        Ok(ResponseVerifyVoteExtension {
            status: VerifyStatus::Reject.into(),
        })
    }
    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        self.note(CallName::FinalizeBlock);
        Ok(ResponseFinalizeBlock {
            tx_results: request
                .txs
                .iter()
                .map(|tx| ExecTxResult {
                    data: tx.clone(),
                    ..ExecTxResult::default()
                })
                .collect(),
            app_hash: request.hash.clone(),
            ..ResponseFinalizeBlock::default()
        })
    }
    fn commit(&self, _: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.note(CallName::Commit);
        Ok(ResponseCommit { retain_height: 3 })
    }
    fn list_snapshots(&self, _: &RequestListSnapshots) -> Result<ResponseListSnapshots, AppFault> {
        self.note(CallName::ListSnapshots);
        Ok(ResponseListSnapshots {
            snapshots: vec![Snapshot::default(); 2],
        })
    }
    fn offer_snapshot(
        &self,
        request: &RequestOfferSnapshot,
    ) -> Result<ResponseOfferSnapshot, AppFault> {
        self.note(CallName::OfferSnapshot);
        let format = request.snapshot.as_ref().map_or(0, |it| it.format);
        Ok(ResponseOfferSnapshot {
            result: i32::try_from(format).unwrap(),
        })
    }
    fn load_snapshot_chunk(
        &self,
        request: &RequestLoadSnapshotChunk,
    ) -> Result<ResponseLoadSnapshotChunk, AppFault> {
        self.note(CallName::LoadSnapshotChunk);
        Ok(ResponseLoadSnapshotChunk {
            chunk: request.height.to_string().into(),
        })
    }
    fn apply_snapshot_chunk(
        &self,
        request: &RequestApplySnapshotChunk,
    ) -> Result<ResponseApplySnapshotChunk, AppFault> {
        self.note(CallName::ApplySnapshotChunk);
        Ok(ResponseApplySnapshotChunk {
            reject_senders: vec![request.sender.clone()],
            ..ResponseApplySnapshotChunk::default()
        })
    }
}

fn every_call(app: &AppConnections) {
    let bytes = Bytes::from_static;
    assert_eq!(app.query.echo("hello").unwrap(), "hello hello");
    let info = RequestInfo {
        version: "1.2.3".to_owned(),
        ..RequestInfo::default()
    };
    let info = app.query.info(&info).unwrap();
    assert_eq!((info.data.as_str(), info.last_block_height), ("1.2.3", 9));
    let query = RequestQuery {
        data: bytes(b"what"),
        ..RequestQuery::default()
    };
    assert_eq!(app.query.query(&query).unwrap().value, "what");
    let check = RequestCheckTx {
        tx: bytes(b"tx"),
        r#type: 1,
    };
    assert_eq!(app.mempool.check_tx(&check).unwrap().data, "tx");
    app.mempool.flush().unwrap();
    let genesis = RequestInitChain {
        app_state_bytes: bytes(b"{}"),
        initial_height: 1,
        ..RequestInitChain::default()
    };
    assert_eq!(app.consensus.init_chain(&genesis).unwrap().app_hash, "{}");
    let txs = vec![bytes(b"a"), bytes(b"b")];
    let prepare = RequestPrepareProposal {
        txs: txs.clone(),
        max_tx_bytes: 100,
        ..RequestPrepareProposal::default()
    };
    let prepared = app.consensus.prepare_proposal(&prepare).unwrap();
    assert_eq!(prepared.txs, [bytes(b"b"), bytes(b"a")]);
    let process = RequestProcessProposal::default();
    let status = app.consensus.process_proposal(&process).unwrap().status();
    assert_eq!(status, ProposalStatus::Reject);
    let extend = RequestExtendVote {
        hash: bytes(b"hash"),
        ..RequestExtendVote::default()
    };
    let extension = app.consensus.extend_vote(&extend).unwrap().vote_extension;
    assert_eq!(text(&extension), "hash");
    let verify = RequestVerifyVoteExtension::default();
    let status = app.consensus.verify_vote_extension(&verify).unwrap();
    assert_eq!(status.status(), VerifyStatus::Reject);
    let finalize = RequestFinalizeBlock {
        txs,
        hash: bytes(b"app"),
        ..super::block(1)
    };
    let finalized = app.consensus.finalize_block(&finalize).unwrap();
    assert_eq!(text(&finalized.app_hash), "app");
    assert_eq!(text(&finalized.tx_results[1].data), "b");
    let commit = app.consensus.commit(Height::new(1)).unwrap();
    assert_eq!(commit.retain_height, 3);
    let list = RequestListSnapshots {};
    let snapshots = app.snapshot.list_snapshots(&list).unwrap().snapshots;
    assert_eq!(snapshots.len(), 2);
    let offer = RequestOfferSnapshot {
        snapshot: Some(Snapshot {
            format: 4,
            ..Snapshot::default()
        }),
        ..RequestOfferSnapshot::default()
    };
    assert_eq!(app.snapshot.offer_snapshot(&offer).unwrap().result, 4);
    let load = RequestLoadSnapshotChunk {
        height: 77,
        ..RequestLoadSnapshotChunk::default()
    };
    assert_eq!(app.snapshot.load_snapshot_chunk(&load).unwrap().chunk, "77");
    let apply = RequestApplySnapshotChunk {
        sender: "peer".to_owned(),
        ..RequestApplySnapshotChunk::default()
    };
    let applied = app.snapshot.apply_snapshot_chunk(&apply).unwrap();
    assert_eq!(applied.reject_senders, ["peer"]);
}

#[test]
fn every_call_comes_through_over_each_way() {
    for transport in TRANSPORTS {
        let folder = tempfile::tempdir().unwrap();
        let unix = AppAddress::Unix(folder.path().join("app.sock"));
        for address in [loopback(), unix] {
            let mirror = Arc::new(Mirror::default());
            let service = Service::at(&address, transport, Arc::clone(&mirror) as _);
            let app = service.connect();
            every_call(&app);
            assert_eq!(app.consensus.persistence(), Persistence::Own);
            assert_eq!(app.consensus.take_writes(Height::new(1)), Ok(None));
            assert_eq!(app.running(), []);
            let mut called = mirror.0.lock().unwrap().clone();
            called.push(CallName::Flush);
            for call in CallName::ALL {
                let times = called.iter().filter(|it| **it == call).count();
                assert_eq!(times, 1, "{call} over {transport} at {address}");
            }
        }
    }
}

#[test]
fn large_messages_come_through() {
    for transport in TRANSPORTS {
        let service = Service::start(transport, Arc::new(Mirror::default()));
        let app = service.connect();
        let txs: Vec<_> = (0..24_u8).map(|i| Bytes::from(vec![i; 1 << 20])).collect();
        let request = RequestFinalizeBlock {
            txs: txs.clone(),
            ..super::block(1)
        };
        let response = app.consensus.finalize_block(&request).unwrap();
        for (result, tx) in response.tx_results.iter().zip(&txs) {
            assert!(result.data == tx, "over {transport}");
        }
    }
}

#[test]
fn many_transactions_are_under_way_at_once_and_answered_in_order() {
    for transport in TRANSPORTS {
        let service = Service::start(transport, Arc::new(Mirror::default()));
        let app = service.connect();
        // More than may be in flight, none waited for.
        let pending: Vec<_> = (0..1000)
            .map(|number| {
                let tx = Bytes::from(number.to_string());
                let request = RequestCheckTx { tx, r#type: 0 };
                app.mempool.begin_check_tx(&request).unwrap()
            })
            .collect();
        let running = app.running();
        assert_eq!(running.len(), 1);
        assert_eq!(running[0].call, CallName::CheckTx);
        for (number, pending) in pending.into_iter().enumerate() {
            assert_eq!(text(&pending.wait().unwrap().data), number.to_string());
        }
        assert_eq!(app.running(), []);
    }
}

#[test]
fn calls_of_many_threads_get_their_own_answers() {
    for transport in TRANSPORTS {
        let service = Service::start(transport, Arc::new(Mirror::default()));
        let app = service.connect();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let query = app.query.clone();
                scope.spawn(move || {
                    for number in 0..50 {
                        let data = format!("{thread}.{number}");
                        let request = RequestQuery {
                            data: data.clone().into(),
                            ..RequestQuery::default()
                        };
                        assert_eq!(text(&query.query(&request).unwrap().value), data);
                    }
                });
            }
        });
    }
}
