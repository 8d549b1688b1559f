//! Votes that our own consensus saw contradict each other.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_certify::verify_evidence;
use perihelion_evidence::{Added, EvidencePool, MAX_PENDING_OF_ONE_VOTER, MAX_REPORTED};
use perihelion_state::StoreHistory;
use perihelion_types::{
    BlockId, Evidence, Hash, Height, PartSetHeader, Round, SignedMsgType, State, Time, Vote,
};

use crate::node::{Node, all_evidence, key_of};

/// A vote by a validator of the state's next block, by its place.
pub(crate) fn vote(state: &State, place: usize, round: i32, block: u8) -> Vote {
    let member = &state.validators.validators()[place];
    let mut vote = Vote {
        vote_type: SignedMsgType::Prevote,
        height: state.next_height(),
        round: Round::new(round),
        block_id: match block {
            0 => BlockId::NIL,
            byte => BlockId {
                hash: Hash::of(&[byte]),
                part_set_header: PartSetHeader {
                    total: 1,
                    hash: Hash::of(&[byte, byte]),
                },
            },
        },
        timestamp: Time::new(1_700_000_000, 5),
        validator_address: Bytes::copy_from_slice(member.address.as_bytes()),
        validator_index: i32::try_from(place).unwrap(),
        signature: Bytes::new(),
        extension: Bytes::new(),
        extension_signature: Bytes::new(),
    };
    vote.signature = key_of(&member.address).sign(&vote.sign_bytes(&state.chain_id));
    vote
}

pub(crate) fn pair(state: &State, place: usize, round: i32, blocks: [u8; 2]) -> [Arc<Vote>; 2] {
    blocks.map(|block| Arc::new(vote(state, place, round, block)))
}

fn update(pool: &EvidencePool, node: &mut Node) -> usize {
    let committed = node.apply();
    pool.update(node.state(), &committed).unwrap().made
}

#[test]
fn evidence_is_made_when_the_block_is_decided() {
    let mut node = Node::at(2);
    let pool = node.pool();
    let state = node.state();
    // One way round, the other way round, for nil, and twice.
    let pairs = [
        pair(&state, 0, 0, [1, 2]),
        pair(&state, 0, 1, [2, 1]),
        pair(&state, 1, 0, [0, 1]),
    ];
    for [first, second] in &pairs {
        for _ in 0..2 {
            pool.report_conflicting_votes(Arc::clone(first), Arc::clone(second));
            pool.report_conflicting_votes(Arc::clone(second), Arc::clone(first));
        }
    }
    assert_eq!(pool.size(), 0);
    assert_eq!(update(&pool, &mut node), 3);
    let (pending, _) = pool.pending_evidence(-1);
    assert_eq!(pending.len(), 3);
    let after = node.state();
    for evidence in &pending {
        let Evidence::DuplicateVote(votes) = evidence else {
            panic!("{evidence:?}");
        };
        assert_eq!(votes.timestamp, after.last_block_time);
        assert_eq!(
            votes.total_voting_power,
            state.validators.total_voting_power()
        );
        assert!(votes.vote_a.block_id.key() < votes.vote_b.block_id.key());
        evidence.validate_basic().unwrap();
        let history = StoreHistory::new(&node.store, after.last_block_height);
        verify_evidence(evidence, &after, &history).unwrap();
        assert_eq!(pool.add(evidence.clone()).unwrap(), Added::Known);
    }
    // Nothing is left to be made again.
    assert_eq!(update(&pool, &mut node), 0);
    assert_eq!(pool.size(), 3);
}

/// Reported late, when blocks have come meanwhile; or early, and kept until then.
#[test]
fn votes_of_any_height_find_their_block() {
    let mut node = Node::at(2);
    let [early, late] = [0, 1].map(|place| pair(&node.state(), place, 0, [1, 2]));
    let behind = Node::at(1);
    let pool = behind.pool();
    let report = |[first, second]: [Arc<Vote>; 2]| pool.report_conflicting_votes(first, second);
    report(early);
    // The pool's store has the first block, the votes are of the third.
    assert_eq!(pool.size(), 0);
    let ahead = node.pool();
    node.apply();
    node.apply();
    let [first, second] = late;
    ahead.report_conflicting_votes(first, second);
    assert_eq!(ahead.update(node.state(), &[]).unwrap().made, 1);
    let mut behind = behind;
    assert_eq!(update(&pool, &mut behind), 0);
    assert_eq!(update(&pool, &mut behind), 1);
}

#[test]
fn votes_that_prove_nothing_make_no_evidence() {
    let mut node = Node::at(2);
    let pool = node.pool();
    let state = node.state();
    let [first, second] = pair(&state, 0, 0, [1, 2]);
    let mut forged = (*second).clone();
    forged.signature = first.signature.clone();
    pool.report_conflicting_votes(Arc::clone(&first), Arc::new(forged));
    let mut stranger = [(*first).clone(), (*second).clone()];
    for vote in &mut stranger {
        vote.validator_address = Bytes::from_static(&[9; 20]);
    }
    let [a, b] = stranger.map(Arc::new);
    pool.report_conflicting_votes(a, b);
    pool.report_conflicting_votes(Arc::clone(&first), first);
    assert_eq!(update(&pool, &mut node), 0);
    assert_eq!(pool.size(), 0);
}

/// A block had the evidence before our own consensus reported the votes.
#[test]
fn vector_votes_that_a_block_has_make_no_evidence_again() {
    let mut seen = 0;
    for (height, evidence) in all_evidence() {
        let mut node = Node::at(height);
        let Evidence::DuplicateVote(votes) = evidence else {
            continue;
        };
        if !node.has_next() {
            continue;
        }
        seen += 1;
        let pool = node.pool();
        pool.report_conflicting_votes(Arc::new(votes.vote_b), Arc::new(votes.vote_a));
        assert_eq!(update(&pool, &mut node), 0);
        assert_eq!(pool.size(), 0);
    }
    assert!(seen > 0);
}

/// Nobody else may have seen them.
#[test]
fn votes_for_which_there_is_no_room_wait_until_there_is() {
    let mut node = Node::at(2);
    let pool = node.pool();
    let state = node.state();
    let more = 3;
    let rounds = MAX_PENDING_OF_ONE_VOTER + more;
    for round in 0..rounds {
        let [first, second] = pair(&state, 0, i32::try_from(round).unwrap(), [1, 2]);
        pool.report_conflicting_votes(first, second);
    }
    assert_eq!(update(&pool, &mut node), MAX_PENDING_OF_ONE_VOTER);
    let (first, _) = pool.pending_evidence(-1);
    assert_eq!(first.len(), MAX_PENDING_OF_ONE_VOTER);
    assert_eq!(update(&pool, &mut node), 0);
    // A block takes them.
    node.apply();
    let updated = pool.update(node.state(), &first).unwrap();
    assert_eq!((updated.committed, updated.made), (first.len(), more));
    let (second, _) = pool.pending_evidence(-1);
    assert_eq!(second.len(), more);
    assert!(second.iter().all(|one| !first.contains(one)));
}

#[test]
fn one_voter_cannot_keep_out_the_votes_of_others() {
    let mut node = Node::at(2);
    let pool = node.pool();
    let state = node.state();
    for round in 0..MAX_REPORTED {
        let round = i32::try_from(round).unwrap();
        let [first, second] = pair(&state, 0, 0, [1, 2]);
        let again = |vote: &Vote| {
            Arc::new(Vote {
                round: Round::new(round),
                ..vote.clone()
            })
        };
        pool.report_conflicting_votes(again(&first), again(&second));
    }
    let [first, second] = pair(&state, 1, 0, [1, 2]);
    pool.report_conflicting_votes(first, second);
    assert!(update(&pool, &mut node) > 0);
    let (pending, _) = pool.pending_evidence(-1);
    let address = &state.validators.validators()[1].address;
    assert!(pending.iter().any(|one| match one {
        Evidence::DuplicateVote(votes) => {
            votes.vote_a.validator_address[..] == address.as_bytes()[..]
        }
        Evidence::LightClientAttack(_) => false,
    }));
}

#[test]
fn only_so_many_votes_wait() {
    let mut node = Node::at(2);
    let pool = node.pool();
    let state = node.state();
    let [first, second] = pair(&state, 0, 0, [1, 2]);
    for round in 0..MAX_REPORTED {
        let round = Round::new(i32::try_from(round + 10).unwrap());
        let far = |vote: &Vote| {
            Arc::new(Vote {
                height: Height::new(1_000),
                round,
                ..vote.clone()
            })
        };
        pool.report_conflicting_votes(far(&first), far(&second));
    }
    // No room for these, which would have made evidence.
    pool.report_conflicting_votes(first, second);
    assert_eq!(update(&pool, &mut node), 0);
}
