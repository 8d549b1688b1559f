//! The statement itself: who counts, how much is enough, what becomes final.

use perihelion_certify::{CommitError, CommitFault, LastBlock, RunVerdict, certify_run};
use perihelion_types::Address;

use crate::chain::{
    Cast, Chain, certified, certified_blocks, commit_by, drifted, equals, heights, key, set,
    suspect,
};

fn address(n: u8) -> Address {
    key(n).public_key().address()
}

#[test]
fn one_commit_certifies_the_whole_run_with_the_fewest_signatures() {
    let chain = Chain::new(&[equals(0..4)], 11);
    let (blocks, last, count) = certified_blocks(&chain.run(1, 10));
    assert_eq!(heights(&blocks), (1..=10).collect::<Vec<_>>());
    assert_eq!(last, LastBlock::Final);
    assert_eq!(count.get(), 3, "three of four equal validators are enough");
}

#[test]
fn a_pin_takes_the_strongest_signers_first() {
    // V is spread over a larger set, in an order that is not that of its powers.
    let v = set(&[(0, 1), (1, 2), (2, 3), (3, 50)]);
    let later = set(&[(0, 40), (1, 30), (2, 20), (3, 10), (4, 5)]);
    let chain = Chain::new(&[v, later], 4);
    let (blocks, last, count) = certified_blocks(&chain.run(1, 3));
    assert_eq!(heights(&blocks), [1, 2]);
    assert_eq!(last, LastBlock::UnknownSet);
    assert_eq!(count.get(), 1, "one validator holds 50 of 56");
}

#[test]
fn exactly_two_thirds_of_v_are_not_enough_and_more_are() {
    let chain = Chain::new(&[equals(0..3), equals(0..4)], 3);
    let short = chain.commit(|n| if n < 2 { Cast::Block } else { Cast::Absent });
    drifted(&chain.run_closed_by(1, short));
    let enough = chain.commit(|n| if n < 3 { Cast::Block } else { Cast::Absent });
    assert_eq!(certified(&chain.run_closed_by(1, enough)).0, [1, 2]);

    let uneven = Chain::new(&[set(&[(0, 20), (1, 9), (2, 1)]), equals(0..4)], 3);
    let exact = uneven.commit(|n| if n == 0 { Cast::Block } else { Cast::Absent });
    drifted(&uneven.run_closed_by(1, exact));
    let more = uneven.commit(|n| if n == 1 { Cast::Absent } else { Cast::Block });
    assert_eq!(certified(&uneven.run_closed_by(1, more)).0, [1, 2]);
}

#[test]
fn exactly_two_thirds_of_its_own_set_make_no_block_final() {
    let chain = Chain::new(&[equals(0..3)], 1);
    let short = chain.commit(|n| if n < 2 { Cast::Block } else { Cast::Absent });
    assert_eq!(
        suspect(&chain.run_closed_by(1, short)),
        CommitFault::OwnSet(CommitError::NotEnoughPower {
            got: 20,
            needed: 20
        })
    );
    assert_eq!(
        certified(&chain.run_closed_by(1, chain.full_commit())),
        (vec![1], LastBlock::Final)
    );
}

#[test]
fn nil_and_absent_votes_do_not_count() {
    let chain = Chain::new(&[equals(0..4), equals(0..5)], 3);
    for silent in [Cast::Nil, Cast::Absent] {
        let commit = chain.commit(|n| if n < 2 { Cast::Block } else { silent });
        drifted(&chain.run_closed_by(1, commit));
    }
}

#[test]
fn a_member_of_v_counts_once_however_often_it_is_listed() {
    let chain = Chain::new(&[equals(0..4), equals(0..5)], 3);
    let twice: Vec<_> = [0, 1, 0, 1, 0]
        .into_iter()
        .map(|n| (n, Cast::Block))
        .collect();
    let commit = commit_by(3, 0, chain.id(3), &twice);
    drifted(&chain.run_closed_by(1, commit));
}

#[test]
fn members_are_matched_by_address_and_key() {
    // The strongest member is looked at first.
    let v = set(&[(0, 10), (1, 11), (2, 10), (3, 10)]);
    let chain = Chain::new(&[v, equals(0..5)], 3);
    let commit = chain.commit(|n| {
        if n == 1 {
            Cast::ByKeyOf(9)
        } else {
            Cast::Block
        }
    });
    let fault = suspect(&chain.run_closed_by(1, commit));
    assert!(
        matches!(fault, CommitFault::WrongSignature { address: who, .. } if who == address(1)),
        "{fault:?}"
    );
}

#[test]
fn strangers_to_v_neither_count_nor_harm() {
    let chain = Chain::new(&[equals(0..4), equals(0..9)], 3);
    let commit = chain.commit(|n| if n < 4 { Cast::Block } else { Cast::Forged });
    assert_eq!(
        certified(&chain.run_closed_by(1, commit)),
        (vec![1, 2], LastBlock::UnknownSet)
    );
}

#[test]
fn a_wrong_signature_that_is_not_needed_is_not_looked_at() {
    let chain = Chain::new(&[equals(0..4)], 3);
    let order = chain.set(3);
    let last = order.validators()[3].address;
    let commit = chain.commit(|n| {
        if address(n) == last {
            Cast::Forged
        } else {
            Cast::Block
        }
    });
    let (blocks, last, count) = certified_blocks(&chain.run_closed_by(1, commit));
    assert_eq!((heights(&blocks), last), (vec![1, 2, 3], LastBlock::Final));
    assert_eq!(count.get(), 3);
}

#[test]
fn what_is_certified_says_which_commit_it_has() {
    let chain = Chain::new(&[equals(0..4), equals(0..5)], 5);
    let (blocks, last, _) = certified_blocks(&chain.run(1, 4));
    assert_eq!(
        (heights(&blocks), last),
        (vec![1, 2, 3], LastBlock::UnknownSet)
    );
    for block in &blocks[..2] {
        let above = chain.block(block.height().get() + 1);
        assert_eq!(block.commit(), above.block().last_commit.as_ref());
        assert!(!block.commit_verified(), "final bytes, but not verified");
    }
    assert_eq!(blocks[2].commit(), None, "the block above it is not final");

    let (blocks, _, _) = certified_blocks(&chain.run(2, 4));
    let closing = chain.block(5).block().last_commit.as_ref();
    assert_eq!(blocks[2].commit(), closing);
    assert!(blocks[2].commit_verified());
}

#[test]
fn the_verdict_names_the_validators_above_the_last_certified_block() {
    let sets = [equals(0..4), equals(0..4), equals(0..5), equals(0..6)];
    let chain = Chain::new(&sets, 4);
    let RunVerdict::Certified {
        blocks,
        next_validators_hash,
        ..
    } = certify_run(&chain.run(1, 3)).0
    else {
        panic!("not certified");
    };
    assert_eq!(heights(&blocks), [1, 2]);
    assert_eq!(next_validators_hash, sets[2].hash());
}
