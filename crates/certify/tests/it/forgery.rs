//! What each liar can and cannot do: bent commits, equivocation, forged chains, broken links, other
//! encodings.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_certify::{CommitError, CommitFault, LastBlock, LinkFault, RunVerdict, certify_run};
use perihelion_types::{BlockId, FetchedBlock, Hash, Height, Round};

use crate::chain::{Cast, Chain, certified, certified_blocks, drifted, equals, heights, suspect};

fn broken(run: &perihelion_certify::Run) -> LinkFault {
    match certify_run(run) {
        (RunVerdict::Broken { fault }, count) => {
            assert_eq!(count.get(), 0, "links are checked before any signature");
            fault
        }
        (other, _) => panic!("not broken: {other:?}"),
    }
}

#[test]
fn a_commit_for_another_height_or_block_is_suspect_before_any_signature() {
    let chain = Chain::new(&[equals(0..4)], 3);
    let mut commit = chain.full_commit();
    commit.height = Height::new(2);
    let run = chain.run_closed_by(1, commit);
    assert_eq!(
        suspect(&run),
        CommitFault::Height {
            expected: Height::new(3),
            got: Height::new(2)
        }
    );
    assert_eq!(certify_run(&run).1.get(), 0);

    let mut commit = chain.full_commit();
    commit.block_id = chain.id(2);
    let run = chain.run_closed_by(1, commit);
    assert_eq!(
        suspect(&run),
        CommitFault::BlockId {
            expected: Box::new(chain.id(3)),
            got: Box::new(chain.id(2)),
        }
    );
    assert_eq!(certify_run(&run).1.get(), 0);
}

#[test]
fn a_commit_bent_to_another_round_is_suspect() {
    for first in 1..=3 {
        let chain = Chain::new(&[equals(0..4)], 3);
        let mut commit = chain.full_commit();
        commit.round = Round::new(1);
        assert!(matches!(
            suspect(&chain.run_closed_by(first, commit)),
            CommitFault::WrongSignature { .. }
                | CommitFault::OwnSet(CommitError::WrongSignature { .. })
        ));
    }
}

#[test]
fn an_invalid_signature_of_a_member_of_v_that_is_looked_at_makes_the_block_suspect() {
    let chain = Chain::new(&[equals(0..4), equals(0..5)], 3);
    for first in 1..=3 {
        let commit = chain.commit(|_| Cast::Forged);
        assert!(matches!(
            suspect(&chain.run_closed_by(first, commit)),
            CommitFault::WrongSignature { .. }
                | CommitFault::OwnSet(CommitError::WrongSignature { .. })
        ));
    }
}

#[test]
fn a_forger_with_two_thirds_of_v_and_no_more_forges_no_run() {
    // Two of three members of V sign a forged chain: more than the third that forges a single
    // height, but not more than two thirds.
    let honest = Chain::new(&[equals(0..3)], 2);
    let mut forged = honest.clone();
    for _ in 0..3 {
        let thirds = |n| if n < 2 { Cast::Block } else { Cast::Absent };
        let block = forged.candidate("forged", forged.commit(thirds));
        forged.blocks.push(block);
    }
    let commit = forged.commit(|n| if n < 2 { Cast::Block } else { Cast::Absent });
    drifted(&forged.run_closed_by(3, commit));
}

#[test]
fn equivocation_by_less_than_a_third_pins_one_block_only() {
    // Person 3 signs both; the honest are split.
    let chain = Chain::new(&[equals(0..4)], 3);
    let mut pinned = 0;
    for (tag, honest) in [("A", 0..2_u8), ("B", 2..3)] {
        let mut side = chain.clone();
        let block = side.candidate(tag, side.full_commit());
        side.blocks.push(block);
        let commit = side.commit(|n| {
            if n == 3 || honest.contains(&n) {
                Cast::Block
            } else {
                Cast::Absent
            }
        });
        match certify_run(&side.run_closed_by(4, commit)).0 {
            RunVerdict::Certified { .. } => pinned += 1,
            RunVerdict::Suspect { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pinned, 1);
}

#[test]
fn equivocation_by_more_than_a_third_shows_as_two_certified_ids_each_with_its_commit() {
    let chain = Chain::new(&[equals(0..4)], 3);
    let sides: Vec<_> = [("A", 0_u8), ("B", 1)]
        .into_iter()
        .map(|(tag, honest)| {
            let mut side = chain.clone();
            let block = side.candidate(tag, side.full_commit());
            side.blocks.push(block);
            let cast = |n| {
                if n == honest || n >= 2 {
                    Cast::Block
                } else {
                    Cast::Absent
                }
            };
            let (blocks, last, _) = certified_blocks(&side.run_closed_by(4, side.commit(cast)));
            assert_eq!((heights(&blocks), last), (vec![4], LastBlock::Final));
            blocks.into_iter().next().unwrap()
        })
        .collect();
    assert_ne!(sides[0].block_id(), sides[1].block_id());
    for side in &sides {
        assert_eq!(side.commit().unwrap().block_id, side.block_id());
    }
}

#[test]
fn another_encoding_of_a_block_is_not_the_block_that_was_signed() {
    let chain = Chain::new(&[equals(0..4)], 3);
    // An unknown field behind the block: the same content in other bytes.
    let other = [&chain.block(2).raw()[..], &[0x98, 0x06, 0x01]].concat();
    let other = Arc::new(FetchedBlock::decode(Bytes::from(other), None).unwrap());
    assert_eq!(other.block(), chain.block(2).block());
    assert_eq!(other.block_id().hash, chain.id(2).hash);
    assert_ne!(other.block_id(), chain.id(2));
    let mut run = chain.run(1, 2);
    run.blocks[1] = Arc::clone(&other);
    assert_eq!(
        broken(&run),
        LinkFault::LastBlockId {
            height: Height::new(3)
        }
    );
    // Encoded canonically it fits again.
    run.blocks[1] = Arc::new(other.reencoded().unwrap());
    assert_eq!(certified(&run), (vec![1, 2], LastBlock::Final));
}

#[test]
fn the_runs_own_links_are_checked_again() {
    let chain = Chain::new(&[equals(0..4)], 6);
    let run = chain.run(2, 4);

    let mut bent = run.clone();
    bent.blocks.clear();
    assert_eq!(broken(&bent), LinkFault::Empty);

    let mut bent = run.clone();
    bent.anchor.height = Height::new(3);
    assert!(matches!(broken(&bent), LinkFault::BelowAnchor { .. }));

    let mut bent = run.clone();
    bent.blocks.remove(1);
    assert_eq!(
        broken(&bent),
        LinkFault::Height {
            expected: Height::new(3),
            got: Height::new(4)
        }
    );

    let mut bent = run.clone();
    bent.closing = Arc::clone(chain.block(6));
    assert!(matches!(broken(&bent), LinkFault::Height { .. }));

    let mut bent = run.clone();
    bent.previous = BlockId::NIL;
    assert_eq!(
        broken(&bent),
        LinkFault::LastBlockId {
            height: Height::new(2)
        }
    );

    let mut bent = run.clone();
    bent.chain_id = "another-chain".into();
    assert_eq!(
        broken(&bent),
        LinkFault::ChainId {
            height: Height::new(2)
        }
    );

    let mut other = Chain::new(&[equals(0..4)], 2);
    let fork = other.candidate("fork", other.full_commit());
    other.blocks.push(fork);
    let mut bent = run;
    bent.blocks[1] = Arc::clone(other.block(3));
    assert_eq!(
        broken(&bent),
        LinkFault::LastBlockId {
            height: Height::new(4)
        }
    );
}

#[test]
fn a_forged_block_inside_a_run_breaks_the_link_above_it() {
    let chain = Chain::new(&[equals(0..4)], 3);
    let mut side = chain.clone();
    side.blocks.truncate(1);
    let forged = side.bent("forged", side.full_commit(), &|block| {
        block.header.app_hash = Bytes::copy_from_slice(Hash::of(b"forged").as_bytes());
    });
    let mut run = chain.run(1, 2);
    run.blocks[1] = forged;
    assert_eq!(
        broken(&run),
        LinkFault::LastBlockId {
            height: Height::new(3)
        }
    );
}

#[test]
fn a_commit_that_pins_but_does_not_fit_its_own_set_keeps_the_last_block_back() {
    // The commit lists its signers in another order than their set does.
    let chain = Chain::new(&[equals(0..4)], 3);
    let mut commit = chain.full_commit();
    commit.signatures.reverse();
    let run = chain.run_closed_by(1, commit.clone());
    let (heights, last) = certified(&run);
    assert_eq!(heights, [1, 2]);
    assert!(matches!(
        last,
        LastBlock::Suspect {
            height,
            fault: CommitFault::OwnSet(CommitError::AddressMismatch { .. }),
        } if height == Height::new(4)
    ));
    assert!(matches!(
        suspect(&chain.run_closed_by(3, commit)),
        CommitFault::OwnSet(CommitError::AddressMismatch { .. })
    ));
}
