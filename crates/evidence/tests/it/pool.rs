//! Evidence of a real chain on its way through the pool.

use std::sync::Arc;

use perihelion_certify::EvidenceError;
use perihelion_evidence::{AddError, Added, Updated, is_senders_fault};
use perihelion_types::{Evidence, Height, State, evidence::list_bytes};

use crate::node::{Node, all_evidence, heights_with_evidence};

fn ordered(mut list: Vec<Evidence>) -> Vec<Evidence> {
    list.sort_by_key(|one| (one.height(), one.hash()));
    list
}

#[test]
fn vector_evidence_waits_until_its_block_has_it() {
    for height in heights_with_evidence() {
        let mut node = Node::at(height - 1);
        let evidence = node.evidence(height);
        let pool = node.pool();
        for one in &evidence {
            assert_eq!(pool.add(one.clone()).unwrap(), Added::New);
            assert_eq!(pool.add(one.clone()).unwrap(), Added::Known);
        }
        let (pending, bytes) = pool.pending_evidence(-1);
        assert_eq!(pending, ordered(evidence.clone()));
        assert_eq!(bytes, i64::try_from(list_bytes(&pending)).unwrap());
        pool.check_evidence(&evidence).unwrap();
        // It is there after a restart.
        drop(pool);
        let pool = node.pool();
        assert_eq!(pool.pending_evidence(-1).0, pending);
        let committed = node.apply();
        let updated = pool.update(node.state(), &committed).unwrap();
        let expected = Updated {
            committed: evidence.len(),
            ..Updated::default()
        };
        assert_eq!((updated, pool.size()), (expected, 0));
        for one in &evidence {
            assert_eq!(pool.add(one.clone()).unwrap(), Added::Committed);
        }
        let checked = pool.check_evidence(&evidence);
        assert_eq!(checked, Err(EvidenceError::AlreadyCommitted));
        assert_eq!(node.pool().size(), 0);
    }
}

/// Blocks came without the pool, as in blocksync: at the next update, or the next start.
#[test]
fn vector_evidence_that_others_committed_goes() {
    let (first, last) = {
        let heights = heights_with_evidence();
        (heights[0], *heights.last().unwrap())
    };
    let mut node = Node::at(first - 1);
    let evidence = node.evidence(first);
    let (pool, other) = (node.pool(), node.pool());
    for one in &evidence {
        pool.add(one.clone()).unwrap();
    }
    while node.height() < last {
        node.apply();
    }
    assert_eq!(node.pool().size(), 0);
    assert_eq!(pool.size(), evidence.len());
    let updated = pool.update(node.state(), &[]).unwrap();
    assert_eq!((updated.committed, pool.size()), (evidence.len(), 0));
    // An old state is no news.
    let old = Node::at(first).state();
    assert_eq!(pool.update(old, &[]).unwrap(), Updated::default());
    assert_eq!(pool.state().last_block_height.get(), last);
    assert_eq!(other.size(), 0);
}

/// A block's evidence is judged without the pool having it, and kept.
#[test]
fn vector_evidence_of_proposed_blocks_is_judged() {
    for height in heights_with_evidence() {
        let node = Node::at(height - 1);
        let pool = node.pool();
        let evidence = node.evidence(height);
        pool.check_evidence(&evidence).unwrap();
        assert_eq!(pool.size(), evidence.len());
        let twice = [&evidence[..], &evidence[..1]].concat();
        let expected = EvidenceError::Duplicate {
            first: 0,
            second: evidence.len(),
        };
        assert_eq!(pool.check_evidence(&twice), Err(expected));
    }
}

/// The hash of an attack does not cover all of it: another one is not valid because one is known.
#[test]
fn vector_attacks_in_proposed_blocks_are_judged_each_time() {
    let mut attacks = 0;
    for (height, mut evidence) in all_evidence() {
        if matches!(evidence, Evidence::DuplicateVote(_)) {
            continue;
        }
        attacks += 1;
        let pool = Node::at(height - 1).pool();
        pool.add(evidence.clone()).unwrap();
        let hash = evidence.hash();
        attack(&mut evidence).total_voting_power += 1;
        assert_eq!(evidence.hash(), hash);
        assert_eq!(pool.add(evidence.clone()).unwrap(), Added::Known);
        let checked = pool.check_evidence(&[evidence]);
        assert!(
            matches!(checked, Err(EvidenceError::TotalPower { .. })),
            "{checked:?}"
        );
    }
    assert!(attacks > 0);
}

/// What one is told of blocks that are not there yet convicts nobody.
#[test]
fn vector_evidence_from_ahead_is_not_taken_and_not_blamed() {
    let node = Node::at(0);
    let pool = node.pool();
    for (_, evidence) in all_evidence() {
        let error = pool.add(evidence.clone()).unwrap_err();
        let AddError::Invalid(error) = error else {
            panic!("{error}");
        };
        assert!(
            !is_senders_fault(&error, &evidence, Height::ZERO),
            "{error}"
        );
    }
    assert_eq!(pool.size(), 0);
}

/// Ways to bend evidence, each of which makes it prove nothing.
fn bent(evidence: &Evidence) -> Vec<Evidence> {
    let mut all = Vec::new();
    let mut push = |bend: fn(&mut Evidence)| {
        let mut one = evidence.clone();
        bend(&mut one);
        all.push(one);
    };
    match evidence {
        Evidence::DuplicateVote(_) => {
            push(|it| votes(it).total_voting_power += 1);
            push(|it| votes(it).validator_power -= 1);
            push(|it| votes(it).timestamp = votes(it).timestamp.checked_add_nanos(1).unwrap());
            push(|it| votes(it).vote_a.signature = votes(it).vote_b.signature.clone());
            push(|it| votes(it).vote_b = votes(it).vote_a.clone());
            push(|it| votes(it).vote_a.validator_address = vec![3; 20].into());
        }
        Evidence::LightClientAttack(_) => {
            push(|it| attack(it).total_voting_power += 1);
            push(|it| attack(it).byzantine_validators.clear());
            push(|it| attack(it).byzantine_validators[0].voting_power += 1);
            push(|it| {
                let header = &mut attack(it).conflicting_block.signed_header.header;
                header.data_hash = perihelion_types::Hash::of(b"another");
            });
        }
    }
    all
}

fn votes(evidence: &mut Evidence) -> &mut perihelion_types::DuplicateVoteEvidence {
    match evidence {
        Evidence::DuplicateVote(votes) => votes,
        Evidence::LightClientAttack(_) => panic!("an attack"),
    }
}

fn attack(evidence: &mut Evidence) -> &mut perihelion_types::LightClientAttackEvidence {
    match evidence {
        Evidence::LightClientAttack(attack) => attack,
        Evidence::DuplicateVote(_) => panic!("votes"),
    }
}

#[test]
fn vector_evidence_that_is_bent_is_refused_and_blamed() {
    let (mut kinds, mut blamed) = (std::collections::BTreeSet::new(), 0);
    for (height, evidence) in all_evidence() {
        kinds.insert(matches!(evidence, Evidence::DuplicateVote(_)));
        // Where the headers are all there.
        let node = Node::at(height - 1);
        let pool = node.pool();
        let at = pool.state().last_block_height;
        for one in bent(&evidence) {
            let error = match pool.add(one.clone()).unwrap_err() {
                AddError::Invalid(error) => error,
                AddError::Malformed(_) => continue,
                AddError::Store(error) => panic!("{error}"),
            };
            let behind = match &one {
                Evidence::DuplicateVote(_) => false,
                Evidence::LightClientAttack(attack) => {
                    attack.conflicting_block.signed_header.header.height >= at
                }
            };
            assert_eq!(is_senders_fault(&error, &one, at), !behind, "{error}");
            blamed += usize::from(!behind);
        }
        assert_eq!(pool.size(), 0);
    }
    assert_eq!(kinds.len(), 2, "votes and attacks");
    assert!(blamed > 0);
}

/// Too old in blocks and in time, not in one of them.
#[test]
fn vector_evidence_expires_by_blocks_and_time() {
    let height = heights_with_evidence()[0];
    let node = Node::at(height - 1);
    let params = node.state().consensus_params.evidence;
    let oldest = node
        .evidence(height)
        .iter()
        .map(Evidence::height)
        .min()
        .unwrap();
    let later = |blocks: i64, nanos: i64| {
        let state = node.state();
        Arc::new(State {
            last_block_height: state.last_block_height.plus(blocks),
            last_block_time: state.last_block_time.checked_add_nanos(nanos).unwrap(),
            ..(*state).clone()
        })
    };
    let past_blocks = params.max_age_num_blocks + 1;
    let past_time = params.max_age_duration + 1_000_000_000;
    for (state, expires) in [
        (later(past_blocks, 0), false),
        (later(1, past_time), false),
        (later(past_blocks, past_time), true),
    ] {
        let pool = node.pool();
        for one in node.evidence(height) {
            // The second round finds them in the store.
            assert!(matches!(pool.add(one).unwrap(), Added::New | Added::Known));
        }
        let size = pool.size();
        let updated = pool.update(state, &[]).unwrap();
        assert_eq!(updated.expired, if expires { size } else { 0 });
        assert_eq!(pool.size(), size - updated.expired);
    }
    assert!(oldest.is_positive());
    assert_eq!(node.pool().size(), 0, "they are gone from the store too");
}
