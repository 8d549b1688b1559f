//! Whom a verdict blames, and how a suspect is settled once its height is pinned.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_certify::{Blame, CertifiedBlock, Standing, certify_run};
use perihelion_types::{Data, DecodeError, FetchedBlock, Hash, Round};

use crate::chain::{Cast, Chain, certified_blocks, equals, fetched};

fn pinned(chain: &Chain, height: i64) -> CertifiedBlock {
    let (blocks, _, _) = certified_blocks(&chain.run(height, height));
    blocks.into_iter().next().unwrap()
}

#[test]
fn a_body_that_is_not_its_headers_is_refused_when_it_is_decoded() {
    let chain = Chain::new(&[equals(0..4)], 2);
    let block = chain.block(2).block();
    let mut data = block.clone();
    data.data = Data::new(data.data.iter().chain([&b"smuggled"[..]]));
    let mut commit = block.clone();
    commit.last_commit.as_mut().unwrap().signatures.pop();
    let mut evidence = block.clone();
    evidence.header.evidence_hash = Hash::of(b"other evidence");
    for bent in [data, commit, evidence] {
        let refused = FetchedBlock::decode(bent.encode(), None);
        assert!(
            matches!(refused, Err(DecodeError::Invalid(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn only_a_faulty_commit_makes_a_suspect() {
    let chain = Chain::new(&[equals(0..4)], 3);
    let blame = |run: &_| certify_run(run).0.blame();
    assert_eq!(blame(&chain.run(1, 2)), Blame::Nobody);
    let forged = chain.commit(|_| Cast::Forged);
    assert_eq!(blame(&chain.run_closed_by(1, forged)), Blame::Suspect);
    let short = || chain.commit(|_| Cast::Absent);
    assert_eq!(blame(&chain.run_closed_by(1, short())), Blame::Nobody);
    assert_eq!(blame(&chain.run_closed_by(3, short())), Blame::Suspect);
    let mut run = chain.run(1, 2);
    run.previous = chain.id(2);
    assert_eq!(blame(&run), Blame::Nobody, "a broken link convicts nobody");
}

#[test]
fn a_suspect_is_cleared_when_its_own_block_is_pinned() {
    // A byzantine proposer bent the commit for height 2 inside block 3, to another round, and
    // block 3 became final all the same.
    let mut chain = Chain::new(&[equals(0..4)], 2);
    let mut bent = chain.full_commit();
    bent.round = Round::new(7);
    let block = chain.candidate("byzantine proposer", bent);
    assert_eq!(
        certify_run(&chain.run_of(vec![Arc::clone(chain.block(2))], &block))
            .0
            .blame(),
        Blame::Suspect
    );
    chain.blocks.push(Arc::clone(&block));
    chain.extend(1);
    let standing = Standing::compare(&block, &pinned(&chain, 3));
    assert_eq!(standing, Standing::Same);
    assert_eq!(standing.blame(true), Blame::Nobody);
}

#[test]
fn a_suspect_is_guilty_when_other_content_is_pinned() {
    let chain = Chain::new(&[equals(0..4)], 4);
    let final_block = pinned(&chain, 3);
    // The sender bent the commit's round in a copy of the final block: the header is the same.
    let mut block = chain.block(3).block().clone();
    block.last_commit.as_mut().unwrap().round = Round::new(7);
    let bent = fetched(&block);
    assert_eq!(bent.block_id().hash, final_block.block_id().hash);
    let standing = Standing::compare(&bent, &final_block);
    assert_eq!(standing, Standing::OtherCommit);
    assert_eq!(standing.blame(true), Blame::Guilty);
}

#[test]
fn a_block_that_does_not_hash_to_the_pinned_header_was_forged() {
    let chain = Chain::new(&[equals(0..4)], 4);
    let mut side = chain.clone();
    side.blocks.truncate(2);
    let forged = side.candidate("forged", side.full_commit());
    let standing = Standing::compare(&forged, &pinned(&chain, 3));
    assert_eq!(standing, Standing::OtherHeader);
    assert_eq!(standing.blame(false), Blame::Guilty);
}

#[test]
fn another_encoding_of_the_pinned_block_convicts_nobody() {
    let chain = Chain::new(&[equals(0..4)], 4);
    let other = [&chain.block(3).raw()[..], &[0x98, 0x06, 0x01]].concat();
    let other = FetchedBlock::decode(Bytes::from(other), None).unwrap();
    let standing = Standing::compare(&other, &pinned(&chain, 3));
    assert_eq!(standing, Standing::OtherEncoding);
    for suspect in [false, true] {
        assert_eq!(standing.blame(suspect), Blame::Nobody);
    }
}
