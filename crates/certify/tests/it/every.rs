//! Every commit checked.

use std::sync::Arc;

use perihelion_certify::{
    CertifiedBlock, CommitError, CommitFault, LastBlock, Run, RunVerdict, certify_every,
    certify_run,
};
use perihelion_types::{Hash, Height, Round, ValidatorSet};

use crate::chain::{CHAIN, Cast, Chain, certified, equals, heights, set};

/// Knows the sets of the first `count` heights.
fn known(chain: &Chain, count: i64) -> impl Fn(Hash) -> Option<Arc<ValidatorSet>> {
    let sets: Vec<_> = (1..=count).map(|height| chain.set(height)).collect();
    move |hash| sets.iter().find(|set| set.hash() == hash).cloned()
}

fn every(
    run: &Run,
    known: impl Fn(Hash) -> Option<Arc<ValidatorSet>>,
) -> (Vec<CertifiedBlock>, LastBlock, u64) {
    match certify_every(run, &known) {
        (RunVerdict::Certified { blocks, last, .. }, count) => (blocks, last, count.get()),
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn both_modes_certify_the_same_blocks() {
    let sets: Vec<_> = (0..12)
        .map(|height| set(&[(0, 100), (1, 101), (2, 102), (3, 103 + height / 4)]))
        .collect();
    let chain = Chain::new(&sets, 12);
    for last in 1..=11 {
        let run = chain.run(1, last);
        let (blocks, standing, count) = every(&run, known(&chain, 12));
        assert_eq!((heights(&blocks), standing), certified(&run));
        assert!(blocks.iter().all(CertifiedBlock::commit_verified));
        for block in &blocks {
            assert_eq!(block.commit().unwrap().height, block.height());
        }
        // Three signatures for each commit inside, and those that pinned the run.
        let inside = 3 * blocks.len().min(run.blocks.len() - 1) as u64;
        assert_eq!(count, inside + certify_run(&run).1.get());
    }
}

/// Block `at` carries a commit bent to another round, and the chain goes on over it.
fn with_bent_commit_in(at: i64, length: usize) -> Chain {
    let mut chain = Chain::new(&[equals(0..4)], usize::try_from(at - 1).unwrap());
    let mut bent = chain.full_commit();
    bent.round = Round::new(3);
    let block = chain.candidate("byzantine proposer", bent);
    chain.blocks.push(block);
    chain.extend(length - usize::try_from(at).unwrap());
    chain
}

#[test]
fn a_final_block_with_an_invalid_last_commit_halts_and_is_applied_when_pinned() {
    let chain = with_bent_commit_in(3, 6);
    let run = chain.run(1, 5);
    assert_eq!(certified(&run), ((1..=5).collect(), LastBlock::Final));
    let (verdict, _) = certify_every(&run, &known(&chain, 1));
    assert_eq!(verdict.blame(), perihelion_certify::Blame::Nobody);
    let RunVerdict::InvalidFinalCommit { height, error } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(height, Height::new(3), "the block that carries the commit");
    assert!(matches!(error, CommitError::WrongSignature { .. }));
}

#[test]
fn a_bent_commit_in_a_block_that_is_not_final_makes_it_suspect_and_holds_one_block_back() {
    // The set changes at height 3, so that block 3 is not final by this run.
    let mut chain = Chain::new(&[equals(0..4), equals(0..4), equals(0..5)], 2);
    let mut bent = chain.full_commit();
    bent.round = Round::new(3);
    let block = chain.candidate("suspect", bent);
    chain.blocks.push(block);
    chain.extend(1);
    let run = chain.run(1, 3);
    assert_eq!(certified(&run), (vec![1, 2], LastBlock::UnknownSet));
    let (blocks, last, _) = every(&run, known(&chain, 1));
    assert_eq!(heights(&blocks), [1]);
    assert!(matches!(
        last,
        LastBlock::Suspect {
            height,
            fault: CommitFault::OwnSet(CommitError::WrongSignature { .. }),
        } if height == Height::new(3)
    ));

    let run = chain.run(2, 3);
    let (verdict, _) = certify_every(&run, &known(&chain, 1));
    assert!(
        matches!(verdict, RunVerdict::Suspect { height, .. } if height == Height::new(3)),
        "{verdict:?}"
    );
}

#[test]
fn a_commit_whose_set_is_not_known_is_left_until_our_state_knows_it() {
    let sets: Vec<_> = (0..8)
        .map(|height| set(&[(0, 100), (1, 101), (2, 102), (3, 103 + height)]))
        .collect();
    let chain = Chain::new(&sets, 7);
    let run = chain.run(1, 6);
    // The sets of heights 1 to 3 are known. Block 6 is not final, its commit for 5 cannot be
    // checked, so 5 is held back.
    let (mut blocks, last, _) = every(&run, known(&chain, 3));
    assert_eq!(heights(&blocks), [1, 2, 3, 4]);
    assert_eq!(last, LastBlock::UnknownSet);
    let verified: Vec<bool> = blocks.iter().map(CertifiedBlock::commit_verified).collect();
    assert_eq!(verified, [true, true, true, false]);

    let block = &mut blocks[3];
    assert_eq!(
        block.verify_commit(CHAIN, &chain.set(5)),
        Err(CommitError::OtherSet)
    );
    assert_eq!(block.verify_commit(CHAIN, &chain.set(4)).unwrap().get(), 3);
    assert!(block.commit_verified());
    assert_eq!(block.verify_commit(CHAIN, &chain.set(4)).unwrap().get(), 0);
}

#[test]
fn a_set_that_is_handed_out_under_another_hash_verifies_nothing() {
    let chain = Chain::new(&[equals(0..4), equals(0..5), equals(0..5)], 4);
    // The same people in the same order, with other powers: their signatures hold.
    let wrong = |_| Some(set(&[(0, 11), (1, 11), (2, 11), (3, 11), (4, 11)]));
    let mut run = chain.run(1, 3);
    run.anchor.next = None;
    let (blocks, _, _) = every(&run, wrong);
    assert_eq!(heights(&blocks), [1]);
}

#[test]
fn verdicts_other_than_certified_pass_through() {
    let chain = Chain::new(&[equals(0..4)], 2);
    let run = chain.run_closed_by(1, chain.commit(|_| Cast::Absent));
    let (verdict, _) = certify_every(&run, &known(&chain, 1));
    assert!(matches!(verdict, RunVerdict::Drifted));
}

#[test]
fn one_wrong_signature_among_many_commits_names_its_own_block() {
    for at in 2..=6 {
        let mut chain = Chain::new(&[equals(0..4)], usize::try_from(at - 1).unwrap());
        let forged = chain.commit(|_| Cast::Forged);
        let block = chain.candidate("byzantine set", forged);
        chain.blocks.push(block);
        chain.extend(8 - usize::try_from(at).unwrap());
        let (verdict, _) = certify_every(&chain.run(1, 7), &known(&chain, 1));
        assert!(
            matches!(verdict, RunVerdict::InvalidFinalCommit { height, .. } if height == Height::new(at)),
            "{verdict:?}"
        );
    }
}
