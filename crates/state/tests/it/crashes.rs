//! A crash at each point of applying a block, and applications that misbehave.
//!
//! A crash is a copy of the folder that is taken while the store is open: what was written without
//! a sync is still in a buffer of the process, and is not in the copy.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use perihelion_abci::{
    AppConnections, AppFault, Application, CallName, KvStore, KvStoreOptions, MemoryAppStore,
};
use perihelion_state::{
    AppColumn, Applied, ApplyError, CommitHold, Executor, ExecutorConfig, StartError,
    ValidationError,
};
use perihelion_store::{BlockSave, Store, StoreOptions, Sync};
use perihelion_test_support::copy_folder;
use perihelion_types::{Block, Height, State};

use crate::{
    apps::{Log, Recorded, Trouble, standalone},
    chain_file::Chain,
};

/// Where the application's state is.
#[derive(Clone)]
pub(crate) enum Home {
    /// With the application, durable at each Commit.
    External(Arc<MemoryAppStore>),
    /// With the block.
    BuiltIn,
    /// Nowhere.
    Volatile,
}

/// A running node without a network.
pub(crate) struct Node {
    pub(crate) store: Arc<Store>,
    pub(crate) executor: Executor,
    pub(crate) log: Arc<Mutex<Log>>,
}

pub(crate) fn open_store(folder: &Path) -> Arc<Store> {
    Arc::new(Store::open(folder, &StoreOptions::default()).unwrap())
}

pub(crate) fn start(
    folder: &Path,
    chain: &Chain,
    home: &Home,
    trouble: Trouble,
    config: ExecutorConfig,
) -> Result<Node, StartError> {
    let store = open_store(folder);
    let options = KvStoreOptions::default();
    let app: Arc<dyn Application> = match home {
        Home::External(disk) => standalone(disk, options),
        Home::BuiltIn => {
            let column = Arc::new(AppColumn::new(Arc::clone(&store)));
            Arc::new(KvStore::persistent(column, options).unwrap())
        }
        Home::Volatile => Arc::new(KvStore::in_memory(options)),
    };
    let (app, log) = Recorded::new(app, trouble);
    let app = AppConnections::in_process(app);
    let executor = Executor::start(
        Arc::clone(&store),
        &chain.genesis,
        app.consensus,
        &app.query,
        config,
    )?;
    Ok(Node {
        store,
        executor,
        log,
    })
}

impl Node {
    /// Applies blocks up to `height`.
    pub(crate) fn apply_to(&mut self, chain: &Chain, height: i64) -> Result<(), ApplyError> {
        let from = self.executor.state().next_height().get();
        for line in chain.blocks.iter().filter(|line| line.height >= from) {
            if line.height > height {
                break;
            }
            let block = line.certified(self.executor.state());
            self.executor.apply(&block)?;
        }
        Ok(())
    }
}

/// A node's folder as a power cut leaves it: what was not synced, or not even handed to the system,
/// is not there.
pub(crate) fn crashed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(folder, copy.path());
    copy
}

/// States of an undisturbed run, by height.
pub(crate) fn expected(chain: &Chain, height: i64) -> State {
    let folder = tempfile::tempdir().unwrap();
    let mut node = quiet(folder.path(), chain, &Home::BuiltIn);
    node.apply_to(chain, height).unwrap();
    node.executor.state().clone()
}

pub(crate) fn quiet(folder: &Path, chain: &Chain, home: &Home) -> Node {
    start(
        folder,
        chain,
        home,
        Trouble::None,
        ExecutorConfig::default(),
    )
    .unwrap()
}

pub(crate) fn external() -> Home {
    Home::External(Arc::new(MemoryAppStore::new()))
}

/// After a crash: starts again, goes on to the end, and no height was committed twice since the
/// application's state was last made.
pub(crate) fn resumes(
    folder: &Path,
    chain: &Chain,
    home: &Home,
    end: i64,
    committed_before: &[i64],
) {
    let mut node = quiet(folder, chain, home);
    node.apply_to(chain, end).unwrap();
    assert_eq!(node.executor.state(), &expected(chain, end));
    let log = node.log.lock().unwrap();
    for (height, times) in &log.commits {
        assert_eq!(*times, 1, "height {height} was committed {times} times");
        assert!(
            !committed_before.contains(height),
            "height {height} was committed again"
        );
    }
    for (request, _) in &log.finalized {
        assert!(
            !committed_before.contains(&request.height),
            "height {} was executed again",
            request.height
        );
    }
}

pub(crate) fn heights_to(chain: &Chain, height: i64) -> Vec<i64> {
    let all = chain.blocks.iter().map(|line| line.height);
    all.filter(|line| *line <= height).collect()
}

/// The application fails at `trouble`; the same folder, and a copy of it as a power cut would
/// leave it, both resume.
fn crash_and_resume(home: &Home, trouble: Trouble, at: i64, committed: i64) {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let mut node = start(
        folder.path(),
        &chain,
        home,
        trouble,
        ExecutorConfig::default(),
    )
    .unwrap();
    let error = node.apply_to(&chain, at + 5).unwrap_err();
    assert!(matches!(error, ApplyError::Application(_)), "{error}");
    assert_eq!(node.executor.state().last_block_height.get(), at - 1);
    let cut = crashed(folder.path());
    drop(node);
    let before = heights_to(&chain, committed);
    let disk = match home {
        Home::External(disk) => Some(disk.fork()),
        _ => None,
    };
    let again = disk.map_or(home.clone(), |disk| Home::External(Arc::new(disk)));
    resumes(folder.path(), &chain, home, at + 5, &before);
    let lost = match home {
        // Grouped syncs: a power cut may take blocks and application back together.
        Home::BuiltIn => Vec::new(),
        _ => before,
    };
    resumes(cut.path(), &chain, &again, at + 5, &lost);
}

#[test]
fn resumes_after_a_crash_in_finalize_block_of_an_external_application() {
    crash_and_resume(&external(), Trouble::PanicsFinalizing(8), 8, 7);
}

#[test]
fn resumes_after_a_crash_between_the_block_and_commit_of_an_external_application() {
    crash_and_resume(&external(), Trouble::PanicsCommitting(8), 8, 7);
}

#[test]
fn resumes_after_a_crash_between_commit_and_state_of_an_external_application() {
    crash_and_resume(&external(), Trouble::PanicsCommitted(8), 8, 8);
}

#[test]
fn resumes_after_a_crash_in_finalize_block_of_the_built_in_application() {
    crash_and_resume(&Home::BuiltIn, Trouble::PanicsFinalizing(8), 8, 7);
}

#[test]
fn resumes_after_a_crash_between_commit_and_state_of_the_built_in_application() {
    crash_and_resume(&Home::BuiltIn, Trouble::PanicsCommitted(8), 8, 7);
}

#[test]
fn resumes_at_the_first_height_too() {
    for trouble in [
        Trouble::PanicsFinalizing(1),
        Trouble::PanicsCommitting(1),
        Trouble::PanicsCommitted(1),
    ] {
        let committed = i64::from(trouble == Trouble::PanicsCommitted(1));
        crash_and_resume(&external(), trouble, 1, committed);
    }
}

#[test]
fn resumes_with_a_block_that_was_saved_and_not_executed() {
    let chain = Chain::load("chain_basic");
    for home in [external(), Home::BuiltIn] {
        let folder = tempfile::tempdir().unwrap();
        let mut node = quiet(folder.path(), &chain, &home);
        node.apply_to(&chain, 7).unwrap();
        let block = chain.blocks[7].certified(node.executor.state());
        let save = BlockSave {
            block: block.fetched(),
            commit: block.commit().map(Into::into),
            extended_commit: None,
            results: None,
        };
        node.store.save_block(&save, Sync::Yes).unwrap();
        drop(node);
        resumes(folder.path(), &chain, &home, 12, &heights_to(&chain, 7));
    }
}

#[test]
fn a_power_cut_takes_grouped_blocks_and_their_application_together() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let config = ExecutorConfig {
        sync_blocks: 10,
        sync_interval: std::time::Duration::from_secs(3600),
        ..ExecutorConfig::default()
    };
    let home = Home::BuiltIn;
    let mut node = start(folder.path(), &chain, &home, Trouble::None, config).unwrap();
    node.apply_to(&chain, 27).unwrap();
    let cut = crashed(folder.path());
    drop(node);
    let store = open_store(cut.path());
    let (blocks, state) = (store.height(), store.load_state().unwrap().unwrap());
    assert_eq!(blocks, state.last_block_height);
    assert_eq!(blocks.get(), 20, "the last group that was synced");
    drop(store);
    resumes(cut.path(), &chain, &home, 40, &heights_to(&chain, 20));
}

/// Catching up, what skips the log is lost as one until it is made durable, by time or at the end.
#[test]
fn a_crash_while_catching_up_takes_blocks_and_their_application_together() {
    let chain = Chain::load("chain_basic");
    let hour = std::time::Duration::from_secs(3600);
    let config = ExecutorConfig {
        sync_interval: hour,
        catch_up_interval: hour,
        ..ExecutorConfig::default()
    };
    for home in [Home::BuiltIn, Home::Volatile] {
        let folder = tempfile::tempdir().unwrap();
        let mut node = start(folder.path(), &chain, &home, Trouble::None, config.clone()).unwrap();
        let mut crashes = Vec::new();
        node.executor.begin_catch_up();
        node.apply_to(&chain, 9).unwrap();
        crashes.push((crashed(folder.path()), 0));
        assert!(node.executor.flush_deadline().is_some());
        node.executor.flush().unwrap();
        node.apply_to(&chain, 17).unwrap();
        crashes.push((crashed(folder.path()), 9));
        node.executor.end_catch_up().unwrap();
        crashes.push((crashed(folder.path()), 17));
        node.apply_to(&chain, 20).unwrap();
        node.executor.flush().unwrap();
        node.apply_to(&chain, 22).unwrap();
        crashes.push((crashed(folder.path()), 20));
        drop(node);
        for (cut, height) in crashes {
            let store = open_store(cut.path());
            let state = store.load_state().unwrap().unwrap();
            assert_eq!(store.height().get(), height);
            assert_eq!(state.last_block_height.get(), height);
            drop(store);
            // An application in memory executes all again, at the start.
            let kept = match home {
                Home::BuiltIn => height,
                _ => 0,
            };
            resumes(cut.path(), &chain, &home, 30, &heights_to(&chain, kept));
        }
    }
}

/// Who is stopped soon after each start gets on all the same.
#[test]
fn the_first_group_is_durable_while_catching_up_too() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let config = ExecutorConfig {
        sync_blocks: 10,
        sync_interval: hour,
        catch_up_interval: hour,
        ..ExecutorConfig::default()
    };
    let home = Home::BuiltIn;
    let mut node = start(folder.path(), &chain, &home, Trouble::None, config).unwrap();
    node.executor.begin_catch_up();
    node.apply_to(&chain, 27).unwrap();
    let cut = crashed(folder.path());
    drop(node);
    assert_eq!(open_store(cut.path()).height().get(), 10);
    resumes(cut.path(), &chain, &home, 40, &heights_to(&chain, 10));
}

/// An application that keeps its own state is never ahead of what a crash leaves.
#[test]
fn an_external_applications_blocks_are_durable_while_catching_up() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let mut node = quiet(folder.path(), &chain, &external());
    node.executor.begin_catch_up();
    node.apply_to(&chain, 9).unwrap();
    let cut = crashed(folder.path());
    drop(node);
    assert_eq!(open_store(cut.path()).height().get(), 9);
}

#[test]
fn flush_closes_a_group() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let mut node = quiet(folder.path(), &chain, &Home::BuiltIn);
    node.apply_to(&chain, 5).unwrap();
    node.executor.flush().unwrap();
    let cut = crashed(folder.path());
    drop(node);
    assert_eq!(open_store(cut.path()).height().get(), 5);
}

#[test]
fn an_external_applications_block_is_durable_before_it_commits() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let home = external();
    let trouble = Trouble::PanicsCommitting(9);
    let config = ExecutorConfig::default();
    let mut node = start(folder.path(), &chain, &home, trouble, config).unwrap();
    node.apply_to(&chain, 9).unwrap_err();
    let cut = crashed(folder.path());
    drop(node);
    let store = open_store(cut.path());
    assert_eq!(store.height().get(), 9);
    let height = Height::new(9);
    assert!(store.load_results(height).unwrap().is_some());
    assert!(store.load_seen_commit(height).unwrap().is_some());
}

#[test]
fn the_volatile_application_is_replayed_from_the_start() {
    let chain = Chain::load("chain_initial_height");
    let folder = tempfile::tempdir().unwrap();
    let mut node = quiet(folder.path(), &chain, &Home::Volatile);
    let last = chain.blocks[chain.blocks.len() / 2].height;
    node.apply_to(&chain, last).unwrap();
    let state = node.executor.state().clone();
    drop(node);
    let node = quiet(folder.path(), &chain, &Home::Volatile);
    assert_eq!(node.executor.state(), &state);
    let log = node.log.lock().unwrap();
    let replayed: Vec<i64> = log.commits.keys().copied().collect();
    assert_eq!(replayed, heights_to(&chain, last));
    // The requests of a replay are those of the first time.
    for ((request, _), line) in log.finalized.iter().zip(&chain.blocks) {
        let bytes = prost::Message::encode_to_vec(request);
        assert_eq!(hex::encode(bytes), hex::encode(&line.finalize_request.0));
    }
}

/// What a misbehaving application leaves: nothing of the block, and no further block is taken.
fn stops(trouble: Trouble, call: CallName, reason: impl Fn(&AppFault) -> bool) {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let home = Home::BuiltIn;
    let config = ExecutorConfig::default();
    let mut node = start(folder.path(), &chain, &home, trouble, config).unwrap();
    let ApplyError::Application(error) = node.apply_to(&chain, 9).unwrap_err() else {
        panic!("{trouble:?}: not the application's");
    };
    assert_eq!(error.call, call);
    assert_eq!(error.height, Some(Height::new(6)));
    assert!(reason(&error.reason), "{error}");
    assert_eq!(node.store.height().get(), 5);
    assert_eq!(node.executor.state(), &expected(&chain, 5));
    let again = node.apply_to(&chain, 9).unwrap_err();
    assert!(
        matches!(again, ApplyError::Stopped { stopped, .. } if stopped.get() == 6),
        "{again}"
    );
}

#[test]
fn a_panic_names_call_and_height_and_stores_nothing() {
    let panicked = |fault: &AppFault| matches!(fault, AppFault::Panicked(_));
    stops(
        Trouble::PanicsFinalizing(6),
        CallName::FinalizeBlock,
        panicked,
    );
    stops(Trouble::PanicsCommitting(6), CallName::Commit, panicked);
}

#[test]
fn a_contradicting_answer_names_call_and_height_and_stores_nothing() {
    let against = |fault: &AppFault| matches!(fault, AppFault::Contradiction(_));
    stops(
        Trouble::MiscountsResults(6),
        CallName::FinalizeBlock,
        against,
    );
    stops(Trouble::NegativePower(6), CallName::FinalizeBlock, against);
}

#[test]
fn another_app_hash_is_a_local_fault_of_the_next_block_that_names_both() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let trouble = Trouble::OtherHash(6);
    let config = ExecutorConfig::default();
    let mut node = start(folder.path(), &chain, &Home::BuiltIn, trouble, config).unwrap();
    let error = node.apply_to(&chain, 9).unwrap_err();
    let text = error.to_string();
    let ApplyError::LocalFault { height, fault, .. } = error else {
        panic!("{text}");
    };
    assert_eq!(height.get(), 7);
    let ValidationError::AppHash { expected, got } = *fault else {
        panic!("{text}");
    };
    assert_ne!(expected, got);
    assert!(text.contains(&format!("{expected:X}")), "{text}");
    assert!(text.contains(&format!("{got:X}")), "{text}");
    assert_eq!(node.store.height().get(), 6);
}

/// What it saw when it was made, and what it was told.
struct Held {
    at_lock: (usize, usize),
    told: Option<(Height, Arc<State>)>,
}

impl CommitHold for Held {
    fn applied(
        &mut self,
        block: &Block,
        applied: &Applied,
        state: &Arc<State>,
    ) -> Result<(), ApplyError> {
        assert_eq!(block.header.height, applied.height);
        self.told = Some((applied.height, Arc::clone(state)));
        Ok(())
    }
}

/// Between execution and commit a lock is taken, and given back with the codes of the transactions.
#[test]
fn a_lock_is_taken_right_before_the_commit() {
    let chain = Chain::load("chain_params");
    let folder = tempfile::tempdir().unwrap();
    let config = ExecutorConfig::default();
    let app: Arc<dyn Application> = Arc::new(perihelion_testkit::ParamsApp::new());
    let (recorded, log) = Recorded::new(app, Trouble::None);
    let connections = AppConnections::in_process(recorded);
    let store = open_store(folder.path());
    let (consensus, query) = (connections.consensus, connections.query);
    let mut executor = Executor::start(store, &chain.genesis, consensus, &query, config).unwrap();
    let mut failed = 0;
    for line in &chain.blocks {
        let seen = || {
            let log = log.lock().unwrap();
            let commits: usize = log.commits.values().sum();
            (log.finalized.len(), commits)
        };
        let before = seen();
        let block = line.certified(executor.state());
        let hold = || Held {
            at_lock: seen(),
            told: None,
        };
        let (applied, held) = executor.apply_locked(&block, hold).unwrap();
        assert_eq!(held.at_lock, (before.0 + 1, before.1));
        assert_eq!(seen(), (before.0 + 1, before.1 + 1));
        assert_eq!(held.told, Some((block.height(), executor.state_arc())));
        let response = log.lock().unwrap().finalized.last().unwrap().1.clone();
        let codes: Vec<u32> = response.tx_results.iter().map(|tx| tx.code).collect();
        assert_eq!(applied.tx_codes, codes);
        assert_eq!(applied.num_txs, codes.len());
        failed += applied.failed_txs;
    }
    assert!(failed > 0, "codes other than 0 were seen");
}
