//! How much waits, and how much goes into a block.

use std::sync::Arc;

use perihelion_evidence::{Added, MAX_PENDING_OF_ONE_VOTER};
use perihelion_types::{Evidence, evidence::list_bytes};

use crate::{node::Node, votes::pair};

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
            all.push(Evidence::DuplicateVote(
                perihelion_types::DuplicateVoteEvidence {
                    vote_a: (*vote_a).clone(),
                    vote_b: (*vote_b).clone(),
                    total_voting_power: set.total_voting_power(),
                    validator_power: set.validators()[place].voting_power,
                    timestamp: node.state().last_block_time,
                },
            ));
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
    for max in (0..whole + 3).chain([usize::MAX >> 1]) {
        let (list, bytes) = pool.pending_evidence(i64::try_from(max).unwrap());
        assert_eq!(list[..], ordered[..list.len()]);
        assert_eq!(usize::try_from(bytes).unwrap(), list_bytes(&list));
        assert!(list_bytes(&list) <= max);
        let more = list_bytes(&ordered[..(list.len() + 1).min(ordered.len())]);
        assert!(list.len() == ordered.len() || more > max);
    }
    assert_eq!(pool.pending_evidence(-1).0, ordered);
}
