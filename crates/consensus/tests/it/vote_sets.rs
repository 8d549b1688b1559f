//! Sets of votes by themselves.

use std::sync::Arc;

use perihelion_consensus::{
    EachSignature, VoteSet,
    votes::{MAX_MAJ23_CLAIMS, VoteError},
};
use perihelion_types::{BlockId, Hash, Height, NodeId, PartSetHeader, Round, SignedMsgType, Time};

use crate::chain::{self, CHAIN_ID, Validators};

fn id(text: &str) -> BlockId {
    BlockId {
        hash: Hash::of(text.as_bytes()),
        part_set_header: PartSetHeader {
            total: 1,
            hash: Hash::of(b"parts"),
        },
    }
}

struct Votes {
    set: VoteSet,
    validators: Validators,
}

impl Votes {
    fn new(powers: &[i64], vote_type: SignedMsgType) -> Self {
        let validators = Validators::new(powers, 0);
        let set = VoteSet::new(
            CHAIN_ID.into(),
            Height::new(1),
            Round::ZERO,
            vote_type,
            Arc::clone(&validators.genesis.validators),
            false,
        );
        Self { set, validators }
    }

    fn add(&mut self, index: usize, block_id: BlockId) -> Result<bool, VoteError> {
        let (key, set) = (
            &self.validators.keys[index],
            &self.validators.genesis.validators,
        );
        let place = (Height::new(1), 0);
        let vote = chain::vote(
            key,
            set,
            self.set.vote_type(),
            place,
            block_id,
            Time::new(9, 0),
        );
        let added = self.set.add(&Arc::new(vote), &EachSignature)?;
        Ok(added.added)
    }
}

#[test]
fn more_than_two_thirds_of_the_power_is_a_majority() {
    // 6 of 10 is not, 7 of 10 is; 2/3 exactly is not.
    let mut votes = Votes::new(&[4, 3, 3], SignedMsgType::Prevote);
    votes.add(1, id("a")).unwrap();
    votes.add(2, id("a")).unwrap();
    assert_eq!(
        (votes.set.maj23(), votes.set.has_two_thirds_any()),
        (None, false)
    );
    votes.add(0, id("b")).unwrap();
    assert_eq!(
        (votes.set.maj23(), votes.set.has_two_thirds_any()),
        (None, true)
    );
    assert!(votes.set.has_all());
    let mut votes = Votes::new(&[4, 3, 3], SignedMsgType::Prevote);
    votes.add(0, id("a")).unwrap();
    votes.add(2, id("a")).unwrap();
    assert_eq!(votes.set.maj23(), Some(id("a")));
    let mut votes = Votes::new(&[1, 1, 1], SignedMsgType::Prevote);
    votes.add(0, id("a")).unwrap();
    votes.add(1, id("a")).unwrap();
    assert_eq!(
        (votes.set.maj23(), votes.set.has_two_thirds_any()),
        (None, false)
    );
}

#[test]
fn a_commit_has_every_place_and_leaves_other_blocks_out() {
    let mut votes = Votes::new(&[5, 4, 1, 1, 1], SignedMsgType::Precommit);
    votes.add(0, id("a")).unwrap();
    votes.add(2, id("b")).unwrap();
    votes.add(3, BlockId::NIL).unwrap();
    assert_eq!(votes.set.commit(), None);
    votes.add(1, id("a")).unwrap();
    let commit = votes.set.commit().unwrap();
    let flags: Vec<i32> = commit
        .signatures
        .iter()
        .map(|place| place.block_id_flag.to_i32())
        .collect();
    assert_eq!(flags, [2, 2, 1, 3, 1]);
    assert_eq!(commit.block_id, id("a"));
    assert!(commit.validate_basic().is_ok());
    // Prevotes make none.
    let mut votes = Votes::new(&[1], SignedMsgType::Prevote);
    votes.add(0, id("a")).unwrap();
    assert_eq!(votes.set.commit(), None);
}

#[test]
fn the_vote_for_the_majority_stands_for_an_equivocator() {
    let mut votes = Votes::new(&[1, 1, 1, 1], SignedMsgType::Precommit);
    assert_eq!(votes.add(0, id("b")), Ok(true));
    assert_eq!(votes.add(1, id("a")), Ok(true));
    assert_eq!(votes.add(0, id("a")), Ok(false), "nobody claims a majority");
    votes
        .set
        .claim_maj23(NodeId::new([1; 20]), id("a"))
        .unwrap();
    assert_eq!(votes.add(0, id("a")), Ok(true));
    assert_eq!(votes.set.power(), 2, "counted once");
    assert_eq!(votes.set.vote(0).unwrap().block_id, id("b"));
    votes.add(2, id("a")).unwrap();
    assert_eq!(votes.set.maj23(), Some(id("a")));
    assert_eq!(votes.set.vote(0).unwrap().block_id, id("a"));
    assert_eq!(votes.set.bits_for(&id("a")).unwrap().count(), 3);
    assert_eq!(votes.set.bits_for(&id("b")).unwrap().count(), 1);
    assert_eq!(votes.set.bits_for(&id("c")), None);
    assert!(votes.set.vote_for(0, &id("b")).is_some());
    let commit = votes.set.commit().unwrap();
    assert_eq!(
        commit
            .signatures
            .iter()
            .filter(|p| p.block_id_flag.to_i32() == 2)
            .count(),
        3
    );
}

#[test]
fn the_first_majority_stays() {
    let mut votes = Votes::new(&[1, 1, 1, 1], SignedMsgType::Prevote);
    for index in 0..3 {
        votes.add(index, id("a")).unwrap();
    }
    votes
        .set
        .claim_maj23(NodeId::new([1; 20]), id("b"))
        .unwrap();
    for index in 0..4 {
        votes.add(index, id("b")).unwrap();
    }
    assert_eq!(votes.set.maj23(), Some(id("a")));
}

#[test]
fn claims_are_bounded() {
    let mut votes = Votes::new(&[1, 1, 1, 1], SignedMsgType::Prevote);
    for number in 0..=MAX_MAJ23_CLAIMS {
        let mut peer = [0; 20];
        peer[..8].copy_from_slice(&number.to_le_bytes());
        let claimed = votes
            .set
            .claim_maj23(NodeId::new(peer), id(&number.to_string()));
        assert!(claimed.is_ok());
    }
    assert!(
        votes
            .set
            .bits_for(&id(&(MAX_MAJ23_CLAIMS - 1).to_string()))
            .is_some()
    );
    assert_eq!(votes.set.bits_for(&id(&MAX_MAJ23_CLAIMS.to_string())), None);
}

#[test]
fn a_vote_of_another_place_does_not_belong() {
    let mut votes = Votes::new(&[1, 1, 1, 1], SignedMsgType::Prevote);
    let (key, set) = (
        &votes.validators.keys[0],
        &votes.validators.genesis.validators,
    );
    for (vote_type, height, round) in [
        (SignedMsgType::Precommit, 1, 0),
        (SignedMsgType::Prevote, 2, 0),
        (SignedMsgType::Prevote, 1, 1),
    ] {
        let place = (Height::new(height), round);
        let vote = chain::vote(key, set, vote_type, place, id("a"), Time::new(9, 0));
        let added = votes.set.add(&Arc::new(vote), &EachSignature);
        assert_eq!(added, Err(VoteError::Misplaced));
    }
}
