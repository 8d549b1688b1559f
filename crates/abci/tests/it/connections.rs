use std::sync::{
    Arc, Mutex,
    mpsc::{Receiver, Sender, channel},
};

use bytes::Bytes;
use perihelion_abci::{
    AppConnections, AppFault, Application, CallName, Noop, Persistence,
    types::{
        RequestCommit, RequestExtendVote, RequestFinalizeBlock, RequestInfo, RequestInitChain,
        RequestListSnapshots, RequestPrepareProposal, RequestProcessProposal, RequestQuery,
        RequestVerifyVoteExtension, ResponseCommit, ResponseFinalizeBlock, ResponseInfo,
        ResponsePrepareProposal, ResponseProcessProposal,
        response_process_proposal::ProposalStatus,
    },
};
use perihelion_types::Height;

/// Breaks a rule in each of its answers.
struct Contrary;

impl Application for Contrary {
    fn info(&self, _: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        Ok(ResponseInfo {
            last_block_height: -1,
            ..ResponseInfo::default()
        })
    }
    fn prepare_proposal(
        &self,
        _: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        Ok(ResponsePrepareProposal {
            txs: vec![Bytes::from_static(b"ten bytes!")],
        })
    }
    fn process_proposal(
        &self,
        _: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        Ok(ResponseProcessProposal { status: 0 })
    }
    fn finalize_block(&self, _: &RequestFinalizeBlock) -> Result<ResponseFinalizeBlock, AppFault> {
        Ok(ResponseFinalizeBlock::default())
    }
    fn commit(&self, _: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        Ok(ResponseCommit { retain_height: -5 })
    }
    fn query(&self, _: &RequestQuery) -> Result<perihelion_abci::types::ResponseQuery, AppFault> {
        panic!("no {}", "answer")
    }
    fn init_chain(
        &self,
        _: &RequestInitChain,
    ) -> Result<perihelion_abci::types::ResponseInitChain, AppFault> {
        Err(AppFault::failed("not today"))
    }
}

fn two_txs(height: i64) -> RequestFinalizeBlock {
    RequestFinalizeBlock {
        height,
        txs: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
        ..RequestFinalizeBlock::default()
    }
}

#[test]
fn an_answer_against_the_rules_names_call_and_height() {
    let app = AppConnections::in_process(Arc::new(Contrary));
    let fault = app.consensus.finalize_block(&two_txs(7)).unwrap_err();
    assert_eq!(fault.call, CallName::FinalizeBlock);
    assert_eq!(fault.height, Some(Height::new(7)));
    assert_eq!(
        fault.to_string(),
        "application, call FinalizeBlock at height 7: its answer breaks a rule: \
         0 results for 2 transactions"
    );
    let contradictions = [
        app.query.info(&RequestInfo::default()).unwrap_err(),
        app.consensus.commit(Height::new(7)).unwrap_err(),
        app.consensus
            .process_proposal(&RequestProcessProposal::default())
            .unwrap_err(),
        app.consensus
            .prepare_proposal(&RequestPrepareProposal {
                max_tx_bytes: 11,
                ..RequestPrepareProposal::default()
            })
            .unwrap_err(),
    ];
    for fault in contradictions {
        assert!(
            matches!(fault.reason, AppFault::Contradiction(_)),
            "{fault}"
        );
    }
    let allowed = app.consensus.prepare_proposal(&RequestPrepareProposal {
        max_tx_bytes: 12,
        ..RequestPrepareProposal::default()
    });
    assert_eq!(allowed.unwrap().txs.len(), 1);
}

#[test]
fn a_panic_and_a_refusal_are_errors_that_name_the_call() {
    let app = AppConnections::in_process(Arc::new(Contrary));
    let fault = app.query.query(&RequestQuery::default()).unwrap_err();
    assert_eq!(fault.call, CallName::Query);
    assert_eq!(fault.reason, AppFault::Panicked("no answer".to_owned()));
    assert_eq!(app.query.busy(), None, "a panicked call runs no more");
    let fault = app
        .consensus
        .init_chain(&RequestInitChain {
            initial_height: 1000,
            ..RequestInitChain::default()
        })
        .unwrap_err();
    assert_eq!(fault.height, Some(Height::new(1000)));
    assert_eq!(fault.reason, AppFault::Failed("not today".to_owned()));
}

/// Answers `Commit` when it is told to.
struct Waits {
    entered: Sender<()>,
    leave: Mutex<Receiver<()>>,
}

impl Application for Waits {
    fn commit(&self, _: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.entered.send(()).unwrap();
        self.leave.lock().unwrap().recv().unwrap();
        Ok(ResponseCommit::default())
    }
}

#[test]
fn the_running_call_can_be_read() {
    let (entered, has_entered) = channel();
    let (leave, leave_now) = channel();
    let app = AppConnections::in_process(Arc::new(Waits {
        entered,
        leave: Mutex::new(leave_now),
    }));
    assert_eq!(app.consensus.busy(), None);
    let consensus = app.consensus.clone();
    let call = std::thread::spawn(move || consensus.commit(Height::new(3)));
    has_entered.recv().unwrap();
    let (running, _) = app.consensus.busy().unwrap();
    assert_eq!(running, CallName::Commit);
    assert_eq!(app.query.busy(), None, "each connection has its own");
    leave.send(()).unwrap();
    call.join().unwrap().unwrap();
    assert_eq!(app.consensus.busy(), None);
}

#[test]
fn noop_answers_as_the_base_application() {
    let app = AppConnections::in_process(Arc::new(Noop));
    assert_eq!(app.consensus.persistence(), Persistence::Volatile);
    assert_eq!(app.consensus.take_writes(Height::new(1)), Ok(None));
    assert_eq!(app.query.echo("hello").unwrap(), "hello");
    assert_eq!(
        app.query.info(&RequestInfo::default()).unwrap(),
        ResponseInfo::default()
    );
    let executed = app.consensus.finalize_block(&two_txs(1)).unwrap();
    assert_eq!(executed.tx_results.len(), 2);
    assert!(executed.app_hash.is_empty());
    assert_eq!(
        app.consensus.commit(Height::new(1)).unwrap().retain_height,
        0
    );
    let proposal = RequestPrepareProposal {
        txs: vec![Bytes::from_static(b"12345"), Bytes::from_static(b"6")],
        max_tx_bytes: 7,
        ..RequestPrepareProposal::default()
    };
    // Five bytes and one are within seven as the application counts, and above it as a block does.
    assert!(app.consensus.prepare_proposal(&proposal).is_err());
    let roomy = RequestPrepareProposal {
        max_tx_bytes: 10,
        ..proposal
    };
    assert_eq!(app.consensus.prepare_proposal(&roomy).unwrap().txs.len(), 2);
    assert_eq!(
        app.consensus
            .process_proposal(&RequestProcessProposal::default())
            .unwrap()
            .status(),
        ProposalStatus::Accept
    );
    app.consensus
        .extend_vote(&RequestExtendVote::default())
        .unwrap();
    app.consensus
        .verify_vote_extension(&RequestVerifyVoteExtension::default())
        .unwrap();
    let snapshots = app
        .snapshot
        .list_snapshots(&RequestListSnapshots {})
        .unwrap();
    assert!(snapshots.snapshots.is_empty());
}
