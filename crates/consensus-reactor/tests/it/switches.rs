//! A validator that leaves consensus, gets blocks without it, and enters it again: where power is
//! lost on that way, and when it votes again.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    sync::Arc,
    time::Duration,
};

use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{BitArray, Message, WalMessage};
use perihelion_consensus_reactor::PeerRound;
use perihelion_crypto::PublicKey;
use perihelion_p2p::DisconnectReason;
use perihelion_state::ExecutorConfig;
use perihelion_types::{FetchedBlock, Genesis, Height, Round, SignedMsgType, State, ValidatorSet};

use crate::{
    apps::{Call, Gate, gated},
    nodes::{Home, Node, Place, assert_same_chain, close_all, genesis, key, threads, until},
};

/// Who proposes the block `after` heights above the next one, in round 0.
fn proposer(state: &State, after: i32) -> PublicKey {
    let mut set = ValidatorSet::clone(&state.validators);
    if after > 0 {
        set.increment_proposer_priority(after).unwrap();
    }
    set.proposer().unwrap().pub_key.clone()
}

/// Four validators of the same power, in consensus. The last but one is behind `gate`: while it
/// stands still nothing is decided without the last one.
async fn four(genesis: &Genesis, gate: &Arc<Gate>, last: &Arc<Gate>) -> (Vec<Node>, Node) {
    let open = Arc::new(Gate::default());
    let mut nodes: Vec<Node> = Vec::new();
    for (gate, mut home) in [&open, &open, gate, last]
        .into_iter()
        .zip(Home::all(genesis))
    {
        // Whose turn it is to propose is away now and then.
        let millis = Duration::from_millis;
        home.config.timeout_propose = millis(100);
        home.config.timeout_propose_delta = millis(100);
        home.config.timeout_prevote = millis(50);
        home.config.timeout_prevote_delta = millis(50);
        home.config.timeout_precommit = millis(50);
        home.config.timeout_precommit_delta = millis(50);
        // What is lost does not depend on how long anything takes.
        let hour = Duration::from_secs(3_600);
        home.executor = ExecutorConfig {
            sync_interval: hour,
            catch_up_interval: hour,
            ..ExecutorConfig::default()
        };
        nodes.push(join(home, gate, &nodes).await);
    }
    let last = nodes.pop().unwrap();
    (nodes, last)
}

/// A node in consensus, connected to the others.
async fn join(home: Home, gate: &Arc<Gate>, others: &[Node]) -> Node {
    let mut node = gated(home, gate).await;
    node.enter().await;
    for other in others {
        node.connect(other).await;
    }
    node
}

/// Has the third validator stand still before a height whose first proposer is as it is wanted,
/// three blocks or more above `left`, and tells that height: the first two are at it, in round 0.
async fn hold(
    nodes: &[Node],
    gate: &Gate,
    left: &State,
    begins: impl Fn(PublicKey) -> bool,
) -> i64 {
    let next = left.next_height().get();
    let turn = (0..4).find(|after| begins(proposer(left, *after))).unwrap();
    let turn = next + i64::from(turn);
    gate.shut_at(Call::FinalizeBlock, move |height| {
        height >= next + 2 && (height + 1 - turn) % 4 == 0
    });
    until("a validator to stand still", || gate.is_waiting()).await;
    let held = gate.waits_at().unwrap() + 1;
    for node in nodes {
        node.reach(held - 1).await;
    }
    held
}

/// Applies the next block as blocksync does: from a peer, with what makes it final.
fn apply_next(node: &mut Node, from: &Node) {
    let executor = node.executor.as_mut().unwrap();
    let state = executor.state();
    let (height, set, chain) = (state.next_height(), &state.validators, &state.chain_id);
    let raw = from.store.load_block_bytes(height).unwrap().unwrap();
    let extended = from.store.load_extended_commit_bytes(height).unwrap();
    let is_extended = extended.is_some();
    let block = Arc::new(FetchedBlock::decode(raw, extended).unwrap());
    let block = if is_extended {
        CertifiedBlock::decided_extended(block, set, chain).unwrap()
    } else {
        let commit = match from.store.load_commit(height).unwrap() {
            Some(commit) => commit,
            None => from.store.load_seen_commit(height).unwrap().unwrap(),
        };
        CertifiedBlock::decided(block, commit, set, chain).unwrap()
    };
    executor.apply(&block).unwrap();
}

/// Where power is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Consensus was left, wherever it was.
    Left,
    /// A block was applied, and is not durable.
    FirstBlock,
    /// It is, and the block above it is not.
    SecondBlock,
    /// All are applied, of which the first is durable.
    LastBlock,
    /// All are durable.
    CaughtUp,
    /// Consensus was entered, and nothing signed yet.
    Entered,
    /// A proposal was signed; whether the log has it.
    Proposed { logged: bool },
    /// And a prevote, likewise.
    Prevoted { logged: bool },
    /// The block was decided and not executed.
    Decided,
}

impl Loss {
    /// Where it must stand still in consensus.
    fn call(self) -> Option<Call> {
        match self {
            Self::Left
            | Self::FirstBlock
            | Self::SecondBlock
            | Self::LastBlock
            | Self::CaughtUp => None,
            Self::Entered => Some(Call::PrepareProposal),
            Self::Proposed { .. } => Some(Call::ProcessProposal),
            Self::Prevoted { .. } => Some(Call::ExtendVote),
            Self::Decided => Some(Call::FinalizeBlock),
        }
    }

    /// The last block that it leaves, of a validator that left consensus at `left` and entered it
    /// again to decide block `held`.
    fn leaves(self, left: i64, held: i64) -> i64 {
        match self {
            Self::Left | Self::FirstBlock => left,
            Self::SecondBlock | Self::LastBlock => left + 1,
            Self::Decided => held,
            _ => held - 1,
        }
    }
}

/// Goes from where `node` has left consensus to where power is lost; tells what that leaves. The
/// node is as it was then, but for what is in memory.
async fn go_on_until(loss: Loss, node: &mut Node, gate: &Gate, from: &Node, held: i64) -> Home {
    if loss == Loss::Left {
        return node.home.copied();
    }
    node.executor.as_mut().unwrap().begin_catch_up();
    apply_next(node, from);
    if loss == Loss::FirstBlock {
        return node.home.copied();
    }
    node.executor.as_mut().unwrap().flush().unwrap();
    apply_next(node, from);
    if loss == Loss::SecondBlock {
        return node.home.copied();
    }
    while node.executor.as_ref().unwrap().state().next_height().get() < held {
        apply_next(node, from);
    }
    if loss == Loss::LastBlock {
        return node.home.copied();
    }
    node.executor.as_mut().unwrap().end_catch_up().unwrap();
    let Some(call) = loss.call() else {
        return node.home.copied();
    };
    gate.shut(Call::PrepareProposal);
    node.enter().await;
    until("its turn to propose", || gate.is_waiting()).await;
    let entered = fs::metadata(node.home.wal()).unwrap().len();
    gate.shut(call);
    until(&format!("{call:?}"), || gate.is_waiting()).await;
    assert_eq!(gate.waits_at(), Some(held));
    let left = node.home.copied();
    if matches!(
        loss,
        Loss::Proposed { logged: false } | Loss::Prevoted { logged: false }
    ) {
        // The signer's file comes first.
        let wal = fs::File::options().write(true).open(left.wal()).unwrap();
        assert!(wal.metadata().unwrap().len() > entered);
        wal.set_len(entered).unwrap();
    }
    left
}

/// Ends a node that may stand still at its gate, without having it go on.
async fn end(mut node: Node, gate: &Gate) -> Home {
    let view = node.handle.view();
    node.stop();
    until("consensus to stop", || view.borrow().is_none()).await;
    gate.open();
    node.executor = None;
    node.close().await
}

/// Takes to what a validator has signed what it has signed in another life.
fn take_signed(all: &mut BTreeMap<Place, Vec<u8>>, home: &Home, what: &str) {
    for (place, bytes) in home.signed() {
        match all.entry(place) {
            Entry::Vacant(free) => drop(free.insert(bytes)),
            Entry::Occupied(before) => {
                assert_eq!(*before.get(), bytes, "signed twice at {place:?}, {what}");
            }
        }
    }
}

/// What was signed stands in the log behind the end of the height below.
fn assert_heights_marked(home: &Home) {
    let mut ended = Height::ZERO;
    for record in home.records() {
        match record {
            WalMessage::EndHeight(height) => {
                assert!(height >= ended, "{height} ends behind {ended}");
                ended = height;
            }
            WalMessage::Message {
                peer: None,
                message,
            } => assert_eq!(message.height(), ended.next(), "behind the end of {ended}"),
            _ => {}
        }
    }
}

#[test]
fn power_is_lost_anywhere_between_leaving_consensus_and_the_next_block_decided_in_it() {
    const LOSSES: [Loss; 11] = [
        Loss::Left,
        Loss::FirstBlock,
        Loss::SecondBlock,
        Loss::LastBlock,
        Loss::CaughtUp,
        Loss::Entered,
        Loss::Proposed { logged: true },
        Loss::Proposed { logged: false },
        Loss::Prevoted { logged: true },
        Loss::Prevoted { logged: false },
        Loss::Decided,
    ];
    const WITH_COMMITS: [Loss; 3] = [Loss::SecondBlock, Loss::CaughtUp, Loss::Decided];
    threads().block_on(async {
        for extensions in [1, 0] {
            let mut genesis = genesis(&[10; 4]);
            genesis.consensus_params.abci.vote_extensions_enable_height = extensions;
            let third = Arc::new(Gate::default());
            let mut gate = Arc::new(Gate::default());
            let (nodes, mut node) = four(&genesis, &third, &gate).await;
            let mut signed = BTreeMap::new();
            for loss in LOSSES {
                // Without extensions the blocks' commits come otherwise, and no more.
                if extensions == 0 && !WITH_COMMITS.contains(&loss) {
                    continue;
                }
                let what = format!("{loss:?}, extensions from {extensions}");
                node.leave().await;
                let state = node.executor.as_ref().unwrap().state().clone();
                let left_at = state.last_block_height.get();
                let is_own = |proposer| proposer == key(3).public_key();
                let held = hold(&nodes[..2], &third, &state, is_own).await;
                let home = go_on_until(loss, &mut node, &gate, &nodes[0], held).await;
                let before = end(node, &gate).await;
                let state_file = |home: &Home| fs::read(home.sign_state()).unwrap();
                assert_eq!(state_file(&home), state_file(&before), "{what}");
                take_signed(&mut signed, &before, &what);

                gate = Arc::new(Gate::default());
                node = gated(home, &gate).await;
                let state = node.executor.as_ref().unwrap().state();
                let there = state.last_block_height.get();
                assert_eq!(there, loss.leaves(left_at, held), "{what}");
                node.enter().await;
                for other in &nodes {
                    node.connect(other).await;
                }
                // Two of four do not decide it.
                nodes[0].reach(held).await;
                third.open();
                node.reach(held + 1).await;
            }
            let height = node.store.height().get();
            let mut nodes = nodes;
            nodes.push(node);
            assert_same_chain(&nodes, height).await;
            assert!((1..height).any(|at| nodes[0].has_signed(3, at)));
            let homes = close_all(nodes).await;
            take_signed(&mut signed, &homes[3], "at the end");
            assert_heights_marked(&homes[3]);
        }
    });
}

/// A height begins without this validator, and needs it.
#[test]
fn the_first_vote_is_for_the_proposal_of_the_height_that_is_entered() {
    threads().block_on(async {
        let third = Arc::new(Gate::default());
        let gate = Arc::new(Gate::default());
        let (nodes, mut node) = four(&genesis(&[10; 4]), &third, &gate).await;
        let mut entered = Vec::new();
        for _ in 0..3 {
            node.leave().await;
            let state = node.executor.as_ref().unwrap().state().clone();
            let is_there = |proposer| (0..2).any(|number| proposer == key(number).public_key());
            let held = hold(&nodes[..2], &third, &state, is_there).await;
            node.executor.as_mut().unwrap().begin_catch_up();
            while node.executor.as_ref().unwrap().state().next_height().get() < held {
                apply_next(&mut node, &nodes[0]);
            }
            node.executor.as_mut().unwrap().end_catch_up().unwrap();
            node.enter().await;
            // The third still stands still: two of four do not decide it.
            node.reach(held).await;
            entered.push(Height::new(held));
            third.open();
            node.reach(held + 1).await;
            assert!(node.has_signed(3, held));
        }
        let mut nodes = nodes;
        nodes.push(node);
        let homes = close_all(nodes).await;
        assert_heights_marked(&homes[3]);
        for height in entered {
            assert!(first_vote(&homes[3], height) <= first_proposal(&homes[3], height));
        }
    });
}

/// What peers sent while consensus was left they do not send again, as long as the height and round
/// that they were told of are the same.
#[test]
fn what_was_sent_in_vain_is_had_at_the_height_that_is_entered_again() {
    threads().block_on(async {
        for is_queued in [false, true] {
            send_in_vain(is_queued).await;
        }
    });
}

/// Has two of three validators send a height's proposal and their votes to the third, of which all
/// but what `is_queued` comes while consensus is left; what is waits then for its state machine.
/// The third enters that height again. Nobody ever comes to another round by itself.
async fn send_in_vain(is_queued: bool) {
    let hour = Duration::from_secs(3_600);
    let (gate, own) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let mut nodes: Vec<Node> = Vec::new();
    for mut home in Home::all(&genesis(&[10; 3])) {
        home.config.timeout_propose = hour;
        home.config.timeout_prevote = hour;
        home.config.timeout_precommit = hour;
        let gate = if nodes.len() < 2 { &gate } else { &own };
        nodes.push(join(home, gate, &nodes).await);
    }
    let mut node = nodes.pop().unwrap();
    gate.shut_at(Call::PrepareProposal, |height| height >= 3);
    until("one of the two to propose", || gate.is_waiting()).await;
    let held = gate.waits_at().unwrap();
    let (id, height) = (node.switch.id(), Height::new(held));
    let told = |of: &Node, prevotes: usize| {
        of.handle
            .peers()
            .iter()
            .any(|PeerRound { peer, state, .. }| {
                let had = state.prevotes().map_or(0, BitArray::count);
                peer.id() == id && state.height() == height && had >= prevotes
            })
    };
    let is_told = || nodes.iter().all(|of| told(of, 0));
    until("the height to be told", is_told).await;
    let were_sent = || nodes.iter().all(|of| told(of, 2));
    if is_queued {
        let at = move |of: i64| of == held;
        own.shut_at(Call::ProcessProposal, at);
        gate.shut_at(Call::ProcessProposal, at);
        until("the proposal to be judged", || own.is_waiting()).await;
        let counts = || node.handle.peers().into_iter().map(|peer| peer.votes);
        let before: Vec<_> = counts().collect();
        gate.open();
        until("both to have sent their votes", were_sent).await;
        until("all votes to wait", || {
            counts()
                .zip(&before)
                .all(|(count, before)| count >= before + 2)
        })
        .await;
        // The order is there before the state machine takes anything more.
        tokio::join!(node.leave(), async { own.open() });
    } else {
        node.leave().await;
        gate.open();
        until("both to have sent their votes", were_sent).await;
    }
    let state = node.executor.as_ref().unwrap().state();
    assert_eq!(state.next_height(), height);
    node.enter().await;
    node.reach_dialling(held, &nodes).await;
    let mut gone = node.switch.recent_disconnects();
    // A peer that has not yet seen the end of its connection closes the next one as a second.
    let mut ended = Vec::new();
    gone.retain(|gone| {
        let is_second = gone.reason == DisconnectReason::ClosedByPeer && ended.contains(&gone.id);
        ended.push(gone.id);
        !is_second
    });
    // What was under way may have come behind the entering.
    assert!(gone.len() == nodes.len() || !is_queued, "{gone:?}");
    let reason = DisconnectReason::PassedOver("consensus");
    assert!(gone.iter().all(|gone| gone.reason == reason), "{gone:?}");
    nodes.push(node);
    assert_same_chain(&nodes, held + 3).await;
    close_all(nodes).await;
}

/// The round of the first prevote at a height.
fn first_vote(home: &Home, height: Height) -> Round {
    let prevote = SignedMsgType::Prevote.to_i32();
    let mut signed = home.signed().into_keys();
    let first = signed.find(|(at, _, kind)| (*at, *kind) == (height, prevote));
    first.unwrap().1
}

/// The round of the first proposal that came at a height.
fn first_proposal(home: &Home, height: Height) -> Round {
    let proposal = |record| match record {
        WalMessage::Message {
            peer: Some(_),
            message: Message::Proposal(proposal),
        } => (proposal.height == height).then_some(proposal.round),
        _ => None,
    };
    home.records().into_iter().find_map(proposal).unwrap()
}
