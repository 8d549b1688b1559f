//! Many transactions under way to the application at a time.

use std::{
    sync::{Arc, Condvar, Mutex, mpsc::channel},
    thread,
    time::Duration,
};

use bytes::Bytes;
use perihelion_abci::{
    Answer, AppFault, Application,
    types::{RequestCheckTx, ResponseCheckTx},
};
use perihelion_mempool::{CheckTxError, Checked, Fate, Mempool, MempoolConfig, TxLimits};
use perihelion_types::Height;

use crate::{
    apps::{connect, tx, waiting},
    network::{Node, Peer, soon, until},
};

/// What is told of a transaction.
type Outcome = Result<Checked, CheckTxError>;

/// Beyond it a test has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// An application that answers when it is told to, in order, and refuses what begins with `x`; what
/// begins with `now` is answered at once.
#[derive(Default)]
struct Held(Arc<Line>);

#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    begun: usize,
    answered: usize,
    may_answer: usize,
    most_under_way: usize,
}

impl Line {
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        result
    }

    fn wait_until(&self, what: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| !what(state))
            .unwrap();
        assert!(!waited.1.timed_out(), "it never comes to that");
    }
}

impl Held {
    /// Waits until it was asked so often.
    fn until_asked(&self, times: usize) {
        self.0.wait_until(|state| state.begun >= times);
    }

    /// It answers so many of all that it is asked.
    fn answer(&self, many: usize) {
        self.0.change(|state| state.may_answer = many);
    }

    fn asked(&self) -> usize {
        self.0.state.lock().unwrap().begun
    }

    fn most_under_way(&self) -> usize {
        self.0.state.lock().unwrap().most_under_way
    }
}

impl Application for Held {
    fn begin_check_tx(
        &self,
        request: &RequestCheckTx,
    ) -> Result<Answer<ResponseCheckTx>, AppFault> {
        let code = u32::from(request.tx.starts_with(b"x"));
        if request.tx.starts_with(b"now") {
            return Ok(Answer::Now(ResponseCheckTx::default()));
        }
        let number = self.0.change(|state| {
            state.begun += 1;
            let under_way = state.begun - state.answered;
            state.most_under_way = state.most_under_way.max(under_way);
            state.begun
        });
        let line = Arc::clone(&self.0);
        Ok(Answer::later(move || {
            line.wait_until(|state| state.may_answer >= number);
            line.change(|state| state.answered += 1);
            Ok(ResponseCheckTx {
                code,
                ..ResponseCheckTx::default()
            })
        }))
    }
}

fn held(config: MempoolConfig) -> (Arc<Held>, Mempool) {
    let app = Arc::<Held>::default();
    let mempool = Mempool::new(config, connect(app.clone()), Height::new(1), TxLimits::NONE);
    (app, mempool)
}

#[test]
fn many_are_under_way_at_a_time_and_enter_in_order() {
    let (app, mempool) = held(MempoolConfig::default());
    let txs: Vec<Bytes> = (0..300).map(|at| tx(&format!("t{at}"))).collect();
    // Who gives them does not wait, though nothing is answered.
    let pending: Vec<_> = txs
        .iter()
        .map(|tx| mempool.begin_check_tx(tx, None).unwrap())
        .collect();
    app.until_asked(128);
    assert_eq!((mempool.size(), mempool.is_idle()), (0, false));
    app.answer(txs.len());
    for pending in pending {
        assert_eq!(pending.wait().unwrap().fate, Fate::Added);
    }
    assert_eq!(waiting(&mempool), txs);
    assert_eq!(app.most_under_way(), 128);
}

#[test]
fn what_is_answered_at_once_overtakes_nothing() {
    let (app, mempool) = held(MempoolConfig::default());
    let txs = ["now1", "later1", "now2", "later2", "now3"].map(tx);
    let pending = txs.each_ref().map(|tx| mempool.begin_check_tx(tx, None));
    app.until_asked(2);
    app.answer(2);
    for pending in pending {
        assert_eq!(pending.unwrap().wait().unwrap().fate, Fate::Added);
    }
    assert_eq!(waiting(&mempool), txs);
}

#[test]
fn what_is_under_way_takes_room() {
    let (app, mempool) = held(MempoolConfig {
        size: 3,
        max_txs_bytes: 10,
        ..MempoolConfig::default()
    });
    let begin = |text: &str| mempool.begin_check_tx(&tx(text), None);
    let good = begin("1234").unwrap();
    let bad = begin("x23").unwrap();
    let error = begin("1235").unwrap_err();
    assert_eq!(
        error.to_string(),
        "mempool is full: number of txs 2 (max: 3), total txs bytes 7 (max: 10)"
    );
    let third = begin("123").unwrap();
    assert!(matches!(begin(""), Err(CheckTxError::Full(_))));
    assert_eq!(mempool.stats().no_room, 2);
    app.answer(3);
    assert_eq!(good.wait().unwrap().fate, Fate::Added);
    assert_eq!(bad.wait().unwrap().fate, Fate::Refused);
    assert_eq!(third.wait().unwrap().fate, Fate::Added);
    // The refused one has left its room.
    let fourth = begin("abc").unwrap();
    app.answer(4);
    assert_eq!(fourth.wait().unwrap().fate, Fate::Added);
    assert_eq!((mempool.size(), mempool.size_bytes()), (3, 10));
}

#[test]
fn a_block_waits_for_those_under_way_and_takes_out_its_own() {
    let (app, mempool) = held(MempoolConfig {
        recheck: false,
        ..MempoolConfig::default()
    });
    let begin = |text: &str| mempool.begin_check_tx(&tx(text), None).unwrap();
    let under_way = ["a", "b", "c"].map(begin);
    app.until_asked(3);
    let mut lock = thread::scope(|scope| {
        let lock = scope.spawn(|| mempool.lock());
        app.answer(2);
        assert!(!lock.is_finished());
        app.answer(3);
        lock.join().unwrap()
    });
    assert_eq!(waiting(&mempool), ["a", "b", "c"].map(tx));
    drop(under_way);
    // Those that came too late to be asked about are known when the block has them.
    let [late, left, failed] = ["d", "e", "f"].map(begin);
    let block = ["b", "d", "f"].map(tx);
    let removed = lock.settle(Height::new(2), &block, &[0, 0, 1], TxLimits::NONE);
    assert_eq!(removed, 1);
    assert_eq!(late.wait(), Err(CheckTxError::InCache));
    assert_eq!(app.asked(), 3);
    drop(lock);
    app.answer(5);
    assert_eq!(left.wait().unwrap().fate, Fate::Added);
    assert_eq!(failed.wait().unwrap().fate, Fate::Added);
    assert_eq!(waiting(&mempool), ["a", "c", "e", "f"].map(tx));
}

#[test]
fn what_no_block_has_room_for_any_more_is_not_asked_about() {
    let (app, mempool) = held(MempoolConfig::default());
    let mut lock = mempool.lock();
    let large = mempool.begin_check_tx(&tx("1234567"), None).unwrap();
    let small = mempool.begin_check_tx(&tx("123"), None).unwrap();
    let limits = TxLimits {
        max_data_bytes: 6,
        max_gas: -1,
    };
    lock.settle(Height::new(2), &[], &[], limits);
    drop(lock);
    assert!(matches!(large.wait(), Err(CheckTxError::PreCheck { .. })));
    app.answer(1);
    assert_eq!(small.wait().unwrap().fate, Fate::Added);
    assert_eq!(waiting(&mempool), [tx("123")]);
}

#[test]
fn who_waits_is_told_when_the_mempool_goes() {
    let (app, mempool) = held(MempoolConfig::default());
    let lock = mempool.lock();
    let pending = mempool.begin_check_tx(&tx("a"), None).unwrap();
    drop(lock);
    drop(mempool);
    app.answer(1);
    // It was asked about already, or never will be.
    match pending.wait() {
        Ok(checked) => assert_eq!(checked.fate, Fate::Added),
        Err(error) => assert!(error.to_string().contains("the mempool is gone"), "{error}"),
    }
}

/// Its store can be opened again at once.
#[test]
fn a_mempool_that_goes_lets_go_of_the_application() {
    let (app, mempool) = held(MempoolConfig::default());
    app.answer(1);
    mempool.check_tx(&tx("a"), None).unwrap();
    drop(mempool);
    assert_eq!(Arc::strong_count(&app), 1);
}

/// The thread that takes the answers in dies of what it is told to call.
#[test]
fn a_thread_that_panics_leaves_nobody_waiting() {
    let (app, mempool) = held(MempoolConfig::default());
    let bomb = |_: Outcome| -> () { panic!("as the test wants it") };
    mempool.check_tx_then(&tx("bomb"), None, bomb).unwrap();
    let (tell, told) = channel();
    for at in 0..300 {
        let tell = tell.clone();
        let answered = move |outcome: Outcome| tell.send(outcome).unwrap();
        mempool
            .check_tx_then(&tx(&format!("t{at}")), None, answered)
            .unwrap();
    }
    app.until_asked(128);
    app.answer(1);
    for _ in 0..300 {
        let outcome = told.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(outcome, Err(CheckTxError::App(_))), "{outcome:?}");
    }
    let error = mempool.check_tx(&tx("next"), None).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    // Consensus is told when it next commits.
    let rechecked = mempool.lock().recheck_left();
    assert_eq!(rechecked.map_err(CheckTxError::App), Err(error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_panics_ends_the_reactor() {
    let node = Node::start(MempoolConfig::default()).await;
    let bomb = |_: Outcome| -> () { panic!("as the test wants it") };
    node.mempool.check_tx_then(&tx("a"), None, bomb).unwrap();
    let error = soon("the end", node.ended).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

/// What is told may have the last hold of the mempool, on either thread.
#[test]
fn a_mempool_that_goes_on_its_own_thread_does_not_wait_for_itself() {
    for refused in [false, true] {
        let (app, mempool) = held(MempoolConfig::default());
        app.answer(1);
        let mempool = Arc::new(mempool);
        let (go, may_go) = channel();
        let (tell, told) = channel();
        let last = Arc::clone(&mempool);
        let mut lock = mempool.lock();
        let answered = move |outcome: Outcome| {
            may_go.recv().unwrap();
            drop(last);
            tell.send(outcome.is_err()).unwrap();
        };
        mempool
            .check_tx_then(&tx("1234567"), None, answered)
            .unwrap();
        let limits = TxLimits {
            max_data_bytes: if refused { 6 } else { 100 },
            max_gas: -1,
        };
        lock.settle(Height::new(2), &[], &[], limits);
        drop(lock);
        drop(mempool);
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(refused));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_of_peers_are_under_way_together() {
    let app = Arc::<Held>::default();
    let node = Node::start_with(MempoolConfig::default(), connect(app.clone())).await;
    let peer = Peer::connect(&node).await;
    let txs: Vec<Bytes> = (0..300).map(|at| tx(&format!("t{at}"))).collect();
    for tx in &txs {
        peer.send_tx(tx).await;
    }
    let asked = Arc::clone(&app);
    tokio::task::spawn_blocking(move || asked.until_asked(128))
        .await
        .unwrap();
    app.answer(txs.len());
    until("all of them", || node.mempool.size() == txs.len()).await;
    assert_eq!(waiting(&node.mempool), txs);
    node.stop().await;
}

/// Room that others may leave is waited for, since a peer sends nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_transaction_waits_for_the_room_of_those_under_way() {
    let app = Arc::<Held>::default();
    let config = MempoolConfig {
        size: 2,
        ..MempoolConfig::default()
    };
    let node = Node::start_with(config, connect(app.clone())).await;
    let peer = Peer::connect(&node).await;
    for text in ["x1", "x2", "good"] {
        peer.send_tx(&tx(text)).await;
    }
    let asked = Arc::clone(&app);
    tokio::task::spawn_blocking(move || asked.until_asked(2))
        .await
        .unwrap();
    app.answer(3);
    until("the good one", || node.mempool.size() == 1).await;
    assert_eq!(node.mempool.stats().no_room, 0);
    node.stop().await;
}
