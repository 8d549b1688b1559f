//! How much waits, and how much goes into a block.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_evidence::{Added, MAX_PENDING_OF_ONE_VOTER};
use perihelion_types::{
    DuplicateVoteEvidence, Evidence, SignedMsgType, Vote, evidence::list_bytes,
};

use crate::{
    node::{Node, key_of},
    votes::{pair, vote},
};

/// Two precommits with extensions by the first validator, at height 3, where its node is.
fn precommits() -> (Node, DuplicateVoteEvidence) {
    let mut node = Node::at(2);
    let state = node.state();
    node.apply();
    let member = &state.validators.validators()[0];
    let key = key_of(&member.address);
    let precommit = |block| {
        let mut vote = Vote {
            vote_type: SignedMsgType::Precommit,
            extension: vec![block; 5].into(),
            ..vote(&state, 0, 0, block)
        };
        vote.signature = key.sign(&vote.sign_bytes(&state.chain_id));
        vote.extension_signature = key.sign(&vote.extension_sign_bytes(&state.chain_id));
        vote
    };
    let (one, other) = (precommit(1), precommit(2));
    let is_ordered = one.block_id.key() < other.block_id.key();
    let (vote_a, vote_b) = if is_ordered {
        (one, other)
    } else {
        (other, one)
    };
    let votes = DuplicateVoteEvidence {
        vote_a,
        vote_b,
        total_voting_power: state.validators.total_voting_power(),
        validator_power: member.voting_power,
        timestamp: node.state().last_block_time,
    };
    (node, votes)
}

/// Of one double vote anybody can make any number of pieces, all of which hold: by what no signature
/// of a vote covers.
#[test]
fn changed_copies_of_a_double_vote_are_passed_over() {
    let (node, sent) = precommits();
    let pool = node.pool();
    let changes: [fn(&mut DuplicateVoteEvidence); 6] = [
        |it| it.vote_a.validator_index += 1,
        |it| it.vote_b.validator_index = i32::MAX,
        |it| it.vote_a.extension = Bytes::from_static(b"another"),
        |it| it.vote_b.extension_signature = it.vote_b.signature.clone(),
        |it| it.vote_a.extension = Bytes::new(),
        |it| it.vote_b.extension = it.vote_a.extension.clone(),
    ];
    let changed = changes.map(|change| {
        let mut votes = sent.clone();
        change(&mut votes);
        Evidence::DuplicateVote(votes)
    });
    let tried = |one: &Evidence| pool.add(one.clone()).unwrap();
    for one in &changed {
        assert_eq!(tried(one), Added::Changed);
    }
    // Blocks of others may have them, as with CometBFT; they are not passed on from there.
    pool.check_evidence(&changed).unwrap();
    assert_eq!(pool.size(), 0);
    // As it was sent, and as it is told by who keeps no extensions.
    let mut without = sent.clone();
    for vote in [&mut without.vote_a, &mut without.vote_b] {
        vote.extension.clear();
        vote.extension_signature.clear();
    }
    assert_eq!(tried(&Evidence::DuplicateVote(sent)), Added::New);
    assert_eq!(tried(&Evidence::DuplicateVote(without)), Added::New);
}

/// A node at height 3 and evidence about its validators, in several rounds.
fn evidence(rounds: i32) -> (Node, Vec<Evidence>) {
    let mut node = Node::at(2);
    let (state, maker) = (node.state(), node.pool());
    let members = state.validators.len();
    assert!(members > 1);
    node.apply();
    let mut all = Vec::new();
    for place in 0..members {
        for round in 0..rounds {
            let [first, second] = pair(&state, place, round, [1, 2]);
            maker.report_conflicting_votes(Arc::clone(&first), Arc::clone(&second));
            let set = &state.validators;
            let (vote_a, vote_b) = if first.block_id.key() < second.block_id.key() {
                (first, second)
            } else {
                (second, first)
            };
            all.push(Evidence::DuplicateVote(DuplicateVoteEvidence {
                vote_a: (*vote_a).clone(),
                vote_b: (*vote_b).clone(),
                total_voting_power: set.total_voting_power(),
                validator_power: set.validators()[place].voting_power,
                timestamp: node.state().last_block_time,
            }));
        }
    }
    (node, all)
}

#[test]
fn one_voter_cannot_keep_out_the_others() {
    let rounds = MAX_PENDING_OF_ONE_VOTER + 3;
    let (node, all) = evidence(i32::try_from(rounds).unwrap());
    let pool = node.pool();
    for of_one in all.chunks(rounds) {
        for (index, one) in of_one.iter().enumerate() {
            let expected = if index < MAX_PENDING_OF_ONE_VOTER {
                Added::New
            } else {
                Added::NoRoom
            };
            assert_eq!(pool.add(one.clone()).unwrap(), expected);
        }
    }
    // A block that has them is valid all the same.
    pool.check_evidence(&all).unwrap();
    assert_eq!(pool.size(), all.len() / rounds * MAX_PENDING_OF_ONE_VOTER);
}

#[test]
fn a_block_gets_as_much_as_it_has_room_for() {
    let (node, all) = evidence(2);
    let pool = node.pool();
    for one in &all {
        assert_eq!(pool.add(one.clone()).unwrap(), Added::New);
    }
    let mut ordered = all;
    ordered.sort_by_key(|one| (one.height(), one.hash()));
    let whole = list_bytes(&ordered);
    let alone: Vec<usize> = ordered
        .iter()
        .map(|one| list_bytes(std::slice::from_ref(one)))
        .collect();
    for max in (0..whole + 3).chain([usize::MAX >> 1]) {
        let (list, bytes) = pool.pending_evidence(i64::try_from(max).unwrap());
        // Each one that fits behind those before it.
        let (mut expected, mut taken) = (Vec::new(), 0);
        for (one, bytes) in ordered.iter().zip(&alone) {
            if taken + bytes <= max {
                expected.push(one.clone());
                taken += bytes;
            }
        }
        assert_eq!(list, expected);
        assert_eq!(usize::try_from(bytes).unwrap(), taken);
        assert_eq!(list_bytes(&list), taken);
    }
    assert_eq!(pool.pending_evidence(-1).0, ordered);
}
