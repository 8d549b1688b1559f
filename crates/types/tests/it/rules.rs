//! Stateless rules that no vector bends.

use bytes::Bytes;
use perihelion_types::{
    BlockId, BlockIdFlag, CommitSig, DecodeError, ExtendedCommit, ExtendedCommitSig, Hash, Height,
    PartSet, PartSetHeader, Proposal, Round, Rules, SignedMsgType, Time,
    commit::MAX_VOTE_EXTENSION_BYTES, part_set::MAX_PARTS,
};

fn block_id() -> BlockId {
    BlockId {
        hash: Hash::of(b"block"),
        part_set_header: PartSetHeader {
            total: 1,
            hash: Hash::of(b"parts"),
        },
    }
}

#[test]
fn proposals() {
    let right = Proposal {
        proposal_type: SignedMsgType::Proposal,
        height: Height::new(3),
        round: Round::ZERO,
        pol_round: Round::new(-1),
        block_id: block_id(),
        timestamp: Time::new(1, 0),
        signature: Bytes::from_static(&[1; 64]),
    };
    assert_eq!(right.validate_basic(), Ok(()));
    let longer = Proposal {
        signature: Bytes::from_static(&[1; 65]),
        ..right.clone()
    };
    assert!(longer.validate_basic().is_err());
    assert_eq!(longer.validate_basic_by(Rules::V040), Ok(()));
    type Bend = fn(&mut Proposal);
    let bends: [Bend; 7] = [
        |proposal| proposal.proposal_type = SignedMsgType::Prevote,
        |proposal| proposal.height = Height::new(-1),
        |proposal| proposal.round = Round::new(-1),
        |proposal| proposal.pol_round = Round::new(-2),
        |proposal| proposal.block_id = BlockId::NIL,
        |proposal| proposal.block_id.part_set_header.total = 0,
        |proposal| proposal.signature = Bytes::new(),
    ];
    for (index, bend) in bends.iter().enumerate() {
        let mut bent = right.clone();
        bend(&mut bent);
        assert!(bent.validate_basic().is_err(), "bend {index}");
    }
}

/// A commit of one place with an extension and its signature of these lengths.
fn extended(flag: BlockIdFlag, extension: usize, signature: usize) -> ExtendedCommit {
    let commit_sig = match flag {
        BlockIdFlag::Absent => CommitSig::absent(),
        _ => CommitSig {
            block_id_flag: flag,
            validator_address: Bytes::from_static(&[7; 20]),
            timestamp: Time::new(1, 0),
            signature: Bytes::from_static(&[1; 64]),
        },
    };
    ExtendedCommit {
        height: Height::new(3),
        round: Round::ZERO,
        block_id: block_id(),
        extended_signatures: vec![ExtendedCommitSig {
            commit_sig,
            extension: vec![0; extension].into(),
            extension_signature: vec![0; signature].into(),
        }],
    }
}

#[test]
fn vote_extensions_in_commits() {
    use BlockIdFlag::{Absent, Commit, Nil};
    // Flag, lengths of extension and signature; valid alone, with extensions on, with them off.
    for (flag, extension, signature, valid, on, off) in [
        (Commit, 0, 64, true, true, false),
        (Commit, 9, 64, true, true, false),
        (Commit, 0, 0, true, false, true),
        (Commit, 9, 0, true, false, false),
        (Commit, 9, 65, false, true, false),
        (Commit, MAX_VOTE_EXTENSION_BYTES, 64, true, true, false),
        (Commit, MAX_VOTE_EXTENSION_BYTES + 1, 64, false, true, false),
        (Nil, 0, 0, true, true, true),
        (Nil, 9, 0, false, false, false),
        (Nil, 0, 64, true, false, false),
        (Absent, 0, 0, true, true, true),
        (Absent, 9, 64, true, false, false),
    ] {
        let commit = extended(flag, extension, signature);
        let what = format!("{flag:?} {extension} {signature}");
        assert_eq!(commit.validate_basic().is_ok(), valid, "{what}");
        assert_eq!(commit.ensure_extensions(true).is_ok(), on, "{what}");
        assert_eq!(commit.ensure_extensions(false).is_ok(), off, "{what}");
        let decoded = ExtendedCommit::decode(commit.encode());
        assert_eq!(decoded.is_ok(), valid, "{what}");
    }
}

#[test]
fn votes_of_an_extended_commit_are_those_that_were_cast() {
    let commit = extended(BlockIdFlag::Commit, 9, 64);
    let vote = commit.vote(0).unwrap();
    assert_eq!(vote.validate_basic(), Ok(()));
    assert_eq!(
        vote.extended_commit_sig().as_ref(),
        commit.extended_signatures.first()
    );
    assert_eq!(
        commit.extension_sign_bytes("chain", 0),
        Some(vote.extension_sign_bytes("chain"))
    );
    assert_eq!(
        commit.to_commit().vote_sign_bytes("chain", 0),
        Some(vote.sign_bytes("chain"))
    );
    assert_eq!(commit.vote(1), None);
    assert_eq!(commit.extension_sign_bytes("chain", 1), None);

    let nil = extended(BlockIdFlag::Nil, 0, 0).vote(0).unwrap();
    assert!(nil.block_id.is_nil());
    assert_eq!(extended(BlockIdFlag::Absent, 0, 0).vote(0), None);
}

#[test]
fn a_part_set_header_reserves_memory_for_the_largest_block_only() {
    let header = |total| PartSetHeader {
        total,
        hash: Hash::of(b"parts"),
    };
    assert!(PartSet::from_header(header(MAX_PARTS)).is_ok());
    for total in [MAX_PARTS + 1, u32::MAX] {
        assert!(matches!(
            PartSet::from_header(header(total)),
            Err(DecodeError::TooMany { what: "parts", .. })
        ));
    }
}
