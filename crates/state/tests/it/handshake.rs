//! State and application at different heights.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use perihelion_abci::{
    AppConnections, Application, KvStoreOptions, MemoryAppStore, Noop,
    types::{RequestCommit, RequestFinalizeBlock},
};
use perihelion_state::{Executor, ExecutorConfig, ReplayProgress, StartError};
use perihelion_types::Height;

use crate::{
    apps::{Trouble, standalone},
    chain_file::Chain,
    crashes::{Home, Node, open_store, start},
};

fn quiet(folder: &std::path::Path, chain: &Chain, home: &Home) -> Result<Node, StartError> {
    start(
        folder,
        chain,
        home,
        Trouble::None,
        ExecutorConfig::default(),
    )
}

/// A node with its first `height` blocks applied, closed; and its application's disk after `app`
/// of them.
fn prepared(chain: &Chain, height: i64, app: i64) -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(MemoryAppStore::new());
    let home = Home::External(Arc::clone(&disk));
    let mut node = quiet(folder.path(), chain, &home).unwrap();
    node.apply_to(chain, app.min(height)).unwrap();
    let behind = disk.fork();
    node.apply_to(chain, height).unwrap();
    node.executor.flush().unwrap();
    (folder, Home::External(Arc::new(behind)))
}

#[test]
fn an_application_behind_gets_the_blocks_that_it_lacks_and_no_other() {
    let chain = Chain::load("chain_basic");
    let (folder, home) = prepared(&chain, 30, 12);
    let mut node = quiet(folder.path(), &chain, &home).unwrap();
    {
        let log = node.log.lock().unwrap();
        let replayed: Vec<i64> = log.commits.keys().copied().collect();
        assert_eq!(replayed, (13..=30).collect::<Vec<_>>());
        assert!(log.init_chains.is_empty());
        for (request, response) in &log.finalized {
            let line = &chain.blocks[usize::try_from(request.height).unwrap() - 1];
            let bytes = prost::Message::encode_to_vec(request);
            assert_eq!(hex::encode(bytes), hex::encode(&line.finalize_request.0));
            assert_eq!(response.app_hash[..], line.app_hash_after[..]);
        }
    }
    node.apply_to(&chain, 40).unwrap();
    assert_eq!(
        node.executor.state().app_hash[..],
        chain.blocks[39].app_hash_after[..]
    );
}

#[test]
fn a_new_application_begins_with_init_chain() {
    let chain = Chain::load("chain_basic");
    let (folder, _) = prepared(&chain, 20, 20);
    let fresh = Home::External(Arc::new(MemoryAppStore::new()));
    let node = quiet(folder.path(), &chain, &fresh).unwrap();
    let log = node.log.lock().unwrap();
    assert_eq!(log.init_chains.len(), 1);
    assert_eq!(log.commits.len(), 20);
    assert_eq!(node.executor.state().last_block_height.get(), 20);
}

#[test]
fn a_level_application_executes_nothing() {
    let chain = Chain::load("chain_basic");
    let (folder, home) = prepared(&chain, 20, 20);
    let node = quiet(folder.path(), &chain, &home).unwrap();
    let log = node.log.lock().unwrap();
    assert!(log.finalized.is_empty() && log.init_chains.is_empty());
}

#[test]
fn an_application_ahead_of_the_store_is_refused_with_heights_and_hashes() {
    let chain = Chain::load("chain_basic");
    let (_far, home) = prepared(&chain, 20, 20);
    let (folder, _) = prepared(&chain, 10, 10);
    let Err(error) = quiet(folder.path(), &chain, &home) else {
        panic!("it started");
    };
    let text = error.to_string();
    let StartError::AppAhead {
        app,
        app_hash,
        store,
        state,
        state_hash,
    } = error
    else {
        panic!("{text}");
    };
    assert_eq!((app.get(), store.get(), state.get()), (20, 10, 10));
    assert_eq!(app_hash[..], chain.blocks[19].app_hash_after[..]);
    assert_eq!(state_hash[..], chain.blocks[9].app_hash_after[..]);
    for part in [format!("{app_hash:X}"), format!("{state_hash:X}")] {
        assert!(text.contains(&part), "{text}");
    }
}

#[test]
fn an_application_with_another_hash_at_the_same_height_is_refused() {
    let chain = Chain::load("chain_basic");
    let (folder, _) = prepared(&chain, 20, 20);
    let disk = Arc::new(MemoryAppStore::new());
    let other = standalone(&disk, KvStoreOptions::default());
    for height in 1..=20 {
        let request = RequestFinalizeBlock {
            height,
            ..RequestFinalizeBlock::default()
        };
        other.finalize_block(&request).unwrap();
        other.commit(&RequestCommit {}).unwrap();
    }
    let Err(error) = quiet(folder.path(), &chain, &Home::External(disk)) else {
        panic!("it started");
    };
    assert!(
        matches!(&error, StartError::AppHash { height, .. } if height.get() == 20),
        "{error}"
    );
}

#[test]
fn an_application_that_diverges_while_replaying_is_refused() {
    let chain = Chain::load("chain_basic");
    let (folder, home) = prepared(&chain, 20, 5);
    let config = ExecutorConfig::default();
    let Err(error) = start(folder.path(), &chain, &home, Trouble::OtherHash(9), config) else {
        panic!("it started");
    };
    assert!(
        matches!(&error, StartError::AppHash { height, .. } if height.get() == 9),
        "{error}"
    );
}

#[test]
fn pruning_follows_the_application_and_leaves_no_way_back_for_an_empty_one() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let options = KvStoreOptions {
        retain_blocks: 10,
        ..KvStoreOptions::default()
    };
    let disk = Arc::new(MemoryAppStore::new());
    let app = AppConnections::in_process(standalone(&disk, options));
    let indexer = perihelion_store::Indexer::start(Arc::clone(&store)).unwrap();
    let config = ExecutorConfig {
        sync_interval: Duration::ZERO,
        ..ExecutorConfig::default()
    };
    let executor = Executor::start(
        Arc::clone(&store),
        &chain.genesis,
        app.consensus,
        &app.query,
        config,
    );
    let mut node = Node {
        store: Arc::clone(&store),
        executor: executor.unwrap(),
        log: Arc::default(),
    };
    node.apply_to(&chain, 40).unwrap();
    let base = store.base();
    assert!(base.get() > 1 && base.get() <= 31, "base {base}");
    assert!(store.load_block(base.prev()).unwrap().is_none());
    assert!(store.load_block(Height::new(31)).unwrap().is_some());
    drop((node, indexer, store));
    let fresh = Home::External(Arc::new(MemoryAppStore::new()));
    let Err(error) = quiet(folder.path(), &chain, &fresh) else {
        panic!("it started");
    };
    assert!(
        matches!(&error, StartError::AppTooFarBehind { app, base: first, .. }
            if app.get() == 0 && *first == base),
        "{error}"
    );
}

#[test]
fn replaying_reports_and_can_be_stopped() {
    let chain = Chain::load("chain_basic");
    let (folder, home) = prepared(&chain, 20, 5);
    let Home::External(disk) = home else {
        panic!("prepared otherwise");
    };
    let app = AppConnections::in_process(standalone(&disk, KvStoreOptions::default()));
    let mut seen: Vec<ReplayProgress> = Vec::new();
    let stopped = Executor::start_reporting(
        open_store(folder.path()),
        &chain.genesis,
        app.consensus,
        &app.query,
        ExecutorConfig::default(),
        |progress| {
            seen.push(progress);
            if progress.height.get() == 9 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    );
    assert!(matches!(
        stopped.err(),
        Some(StartError::Interrupted { height }) if height.get() == 9
    ));
    let heights: Vec<i64> = seen.iter().map(|progress| progress.height.get()).collect();
    assert_eq!(heights, [6, 7, 8, 9]);
    assert!(
        seen.iter()
            .all(|p| p.first.get() == 6 && p.target.get() == 20)
    );
}

#[test]
fn data_of_another_chain_and_of_another_application_are_refused() {
    let chain = Chain::load("chain_basic");
    let (folder, home) = prepared(&chain, 5, 5);
    let mut other = Chain::load("chain_basic");
    other.genesis.chain_id = "other".to_owned();
    let Err(error) = quiet(folder.path(), &other, &home) else {
        panic!("it started");
    };
    assert!(matches!(error, StartError::OtherChain { .. }), "{error}");

    let app = AppConnections::in_process(Arc::new(Noop));
    let store = open_store(folder.path());
    let config = ExecutorConfig::default();
    let noop = Executor::start(store, &chain.genesis, app.consensus, &app.query, config);
    assert!(matches!(noop.err(), Some(StartError::AppHash { .. })));
}

#[test]
fn somebody_must_validate() {
    let mut chain = Chain::load("chain_basic");
    chain.genesis.validators.clear();
    let folder = tempfile::tempdir().unwrap();
    let home = Home::External(Arc::new(MemoryAppStore::new()));
    let Err(error) = quiet(folder.path(), &chain, &home) else {
        panic!("it started");
    };
    assert!(matches!(error, StartError::NoValidators), "{error}");
}
