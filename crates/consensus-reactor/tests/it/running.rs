//! Networks of whole nodes: they decide, come late, and tell what they do.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use perihelion_consensus::{Step, WalMessage};
use perihelion_consensus_reactor::{ConsensusError, Standing, View, privval::SignState};
use perihelion_events::{EventData, Query, RoundEvent};
use perihelion_types::{Height, Round, SignedMsgType};

use crate::{
    apps::{Call, EXTENSION, Gate, gated},
    nodes::{
        Home, Node, assert_same_chain, begin_all, close_all, connect_all, genesis, key, mesh, soon,
        threads, until,
    },
};

#[test]
fn four_validators_commit_ten_heights_and_what_clients_sent() {
    const SIGNED: usize = 5;
    threads().block_on(async {
        let nodes = begin_all(Home::all(&genesis(&[10; 4]))).await;
        let tx = Bytes::from_static(b"name=value");
        let pool = Arc::clone(&nodes[1].mempool);
        let sent = tx.clone();
        tokio::task::spawn_blocking(move || pool.check_tx(&sent, None).unwrap())
            .await
            .unwrap();
        connect_all(&nodes).await;
        let has_tx = |height: &i64| nodes[3].block(*height).data.to_vec().contains(&tx);
        // Ten heights, and as many more as it takes until a machine that is busy with other things
        // has let each of them have its turn.
        let mut proposers = BTreeSet::new();
        let mut signed = [0; 4];
        let mut top = 0;
        let mut sent = false;
        while top < 10 || proposers.len() < 4 || signed.iter().any(|&it| it < SIGNED) || !sent {
            top += 1;
            for node in &nodes {
                node.reach(top).await;
            }
            proposers.insert(nodes[0].block(top).header.proposer_address);
            sent |= has_tx(&top);
            for (number, signed) in signed.iter_mut().enumerate() {
                *signed += usize::from(top > 1 && nodes[0].has_signed(number, top - 1));
            }
        }
        assert_same_chain(&nodes, top).await;
        let holders: Vec<_> = (1..=top).filter(has_tx).collect();
        assert_eq!(holders.len(), 1, "the transaction is in one block");
        assert_eq!(nodes[1].mempool.size(), 0);
        // Others come to be known to be near.
        let heights = nodes[0].handle.heights();
        until("the others to be near", || {
            let peers = nodes[0].handle.peers();
            let near = peers.iter().filter(|peer| {
                let height = (heights)(&peer.peer.id());
                height.is_some_and(|height| height.get() >= 9) && peer.votes > 0
            });
            (peers.len(), near.count()) == (3, 3)
        })
        .await;
        for home in close_all(nodes).await {
            // A proposal, and the precommits that were counted.
            assert!(home.assert_signed_once() > SIGNED);
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
            let both = |view: &View| {
                let prevotes = view.prevotes(Round::ZERO);
                prevotes.is_some_and(|votes| votes.bits().count() == 2)
            };
            let view = node.see("two prevotes", both).await;
            // Why nothing goes on is told once that has taken long.
            let stay = view.stay();
            assert_eq!(stay.silence, None);
            let since = stay.since.unwrap();
            assert_eq!(Standing::of(&view, since), None);
            let told = Standing::of(&view, since + stay.patience)
                .unwrap()
                .to_string();
            let parts = "prevotes of 2 of 4 validators (50 % of the power";
            assert!(told.contains(parts), "{told}");
            assert!(!told.contains("this node"), "{told}");
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
fn a_validator_that_may_not_sign_yet_says_so_until_it_may() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 4]));
        let silent = homes.pop().unwrap();
        let signed = SignState {
            height: 2,
            round: 100,
            step: 3,
            ..SignState::default()
        };
        signed.save(&silent.sign_state()).unwrap();
        let silent = Node::begin(silent).await;
        let is_silent = |view: &View| view.stay().silence.is_some();
        let view = silent.see("why it is silent", is_silent).await;
        let silence = view.stay().silence.clone().unwrap();
        let last = "before height 2 round 100 precommit, which was signed already";
        assert!(silence.contains(last), "{silence}");

        let mut nodes = mesh(homes).await;
        for node in &nodes {
            silent.connect(node).await;
        }
        silent.see("that it signs", |view| !is_silent(view)).await;
        nodes.push(silent);
        assert_same_chain(&nodes, 3).await;
        close_all(nodes).await;
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
        gate.shut(Call::ProcessProposal);
        let waits = || gate.is_waiting();
        until("a proposal to be judged", waits).await;
        let here = slow.see("a height", |_| true).await.height().get();
        for node in &nodes {
            node.reach(here + 5).await;
        }
        assert_eq!(slow.handle.peers().len(), 3, "nobody was disconnected");
        gate.open();
        slow.reach(here + 6).await;
        nodes.push(slow);
        assert_same_chain(&nodes, here + 5).await;
        for home in close_all(nodes).await {
            home.assert_signed_once();
        }
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
            .filter(|place| place.extension == EXTENSION)
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
fn the_picture_shows_rounds_and_who_proposes() {
    threads().block_on(async {
        let mut homes = Home::all(&genesis(&[10; 4]));
        // Whenever it is the turn of the fourth, another round is needed.
        homes.truncate(3);
        let nodes = mesh(homes).await;
        let later = |view: &View| view.round() >= Round::new(1);
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

#[test]
fn an_application_that_fails_ends_consensus_and_is_named() {
    threads().block_on(async {
        for call in [Call::PrepareProposal, Call::FinalizeBlock, Call::Commit] {
            let home = Home::all(&genesis(&[10])).pop().unwrap();
            let gate = Arc::new(Gate::default());
            let mut node = gated(home, &gate).await;
            node.enter().await;
            node.reach(2).await;
            gate.fail(call);
            let ended = soon("the end", node.handle.ended()).await;
            assert!(matches!(ended, ConsensusError::Apply(_)), "{ended}");
            let text = ended.to_string();
            assert!(text.contains(&format!("{call:?}")), "{text}");
            assert!(text.contains("it is broken"), "{text}");
            assert!(node.handle.view().borrow().is_none());
            let left = soon("an answer", node.handle.leave()).await;
            assert_eq!(left.err().unwrap().to_string(), text);
        }
    });
}

#[test]
fn without_empty_blocks_transactions_make_blocks() {
    threads().block_on(async {
        let mut home = Home::all(&genesis(&[10])).pop().unwrap();
        home.config.create_empty_blocks = false;
        let node = Node::begin(home).await;
        // The first block, and each one behind a change of the application, proves its hash.
        for (sent, height) in [("a=1", 2), ("b=2", 4)] {
            let waits = |view: &View| view.height() == Height::new(height);
            let view = node.see("the wait for transactions", waits).await;
            assert_eq!(view.round(), Round::ZERO);
            let (pool, tx) = (Arc::clone(&node.mempool), Bytes::from(sent));
            tokio::task::spawn_blocking(move || pool.check_tx(&tx, None).unwrap())
                .await
                .unwrap();
            node.reach(height).await;
            assert_eq!(node.block(height).data.to_vec(), [Bytes::from(sent)]);
            node.reach(height + 1).await;
            assert!(node.block(height + 1).data.to_vec().is_empty());
        }
        node.close().await;
    });
}
