//! Nodes that stop, leave, lose what was not synced, and go on: none ever signs differently.

use std::{fs, sync::Arc};

use perihelion_consensus::{StartError, WalMessage};
use perihelion_consensus_reactor::{
    ConsensusError,
    privval::{DoubleSignRisk, SignState},
    wal::{Wal, WalError, WalOptions},
};
use perihelion_store::{StateSave, Sync};
use perihelion_types::{Height, Time};
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::{
    apps::{Call, Gate, gated},
    nodes::{Home, Node, assert_same_chain, close_all, genesis, key, mesh, soon, threads, until},
};

fn rng_below(rng: &mut TestRng, bound: u32) -> u32 {
    use rand::Rng as _;
    rng.next_u32() % bound
}

#[test]
fn consensus_is_left_and_entered_again_and_nothing_is_signed_between() {
    threads().block_on(async {
        let mut nodes = mesh(Home::all(&genesis(&[10; 4]))).await;
        let mut height = 2;
        for _ in 0..3 {
            nodes[3].reach(height).await;
            nodes[3].leave().await;
            let signed = fs::read(nodes[3].home.sign_state()).unwrap();
            assert!(nodes[3].handle.view().borrow().is_none());
            assert!(matches!(
                nodes[3].handle.leave().await,
                Err(ConsensusError::NotEntered)
            ));
            let executor = nodes[3].executor.as_ref().unwrap();
            let left_at = executor.state().last_block_height.get();
            height = left_at + 3;
            for node in &nodes[..3] {
                node.reach(height).await;
            }
            assert_eq!(fs::read(nodes[3].home.sign_state()).unwrap(), signed);
            nodes[3].enter().await;
            height += 2;
            // What was sent meanwhile comes over new connections.
            nodes[3].reach_dialling(left_at + 1, &nodes[..3]).await;
        }
        nodes[3].reach(height).await;
        assert_same_chain(&nodes, height).await;
        for home in close_all(nodes).await {
            home.assert_signed_once();
        }
    });
}

/// Where the last block's precommits carried extensions its plain commit is no beginning: the next
/// proposer gives them to the application.
#[test]
fn consensus_does_not_begin_without_the_last_blocks_extended_commit() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).pop().unwrap();
        let mut node = Node::begin(home).await;
        node.reach(2).await;
        node.leave().await;
        let executor = node.executor.take().unwrap();
        let mut state = executor.state().clone();
        drop(executor);
        let last = state.last_block_height;
        assert!(node.store.load_seen_commit(last).unwrap().is_some());
        state.consensus_params.abci.vote_extensions_enable_height = last.get();
        let save = StateSave {
            state: &state,
            previous: &state,
            app_writes: &[],
        };
        node.store.save_state(&save, Sync::Yes).unwrap();
        let mut node = Node::open(node.close().await).await;
        let error = node.try_enter().await.unwrap_err();
        let ConsensusError::Start { height, source } = &error else {
            panic!("{error}");
        };
        assert_eq!(*height, last.next());
        assert_eq!(*source, StartError::NoExtendedCommit { height: last });
    });
}

#[test]
fn a_lone_validator_goes_on_whenever_it_was_stopped_and_never_signs_differently() {
    threads().block_on(async {
        let genesis = genesis(&[10]);
        let mut home = Home::all(&genesis).pop().unwrap();
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut reached = 0;
        for _ in 0..12 {
            let node = Node::begin(home).await;
            // Some changes later, in whatever step that is.
            let mut view = node.handle.view();
            let changes = 1 + rng_below(&mut rng, 25);
            for _ in 0..changes {
                soon("a change", view.changed()).await.unwrap();
            }
            home = node.close().await;
            home.assert_signed_once();
            let state = SignState::load(&home.sign_state()).unwrap();
            assert!(state.at().height >= reached);
            reached = state.at().height;
        }
        let node = Node::begin(home).await;
        node.reach(reached + 2).await;
        node.close().await.assert_signed_once();
    });
}

#[test]
fn a_validator_of_four_goes_on_whenever_it_was_stopped() {
    threads().block_on(async {
        let mut nodes = mesh(Home::all(&genesis(&[10; 4]))).await;
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
        for turn in 0..8 {
            let number = turn % 4;
            let node = nodes.remove(0);
            let mut view = node.handle.view();
            for _ in 0..1 + rng_below(&mut rng, 40) {
                soon("a change", view.changed()).await.unwrap();
            }
            let home = node.close().await;
            home.assert_signed_once();
            assert_eq!(
                home.key.as_ref().unwrap().key.public_key(),
                key(number).public_key()
            );
            let node = Node::begin(home).await;
            for other in &nodes {
                node.connect(other).await;
            }
            nodes.push(node);
        }
        let here = nodes[0].see("a height", |_| true).await.height().get();
        for node in &nodes {
            node.reach(here + 3).await;
        }
        assert_same_chain(&nodes, here).await;
        for home in close_all(nodes).await {
            home.assert_signed_once();
        }
    });
}

#[test]
fn all_validators_stopped_at_once_go_on_together() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 3]));
        let mut height = 0;
        for _ in 0..3 {
            let nodes = mesh(homes).await;
            height += 3;
            for node in &nodes {
                node.reach(height).await;
            }
            assert_same_chain(&nodes, height).await;
            homes = close_all(nodes).await;
        }
        for home in homes {
            home.assert_signed_once();
        }
    });
}

#[test]
fn leaving_waits_for_the_job_at_hand_and_signs_nothing_more() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).pop().unwrap();
        let gate = Arc::new(Gate::default());
        let mut node = gated(home, &gate).await;
        node.enter().await;
        node.reach(2).await;
        gate.shut(Call::ProcessProposal);
        let waits = || gate.is_waiting();
        until("a proposal to be judged", waits).await;
        // It has proposed and is about to prevote.
        let signed = fs::read(node.home.sign_state()).unwrap();
        let leave = node.handle.clone();
        let left = tokio::spawn(async move { leave.leave().await });
        let view = node.handle.view();
        until("consensus to be left", || view.borrow().is_none()).await;
        assert!(!left.is_finished());
        gate.open();
        let executor = soon("the executor", left).await.unwrap().unwrap();
        assert_eq!(fs::read(node.home.sign_state()).unwrap(), signed);
        node.executor = Some(executor);
        node.enter().await;
        node.reach(4).await;
        node.close().await.assert_signed_once();
    });
}

#[test]
fn a_log_that_is_ahead_of_the_data_is_refused_and_not_touched() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).pop().unwrap();
        let open = || Wal::open(&home.wal(), WalOptions::default(), Time::ZERO).unwrap().0;
        drop(open());
        let first = fs::read(home.wal()).unwrap().len();
        open().end_height(Time::ZERO, Height::new(7)).unwrap();
        // The head of an old log, whose beginning was removed.
        let bytes = fs::read(home.wal()).unwrap();
        fs::write(home.wal(), &bytes[first..]).unwrap();
        let bytes = fs::read(home.wal()).unwrap();
        let mut node = Node::open(home).await;
        let error = node.try_enter().await.unwrap_err();
        assert!(
            matches!(error, ConsensusError::WalAhead { log, last, .. } if (log.get(), last.get()) == (7, 0)),
            "{error}"
        );
        let ended = soon("the end", node.handle.ended()).await;
        assert_eq!(ended.to_string(), error.to_string());
        assert_eq!(fs::read(node.home.wal()).unwrap(), bytes);
    });
}

#[test]
fn own_signatures_in_the_last_blocks_are_refused_at_the_first_start_only() {
    threads().block_on(async {
        let mut home = Home::all(&genesis(&[10])).pop().unwrap();
        home.look_back = 5;
        let mut node = Node::begin(home).await;
        node.reach(3).await;
        // Those are this process's own.
        node.leave().await;
        node.enter().await;
        node.reach(4).await;
        let home = node.close().await;
        let mut node = Node::open(home).await;
        let error = node.try_enter().await.unwrap_err();
        let is_recent = matches!(
            &error,
            ConsensusError::DoubleSign(risk)
                if matches!(**risk, DoubleSignRisk::SignedLately { look_back: 5, .. })
        );
        assert!(is_recent, "{error}");
    });
}

/// Blocks that came after the start may have this validator's own precommits: another copy of it runs,
/// or its state was lost.
#[test]
fn a_sign_state_that_is_older_than_the_blocks_that_were_fetched_is_refused() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).pop().unwrap();
        let node = Node::begin(home).await;
        node.reach(3).await;
        let home = node.close().await;
        fs::remove_dir_all(home.wal().parent().unwrap()).unwrap();
        SignState::default().save(&home.sign_state()).unwrap();
        let mut node = Node::open(home).await;
        let error = node.try_enter().await.unwrap_err();
        let is_stale = matches!(
            &error,
            ConsensusError::DoubleSign(risk)
                if matches!(**risk, DoubleSignRisk::StaleState { .. })
        );
        assert!(is_stale, "{error}");
        let state = SignState::load(&node.home.sign_state()).unwrap();
        assert_eq!(state, SignState::default());
    });
}

#[test]
fn the_end_of_a_height_that_did_not_come_by_consensus_is_marked() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).pop().unwrap();
        let node = Node::begin(home).await;
        node.reach(3).await;
        let home = node.close().await;
        // As after blocksync: the log knows nothing of the blocks.
        fs::remove_dir_all(home.wal().parent().unwrap()).unwrap();
        let node = Node::begin(home).await;
        let view = node.see("a height", |_| true).await;
        let first = view.height().get();
        node.reach(first + 1).await;
        let home = node.close().await;
        let ends: Vec<_> = home
            .records()
            .into_iter()
            .filter_map(|record| match record {
                WalMessage::EndHeight(height) => Some(height.get()),
                _ => None,
            })
            .collect();
        assert!(
            ends.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{ends:?}"
        );
        assert!(ends.len() >= 3, "{ends:?}");
        home.assert_signed_once();
    });
}

/// The node stands still at a call of its application: what a loss of power would leave there, in
/// a home of its own. The node itself is stopped without having gone on.
async fn cut_off(node: Node, gate: &Gate, call: Call) -> Home {
    gate.shut(call);
    until(&format!("{call:?}"), || gate.is_waiting()).await;
    let left = node.home.copied();
    let view = node.handle.view();
    node.stop();
    until("consensus to stop", || view.borrow().is_none()).await;
    gate.open();
    node.close().await;
    left
}

#[test]
fn a_loss_of_power_at_any_call_of_the_application_loses_no_block_and_signs_nothing_twice() {
    threads().block_on(async {
        let mut genesis = genesis(&[10]);
        genesis.consensus_params.abci.vote_extensions_enable_height = 2;
        let mut home = Home::all(&genesis).pop().unwrap();
        let mut height = 3;
        let mut blocks = Vec::new();
        for call in Call::ALL.repeat(2) {
            if call == Call::VerifyVoteExtension {
                // Asked for other validators' only, or at once with ExtendVote.
                continue;
            }
            let gate = Arc::new(Gate::default());
            let mut node = gated(home, &gate).await;
            node.enter().await;
            // What was decided before is what it was.
            for (at, hash) in (1..).zip(&blocks) {
                assert_eq!(node.block(at).hash(), *hash, "{call:?} at {at}");
            }
            node.reach(height).await;
            blocks = (1..=height).map(|at| node.block(at).hash()).collect();
            height += 2;
            home = cut_off(node, &gate, call).await;
            home.assert_signed_once();
        }
    });
}

#[test]
fn a_validator_of_four_that_lost_power_anywhere_goes_on_and_nobody_sees_it_sign_twice() {
    threads().block_on(async {
        let mut genesis = genesis(&[10; 4]);
        genesis.consensus_params.abci.vote_extensions_enable_height = 1;
        let mut homes = Home::all(&genesis);
        let mut home = homes.pop().unwrap();
        let calm = Arc::new(Gate::default());
        let mut nodes: Vec<Node> = Vec::new();
        for home in homes {
            let mut node = gated(home, &calm).await;
            node.enter().await;
            for other in &nodes {
                node.connect(other).await;
            }
            nodes.push(node);
        }
        let mut height = 1;
        for call in Call::ALL {
            let gate = Arc::new(Gate::default());
            let mut node = gated(home, &gate).await;
            node.enter().await;
            for other in &nodes {
                node.connect(other).await;
            }
            node.reach(height).await;
            home = cut_off(node, &gate, call).await;
            height += 2;
        }
        let mut node = gated(home, &calm).await;
        node.enter().await;
        for other in &nodes {
            node.connect(other).await;
        }
        nodes.push(node);
        let here = nodes[0].see("a height", |_| true).await.height().get();
        assert_same_chain(&nodes, here + 2).await;
        for home in close_all(nodes).await {
            home.assert_signed_once();
        }
    });
}

#[test]
fn a_log_that_is_damaged_in_the_middle_is_refused_with_its_place() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).pop().unwrap();
        let node = Node::begin(home).await;
        node.reach(3).await;
        let home = node.close().await;
        let mut bytes = fs::read(home.wal()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(home.wal(), &bytes).unwrap();
        let mut node = Node::open(home).await;
        let error = node.try_enter().await.unwrap_err();
        let is_damage = matches!(
            &error,
            ConsensusError::Wal(error) if matches!(**error, WalError::Damaged { .. })
        );
        assert!(is_damage, "{error}");
        assert_eq!(fs::read(node.home.wal()).unwrap(), bytes);
    });
}
