//! Many blocks in a row for an application that keeps its own state: what is stored while it
//! executes, and what a power cut leaves of that.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use perihelion_abci::{KvStore, KvStoreOptions, MemoryAppStore};
use perihelion_state::Executor;
use perihelion_types::Height;

use crate::{
    apps::{Hooked, Task},
    chain_file::Chain,
    crashes::{Home, Node, crashed, expected, open_store, quiet},
    remote::{PATIENCE, TRANSPORTS, connect, serve, start},
};

fn apply_in_a_row(executor: &mut Executor, chain: &Chain, height: i64) {
    let from = executor.state().next_height().get();
    let line_at = |at: i64| chain.blocks.iter().find(|line| line.height == at).unwrap();
    for at in from..=height {
        let block = line_at(at).certified(executor.state());
        let mut above = executor.state().clone();
        above.validators = Arc::clone(&above.next_validators);
        let following = (at < height).then(|| line_at(at + 1).certified(&above));
        let applied = executor
            .apply_unsettled(&block, following.as_ref())
            .unwrap();
        assert_eq!(applied.height.get(), at);
        assert_eq!(executor.has_begun(), following.is_some());
    }
}

/// The log, which is the only one.
fn log_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("perihelion/db")).unwrap();
    let mut logs = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"));
    let log = logs.next().unwrap();
    assert_eq!(logs.next(), None);
    log
}

fn external(disk: &MemoryAppStore) -> Home {
    Home::External(Arc::new(disk.fork()))
}

/// Commit is held until block and response are durable, and a block goes to the log behind the state
/// of the one below: wherever the log ends, and however far the application was by then, the next
/// start brings both to one height.
#[test]
fn wherever_the_log_ends_the_next_start_goes_on() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(MemoryAppStore::new());
    let mut node = quiet(folder.path(), &chain, &Home::External(Arc::clone(&disk)));
    let mut apps = vec![disk.fork()];
    for height in 1..=6 {
        apply_in_a_row(&mut node.executor, &chain, height);
        apps.push(disk.fork());
    }
    node.store.sync().unwrap();
    let whole = crashed(folder.path());
    drop(node);
    let length = fs::metadata(log_file(whole.path())).unwrap().len();
    let end = expected(&chain, 8);
    let mut seen = BTreeSet::new();
    for cut in (0..=24).map(|part| length * part / 24) {
        let copy = crashed(whole.path());
        let file = fs::File::options()
            .write(true)
            .open(log_file(copy.path()))
            .unwrap();
        file.set_len(cut).unwrap();
        let store = open_store(copy.path());
        let (block, state) = (store.height(), store.state_height());
        assert!(block == state || block == state.next(), "{block} {state}");
        let is_executed = store.load_results(block).unwrap().is_some();
        seen.insert((block.since(state), is_executed));
        drop(store);
        let committed = if is_executed { block } else { state };
        for height in [state, committed] {
            let app = &apps[usize::try_from(height.get()).unwrap()];
            let copy = crashed(copy.path());
            let Node { mut executor, .. } = quiet(copy.path(), &chain, &external(app));
            apply_in_a_row(&mut executor, &chain, 8);
            assert_eq!(
                executor.state(),
                &end,
                "cut at {cut}, application at {height}"
            );
        }
    }
    let all = BTreeSet::from([(0, false), (0, true), (1, false), (1, true)]);
    assert_eq!(seen, all, "every kind of end was met");
}

#[test]
fn what_is_left_of_the_last_block_is_done_when_asked_for() {
    let chain = Chain::load("chain_basic");
    let finish: [fn(&mut Executor); 4] = [
        |executor| executor.settle().unwrap(),
        |executor| executor.flush().unwrap(),
        |executor| executor.end_catch_up().unwrap(),
        |_| (),
    ];
    for (index, finish) in finish.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let home = external(&MemoryAppStore::new());
        let mut node = quiet(folder.path(), &chain, &home);
        apply_in_a_row(&mut node.executor, &chain, 5);
        let heights = || (node.store.height().get(), node.store.state_height().get());
        assert_eq!(heights(), (5, 4));
        assert_eq!(node.executor.state(), &expected(&chain, 5));
        finish(&mut node.executor);
        if index == 3 {
            drop(node.executor);
        }
        assert_eq!(
            (node.store.height().get(), node.store.state_height().get()),
            (5, 5),
            "{index}"
        );
    }
}

#[test]
fn the_node_stores_what_it_has_while_the_application_executes() {
    let chain = Chain::load("chain_basic");
    for transport in TRANSPORTS {
        let folder = tempfile::tempdir().unwrap();
        let store = open_store(folder.path());
        let seen = Arc::clone(&store);
        let app = Arc::new(KvStore::in_memory(KvStoreOptions::default()));
        // It executes a block only once the node has stored that block and the state below it.
        let patient = Hooked::new(app, move |task| {
            let Task::Execute(height) = task else { return };
            let (height, since) = (Height::new(height), Instant::now());
            while seen.height() < height || seen.state_height() < height.prev() {
                assert!(since.elapsed() < PATIENCE, "the node waits for the answer");
                thread::yield_now();
            }
        });
        let server = serve(transport, patient);
        let app = connect(&server, transport);
        let mut executor = start(&store, &chain, &app).unwrap();
        apply_in_a_row(&mut executor, &chain, 5);
        assert_eq!(executor.state(), &expected(&chain, 5));
    }
}
