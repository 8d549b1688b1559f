//! The pools follow each block.

use std::{
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use perihelion_abci::types::CheckTxType;
use perihelion_consensus::BlockVerdict;
use perihelion_mempool::Mempool;
use perihelion_types::{BlockId, Hash, PartSetHeader, SignedMsgType};

use super::chain::{App, Call, Chain, Setup};
use crate::app::PoolFollower;

/// Two precommits of one validator in the height that is being decided.
fn equivocate(chain: &Chain, index: usize) {
    let id = |byte| BlockId {
        hash: Hash::new([byte; 32]),
        part_set_header: PartSetHeader {
            total: 1,
            hash: Hash::new([byte; 32]),
        },
    };
    let vote = |byte| Arc::new(chain.vote(index, SignedMsgType::Precommit, id(byte)));
    chain.evidence.report_conflicting_votes(vote(1), vote(2));
}

#[test]
fn evidence_goes_into_one_block_and_to_the_application() {
    let misbehavior = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&misbehavior);
    let app = App::hooked(move |call| {
        if let Call::Finalize(request) = call {
            seen.lock().unwrap().push(request.misbehavior.len());
        }
        None
    });
    let (mut chain, mut running) = Chain::start(Setup::of(app));
    equivocate(&chain, 2);
    let first = running.advance(&mut chain);
    assert!(first.evidence.is_empty(), "its block is not decided yet");
    let second = running.make(&chain);
    assert_eq!(second.evidence.len(), 1);
    // Whoever has not seen it yet judges it anew.
    assert_eq!(running.verdict(&second), BlockVerdict::Accepted);
    let mut forged = second.clone();
    let perihelion_types::Evidence::DuplicateVote(votes) = &mut forged.evidence[0] else {
        panic!("another kind of evidence");
    };
    votes.total_voting_power += 1;
    forged.header.evidence_hash = perihelion_types::evidence::hash_list(&forged.evidence);
    let verdict = running.verdict(&forged);
    assert!(
        matches!(&verdict, BlockVerdict::Invalid(reason) if reason.contains("evidence")),
        "{verdict:?}"
    );
    let decided = chain.decide(&second);
    running.apply(&mut chain, &decided);
    assert_eq!(chain.evidence.size(), 0);
    let third = running.advance(&mut chain);
    assert!(third.evidence.is_empty());
    assert_eq!(misbehavior.lock().unwrap()[..], [0, 1, 0]);
    // A block with what another one has.
    let mut again = running.make(&chain);
    again.evidence.clone_from(&second.evidence);
    again.header.evidence_hash = second.header.evidence_hash;
    let verdict = running.verdict(&again);
    assert!(matches!(verdict, BlockVerdict::Invalid(_)), "{verdict:?}");
}

#[test]
fn no_transaction_is_checked_while_a_block_is_committed() {
    type Checker = JoinHandle<()>;
    let log = Arc::new(Mutex::new(Vec::new()));
    let mempool = Arc::new(OnceLock::<Arc<Mempool>>::new());
    let checker = Arc::new(Mutex::new(None::<Checker>));
    let (kept, pool, started) = (Arc::clone(&log), Arc::clone(&mempool), Arc::clone(&checker));
    let app = App::hooked(move |call| {
        match call {
            Call::Check(request) if request.r#type() == CheckTxType::New => {
                kept.lock().unwrap().push("checked");
            }
            Call::Commit => {
                let pool = Arc::clone(pool.get().unwrap());
                let (begun, has_begun) = mpsc::channel();
                let check = move || {
                    begun.send(()).unwrap();
                    let _ = pool.check_tx(&Bytes::from_static(b"late=1"), None);
                };
                *started.lock().unwrap() = Some(thread::spawn(check));
                has_begun.recv().unwrap();
                for _ in 0..1_000 {
                    thread::yield_now();
                }
                kept.lock().unwrap().push("committed");
            }
            _ => {}
        }
        None
    });
    let (mut chain, mut running) = Chain::start(Setup::of(app));
    assert!(mempool.set(Arc::clone(&chain.mempool)).is_ok());
    let block = running.make(&chain);
    let decided = chain.decide(&block);
    running.apply(&mut chain, &decided);
    let checker = checker.lock().unwrap().take().unwrap();
    checker.join().unwrap();
    assert_eq!(log.lock().unwrap()[..], ["committed", "checked"]);
    assert_eq!(chain.mempool.size(), 1);
}

#[test]
fn what_is_left_is_checked_again_once_the_answer_is_out() {
    let rechecked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&rechecked);
    let app = App::hooked(move |call| {
        if let Call::Check(request) = call
            && request.r#type() == CheckTxType::Recheck
        {
            seen.lock().unwrap().push(request.tx.clone());
        }
        None
    });
    let (mut chain, mut running) = Chain::start(Setup::of(app));
    // The thread has entered once it answers.
    running.make(&chain);
    chain.send("a=1");
    let block = running.make(&chain);
    chain.send("b=2");
    let available = chain.mempool.txs_available();
    let before = *available.borrow();
    let decided = chain.decide(&block);
    running.apply(&mut chain, &decided);
    // The next answer comes behind it.
    let next = running.make(&chain);
    assert_eq!(next.data.to_vec(), [Bytes::from_static(b"b=2")]);
    assert_eq!(rechecked.lock().unwrap()[..], [Bytes::from_static(b"b=2")]);
    assert_eq!(*available.borrow(), before + 1, "told for the next height");
}

/// Blocksync applies blocks with the same pools; entering consensus brings them up to date.
#[test]
fn the_pools_follow_blocksync_too() {
    let rechecks = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&rechecks);
    let app = App::hooked(move |call| {
        if let Call::Check(request) = call
            && request.r#type() == CheckTxType::Recheck
        {
            *seen.lock().unwrap() += 1;
        }
        None
    });
    let (mut chain, mut running) = Chain::start(Setup::of(app));
    running.make(&chain);
    equivocate(&chain, 1);
    chain.send("a=1");
    let first = running.make(&chain);
    chain.send("b=2");
    let first = chain.decide(&first);
    // Consensus is left, and blocksync gets the block that it had decided.
    let mut executor = running.end();
    executor.apply(&first).unwrap();
    chain.state = executor.state_arc();
    assert_eq!(
        chain.mempool.reap_max_txs(None),
        [Bytes::from_static(b"b=2")]
    );
    assert_eq!(chain.evidence.state().last_block_height.get(), 1);
    assert_eq!(chain.evidence.size(), 1);
    assert_eq!(*rechecks.lock().unwrap(), 0, "not after each block");
    let mut running = chain.run(executor);
    let second = running.advance(&mut chain);
    assert_eq!(*rechecks.lock().unwrap(), 1, "when consensus is entered");
    assert_eq!(second.data.len(), 1);
    assert_eq!(second.evidence.len(), 1);
}

#[test]
fn pools_that_were_left_behind_catch_up_when_consensus_is_entered() {
    let (mut chain, executor) = Chain::new(Setup::of(App::new()));
    // Nobody followed.
    let mut running = chain.run(executor);
    equivocate(&chain, 3);
    running.advance(&mut chain);
    let second = running.make(&chain);
    assert_eq!(second.evidence.len(), 1);
    let second = chain.decide(&second);
    let mut executor = running.end();
    executor.follow(Arc::new(Nobody));
    executor.apply(&second).unwrap();
    chain.state = executor.state_arc();
    assert_eq!(chain.evidence.size(), 1, "it was not told");
    let mut running = chain.run(executor);
    let third = running.advance(&mut chain);
    assert!(
        third.evidence.is_empty(),
        "the store tells that a block has it"
    );
    assert_eq!(chain.evidence.size(), 0);
}

struct Nobody;

impl perihelion_state::Follower for Nobody {
    fn hold(&self) -> Box<dyn perihelion_state::CommitHold + '_> {
        Box::new(())
    }
}

#[test]
fn a_follower_that_nobody_sends_transactions_to_hashes_none() {
    let (mut chain, mut executor) = Chain::new(Setup::of(App::new()));
    let rules = perihelion_types::RulesByHeight::default();
    let (mempool, evidence) = (Arc::clone(&chain.mempool), Arc::clone(&chain.evidence));
    executor.follow(Arc::new(PoolFollower::new(mempool, evidence, rules)));
    let block = executor
        .make_block(
            chain.state.next_height(),
            chain.state.validators.validators()[0].address,
            &chain.last_commit,
            &OneTx,
        )
        .unwrap()
        .unwrap();
    let block = chain.decide(&block);
    executor.apply(&block).unwrap();
    // It was not remembered as seen, which the cache of a busy mempool does.
    chain.send("a=1");
    assert_eq!(chain.mempool.size(), 1);
}

struct OneTx;

impl perihelion_state::BlockContents for OneTx {
    fn evidence(&self, _: i64) -> (Vec<perihelion_types::Evidence>, i64) {
        (Vec::new(), 0)
    }

    fn txs(&self, _: i64, _: i64) -> Vec<Bytes> {
        vec![Bytes::from_static(b"a=1")]
    }
}
