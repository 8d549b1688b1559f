#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    BlockId, CommitSig, DuplicateVoteEvidence, Round, SignedMsgType, ValidatorSet, Vote,
};

use super::*;

/// Four members of powers that tell them apart, strongest first.
fn set() -> ValidatorSet {
    let members = [8, 4, 2, 1].map(|power| {
        let key = PrivateKey::generate_ed25519();
        Validator::new(key.public_key(), power)
    });
    ValidatorSet::new(members.into()).unwrap()
}

#[test]
fn who_precommitted_nil_is_not_missing() {
    use BlockIdFlag::{Absent, Commit as Block, Nil};
    for (flags, count, power) in [
        (vec![Block, Block, Block, Block], 0, 0),
        (vec![Block, Nil, Absent, Block], 1, 2),
        (vec![Absent, Nil, Absent, Nil], 2, 10),
        // They have no place at all.
        (vec![Block, Block], 2, 3),
    ] {
        let place = |&block_id_flag: &BlockIdFlag| CommitSig {
            block_id_flag,
            ..CommitSig::absent()
        };
        let commit = Commit {
            height: Height::new(1),
            round: Round::ZERO,
            block_id: BlockId::NIL,
            signatures: flags.iter().map(place).collect(),
        };
        let expected = Members { count, power };
        assert_eq!(missing(&commit, &set()), expected, "{flags:?}");
    }
}

/// Evidence of two votes by an address, of which nothing else is looked at.
fn votes_of(address: &Address) -> Evidence {
    let vote = Vote {
        vote_type: SignedMsgType::Prevote,
        height: Height::new(1),
        round: Round::ZERO,
        block_id: BlockId::NIL,
        timestamp: Time::ZERO,
        validator_address: Bytes::copy_from_slice(address.as_bytes()),
        validator_index: 0,
        signature: Bytes::new(),
        extension: Bytes::new(),
        extension_signature: Bytes::new(),
    };
    Evidence::DuplicateVote(DuplicateVoteEvidence {
        vote_a: vote.clone(),
        vote_b: vote,
        total_voting_power: 0,
        validator_power: 0,
        timestamp: Time::ZERO,
    })
}

#[test]
fn members_that_voted_twice_are_byzantine() {
    let set = set();
    let stranger = PrivateKey::generate_ed25519().public_key();
    let pieces = [
        votes_of(&set.validators()[1].address),
        votes_of(&set.validators()[3].address),
        votes_of(&stranger.address()),
    ];
    let expected = Members { count: 2, power: 5 };
    assert_eq!(byzantine(&pieces, &set), expected);
    assert_eq!(byzantine(&[], &set), Members::default());
}
