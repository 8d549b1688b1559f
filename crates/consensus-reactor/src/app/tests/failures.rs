//! An application that fails ends the thread, which says why.

use std::sync::mpsc;

use perihelion_abci::{AppFault, CallName};
use perihelion_consensus::{Ask, RequestId};
use perihelion_state::ApplyError;
use perihelion_types::Round;

use super::chain::{App, Call, Chain, Running, Setup, fetched};
use crate::app::AppEnded;

fn is_over(running: Running, chain: &Chain, height: i64, call: CallName) -> AppFault {
    let ApplyError::Application(error) = running.failure() else {
        panic!("not the application's");
    };
    assert_eq!(error.call, call);
    if call != CallName::CheckTx {
        assert_eq!(error.height.unwrap().get(), height);
    }
    // Nothing more is answered.
    running.thread.ask(RequestId::new(99), chain.wants_block());
    assert!(running.reports.recv().is_err());
    assert_eq!(running.thread.end().unwrap_err(), AppEnded);
    error.reason
}

#[test]
fn a_failure_in_each_call_is_told_with_call_and_height() {
    type Fails = fn(&Call<'_>) -> bool;
    let calls: [(CallName, Fails); 3] = [
        (CallName::PrepareProposal, |call| {
            matches!(call, Call::Prepare(_))
        }),
        (
            CallName::FinalizeBlock,
            |call| matches!(call, Call::Finalize(request) if request.height == 1),
        ),
        (CallName::Commit, |call| matches!(call, Call::Commit)),
    ];
    for (name, fails) in calls {
        let app = App::hooked(move |call| fails(call).then(|| AppFault::failed("no idea")));
        let (mut chain, mut running) = Chain::start(Setup::of(app));
        if name == CallName::PrepareProposal {
            running.thread.ask(RequestId::new(1), chain.wants_block());
        } else {
            let block = running.make(&chain);
            let decided = chain.decide(&block);
            running.thread.commit(&decided).unwrap();
            running.thread.apply(RequestId::new(2), decided);
        }
        let reason = is_over(running, &chain, 1, name);
        assert_eq!(reason, AppFault::failed("no idea"));
    }
}

#[test]
fn a_panic_is_a_failure_too() {
    let app = App::hooked(|call| match call {
        Call::Prepare(_) => panic!("out of ideas"),
        _ => None,
    });
    let (chain, running) = Chain::start(Setup::of(app));
    running.thread.ask(RequestId::new(1), chain.wants_block());
    let reason = is_over(running, &chain, 1, CallName::PrepareProposal);
    assert!(matches!(reason, AppFault::Panicked(_)), "{reason}");
}

/// Whatever goes wrong in the thread that nobody thought of: nobody waits for it any more.
#[test]
fn a_panic_of_the_thread_itself_leaves_nobody_waiting() {
    let (chain, executor) = Chain::new(Setup::of(App::hooked(|_| None)));
    let (sender, reports) = mpsc::channel();
    let report = move |_| {
        let _kept_until_the_end = &sender;
        panic!("what cannot be");
    };
    let running = chain.run_reporting(executor, report, reports);
    running.thread.ask(RequestId::new(1), chain.wants_block());
    assert!(running.reports.recv().is_err());
    assert_eq!(running.thread.end().unwrap_err(), AppEnded);
}

#[test]
fn too_many_bytes_and_a_self_contradiction_end_it() {
    let app = App {
        prepared: Some(vec![vec![1; 30 << 20].into()]),
        ..App::new()
    };
    let (chain, running) = Chain::start(Setup::of(app));
    running.thread.ask(RequestId::new(1), chain.wants_block());
    let reason = is_over(running, &chain, 1, CallName::PrepareProposal);
    assert!(matches!(reason, AppFault::Contradiction(_)), "{reason}");

    let app = App {
        extension: b"mine".as_slice().into(),
        accepts_extension: |_| false,
        ..App::new()
    };
    let (chain, mut running) = Chain::start(Setup::of(app));
    let block = fetched(&running.make(&chain));
    let ask = Ask::ExtendVote {
        block,
        round: Round::ZERO,
        validator: chain.state.validators.validators()[0].address,
    };
    running.thread.ask(RequestId::new(2), ask);
    let reason = is_over(running, &chain, 1, CallName::ExtendVote);
    assert!(matches!(reason, AppFault::Contradiction(_)), "{reason}");
}

#[test]
fn a_failed_thread_stores_nothing_and_says_so_to_who_waits() {
    let app =
        App::hooked(|call| matches!(call, Call::Finalize(_)).then(|| AppFault::failed("no idea")));
    let (mut chain, mut running) = Chain::start(Setup::of(app));
    let block = running.make(&chain);
    let decided = chain.decide(&block);
    running.thread.commit(&decided).unwrap();
    running.thread.apply(RequestId::new(2), decided.clone());
    running.failure();
    assert_eq!(running.thread.commit(&decided), Err(AppEnded));
}

#[test]
fn a_block_that_cannot_be_stored_is_told_to_who_waits() {
    let (mut chain, mut running) = Chain::start(Setup::of(App::new()));
    let block = running.make(&chain);
    let decided = chain.decide(&block);
    running.apply(&mut chain, &decided);
    assert_eq!(running.thread.commit(&decided), Err(AppEnded));
    let error = running.failure();
    assert!(matches!(error, ApplyError::LocalFault { .. }), "{error}");
}

/// What is left in the mempool is checked again after the answer.
#[test]
fn a_failure_of_checking_again_ends_it_after_the_block_is_applied() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let fails = Arc::new(AtomicBool::new(false));
    let is_failing = Arc::clone(&fails);
    let app = App::hooked(move |call| {
        let fails = matches!(call, Call::Check(_)) && is_failing.load(Ordering::Relaxed);
        fails.then(|| AppFault::failed("no idea"))
    });
    let (mut chain, mut running) = Chain::start(Setup::of(app));
    let block = running.make(&chain);
    chain.send("a=1");
    fails.store(true, Ordering::Relaxed);
    let decided = chain.decide(&block);
    running.apply(&mut chain, &decided);
    let reason = is_over(running, &chain, 1, CallName::CheckTx);
    assert_eq!(reason, AppFault::failed("no idea"));
}
