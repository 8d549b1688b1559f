//! Networks of whole nodes: they decide, fall behind, stop, and go on.

use std::{
    fs,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use perihelion_abci::{
    AppFault, AppWrite, Application, Persistence,
    types::{
        RequestCheckTx, RequestCommit, RequestExtendVote, RequestFinalizeBlock, RequestInfo,
        RequestInitChain, RequestPrepareProposal, RequestProcessProposal, RequestQuery,
        RequestVerifyVoteExtension, ResponseCheckTx, ResponseCommit, ResponseExtendVote,
        ResponseFinalizeBlock, ResponseInfo, ResponseInitChain, ResponsePrepareProposal,
        ResponseProcessProposal, ResponseQuery, ResponseVerifyVoteExtension,
    },
};
use perihelion_consensus::{Step, WalMessage};
use perihelion_consensus_reactor::{
    ConsensusError,
    privval::{DoubleSignRisk, SignState},
    wal::{Wal, WalOptions},
};
use perihelion_events::{EventData, Query, RoundEvent};
use perihelion_types::{Height, Round, SignedMsgType, Time};
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::nodes::{
    Home, Node, assert_same_chain, close_all, genesis, key, kvstore, mesh, soon, until,
};

fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn four_validators_commit_ten_heights_and_what_clients_sent() {
    threads().block_on(async {
        let nodes = mesh(Home::all(&genesis(&[10; 4]))).await;
        let tx = Bytes::from_static(b"name=value");
        let pool = Arc::clone(&nodes[1].mempool);
        let sent = tx.clone();
        tokio::task::spawn_blocking(move || pool.check_tx(&sent, None).unwrap())
            .await
            .unwrap();
        for node in &nodes {
            node.reach(10).await;
        }
        assert_same_chain(&nodes, 10).await;
        let proposers: std::collections::BTreeSet<_> = (1..=10)
            .map(|height| nodes[0].block(height).header.proposer_address)
            .collect();
        assert_eq!(proposers.len(), 4);
        let has_tx = |height: &i64| nodes[3].block(*height).data.to_vec().contains(&tx);
        let holders: Vec<_> = (1..=10).filter(has_tx).collect();
        assert_eq!(holders.len(), 1, "the transaction is in one block");
        assert_eq!(nodes[1].mempool.size(), 0);
        // Others are known to be near.
        let heights = nodes[0].handle.heights();
        for peer in nodes[0].handle.peers() {
            let height = (heights)(&peer.peer.id()).unwrap();
            assert!(height.get() >= 9, "{height}");
            assert!(peer.votes > 0);
        }
        assert_eq!(nodes[0].handle.peers().len(), 3);
        for home in close_all(nodes).await {
            assert!(home.assert_signed_once() >= 20);
        }
    });
}

#[test]
fn a_validator_that_comes_late_catches_up_by_gossip_and_then_signs() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 4]));
        let late = homes.pop().unwrap();
        let mut nodes = mesh(homes).await;
        for node in &nodes {
            node.reach(5).await;
        }
        let late = Node::begin(late).await;
        late.connect(&nodes[0]).await;
        late.reach(6).await;
        late.connect(&nodes[1]).await;
        // It counts again once it is where the others are.
        let mut height = 7;
        loop {
            late.reach(height + 1).await;
            if late.has_signed(3, height) {
                break;
            }
            height += 1;
        }
        nodes.push(late);
        assert_same_chain(&nodes, 5).await;
        for home in close_all(nodes).await {
            home.assert_signed_once();
        }
    });
}

#[test]
fn halves_that_cannot_decide_alone_go_on_when_one_more_joins_them() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 4]));
        let third = homes.remove(2);
        homes.truncate(2);
        let mut nodes = mesh(homes).await;
        // Both have voted, and wait.
        for node in &nodes {
            let both = |view: &perihelion_consensus_reactor::View| {
                let prevotes = view.prevotes(Round::ZERO);
                prevotes.is_some_and(|votes| votes.bits().count() == 2)
            };
            node.see("two prevotes", both).await;
        }
        let third = Node::begin(third).await;
        third.connect(&nodes[1]).await;
        nodes.push(third);
        assert_same_chain(&nodes, 3).await;
        for home in close_all(nodes).await {
            home.assert_signed_once();
        }
    });
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
        }
        nodes[3].reach(height).await;
        assert_same_chain(&nodes, height).await;
        for home in close_all(nodes).await {
            home.assert_signed_once();
        }
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

fn rng_below(rng: &mut TestRng, bound: u32) -> u32 {
    use rand::Rng as _;
    rng.next_u32() % bound
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
fn a_node_without_a_key_follows_and_signs_nothing() {
    threads().block_on(async {
        let genesis = genesis(&[10; 2]);
        let mut nodes = mesh(Home::all(&genesis)).await;
        let observer = Node::begin(Home::new(&genesis, None)).await;
        observer.connect(&nodes[0]).await;
        observer.reach(5).await;
        nodes.push(observer);
        assert_same_chain(&nodes, 5).await;
        let homes = close_all(nodes).await;
        assert_eq!(homes[2].assert_signed_once(), 0);
        let own = |record: &WalMessage| matches!(record, WalMessage::Message { peer: None, .. });
        assert!(!homes[2].records().iter().any(own));
    });
}

/// An application that judges no proposal while its gate is shut.
struct Gated {
    app: Arc<dyn Application>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    moved: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.moved.notify_all();
    }

    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let shut = self.shut.lock().unwrap();
        drop(self.moved.wait_while(shut, |shut| *shut).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Application for Gated {
    fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        self.gate.pass();
        self.app.process_proposal(request)
    }

    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.app.info(request)
    }

    fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        self.app.query(request)
    }

    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        self.app.check_tx(request)
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.app.init_chain(request)
    }

    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        self.app.prepare_proposal(request)
    }

    fn extend_vote(&self, request: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        let _ = request;
        Ok(ResponseExtendVote {
            vote_extension: Bytes::from_static(b"seen"),
        })
    }

    fn verify_vote_extension(
        &self,
        request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        use perihelion_proto::tendermint::abci::response_verify_vote_extension::VerifyStatus;
        let is_ours = request.vote_extension == b"seen"[..];
        let status = if is_ours {
            VerifyStatus::Accept
        } else {
            VerifyStatus::Reject
        };
        Ok(ResponseVerifyVoteExtension {
            status: status.into(),
        })
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        self.app.finalize_block(request)
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.app.commit(request)
    }

    fn persistence(&self) -> Persistence {
        self.app.persistence()
    }

    fn take_writes(&self) -> Option<Vec<AppWrite>> {
        self.app.take_writes()
    }
}

async fn gated(home: Home, gate: &Arc<Gate>) -> Node {
    let gate = Arc::clone(gate);
    Node::open_with(home, move |store| {
        Arc::new(Gated {
            app: kvstore(store),
            gate,
        })
    })
    .await
}

#[test]
fn a_slow_application_holds_up_nobody_else_and_catches_up() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 4]));
        let slow = homes.pop().unwrap();
        let mut nodes = mesh(homes).await;
        let gate = Arc::new(Gate::default());
        let mut slow = gated(slow, &gate).await;
        slow.enter().await;
        for node in &nodes {
            slow.connect(node).await;
        }
        slow.reach(2).await;
        gate.set(true);
        let waits = || gate.waiting.load(Ordering::SeqCst) > 0;
        until("a proposal to be judged", waits).await;
        let here = slow.see("a height", |_| true).await.height().get();
        for node in &nodes {
            node.reach(here + 5).await;
        }
        assert_eq!(slow.handle.peers().len(), 3, "nobody was disconnected");
        gate.set(false);
        slow.reach(here + 6).await;
        nodes.push(slow);
        assert_same_chain(&nodes, here + 5).await;
        for home in close_all(nodes).await {
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
        gate.set(true);
        let waits = || gate.waiting.load(Ordering::SeqCst) > 0;
        until("a proposal to be judged", waits).await;
        // It has proposed and is about to prevote.
        let signed = fs::read(node.home.sign_state()).unwrap();
        let leave = node.handle.clone();
        let left = tokio::spawn(async move { leave.leave().await });
        let view = node.handle.view();
        until("consensus to be left", || view.borrow().is_none()).await;
        assert!(!left.is_finished());
        gate.set(false);
        let executor = soon("the executor", left).await.unwrap().unwrap();
        assert_eq!(fs::read(node.home.sign_state()).unwrap(), signed);
        node.executor = Some(executor);
        node.enter().await;
        node.reach(4).await;
        node.close().await.assert_signed_once();
    });
}

#[test]
fn nothing_is_signed_up_to_a_height_whose_final_block_is_held() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 4]));
        let pinned = homes.pop().unwrap();
        let mut nodes = mesh(homes).await;
        let mut node = Node::open(pinned).await;
        node.handle.pinned(Height::new(6));
        node.enter().await;
        for other in &nodes {
            node.connect(other).await;
        }
        let mut height = 7;
        loop {
            node.reach(height + 1).await;
            if node.has_signed(3, height) {
                break;
            }
            height += 1;
        }
        assert!((1..=6).all(|height| !node.has_signed(3, height)));
        nodes.push(node);
        let homes = close_all(nodes).await;
        let low = homes[3].records().into_iter().any(|record| {
            matches!(record, WalMessage::Message { peer: None, message } if message.height() <= Height::new(6))
        });
        assert!(!low);
    });
}

#[test]
fn vote_extensions_are_asked_for_and_come_into_the_next_proposal() {
    threads().block_on(async {
        let mut genesis = genesis(&[10; 3]);
        genesis.consensus_params.abci.vote_extensions_enable_height = 2;
        let gate = Arc::new(Gate::default());
        let mut nodes: Vec<Node> = Vec::new();
        for home in Home::all(&genesis) {
            let mut node = gated(home, &gate).await;
            node.enter().await;
            for other in &nodes {
                node.connect(other).await;
            }
            nodes.push(node);
        }
        for node in &nodes {
            node.reach(5).await;
        }
        assert_same_chain(&nodes, 5).await;
        let commit = nodes[0].store.load_extended_commit(Height::new(4)).unwrap();
        let commit = commit.expect("extensions are enabled");
        let extended = commit
            .extended_signatures
            .iter()
            .filter(|place| place.extension == b"seen"[..])
            .count();
        assert!(extended >= 3, "{extended}");
        let before = nodes[0].store.load_extended_commit(Height::new(1)).unwrap();
        assert_eq!(before, None);
        // After a restart the extensions come from the store.
        let homes = close_all(nodes).await;
        let mut nodes: Vec<Node> = Vec::new();
        for home in homes {
            let mut node = gated(home, &gate).await;
            node.enter().await;
            for other in &nodes {
                node.connect(other).await;
            }
            nodes.push(node);
        }
        for node in &nodes {
            node.reach(8).await;
        }
        close_all(nodes).await;
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

#[test]
fn the_picture_shows_rounds_and_who_proposes() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 4]));
        // Whenever it is the turn of the fourth, another round is needed.
        homes.truncate(3);
        let nodes = mesh(homes).await;
        let later = |view: &perihelion_consensus_reactor::View| view.round() >= Round::new(1);
        let view = nodes[0].see("round 1", later).await;
        let at = view.round_step();
        assert!(at.step >= Step::NewRound);
        assert!(view.validator_set().proposer().is_some());
        let prevotes = view.votes(Round::ZERO, SignedMsgType::Prevote).unwrap();
        assert_eq!((prevotes.size(), prevotes.bits().count()), (4, 3));
        assert_eq!(view.state().last_block_height.next(), view.height());
        close_all(nodes).await;
    });
}

#[test]
fn subscribers_are_told_of_rounds_as_by_cometbft() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).pop().unwrap();
        let mut node = Node::open(home).await;
        let everything = Query::parse("tm.event EXISTS").unwrap();
        let mut told = node.events.subscribe("test", everything, 10_000).unwrap();
        node.enter().await;
        let mut second = Vec::new();
        soon("the events of height 2", async {
            loop {
                let message = told.next().await.unwrap();
                let EventData::Round(event) = message.data() else {
                    continue;
                };
                let (height, what) = match event {
                    RoundEvent::NewRoundStep { height, step, .. } => (*height, (*step).to_owned()),
                    RoundEvent::NewRound {
                        height,
                        proposer,
                        index,
                        ..
                    } => {
                        assert_eq!((*proposer, *index), (key(0).public_key().address(), 0));
                        (*height, "NewRound".to_owned())
                    }
                    RoundEvent::Vote(vote) => (vote.height, format!("Vote {:?}", vote.vote_type)),
                    RoundEvent::CompleteProposal { height, .. }
                    | RoundEvent::Polka { height, .. }
                    | RoundEvent::Lock { height, .. }
                    | RoundEvent::ValidBlock { height, .. } => (*height, event.name().to_owned()),
                    other => panic!("{other:?}"),
                };
                match height.get() {
                    1 => {}
                    2 => second.push(what),
                    _ => break,
                }
            }
        })
        .await;
        let order = [
            "RoundStepNewHeight",
            "NewRound",
            "RoundStepPropose",
            "CompleteProposal",
            "RoundStepPrevote",
            "Vote Prevote",
            "ValidBlock",
            "Polka",
            "Lock",
            "RoundStepPrecommit",
            "Vote Precommit",
            "RoundStepCommit",
        ];
        assert_eq!(second, order);
        node.close().await;
    });
}
