//! What peers are sent.

use std::{cell::Cell, collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use perihelion_consensus::{BitArray, ConsensusConfig, Maj23, Message, Step};
use perihelion_consensus_reactor::{
    peer::{
        IDLE_POLLS_BEFORE_HEADER, MAX_STATE_BITS, PeerState, Received, Stored, View, VotesView,
        answer_maj23,
    },
    wire::{
        HasVote, NewRoundStep, NewValidBlock, PeerMessage, ProposalPol, VoteSetBits, WireError,
    },
};
use perihelion_types::{
    BlockId, Hash, Height, NodeId, PartSet, PartSetHeader, PeerId, Proposal, Round, SignedMsgType,
    Time,
};
use proptest::prelude::*;

use crate::network::{Item, Network};

const PREVOTE: SignedMsgType = SignedMsgType::Prevote;
const PRECOMMIT: SignedMsgType = SignedMsgType::Precommit;
/// Two virtual minutes.
const LONG: u64 = 12_000;

fn peer() -> (PeerId, PeerState) {
    let id = NodeId::new([0x77; 20]);
    (
        id,
        PeerState::new(&NodeId::new([1; 20]), &id, Height::new(1)),
    )
}

fn at(height: i64, round: i32, step: Step, last_commit_round: i32) -> PeerMessage {
    PeerMessage::NewRoundStep(NewRoundStep {
        height: Height::new(height),
        round: Round::new(round),
        step,
        seconds_since_start_time: 1,
        last_commit_round: Round::new(last_commit_round),
    })
}

fn block_id(total: u32) -> BlockId {
    BlockId {
        hash: Hash::of(b"block"),
        part_set_header: PartSetHeader {
            total,
            hash: Hash::of(b"parts"),
        },
    }
}

/// Everything that the peer is sent until there is nothing more; nothing twice.
fn all_votes(peer: &mut PeerState, view: &View, stored: &dyn Stored) -> Vec<(i32, i32, i32)> {
    let mut sent = BTreeSet::new();
    let mut votes = Vec::new();
    while let Some(message) = peer.next_vote(view, stored) {
        assert!(sent.insert(Item::of(&message).unwrap()), "{message:?}");
        peer.sent(view, &message);
        let PeerMessage::Vote(vote) = message else {
            panic!("{message:?} is no vote")
        };
        votes.push((
            vote.round.get(),
            vote.vote_type.to_i32(),
            vote.validator_index,
        ));
    }
    votes.sort_unstable();
    votes
}

#[test]
fn two_nodes_tell_each_other_all_that_is_needed_and_nothing_twice() {
    let mut network = Network::new(2, 150_000);
    network.link(0, 1);
    network.run_to(0, 4, LONG);
    network.run_to(1, 4, LONG);
    network.assert_agreed();
    assert_eq!(network.twice, []);
    // Three parts a block, to the one who did not propose it.
    assert!(network.parts_sent >= 12, "{}", network.parts_sent);
}

#[test]
fn four_nodes_in_a_ring_pass_everything_on() {
    let mut network = Network::new(4, 150_000);
    for node in 0..4 {
        network.link(node, (node + 1) % 4);
    }
    for node in 0..4 {
        network.run_to(node, 3, LONG);
    }
    network.assert_agreed();
    assert_eq!(network.twice, []);
    // The first round decides each height: nothing came too late.
    assert!(network.nodes[0].core.round() == Round::ZERO);
}

#[test]
fn a_node_that_lags_by_several_heights_gets_parts_and_commits_from_one_peer() {
    let mut network = Network::new(4, 300_000);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        network.link(a, b);
    }
    network.run_to(0, 5, LONG);
    network.run_to(1, 5, LONG);
    assert_eq!(network.nodes[3].decided(), []);
    let before = network.parts_sent;
    network.link(1, 3);
    network.run_to(3, 5, LONG);
    // It goes on with the others, who decide meanwhile.
    let ahead = network.nodes[1].decided().len() as i64;
    network.run_to(3, ahead + 1, LONG);
    network.assert_agreed();
    assert_eq!(network.twice, []);
    assert!(network.parts_sent - before >= 25);
}

#[test]
fn halves_of_a_network_that_were_apart_decide_once_they_meet() {
    let mut network = Network::new(4, 1_000);
    network.link(0, 1);
    network.link(2, 3);
    (0..1_000).for_each(|_| network.tick());
    assert!(network.nodes.iter().all(|node| node.decided().is_empty()));
    network.link(1, 2);
    for node in 0..4 {
        network.run_to(node, 2, LONG);
    }
    network.cut(1, 2);
    network.link(0, 3);
    for node in 0..4 {
        network.run_to(node, 4, LONG);
    }
    network.assert_agreed();
    assert_eq!(network.twice, []);
}

/// The node that everything is asked of: at height 1, with its own precommit of round 0 for nil, and
/// those of the others for a block that it lacks.
fn with_commit_in_round_0() -> Network {
    let mut network = Network::new(4, 100);
    for by in 1..4 {
        let vote = network.vote(by, PRECOMMIT, (1, 0), block_id(2));
        network.give(0, Message::Vote(Arc::new(vote)));
    }
    assert_eq!(network.nodes[0].core.commit_round(), Some(Round::ZERO));
    network
}

#[test]
fn a_peer_in_a_later_round_gets_the_commit_of_an_earlier_one() {
    let network = with_commit_in_round_0();
    let node = &network.nodes[0];
    let now = network.now.instant;
    let (_, mut peer) = peer();
    let view = Some(&*node.view);
    peer.handle(now, view, &at(1, 2, Step::Propose, -1))
        .unwrap();
    let votes = all_votes(&mut peer, &node.view, &node.blocks);
    assert_eq!(votes, [(0, 2, 0), (0, 2, 1), (0, 2, 2), (0, 2, 3)]);
    // Nor again in its next rounds, nor in the one that was decided.
    peer.handle(now, view, &at(1, 3, Step::Propose, -1))
        .unwrap();
    assert_eq!(all_votes(&mut peer, &node.view, &node.blocks), []);
    // The claim goes with it.
    let claims = peer.next_maj23(&node.view, &node.blocks);
    let claim = Maj23 {
        height: Height::new(1),
        round: Round::ZERO,
        vote_type: PRECOMMIT,
        block_id: block_id(2),
    };
    assert_eq!(claims, [PeerMessage::Maj23(claim)]);
}

#[test]
fn votes_that_were_sent_in_a_round_are_not_sent_again_as_its_commit() {
    let network = with_commit_in_round_0();
    let node = &network.nodes[0];
    let (now, view) = (network.now.instant, Some(&*node.view));
    let (_, mut peer) = peer();
    peer.handle(now, view, &at(1, 0, Step::Prevote, -1))
        .unwrap();
    assert_eq!(all_votes(&mut peer, &node.view, &node.blocks).len(), 4);
    peer.handle(now, view, &at(1, 1, Step::Propose, -1))
        .unwrap();
    assert_eq!(all_votes(&mut peer, &node.view, &node.blocks), []);
    // It enters the next height: they are its last commit.
    peer.handle(now, view, &at(2, 0, Step::NewHeight, 0))
        .unwrap();
    assert_eq!(peer.last_commit().map(BitArray::count), Some(4));
}

#[test]
fn a_picture_tells_when_the_last_block_was_decided_and_who_claimed_that_it_was() {
    let mut network = Network::new(2, 100);
    network.link(0, 1);
    assert_eq!(network.nodes[0].view.commit_time(), None);
    network.run_to(0, 1, LONG);
    let view = &network.nodes[0].view;
    assert_eq!(view.last_commit_claims(), []);
    let decided = view.commit_time().unwrap();
    let pause = ConsensusConfig::default().timeout_commit;
    assert_eq!(view.round_step().start_time, decided + pause);
    // The next one, which a stranger claims before it is decided.
    let claim = Maj23 {
        height: Height::new(2),
        round: Round::ZERO,
        vote_type: PRECOMMIT,
        block_id: block_id(2),
    };
    let stranger = NodeId::new([0x77; 20]);
    network.nodes[0].core.handle_maj23(stranger, &claim);
    network.run_to(0, 2, LONG);
    for _ in 0..2 {
        network.nodes[0].look();
        let view = &network.nodes[0].view;
        let claims = view.last_commit_claims();
        assert!(claims.contains(&(stranger, block_id(2))), "{claims:?}");
        assert!(view.commit_time() > Some(decided));
    }
}

#[test]
fn a_picture_tells_that_precommits_are_waited_for() {
    let mut network = Network::new(4, 100);
    let awaited = |network: &Network| network.nodes[0].view.has_awaited_precommits();
    for (by, block) in [(1, block_id(1)), (2, block_id(2)), (3, BlockId::NIL)] {
        assert!(!awaited(&network));
        let vote = network.vote(by, PRECOMMIT, (1, 0), block);
        network.give(0, Message::Vote(Arc::new(vote)));
    }
    let mut seen = Vec::new();
    for _ in 0..LONG {
        let place = (network.nodes[0].core.round().get(), awaited(&network));
        if seen.last() != Some(&place) {
            seen.push(place);
        }
        if place.0 == 1 {
            break;
        }
        network.tick();
    }
    assert_eq!(seen, [(0, true), (1, false)]);
}

#[test]
fn claims_are_answered_with_the_votes_for_that_block_and_answers_correct_what_is_known() {
    let network = with_commit_in_round_0();
    let node = &network.nodes[0];
    let (now, view) = (network.now.instant, Some(&*node.view));
    let (_, mut peer) = peer();
    peer.handle(now, view, &at(1, 0, Step::Prevote, -1))
        .unwrap();
    let claim = Maj23 {
        height: Height::new(1),
        round: Round::ZERO,
        vote_type: PRECOMMIT,
        block_id: block_id(2),
    };
    let received = peer.handle(now, view, &PeerMessage::Maj23(claim));
    assert_eq!(received, Ok(Received::Claim(claim)));
    let Some(PeerMessage::VoteSetBits(answer)) = answer_maj23(node.core.votes(), &claim) else {
        panic!("no answer")
    };
    assert_eq!(answer.votes.iter().collect::<Vec<_>>(), [1, 2, 3]);
    let other = Maj23 {
        block_id: block_id(9),
        ..claim
    };
    let Some(PeerMessage::VoteSetBits(none)) = answer_maj23(node.core.votes(), &other) else {
        panic!("no answer")
    };
    assert_eq!(none.votes.size(), 0);
    let elsewhere = Maj23 {
        height: Height::new(2),
        ..claim
    };
    assert_eq!(answer_maj23(node.core.votes(), &elsewhere), None);
    // All were sent; the peer says that it has only one of them for this block.
    assert_eq!(all_votes(&mut peer, &node.view, &node.blocks).len(), 4);
    let mut votes = BitArray::new(4);
    votes.set(2, true);
    let said = PeerMessage::VoteSetBits(VoteSetBits {
        height: Height::new(1),
        round: Round::ZERO,
        vote_type: PRECOMMIT,
        block_id: block_id(2),
        votes,
    });
    peer.handle(now, view, &said).unwrap();
    let again = all_votes(&mut peer, &node.view, &node.blocks);
    assert_eq!(again, [(0, 2, 1), (0, 2, 3)]);
}

/// A proposal of an earlier round's block: first the proposal, then which prevotes of its proof of
/// lock are here, and these before any other votes.
#[test]
fn a_proof_of_lock_follows_its_proposal() {
    let mut network = Network::new(4, 100);
    let locked = block_id(2);
    for by in 1..4 {
        let vote = network.vote(by, PREVOTE, (1, 0), locked);
        network.give(0, Message::Vote(Arc::new(vote)));
    }
    for by in 1..4 {
        let vote = network.vote(by, PREVOTE, (1, 1), BlockId::NIL);
        network.give(0, Message::Vote(Arc::new(vote)));
    }
    let round = |network: &Network| network.nodes[0].core.round().get();
    for _ in 0..2_000 {
        if round(&network) == 1 {
            break;
        }
        network.tick();
    }
    assert_eq!(round(&network), 1, "{:?}", network.places());
    let proposal = network.proposal((1, 1), 0, locked);
    network.give(0, Message::Proposal(Arc::new(proposal)));
    let node = &network.nodes[0];
    let (now, view) = (network.now.instant, Some(&*node.view));
    let (_, mut peer) = peer();
    peer.handle(now, view, &at(1, 1, Step::Propose, -1))
        .unwrap();
    let mut kinds = Vec::new();
    while let Some(message) = peer.next_data(&node.view, &node.blocks) {
        peer.sent(&node.view, &message);
        kinds.push(match &message {
            PeerMessage::Proposal(_) => "proposal",
            PeerMessage::ProposalPol(pol) => {
                assert_eq!(pol.pol_round, Round::ZERO);
                assert!(pol.prevotes.count() >= 3);
                "proof of lock"
            }
            _ => "other",
        });
    }
    assert_eq!(kinds, ["proposal", "proof of lock"]);
    let first = peer.next_vote(&node.view, &node.blocks);
    assert!(
        matches!(&first, Some(PeerMessage::Vote(vote)) if vote.round == Round::ZERO),
        "{first:?}"
    );
    let votes = all_votes(&mut peer, &node.view, &node.blocks);
    for index in 1..4 {
        assert!(votes.contains(&(0, 1, index)) && votes.contains(&(1, 1, index)));
    }
}

#[test]
fn a_peer_that_lags_and_says_nothing_is_sent_the_block_in_the_end() {
    let mut network = Network::new(2, 150_000);
    network.link(0, 1);
    network.run_to(0, 3, LONG);
    let node = &network.nodes[0];
    let (now, view) = (network.now.instant, Some(&*node.view));
    let parts = |peer: &mut PeerState| {
        let mut parts = BTreeSet::new();
        while let Some(message) = peer.next_data(&node.view, &node.blocks) {
            peer.sent(&node.view, &message);
            let PeerMessage::Part { height, part, .. } = message else {
                panic!("{message:?} is no part")
            };
            assert_eq!(height, Height::new(1));
            assert!(parts.insert(part.index));
        }
        parts.len()
    };
    let (_, mut silent) = peer();
    silent
        .handle(now, view, &at(1, 0, Step::Prevote, -1))
        .unwrap();
    for _ in 1..IDLE_POLLS_BEFORE_HEADER {
        assert_eq!(parts(&mut silent), 0);
    }
    assert_eq!(parts(&mut silent), 3);
    // One that has seen the commit is sent it at once.
    let (_, mut waiting) = peer();
    waiting
        .handle(now, view, &at(1, 0, Step::Commit, -1))
        .unwrap();
    assert_eq!(parts(&mut waiting), 3);
    // One that collects another block is not, before it has seen the commit.
    let (_, mut other) = peer();
    other
        .handle(now, view, &at(1, 0, Step::Commit, -1))
        .unwrap();
    let collects = PeerMessage::NewValidBlock(NewValidBlock {
        height: Height::new(1),
        round: Round::ZERO,
        header: block_id(9).part_set_header,
        parts: BitArray::new(9),
        is_commit: false,
    });
    other.handle(now, view, &collects).unwrap();
    assert_eq!(parts(&mut other), 0);
}

/// Counts how often whole blocks are asked for.
struct Counted<'a> {
    blocks: &'a dyn Stored,
    loads: Cell<usize>,
}

impl Stored for Counted<'_> {
    fn header(&self, height: Height) -> Option<PartSetHeader> {
        self.blocks.header(height)
    }

    fn parts(&self, height: Height) -> Option<Arc<PartSet>> {
        self.loads.set(self.loads.get() + 1);
        self.blocks.parts(height)
    }

    fn commit(&self, height: Height) -> Option<Arc<VotesView>> {
        self.blocks.commit(height)
    }
}

#[test]
fn nothing_is_loaded_for_a_peer_that_claims_another_block_or_has_it_all() {
    let mut network = Network::new(2, 150_000);
    network.link(0, 1);
    network.run_to(0, 3, LONG);
    let node = &network.nodes[0];
    let (now, view) = (network.now.instant, Some(&*node.view));
    let stored = Counted {
        blocks: &node.blocks,
        loads: Cell::new(0),
    };
    let (_, mut peer) = peer();
    peer.handle(now, view, &at(1, 0, Step::Commit, -1)).unwrap();
    let collects = |header: PartSetHeader, has: usize| {
        let mut parts = BitArray::new(header.total as usize);
        (0..has).for_each(|index| parts.set(index, true));
        PeerMessage::NewValidBlock(NewValidBlock {
            height: Height::new(1),
            round: Round::ZERO,
            header,
            parts,
            is_commit: true,
        })
    };
    let header = node.blocks.header(Height::new(1)).unwrap();
    let same_count = block_id(header.total).part_set_header;
    for (header, has) in [
        (same_count, 0),
        (block_id(1).part_set_header, 0),
        (header, 3),
    ] {
        peer.handle(now, view, &collects(header, has)).unwrap();
        assert!(peer.next_data(&node.view, &stored).is_none());
        assert_eq!(stored.loads.get(), 0, "{header:?}");
    }
    peer.handle(now, view, &collects(header, 2)).unwrap();
    let sent = peer.next_data(&node.view, &stored);
    assert!(
        matches!(&sent, Some(PeerMessage::Part { part, .. }) if part.index == 2),
        "{sent:?}"
    );
    assert_eq!(stored.loads.get(), 1);
}

#[test]
fn proposals_of_more_parts_than_a_block_can_have_disconnect() {
    let network = Network::new(2, 100);
    let view = &network.nodes[0].view;
    let (_, mut peer) = peer();
    let now = network.now.instant;
    peer.handle(now, Some(view), &at(1, 0, Step::Propose, -1))
        .unwrap();
    let proposal = |total| PeerMessage::Proposal(Arc::new(proposal(1, 0, total)));
    let fault = peer.handle(now, Some(view), &proposal(view.max_parts() + 1));
    assert!(
        matches!(fault, Err(WireError::TooManyParts { .. })),
        "{fault:?}"
    );
    peer.handle(now, Some(view), &proposal(view.max_parts()))
        .unwrap();
    assert_eq!(peer.parts().unwrap().bits.size() as u32, view.max_parts());
}

#[test]
fn while_syncing_only_what_a_peer_says_of_itself_counts() {
    let (_, mut peer) = peer();
    let now = std::time::Instant::now();
    peer.handle(now, None, &at(7, 0, Step::Propose, 1)).unwrap();
    assert_eq!(peer.height(), Height::new(7));
    let message = PeerMessage::Proposal(Arc::new(proposal(7, 0, u32::MAX)));
    assert_eq!(
        peer.handle(now, None, &message),
        Ok(Received::PassedOver(Height::new(7)))
    );
    assert_eq!(peer.parts(), None);
    let fault = peer.handle(now, None, &at(0, 0, Step::Propose, -1));
    assert!(matches!(fault, Err(WireError::BelowInitialHeight { .. })));
}

fn proposal(height: i64, round: i32, total: u32) -> Proposal {
    Proposal {
        proposal_type: SignedMsgType::Proposal,
        height: Height::new(height),
        round: Round::new(round),
        pol_round: Round::new(-1),
        block_id: block_id(total),
        timestamp: Time::new(1_700_000_000, 0),
        signature: Bytes::from_static(&[1; 64]),
    }
}

/// What a liar says: anything of the right form, about places near and far.
fn claim() -> impl Strategy<Value = PeerMessage> {
    let place = || {
        let height = prop_oneof![8 => 1..4_i64, 1 => Just(i64::MAX)];
        let round = prop_oneof![8 => 0..4_i32, 1 => Just(i32::MAX)];
        (height, round).prop_map(|(h, r)| (Height::new(h), Round::new(r)))
    };
    let vote_type = || prop_oneof![Just(PREVOTE), Just(PRECOMMIT)];
    let size = |max: usize| prop_oneof![1..10_usize, Just(max)];
    let step = (0..8_usize).prop_map(|step| Step::ALL[step]);
    prop_oneof![
        (place(), step, -1..4_i32).prop_map(|(p, step, last)| at(p.0.get(), p.1.get(), step, last)),
        (place(), size(1_601), any::<bool>()).prop_map(|(place, size, is_commit)| {
            PeerMessage::NewValidBlock(NewValidBlock {
                height: place.0,
                round: place.1,
                header: block_id(size as u32).part_set_header,
                parts: BitArray::new(size),
                is_commit,
            })
        }),
        (place(), vote_type(), prop_oneof![0..9, Just(i32::MAX)]).prop_map(
            |(place, vote_type, index)| PeerMessage::HasVote(HasVote {
                height: place.0,
                round: place.1,
                vote_type,
                index,
            })
        ),
        (place(), size(10_000)).prop_map(|(place, size)| {
            PeerMessage::ProposalPol(ProposalPol {
                height: place.0,
                pol_round: place.1,
                prevotes: BitArray::new(size),
            })
        }),
        (place(), vote_type(), size(10_000)).prop_map(|(place, vote_type, size)| {
            PeerMessage::VoteSetBits(VoteSetBits {
                height: place.0,
                round: place.1,
                vote_type,
                block_id: block_id(2),
                votes: BitArray::new(size),
            })
        }),
        (place(), -1..4_i32, 1..1_700_u32).prop_map(|(place, pol, total)| {
            PeerMessage::Proposal(Arc::new(Proposal {
                pol_round: Round::new(pol),
                ..proposal(place.0.get(), place.1.get(), total)
            }))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a peer claims, little is kept of it, and what it is sent ends.
    #[test]
    fn claims_never_make_memory_grow(claims in prop::collection::vec(claim(), 1..60)) {
        let network = with_commit_in_round_0();
        let node = &network.nodes[0];
        let (_, mut peer) = peer();
        for claim in claims {
            // What disconnects changes nothing.
            let _ = peer.handle(network.now.instant, Some(&node.view), &claim);
            prop_assert!(peer.held_bits() <= MAX_STATE_BITS);
            let sent = all_votes(&mut peer, &node.view, &node.blocks);
            prop_assert!(sent.len() <= 4);
            let data = std::iter::from_fn(|| {
                let message = peer.next_data(&node.view, &node.blocks)?;
                peer.sent(&node.view, &message);
                Some(message)
            });
            prop_assert!(data.take(10).count() < 10);
            prop_assert!(peer.next_maj23(&node.view, &node.blocks).len() <= 4);
        }
    }
}
