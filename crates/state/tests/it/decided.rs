//! Blocks that consensus decides: stored with their commit before they are executed, and crashes
//! around that.

use std::sync::{Arc, Mutex};

use perihelion_abci::MemoryAppStore;
use perihelion_events::{EventBus, EventData, Query};
use perihelion_state::{Applied, ApplyError, CommitHold, ExecutorConfig, Follower};
use perihelion_types::{Block, Height, State};

use crate::{
    apps::Trouble,
    chain_file::Chain,
    crashes::{
        Home, Node, crashed, expected, external, heights_to, open_store, quiet, resumes, start,
    },
};

const LAST: i64 = 14;

impl Node {
    /// Stores the next block as consensus does.
    fn decide(&mut self, chain: &Chain) -> Result<perihelion_certify::CertifiedBlock, ApplyError> {
        let height = self.executor.state().next_height().get();
        let line = chain.blocks.iter().find(|line| line.height == height);
        let block = line.unwrap().certified(self.executor.state());
        self.executor.store_decided(&block)?;
        Ok(block)
    }

    /// Decides and applies blocks up to `height`.
    fn decide_to(&mut self, chain: &Chain, height: i64) -> Result<(), ApplyError> {
        while self.executor.state().next_height().get() <= height {
            let block = self.decide(chain)?;
            let applied = self.executor.apply(&block)?;
            assert!(applied.synced, "the block of a decided height is durable");
        }
        Ok(())
    }
}

fn fork(home: &Home) -> Home {
    match home {
        Home::External(disk) => Home::External(Arc::new(disk.fork())),
        other => other.clone(),
    }
}

fn homes() -> [Home; 3] {
    [external(), Home::BuiltIn, Home::Volatile]
}

/// Heights that were executed for good before a crash of a node that had applied up to `height`.
fn kept(home: &Home, chain: &Chain, height: i64) -> Vec<i64> {
    match home {
        Home::Volatile => Vec::new(),
        _ => heights_to(chain, height),
    }
}

#[test]
fn decided_blocks_lead_to_the_same_state() {
    for name in ["chain_basic", "chain_extensions", "chain_initial_height"] {
        let chain = Chain::load(name);
        let last = chain.blocks.last().unwrap().height;
        for home in homes() {
            let folder = tempfile::tempdir().unwrap();
            let mut node = quiet(folder.path(), &chain, &home);
            node.decide_to(&chain, last).unwrap();
            let expected = expected(&chain, last);
            assert_eq!(node.executor.state(), &expected, "{name}");
            assert_eq!(node.store.load_state().unwrap().unwrap(), expected);
            for line in &chain.blocks {
                let results = node.store.load_results(Height::new(line.height)).unwrap();
                assert_eq!(results.unwrap()[..], line.finalize_response[..], "{name}");
            }
            drop(node);
            // Nothing is left to be replayed.
            let node = quiet(folder.path(), &chain, &home);
            assert_eq!(node.executor.state(), &expected, "{name}");
        }
    }
}

#[test]
fn a_decided_block_survives_a_power_cut_with_its_commit() {
    for name in ["chain_basic", "chain_extensions"] {
        let chain = Chain::load(name);
        let folder = tempfile::tempdir().unwrap();
        let mut node = quiet(folder.path(), &chain, &Home::BuiltIn);
        node.decide_to(&chain, 7).unwrap();
        let block = node.decide(&chain).unwrap();
        let cut = crashed(folder.path());
        let store = open_store(cut.path());
        let height = Height::new(8);
        assert_eq!(store.height(), height, "{name}");
        assert_eq!(
            store.load_block_bytes(height).unwrap().unwrap(),
            block.fetched().raw()
        );
        let seen = store.load_seen_commit(height).unwrap();
        assert_eq!(seen.as_ref(), block.commit(), "{name}");
        let extended = store.load_extended_commit(height).unwrap();
        assert_eq!(extended.as_ref(), block.extended_commit(), "{name}");
        assert_eq!(extended.is_some(), name == "chain_extensions");
    }
}

#[test]
fn a_block_that_was_decided_and_not_executed_is_replayed() {
    let chain = Chain::load("chain_basic");
    for at in [1, 8] {
        for home in homes() {
            let folder = tempfile::tempdir().unwrap();
            let mut node = quiet(folder.path(), &chain, &home);
            node.decide_to(&chain, at - 1).unwrap();
            node.decide(&chain).unwrap();
            let cut = crashed(folder.path());
            let at_cut = fork(&home);
            drop(node);
            let before = kept(&home, &chain, at - 1);
            resumes(folder.path(), &chain, &home, LAST, &before);
            resumes(cut.path(), &chain, &at_cut, LAST, &before);
        }
    }
}

/// The state of the last block is not synced: a built-in application executes that block again,
/// of any other its results are stored.
#[test]
fn a_power_cut_behind_a_decided_block_takes_no_more_than_its_state() {
    let chain = Chain::load("chain_basic");
    for home in homes() {
        let folder = tempfile::tempdir().unwrap();
        let mut node = quiet(folder.path(), &chain, &home);
        node.decide_to(&chain, 8).unwrap();
        let cut = crashed(folder.path());
        let at_cut = fork(&home);
        drop(node);
        assert_eq!(open_store(cut.path()).height().get(), 8);
        let before = match home {
            Home::External(_) => heights_to(&chain, 8),
            Home::BuiltIn => heights_to(&chain, 7),
            Home::Volatile => Vec::new(),
        };
        resumes(cut.path(), &chain, &at_cut, LAST, &before);
    }
}

#[test]
fn crashes_while_a_decided_block_is_executed_are_survived() {
    let chain = Chain::load("chain_basic");
    for (trouble, committed) in [
        (Trouble::PanicsFinalizing(8), 7),
        (Trouble::PanicsCommitting(8), 7),
        (Trouble::PanicsCommitted(8), 8),
    ] {
        for home in [external(), Home::BuiltIn] {
            let folder = tempfile::tempdir().unwrap();
            let config = ExecutorConfig::default();
            let mut node = start(folder.path(), &chain, &home, trouble, config).unwrap();
            let error = node.decide_to(&chain, LAST).unwrap_err();
            assert!(matches!(error, ApplyError::Application(_)), "{error}");
            assert_eq!(node.store.height().get(), 8, "stored before it is executed");
            assert_eq!(node.executor.state().last_block_height.get(), 7);
            let again = node.decide(&chain).unwrap_err();
            assert!(matches!(again, ApplyError::Stopped { .. }), "{again}");
            let cut = crashed(folder.path());
            let at_cut = fork(&home);
            drop(node);
            let is_external = matches!(home, Home::External(_));
            let committed = if is_external { committed } else { 7 };
            let before = heights_to(&chain, committed);
            resumes(folder.path(), &chain, &home, LAST, &before);
            resumes(cut.path(), &chain, &at_cut, LAST, &before);
        }
    }
}

/// An application of its own may commit the block whose state a power cut takes: what it answered
/// is stored before.
#[test]
fn the_results_of_a_decided_block_are_durable_before_an_external_application_commits() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let home = Home::External(Arc::new(MemoryAppStore::new()));
    let trouble = Trouble::PanicsCommitting(9);
    let config = ExecutorConfig::default();
    let mut node = start(folder.path(), &chain, &home, trouble, config).unwrap();
    node.decide_to(&chain, 9).unwrap_err();
    let cut = crashed(folder.path());
    drop(node);
    let results = open_store(cut.path()).load_results(Height::new(9)).unwrap();
    assert_eq!(results.unwrap()[..], chain.blocks[8].finalize_response[..]);
}

/// A node that leaves consensus between storing and executing gets the block from blocksync again.
#[test]
fn a_decided_block_may_come_again() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let mut node = quiet(folder.path(), &chain, &Home::BuiltIn);
    node.decide_to(&chain, 5).unwrap();
    node.decide(&chain).unwrap();
    node.decide(&chain).unwrap();
    node.apply_to(&chain, LAST).unwrap();
    assert_eq!(node.executor.state(), &expected(&chain, LAST));
}

#[test]
fn a_block_that_does_not_follow_is_not_stored() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let mut node = quiet(folder.path(), &chain, &Home::BuiltIn);
    node.decide_to(&chain, 5).unwrap();
    let state = node.executor.state().clone();
    node.decide_to(&chain, 6).unwrap();
    let block = chain.blocks[5].certified(&state);
    let error = node.executor.store_decided(&block).unwrap_err();
    assert!(matches!(error, ApplyError::LocalFault { .. }), "{error}");
    assert_eq!(node.store.height().get(), 6);
}

/// Counts what it is told.
#[derive(Default)]
struct Counting {
    held: Mutex<Vec<i64>>,
    applied: Mutex<Vec<i64>>,
    refuses: Option<i64>,
}

impl Follower for Counting {
    fn hold(&self) -> Box<dyn CommitHold + '_> {
        self.held.lock().unwrap().push(0);
        Box::new(Hold(self))
    }
}

struct Hold<'a>(&'a Counting);

impl CommitHold for Hold<'_> {
    fn applied(
        &mut self,
        block: &Block,
        applied: &Applied,
        state: &Arc<State>,
    ) -> Result<(), ApplyError> {
        assert_eq!(state.last_block_id, applied.block_id);
        let height = block.header.height;
        if self.0.refuses == Some(height.get()) {
            let stopped = height;
            return Err(ApplyError::Stopped { height, stopped });
        }
        self.0.applied.lock().unwrap().push(height.get());
        Ok(())
    }
}

#[test]
fn a_follower_is_told_of_each_block_that_was_applied() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let trouble = Trouble::PanicsCommitting(6);
    let config = ExecutorConfig::default();
    let mut node = start(folder.path(), &chain, &Home::BuiltIn, trouble, config).unwrap();
    let follower = Arc::new(Counting::default());
    node.executor.follow(Arc::clone(&follower) as _);
    node.apply_to(&chain, 9).unwrap_err();
    assert_eq!(follower.applied.lock().unwrap()[..], [1, 2, 3, 4, 5]);
    assert_eq!(follower.held.lock().unwrap().len(), 6);
}

#[test]
fn a_follower_that_cannot_follow_stops_the_executor() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let mut node = quiet(folder.path(), &chain, &Home::BuiltIn);
    node.executor.follow(Arc::new(Counting {
        refuses: Some(4),
        ..Counting::default()
    }));
    node.apply_to(&chain, 9).unwrap_err();
    let again = node.apply_to(&chain, 9).unwrap_err();
    assert!(matches!(again, ApplyError::Stopped { .. }), "{again}");
    assert_eq!(
        node.executor.state(),
        &expected(&chain, 4),
        "it was applied"
    );
}

/// Subscribers learn of a block when it is stored and whoever follows knows of it.
#[test]
fn applied_blocks_are_published() {
    let chain = Chain::load("chain_basic");
    let folder = tempfile::tempdir().unwrap();
    let events = EventBus::default();
    let config = ExecutorConfig {
        events: events.clone(),
        ..ExecutorConfig::default()
    };
    let trouble = Trouble::PanicsCommitting(7);
    let mut node = start(folder.path(), &chain, &Home::BuiltIn, trouble, config).unwrap();
    node.apply_to(&chain, 2).unwrap();
    let query = Query::for_event("NewBlock");
    let mut subscription = events.subscribe("test", query, 10).unwrap();
    node.apply_to(&chain, 4).unwrap();
    node.decide_to(&chain, 9).unwrap_err();
    drop((node, events));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for line in &chain.blocks[2..6] {
            let message = subscription.next().await.unwrap();
            let EventData::NewBlock(applied) = message.data() else {
                panic!("{:?}", message.data());
            };
            assert_eq!(applied.block.header.height.get(), line.height);
            assert_eq!(applied.block_id.hash.as_bytes(), &line.header_hash[..]);
            let response = prost::Message::encode_to_vec(&applied.response);
            assert_eq!(response, line.finalize_response.0);
        }
        assert!(
            subscription.next().await.is_err(),
            "no more than were committed"
        );
    });
}
