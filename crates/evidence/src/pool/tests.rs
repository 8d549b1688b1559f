#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use perihelion_store::StoreOptions;
use perihelion_testkit::home::{ChainShape, make_genesis};
use perihelion_types::{BlockId, DuplicateVoteEvidence, PartSetHeader, Round, SignedMsgType, Time};

use super::*;

/// A vote whose signature nobody has looked at.
fn vote(voter: u32, block: u8, extension_bytes: usize) -> Arc<Vote> {
    let mut address = [0; 20];
    address[..4].copy_from_slice(&voter.to_be_bytes());
    Arc::new(Vote {
        vote_type: SignedMsgType::Precommit,
        height: Height::new(1),
        round: Round::ZERO,
        block_id: BlockId {
            hash: Hash::of(&[block]),
            part_set_header: PartSetHeader {
                total: 1,
                hash: Hash::of(&[block, block]),
            },
        },
        timestamp: Time::new(1_700_000_000, 5),
        validator_address: Bytes::copy_from_slice(&address),
        validator_index: 0,
        signature: vec![block; 64].into(),
        extension: vec![0; extension_bytes].into(),
        extension_signature: Bytes::new(),
    })
}

fn evidence(voter: u32, extension_bytes: usize, power: i64, timestamp: Time) -> Evidence {
    let vote = |block| (*vote(voter, block, extension_bytes)).clone();
    Evidence::DuplicateVote(DuplicateVoteEvidence {
        vote_a: vote(1),
        vote_b: vote(2),
        total_voting_power: power,
        validator_power: power,
        timestamp,
    })
}

/// A pool with this evidence, and nothing else in its store.
fn pool_with(all: impl Iterator<Item = Evidence>) -> (tempfile::TempDir, EvidencePool) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), &StoreOptions::default()).unwrap());
    let genesis = make_genesis(&ChainShape::new("room", 4, 1));
    let state = Arc::new(State::from_genesis(&genesis, "0").unwrap());
    let pool = EvidencePool::open(store, state, RulesByHeight::default()).unwrap();
    for one in all {
        pool.lock().insert(Pending::new(one, Height::new(1)));
    }
    (folder, pool)
}

/// What a pair proves is not even looked at, whatever the pool is full of.
#[test]
fn votes_are_not_judged_while_there_is_no_room() {
    let now = Time::new(1_700_000_000, 5);
    let many = u32::try_from(MAX_PENDING).unwrap();
    let large = MAX_PENDING_BYTES / 16;
    let full_by_count = pool_with((0..many).map(|voter| evidence(voter, 0, 1, now)));
    let full_by_bytes = pool_with((0..8).map(|voter| evidence(voter, large - 1_000, 1, now)));
    let not_full = pool_with((0..many - 1).map(|voter| evidence(voter, 0, 1, now)));
    for ((_folder, pool), left, extension_bytes) in [
        (full_by_count, 1, 0),
        (full_by_bytes, 1, 20_000),
        (not_full, 0, 0),
    ] {
        let pair = Pair::new(vote(many, 1, extension_bytes), vote(many, 2, 0));
        let state = pool.state();
        assert_eq!(pool.make(&state, vec![pair]).unwrap(), 0);
        // It proves nothing: there is no such block.
        assert_eq!(pool.lock().reported.len(), left);
    }
}

/// One that fills a block by itself would else stand in front of the others until it is too old.
#[test]
fn a_piece_that_does_not_fit_keeps_out_no_other() {
    let now = Time::new(1_700_000_000, 5);
    let large = (0..20).map(|voter| evidence(voter, 2_000, 1, now));
    let small = evidence(20, 0, 1, now);
    let (_folder, pool) = pool_with(large.chain([small.clone()]));
    let waiting = pool.snapshot();
    assert_ne!(waiting[0].evidence, small, "a large one comes first");
    let bytes = i64::try_from(wire::encode(&small).len()).unwrap();
    for max in [bytes, 2_000] {
        assert_eq!(pool.pending_evidence(max), (vec![small.clone()], bytes));
    }
    assert_eq!(pool.pending_evidence(bytes - 1), (Vec::new(), 0));
}

#[test]
fn room_is_sought_for_no_less_than_a_pair_takes() {
    let pair = Pair::new(vote(1, 2, 7), vote(1, 1, 7));
    let most = pair.most_bytes();
    for (power, time) in [
        (1, Time::new(0, 0)),
        (i64::MAX / 8, Time::new(1_700_000_000, 999_999_999)),
        (i64::MAX / 8, Time::ZERO),
    ] {
        let bytes = wire::encode(&evidence(1, 7, power, time)).len();
        assert!((bytes..bytes + 64).contains(&most), "{bytes} {most}");
    }
}
