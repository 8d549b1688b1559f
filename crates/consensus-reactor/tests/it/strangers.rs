//! Peers that do what the test says: lies, and what honest ones are told.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_consensus::{BitArray, Maj23, Message, Step, WalMessage};
use perihelion_consensus_reactor::{
    View,
    privval::SignState,
    wire::{Channel, NewRoundStep, NewValidBlock, PeerMessage},
};
use perihelion_p2p::{PeerEvent, PeerHandle, SwitchHandle};
use perihelion_types::{
    BlockId, Hash, Height, PartSet, PartSetHeader, Proposal, Round, Rules, SignedMsgType, Time,
    Vote,
};
use tokio::sync::mpsc;

use crate::nodes::{
    Home, LOOK, Node, close_all, dial, genesis, key, mesh, soon, switch, threads, until,
};

/// A peer that does what the test says.
pub(crate) struct Stranger {
    pub(crate) switch: SwitchHandle,
    events: mpsc::Receiver<PeerEvent>,
    node: PeerHandle,
}

impl Stranger {
    pub(crate) async fn connect(to: &Node) -> Self {
        let (switch, events) = switch().await;
        let node = dial(&switch, &to.switch).await;
        Self {
            switch,
            events,
            node,
        }
    }

    pub(crate) async fn say(&self, message: &PeerMessage) {
        self.say_on(message.channel(), message.encode()).await;
    }

    pub(crate) async fn say_on(&self, channel: Channel, bytes: Bytes) {
        let sent = soon("room to send", self.node.send(channel.id(), bytes)).await;
        sent.unwrap();
    }

    /// The next message that `wanted` picks something out of.
    pub(crate) async fn hear<T>(
        &mut self,
        what: &str,
        wanted: impl Fn(PeerMessage) -> Option<T>,
    ) -> T {
        soon(what, async {
            loop {
                match self.events.recv().await.expect("the switch runs") {
                    PeerEvent::Message { channel, bytes, .. } => {
                        let channel = Channel::from_id(channel).unwrap();
                        let message = PeerMessage::decode_on(channel, &bytes, Rules::V038);
                        if let Some(found) = wanted(message.unwrap().unwrap()) {
                            return found;
                        }
                    }
                    PeerEvent::Added(_) => {}
                    PeerEvent::Removed { reason, .. } => panic!("disconnected: {reason}"),
                }
            }
        })
        .await
    }

    /// Why the node removed this peer.
    pub(crate) async fn removal(&self, node: &Node) -> String {
        let id = self.switch.id();
        soon("the disconnect", async {
            loop {
                let recent = node.switch.recent_disconnects();
                if let Some(gone) = recent.into_iter().find(|gone| gone.id == id) {
                    return gone.reason.to_string();
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
    }
}

fn step(height: i64, round: i32) -> PeerMessage {
    PeerMessage::NewRoundStep(NewRoundStep {
        height: Height::new(height),
        round: Round::new(round),
        step: Step::Propose,
        seconds_since_start_time: 0,
        last_commit_round: Round::new(if height == 1 { -1 } else { 0 }),
    })
}

pub(crate) fn block_id(byte: u8, total: u32) -> BlockId {
    BlockId {
        hash: Hash::of(&[byte]),
        part_set_header: PartSetHeader {
            total,
            hash: Hash::of(&[byte, byte]),
        },
    }
}

/// A vote of validator `number`, whose index the view tells, signed by `signer`.
pub(crate) fn vote(
    node: &Node,
    number: usize,
    signer: usize,
    at: (i64, i32),
    block: BlockId,
) -> Vote {
    let view = node.handle.view().borrow().clone().unwrap();
    let address = key(number).public_key().address();
    let (index, _) = view.validator_set().by_address(&address).unwrap();
    let mut vote = Vote {
        vote_type: SignedMsgType::Prevote,
        height: Height::new(at.0),
        round: Round::new(at.1),
        block_id: block,
        timestamp: Time::new(1_700_000_100, 0),
        validator_address: Bytes::copy_from_slice(address.as_bytes()),
        validator_index: i32::try_from(index).unwrap(),
        signature: Bytes::new(),
        extension: Bytes::new(),
        extension_signature: Bytes::new(),
    };
    vote.signature = key(signer).sign(&vote.sign_bytes("loopback"));
    vote
}

/// Two of four validators: they decide nothing and stay at height 1.
pub(crate) async fn stuck() -> Vec<Node> {
    let mut homes = Home::all(&genesis(&[10; 4]));
    homes.truncate(2);
    mesh(homes).await
}

#[test]
fn what_cometbft_disconnects_for_disconnects() {
    threads().block_on(async {
        let nodes = stuck().await;
        let garbage = Bytes::from_static(&[0xff; 40]);
        let below = step(0, 0);
        let oversized = PeerMessage::Proposal(Arc::new(Proposal {
            proposal_type: SignedMsgType::Proposal,
            height: Height::new(1),
            round: Round::ZERO,
            pol_round: Round::new(-1),
            block_id: block_id(1, 1_000),
            timestamp: Time::new(1_700_000_100, 0),
            signature: Bytes::from_static(&[1; 64]),
        }));
        let bits = PeerMessage::NewValidBlock(NewValidBlock {
            height: Height::new(1),
            round: Round::ZERO,
            header: block_id(1, 3).part_set_header,
            parts: BitArray::new(4),
            is_commit: false,
        });
        let cases = [
            (Channel::State, garbage, "malformed"),
            (Channel::State, below.encode(), "height 0"),
            (Channel::State, bits.encode(), "4 bits for 3 parts"),
            (Channel::Data, oversized.encode(), "1000 parts"),
        ];
        for (channel, bytes, why) in cases {
            let stranger = Stranger::connect(&nodes[0]).await;
            stranger.say_on(channel, bytes).await;
            let reason = stranger.removal(&nodes[0]).await;
            assert!(reason.starts_with("consensus: "), "{reason}");
            assert!(reason.contains(why), "{reason}");
        }
        // A vote that its validator did not sign, in a round that is open.
        let stranger = Stranger::connect(&nodes[0]).await;
        let forged = vote(&nodes[0], 2, 3, (1, 0), BlockId::NIL);
        stranger.say(&PeerMessage::Vote(Arc::new(forged))).await;
        let reason = stranger.removal(&nodes[0]).await;
        assert!(reason.contains("wrong signature"), "{reason}");
        // Two claims for one place.
        let stranger = Stranger::connect(&nodes[0]).await;
        for byte in [1, 2] {
            let claim = Maj23 {
                height: Height::new(1),
                round: Round::ZERO,
                vote_type: SignedMsgType::Prevote,
                block_id: block_id(byte, 1),
            };
            stranger.say(&PeerMessage::Maj23(claim)).await;
        }
        let reason = stranger.removal(&nodes[0]).await;
        assert!(reason.contains("two majorities"), "{reason}");
        // The switch tells of a removal before the reactor hears of it.
        let peers = || nodes[0].handle.peers().len();
        until("only the other validator is left", || peers() == 1).await;
        close_all(nodes).await;
    });
}

/// What is false is judged before it is logged: nobody can fill the disk with it. A proposal by who
/// is not the proposer here may come from an honest peer that counts otherwise.
#[test]
fn false_proposals_are_passed_over_false_parts_convict_and_neither_is_logged() {
    threads().block_on(async {
        // The first proposer is the one with the lowest address. It is not there.
        let address = |number: &usize| key(*number).public_key().address();
        let proposer = (0..4).min_by_key(address).unwrap();
        let here = (proposer + 1) % 4;
        let home = Home::all(&genesis(&[10; 4])).remove(here);
        let node = Node::begin(home).await;
        let view = node.see("the first round", |view| view.proposal().is_none());
        let view = view.await;
        let first = view.validator_set().proposer().unwrap();
        assert_eq!(first.address, address(&proposer));
        let data = PartSet::from_data(Bytes::from(vec![7; 100_000]));
        let proposal = |signer: usize, pol_round: i32| {
            let mut proposal = Proposal {
                proposal_type: SignedMsgType::Proposal,
                height: Height::new(1),
                round: Round::ZERO,
                pol_round: Round::new(pol_round),
                block_id: BlockId {
                    hash: Hash::of(b"block"),
                    part_set_header: data.header(),
                },
                timestamp: Time::new(1_700_000_100, 0),
                signature: Bytes::new(),
            };
            proposal.signature = key(signer).sign(&proposal.sign_bytes("loopback"));
            PeerMessage::Proposal(Arc::new(proposal))
        };
        let part = |index: u32, byte: u8| {
            let mut part = data.part(index).unwrap().clone();
            part.bytes = Bytes::from(vec![byte; part.bytes.len()]);
            PeerMessage::Part {
                height: Height::new(1),
                round: Round::ZERO,
                part: Arc::new(part),
            }
        };
        let odd = Stranger::connect(&node).await;
        odd.say(&proposal(here, -1)).await;
        // One of each peer is judged in a round.
        odd.say(&proposal(proposer, -1)).await;
        let other = (proposer + 2) % 4;
        let vote = vote(&node, other, other, (1, 0), BlockId::NIL);
        let index = usize::try_from(vote.validator_index).unwrap();
        odd.say(&PeerMessage::Vote(Arc::new(vote.clone()))).await;
        let view = node.see("the vote", |view| {
            let votes = view.prevotes(Round::ZERO);
            votes.is_some_and(|votes| votes.vote(index).is_some())
        });
        assert!(view.await.proposal().is_none());
        assert!(node.switch.peer(&odd.switch.id()).is_some());
        let honest = Stranger::connect(&node).await;
        honest.say(&proposal(proposer, -1)).await;
        node.see("the proposal", |view| view.proposal().is_some())
            .await;
        let liar = Stranger::connect(&node).await;
        liar.say(&part(1, 8)).await;
        let reason = liar.removal(&node).await;
        assert!(reason.contains("part 1 is not what its proof"), "{reason}");
        honest.say(&part(1, 7)).await;
        node.see("the part", |view| {
            view.parts().is_some_and(|parts| parts.bits().count() == 1)
        })
        .await;
        assert!(node.switch.peer(&honest.switch.id()).is_some());
        let logged: Vec<_> = node
            .close()
            .await
            .records()
            .into_iter()
            .filter_map(|record| match record {
                WalMessage::Message {
                    peer: Some(peer),
                    message,
                } => Some((peer, message)),
                _ => None,
            })
            .collect();
        let told = [
            (&odd, PeerMessage::Vote(Arc::new(vote))),
            (&honest, proposal(proposer, -1)),
            (&honest, part(1, 7)),
        ];
        assert_eq!(logged.len(), told.len(), "{logged:?}");
        for ((peer, message), (sender, told)) in logged.into_iter().zip(told) {
            assert_eq!(peer, sender.switch.id());
            let is_same = match (&message, &told) {
                (Message::Vote(one), PeerMessage::Vote(other)) => one == other,
                (Message::Proposal(one), PeerMessage::Proposal(other)) => one == other,
                (Message::Part { part: one, .. }, PeerMessage::Part { part: other, .. }) => {
                    one == other
                }
                _ => false,
            };
            assert!(is_same, "{message:?}");
        }
    });
}

#[test]
fn a_peer_that_lags_is_sent_blocks_and_commits_out_of_the_store() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10])).remove(0);
        let node = Node::begin(home).await;
        node.reach(3).await;
        // What it decided before is not at hand any more.
        let node = Node::begin(node.close().await).await;
        for height in (1..=3).map(Height::new) {
            let mut stranger = Stranger::connect(&node).await;
            let block_id = node.store.load_block_id(height).unwrap().unwrap();
            let header = block_id.part_set_header;
            let PeerMessage::NewRoundStep(at) = step(height.get(), 0) else {
                panic!("no step")
            };
            let at = NewRoundStep {
                step: Step::Commit,
                ..at
            };
            stranger.say(&PeerMessage::NewRoundStep(at)).await;
            let collects = NewValidBlock {
                height,
                round: Round::ZERO,
                header,
                parts: BitArray::new(header.total as usize),
                is_commit: true,
            };
            stranger.say(&PeerMessage::NewValidBlock(collects)).await;
            let (mut part, mut vote) = (None, None);
            while part.is_none() || vote.is_none() {
                let told = stranger.hear("the part and the precommit", |message| match message {
                    PeerMessage::Part { .. } | PeerMessage::Vote(_) => Some(message),
                    _ => None,
                });
                match told.await {
                    PeerMessage::Part { part: it, .. } => part = Some(it),
                    PeerMessage::Vote(it) => vote = Some(it),
                    _ => {}
                }
            }
            let part = part.unwrap();
            let root = header.hash.as_bytes();
            part.proof.verify(root, &part.bytes).unwrap();
            let vote = vote.unwrap();
            assert_eq!((vote.height, vote.block_id), (height, block_id));
        }
        node.close().await;
    });
}

#[test]
fn claims_are_answered_with_the_votes_that_are_here() {
    threads().block_on(async {
        let nodes = stuck().await;
        let mut stranger = Stranger::connect(&nodes[0]).await;
        let at = stranger
            .hear("where the node is", |message| match message {
                PeerMessage::NewRoundStep(step) => Some(step),
                _ => None,
            })
            .await;
        assert_eq!(at.height.get(), 1);
        // Both of the others: nobody has more than 2/3 yet.
        let round = at.round;
        let prevote = vote(&nodes[0], 2, 2, (1, round.get()), BlockId::NIL);
        stranger.say(&PeerMessage::Vote(Arc::new(prevote))).await;
        let claim = Maj23 {
            height: at.height,
            round,
            vote_type: SignedMsgType::Prevote,
            block_id: BlockId::NIL,
        };
        let index = loop {
            stranger.say(&PeerMessage::Maj23(claim)).await;
            let bits = stranger
                .hear("the votes", |message| match message {
                    PeerMessage::VoteSetBits(bits) => Some(bits),
                    _ => None,
                })
                .await;
            assert_eq!((bits.height, bits.round), (at.height, round));
            assert_eq!(bits.vote_type, SignedMsgType::Prevote);
            let here: Vec<_> = bits.votes.iter().collect();
            let view = nodes[0].handle.view().borrow().clone().unwrap();
            let address = key(2).public_key().address();
            let (index, _) = view.validator_set().by_address(&address).unwrap();
            if here.contains(&index) {
                break index;
            }
        };
        assert!(index < 4);
        close_all(nodes).await;
    });
}

#[test]
fn while_a_node_syncs_states_are_kept_and_nothing_else() {
    threads().block_on(async {
        let genesis = genesis(&[10; 2]);
        let mut homes = Home::all(&genesis);
        let mut node = Node::open(homes.remove(0)).await;
        let mut stranger = Stranger::connect(&node).await;
        stranger.say(&step(5, 2)).await;
        let heights = node.handle.heights();
        let id = stranger.switch.id();
        soon("the peer's height", async {
            while (heights)(&id) != Some(Height::new(5)) {
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
        let address = key(1).public_key().address();
        let mut early = Vote {
            vote_type: SignedMsgType::Prevote,
            height: Height::new(1),
            round: Round::ZERO,
            block_id: BlockId::NIL,
            timestamp: Time::new(1_700_000_100, 0),
            validator_address: Bytes::copy_from_slice(address.as_bytes()),
            validator_index: 0,
            signature: Bytes::new(),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        early.signature = key(1).sign(&early.sign_bytes("loopback"));
        stranger.say(&PeerMessage::Vote(Arc::new(early))).await;
        // The vote was taken in when this was.
        stranger.say(&step(6, 0)).await;
        soon("the peer's next height", async {
            while (heights)(&id) != Some(Height::new(6)) {
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
        assert!(node.handle.view().borrow().is_none());
        assert_eq!(node.handle.peers()[0].votes, 0);
        // All peers are told when consensus begins.
        node.enter().await;
        let at = stranger
            .hear("where the node is", |message| match message {
                PeerMessage::NewRoundStep(step) => Some(step),
                _ => None,
            })
            .await;
        assert_eq!((at.height.get(), at.last_commit_round.get()), (1, -1));
        // A lie still disconnects while it syncs.
        node.leave().await;
        stranger
            .say_on(Channel::Vote, Bytes::from_static(&[0xff; 9]))
            .await;
        let reason = stranger.removal(&node).await;
        assert!(reason.starts_with("consensus: malformed"), "{reason}");
        assert!(node.handle.peers().is_empty() || node.handle.peers().len() == 1);
        node.close().await;
    });
}

/// The state says what was precommitted; the log that led there is gone.
#[test]
fn a_validator_without_its_log_prevotes_what_it_had_precommitted() {
    threads().block_on(async {
        let home = Home::all(&genesis(&[10; 4])).remove(0);
        let kept = block_id(9, 3);
        let precommit = Vote {
            vote_type: SignedMsgType::Precommit,
            height: Height::new(1),
            round: Round::ZERO,
            block_id: kept,
            timestamp: Time::new(1_700_000_100, 0),
            validator_address: Bytes::new(),
            validator_index: 0,
            signature: Bytes::new(),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        let signbytes = Bytes::from(precommit.sign_bytes("loopback"));
        let state = SignState {
            height: 1,
            round: 0,
            step: 3,
            signature: key(0).sign(&signbytes),
            signbytes,
        };
        state.save(&home.sign_state()).unwrap();
        let node = Node::begin(home).await;
        let stranger = Stranger::connect(&node).await;
        // They bring it to round 1, where nothing has more than 2/3.
        for (number, block) in [(1, BlockId::NIL), (2, BlockId::NIL), (3, block_id(1, 1))] {
            let vote = vote(&node, number, number, (1, 1), block);
            stranger.say(&PeerMessage::Vote(Arc::new(vote))).await;
        }
        let own = vote(&node, 0, 0, (1, 1), BlockId::NIL).validator_index;
        let own = usize::try_from(own).unwrap();
        let cast = |view: &View| {
            let votes = view.prevotes(Round::new(1))?;
            votes.vote(own).map(|vote| vote.block_id)
        };
        let view = node.see("its prevote", |view| cast(view).is_some()).await;
        assert_eq!(cast(&view), Some(kept));
        assert!(view.prevotes(Round::ZERO).unwrap().vote(own).is_none());
        node.close().await;
    });
}
