//! Sets that change: drift, the run of one, the run of two, the fork without a dishonest validator.

use std::sync::Arc;

use perihelion_certify::{
    CommitError, CommitFault, LastBlock, LocalFault, RunVerdict, certify_run,
};
use perihelion_types::Hash;

use crate::chain::{Cast, Chain, certified, drifted, equals, set, suspect};

/// Four validators, then nine newcomers join them at height 4: V holds 40 of 130.
fn joined_by_a_majority(length: usize) -> Chain {
    let v = equals(0..4);
    let all = equals(0..13);
    Chain::new(&[Arc::clone(&v), Arc::clone(&v), v, all], length)
}

/// Nobody lies here. All members of V precommit X at height 4 in round 0, having seen a polka; the
/// newcomers have not seen it and precommit nil. In round 1 the newcomers, more than 2/3 of the
/// set, precommit Y. X is signed by all of V and is not final; Y is.
#[test]
fn the_fork_without_a_dishonest_validator() {
    let mut chain = joined_by_a_majority(3);
    let x = chain.candidate("X", chain.full_commit());
    let y = chain.candidate("Y", chain.full_commit());
    let for_x = chain.commit_for(4, x.block_id(), 0, |n| {
        if n < 4 { Cast::Block } else { Cast::Nil }
    });
    let for_y = chain.commit_for(4, y.block_id(), 1, |n| {
        if n < 4 { Cast::Nil } else { Cast::Block }
    });

    let below: Vec<_> = (1..=3)
        .map(|height| Arc::clone(chain.block(height)))
        .collect();
    let mut on_x = chain.clone();
    on_x.blocks.push(Arc::clone(&x));
    let closing_x = on_x.candidate("above X", for_x);
    let blocks_x: Vec<_> = below.iter().cloned().chain([x]).collect();
    let mut run = chain.run_of(blocks_x, &closing_x);
    // All of V has signed X, and still X is not certified; what is below it is.
    assert_eq!(certified(&run), (vec![1, 2, 3], LastBlock::UnknownSet));
    // Nor is it when the set of its height is known: then the commit does not hold.
    run.anchor.height = perihelion_types::Height::new(3);
    run.anchor.next = Some(chain.set(4));
    run.blocks.drain(..2);
    run.previous = chain.id(2);
    let (heights, last) = certified(&run);
    assert_eq!(heights, [3]);
    assert!(matches!(
        last,
        LastBlock::Suspect {
            fault: CommitFault::OwnSet(CommitError::NotEnoughPower {
                got: 40,
                needed: 86
            }),
            ..
        }
    ));

    chain.blocks.push(Arc::clone(&y));
    let closing_y = chain.candidate("above Y", for_y);
    let blocks_y: Vec<_> = below.into_iter().chain([Arc::clone(&y)]).collect();
    // V has not signed Y: drifted, and the halves are certified without any doubt.
    drifted(&chain.run_of(blocks_y, &closing_y));
    assert_eq!(certified(&chain.run(1, 3)).0, [1, 2, 3]);
    assert_eq!(
        certified(&chain.run_of(vec![y], &closing_y)),
        (vec![4], LastBlock::Final)
    );
}

#[test]
fn where_v_has_drifted_too_far_the_run_is_halved_down_to_ordinary_blocksync() {
    let sets: Vec<_> = (0..6).map(|first| equals(first..first + 3)).collect();
    let chain = Chain::new(&sets, 7);
    // At height 3 one member of V is left, at height 2 two of three: not more than 2/3.
    drifted(&chain.run(1, 6));
    drifted(&chain.run(1, 3));
    drifted(&chain.run(1, 2));
    for height in 1..=6 {
        assert_eq!(
            certified(&chain.run(height, height)),
            (vec![height], LastBlock::Final)
        );
    }
}

#[test]
fn too_little_power_convicts_nobody_in_a_run_and_makes_a_single_block_suspect() {
    let chain = Chain::new(&[equals(0..4)], 3);
    let short = || chain.commit(|n| if n < 2 { Cast::Block } else { Cast::Absent });
    drifted(&chain.run_closed_by(1, short()));
    assert!(matches!(
        suspect(&chain.run_closed_by(3, short())),
        CommitFault::OwnSet(CommitError::NotEnoughPower { .. })
    ));
}

#[test]
fn validator_churn_leaves_all_but_the_last_block() {
    // One power changes at each height, so that no set is ever known.
    let sets: Vec<_> = (0..40)
        .map(|height| set(&[(0, 100), (1, 101), (2, 102), (3, 103 + height)]))
        .collect();
    let chain = Chain::new(&sets, 39);
    let (heights, last) = certified(&chain.run(1, 38));
    assert_eq!(heights, (1..=37).collect::<Vec<_>>());
    assert_eq!(last, LastBlock::UnknownSet);
}

#[test]
fn v_stays_the_anchor_of_later_runs_that_link_to_what_is_certified() {
    let sets: Vec<_> = (0..40)
        .map(|height| set(&[(0, 100), (1, 101), (2, 102), (3, 103 + height)]))
        .collect();
    let chain = Chain::new(&sets, 39);
    assert_eq!(certified(&chain.run(1, 10)).0, (1..=9).collect::<Vec<_>>());
    let mut later = chain.run(10, 20);
    later.anchor = chain.run(1, 1).anchor;
    assert_eq!(certified(&later).0, (10..=19).collect::<Vec<_>>());
    // One block alone is not decided by the set of a lower height.
    let mut single = chain.run(20, 20);
    single.anchor = chain.run(1, 1).anchor;
    drifted(&single);
}

#[test]
fn a_run_of_one_takes_its_set_from_our_state_whatever_the_header_says() {
    let chain = Chain::new(&[equals(0..4)], 1);
    let mut on = chain.clone();
    on.blocks.clear();
    let lying = on.bent("lying", on.full_commit(), &|block| {
        block.header.validators_hash = Hash::of(b"another set");
    });
    on.blocks.push(Arc::clone(&lying));
    // Without V's signatures the header's word is worth nothing ...
    let nobody = on.commit(|_| Cast::Absent);
    assert!(matches!(
        suspect(&on.run_closed_by(1, nobody)),
        CommitFault::OwnSet(CommitError::NotEnoughPower { .. })
    ));
    // ... and with them the block is final, and our state is what is wrong.
    let (verdict, _) = certify_run(&on.run_closed_by(1, on.full_commit()));
    let RunVerdict::LocalFault {
        fault:
            LocalFault::ValidatorsHash {
                height,
                block_id,
                ours,
                header,
            },
    } = verdict
    else {
        panic!("{verdict:?}");
    };
    assert_eq!((height.get(), block_id), (1, lying.block_id()));
    assert_eq!(
        (ours, header),
        (equals(0..4).hash(), Hash::of(b"another set"))
    );
}

#[test]
fn our_states_next_set_makes_the_second_block_of_a_run_of_two_final() {
    let (v, next) = (equals(0..4), equals(0..5));
    let chain = Chain::new(&[v, Arc::clone(&next)], 3);
    let mut run = chain.run(1, 2);
    assert_eq!(certified(&run), (vec![1], LastBlock::UnknownSet));
    run.anchor.next = Some(next);
    assert_eq!(certified(&run), (vec![1, 2], LastBlock::Final));
    // A next set that the header does not name makes nothing final.
    run.anchor.next = Some(equals(0..6));
    assert_eq!(certified(&run), (vec![1], LastBlock::UnknownSet));
}

#[test]
fn a_header_that_falsely_names_v_makes_nothing_final() {
    // Height 3 belongs to another set; a liar's block names V and is signed by that other set.
    let v = equals(0..4);
    let chain = Chain::new(&[Arc::clone(&v), v, equals(4..8)], 2);
    let mut forged = chain.clone();
    let liar = forged.bent("liar", forged.full_commit(), &|block| {
        block.header.validators_hash = equals(0..4).hash();
    });
    forged.blocks.push(liar);
    drifted(&forged.run_closed_by(1, forged.full_commit()));
}

#[test]
fn a_run_may_cross_a_change_of_parameters() {
    let mut chain = Chain::new(&[equals(0..4)], 3);
    for parameters in ["other parameters", "yet other parameters"] {
        let block = chain.bent("changed", chain.full_commit(), &|block| {
            block.header.consensus_hash = Hash::of(parameters.as_bytes());
        });
        chain.blocks.push(block);
    }
    chain.extend(2);
    assert_eq!(
        certified(&chain.run(1, 6)),
        ((1..=6).collect(), LastBlock::Final)
    );
}
