//! The executor goes to consensus and comes back, with a real application and store.

use std::{collections::BTreeSet, ffi::OsString, path::Path, sync::Arc};

use perihelion_certify::CertifiedBlock;
use perihelion_pool::{Command, ConnectionId, Handover, LastCommitKnown, PoolInput};
use perihelion_schedule::{Mode, ModeReason};
use perihelion_state::Executor;
use perihelion_store::{Store, StoreOptions};
use perihelion_test_support::copy_folder;
use perihelion_types::{Block, FetchedBlock, Height};

use crate::util::{Line, Pool, block, chain, peer, soon};

const FIRST: ConnectionId = ConnectionId(1);

/// Applies the next block as consensus does: with the commit that it has itself.
fn decide(executor: &mut Executor, chain: &[Line]) {
    let next = executor.state().next_height();
    let above = Block::decode(block(chain, next.next())).unwrap();
    let fetched = Arc::new(FetchedBlock::decode(block(chain, next), None).unwrap());
    let state = executor.state();
    let (set, id) = (Arc::clone(&state.validators), state.chain_id.clone());
    let decided = CertifiedBlock::decided(fetched, above.last_commit.unwrap(), &set, &id).unwrap();
    executor.apply(&decided).unwrap();
}

/// Answers requests and statuses until something is handed over; the heights that were asked go to
/// `asked`. Blocks above `top` are not there.
async fn next_handover(
    pool: &mut Pool,
    chain: &[Line],
    top: i64,
    asked: &mut Vec<Height>,
) -> Handover {
    soon("a hand-over", async {
        loop {
            tokio::select! {
                biased;
                handover = pool.handle.handover.recv() => {
                    return handover.expect("the pool runs");
                }
                command = pool.handle.commands.recv() => {
                    let command = command.expect("the pool runs");
                    if let Command::Request { height, .. } = command {
                        asked.push(height);
                    }
                    pool.answer(chain, top, command);
                }
            }
        }
    })
    .await
}

/// The tables that are on the disk.
fn table_files(home: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(home.join("perihelion/db")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| Path::new(name).extension() == Some("sst".as_ref()))
        .collect()
}

async fn entered(pool: &mut Pool, chain: &[Line], top: i64) -> Box<Executor> {
    loop {
        match next_handover(pool, chain, top, &mut Vec::new()).await {
            Handover::CaughtUp(executor) => break executor,
            // Found before the executor was back.
            Handover::Pinned(_) => {}
            behind @ Handover::FallenBehind { .. } => panic!("{behind:?}"),
        }
    }
}

/// Until the node is told to be behind; what was final before that is told first, in order.
async fn fell_behind(pool: &mut Pool, chain: &[Line], top: i64, asked: &mut Vec<Height>) -> Height {
    let mut last = Height::ZERO;
    loop {
        match next_handover(pool, chain, top, asked).await {
            Handover::Pinned(height) => {
                assert!(height > last, "{height} after {last}");
                last = height;
            }
            Handover::FallenBehind { pinned } => {
                assert_eq!(pinned, last, "each final height was told before");
                return pinned;
            }
            Handover::CaughtUp(_) => panic!("consensus has the executor"),
        }
    }
}

/// Rule: caught up, the executor goes to consensus; consensus decides; final blocks that it lacks bring
/// it back, and are applied without being fetched again; and all of it again.
#[tokio::test]
async fn the_executor_goes_to_consensus_and_back_any_number_of_times() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    let mut top = 5;
    pool.add(peer(1), FIRST, top);
    let mut executor = entered(&mut pool, &chain, top).await;
    for round in 0..3 {
        let height = executor.state().last_block_height;
        assert_eq!(height, Height::new(top - 1), "round {round}");
        assert_eq!(pool.store.height(), height);
        let commit = pool.store.load_seen_commit(height).unwrap();
        assert_eq!(commit.map(|commit| commit.height), Some(height));
        let crash = tempfile::tempdir().unwrap();
        copy_folder(home.path(), crash.path());
        let left = Store::open(crash.path(), &StoreOptions::default()).unwrap();
        assert_eq!(left.height(), height, "durable before consensus has it");
        drop(left);
        let tables = table_files(home.path());
        assert!(!tables.is_empty(), "written out, for the log was skipped");

        decide(&mut executor, &chain);
        decide(&mut executor, &chain);
        pool.store.sync().unwrap();
        if round == 0 {
            // Later there may be enough of them to be put together.
            assert_eq!(table_files(home.path()), tables, "consensus uses the log");
        }
        pool.tell(PoolInput::Decided(executor.state_arc()));
        let applied = executor.state().last_block_height;
        let mut asked = Vec::new();
        top += 7;
        // It would be asked for by and by.
        pool.claim(peer(1), top);
        let pinned = fell_behind(&mut pool, &chain, top, &mut asked).await;
        assert!(pinned >= applied.plus(3), "{pinned} above {applied}");
        assert_eq!(pool.store.height(), applied, "nothing is applied meanwhile");
        // What consensus was at is applied before the executor comes back.
        decide(&mut executor, &chain);
        pool.tell(PoolInput::Executor(executor));
        let mut again = Vec::new();
        executor = loop {
            match next_handover(&mut pool, &chain, top, &mut again).await {
                Handover::CaughtUp(back) => break back,
                // Found before the executor was back.
                Handover::Pinned(height) => assert!(height > pinned),
                behind @ Handover::FallenBehind { .. } => panic!("{behind:?}"),
            }
        };
        again.retain(|&height| height <= pinned);
        assert_eq!(again, [], "what is final is not fetched again");
    }
    let told = pool.progress_in(Mode::Consensus).await;
    let height = executor.state().last_block_height;
    assert_eq!(told.why, ModeReason::CaughtUp { height });
    assert_eq!((told.height, told.switches), (height, 8));
    // It comes back unasked; with nothing to do it goes again.
    pool.tell(PoolInput::Executor(executor));
    let _executor = entered(&mut pool, &chain, top).await;
    let exit = pool.stop().await;
    assert!(exit.executor.is_none() && exit.error.is_none());
}

/// Rule: a crash at any moment of the switch leaves a store from which the node goes on.
#[tokio::test]
async fn a_crash_in_the_middle_of_the_switch_loses_nothing() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut top = 5;
    for moment in 0..3 {
        let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
        let before = pool.store.height();
        pool.add(peer(1), FIRST, top);
        let mut executor = entered(&mut pool, &chain, top).await;
        assert!(executor.state().last_block_height >= before);
        if moment > 0 {
            decide(&mut executor, &chain);
            top += 7;
            pool.claim(peer(1), top);
            // Told, or not yet told when it happens.
            if moment > 1 {
                pool.tell(PoolInput::Decided(executor.state_arc()));
            }
            fell_behind(&mut pool, &chain, top, &mut Vec::new()).await;
        }
        let height = executor.state().last_block_height;
        assert_eq!(pool.store.height(), height);
        drop(executor);
        let exit = pool.stop().await;
        assert!(exit.executor.is_none(), "consensus had it");
    }
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    pool.add(peer(1), FIRST, top);
    let executor = entered(&mut pool, &chain, top).await;
    assert_eq!(executor.state().last_block_height, Height::new(top - 1));
    drop(executor);
    drop(pool);
}

/// Rule: whoever gets the executor, or is to give it back, finds the mode told already.
#[tokio::test]
async fn the_mode_is_told_before_the_executor_goes() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    pool.add(peer(1), FIRST, 5);
    for top in [12, 19, 26] {
        let executor = entered(&mut pool, &chain, top - 7).await;
        let told = pool.handle.progress.borrow().clone();
        assert_eq!((told.mode, told.is_catching_up()), (Mode::Consensus, false));
        pool.claim(peer(1), top);
        fell_behind(&mut pool, &chain, top, &mut Vec::new()).await;
        let told = pool.handle.progress.borrow().clone();
        assert_eq!((told.mode, told.is_catching_up()), (Mode::BlockSync, true));
        pool.tell(PoolInput::Executor(executor));
        // More than this peer has shown until now is asked for by and by.
    }
    assert!(pool.stop().await.error.is_none());
}

/// An executor that consensus gave back a moment before the pool stops is not lost either.
#[tokio::test]
async fn an_executor_on_its_way_back_is_not_lost() {
    let chain = chain();
    let home = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    pool.add(peer(1), FIRST, 5);
    let executor = entered(&mut pool, &chain, 5).await;
    pool.tell(PoolInput::Executor(executor));
    let exit = pool.stop().await;
    assert!(exit.error.is_none());
    let executor = exit.executor.expect("it was given back");
    assert_eq!(executor.state().last_block_height, Height::new(4));
}

/// An executor that nobody has taken yet is given back when the pool stops, or waits to be taken.
#[tokio::test]
async fn an_executor_on_its_way_is_not_lost() {
    let home = tempfile::tempdir().unwrap();
    let chain = chain();
    let mut pool = Pool::start(home.path(), LastCommitKnown::Verified);
    pool.add(peer(1), FIRST, 5);
    let mut progress = pool.handle.progress.clone();
    // Everything is answered, and the executor is not taken.
    while progress.borrow_and_update().mode != Mode::Consensus {
        if let Some(command) = pool.command_or(&mut progress).await {
            pool.answer(&chain, 5, command);
        }
    }
    let (exit, left) = pool.stop_and_drain().await;
    assert!(exit.error.is_none());
    let waiting = left.into_iter().find_map(|handover| match handover {
        Handover::CaughtUp(executor) => Some(*executor),
        Handover::Pinned(_) | Handover::FallenBehind { .. } => None,
    });
    let executor = exit.executor.or(waiting).expect("it is somewhere");
    assert_eq!(executor.state().last_block_height, Height::new(4));
}
