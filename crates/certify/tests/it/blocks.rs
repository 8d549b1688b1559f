//! Certified blocks: by consensus, and with extended commits.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_certify::{
    CertifiedBlock, CommitError, ExtendedCheck, verify_extended_commit, verify_extended_commits,
};
use perihelion_types::{
    BlockIdFlag, Commit, ExtendedCommit, ExtendedCommitSig, SignedMsgType, Time, ValidatorSet, Vote,
};

use crate::chain::{CHAIN, Cast, Chain, certified_blocks, equals, key};

/// The commit with an extension of each validator that precommitted the block.
fn extended(commit: &Commit, set: &ValidatorSet) -> ExtendedCommit {
    let extended_signatures = commit
        .signatures
        .iter()
        .enumerate()
        .map(|(index, sig)| {
            if sig.block_id_flag != BlockIdFlag::Commit {
                return ExtendedCommitSig {
                    commit_sig: sig.clone(),
                    extension: Bytes::new(),
                    extension_signature: Bytes::new(),
                };
            }
            let extension = Bytes::from(format!("extension {index}"));
            let vote = Vote {
                vote_type: SignedMsgType::Precommit,
                height: commit.height,
                round: commit.round,
                block_id: commit.block_id,
                timestamp: Time::ZERO,
                validator_address: sig.validator_address.clone(),
                validator_index: 0,
                signature: Bytes::new(),
                extension: extension.clone(),
                extension_signature: Bytes::new(),
            };
            let public = &set.validators()[index].pub_key;
            let signer = (0..=u8::MAX)
                .map(key)
                .find(|key| key.public_key() == *public)
                .unwrap();
            ExtendedCommitSig {
                commit_sig: sig.clone(),
                extension,
                extension_signature: signer.sign(&vote.extension_sign_bytes(CHAIN)),
            }
        })
        .collect();
    ExtendedCommit {
        height: commit.height,
        round: commit.round,
        block_id: commit.block_id,
        extended_signatures,
    }
}

fn bent(
    good: &ExtendedCommit,
    index: usize,
    bend: impl Fn(&mut ExtendedCommitSig),
) -> ExtendedCommit {
    let mut bent = good.clone();
    bend(&mut bent.extended_signatures[index]);
    bent
}

#[test]
fn an_extended_commit_is_verified_in_full() {
    let chain = Chain::new(&[equals(0..4)], 1);
    let set = chain.set(1);
    let absent = set.validators()[2].address;
    let commit = chain.commit(|n| {
        if key(n).public_key().address() == absent {
            Cast::Absent
        } else {
            Cast::Block
        }
    });
    let good = extended(&commit, &set);
    let verify = |one: &ExtendedCommit| {
        verify_extended_commit(CHAIN, &set, chain.id(1), chain.block(1).height(), one)
    };
    assert_eq!(verify(&good), Ok(()));
    // The last of three signers: behind no threshold.
    let other_extension = bent(&good, 3, |sig| sig.extension = Bytes::from_static(b"other"));
    assert_eq!(
        verify(&other_extension),
        Err(CommitError::WrongExtensionSignature { index: 3 })
    );
    let unsigned = bent(&good, 3, |sig| sig.extension_signature = Bytes::new());
    assert_eq!(
        verify(&unsigned),
        Err(CommitError::ExtensionMissing { index: 3 })
    );
    let unexpected = bent(&good, 2, |sig| {
        sig.extension = Bytes::from_static(b"silent")
    });
    assert_eq!(
        verify(&unexpected),
        Err(CommitError::ExtensionUnexpected { index: 2 })
    );
    let forged = bent(&good, 3, |sig| {
        sig.commit_sig.signature = Bytes::from_static(&[7; 64]);
    });
    assert_eq!(
        verify(&forged),
        Err(CommitError::WrongSignature { index: 3 })
    );
}

/// What is verified together is judged as by itself, whoever else is wrong.
#[test]
fn extended_commits_are_judged_together_as_each_by_itself() {
    let chain = Chain::new(&[equals(0..4)], 8);
    let good: Vec<_> = (1..=8)
        .map(|h| {
            extended(
                &chain.commit_for(h, chain.id(h), 0, |_| Cast::Block),
                &chain.set(h),
            )
        })
        .collect();
    let other_vote = |sig: &mut ExtendedCommitSig| {
        sig.commit_sig.signature = Bytes::from_static(&[7; 64]);
    };
    let other_extension = |sig: &mut ExtendedCommitSig| sig.extension = Bytes::from_static(b"x");
    let mut commits = good.clone();
    commits[1] = bent(&good[1], 2, other_extension);
    commits[2] = bent(&bent(&good[2], 0, other_extension), 3, other_vote);
    commits[4] = bent(&good[4], 1, |sig| sig.extension_signature = Bytes::new());
    commits[5] = bent(&bent(&good[5], 2, other_vote), 1, other_vote);
    commits[6] = bent(&good[6], 0, |sig| {
        sig.extension_signature = Bytes::from_static(&[7; 63])
    });
    commits[7].extended_signatures.truncate(3);
    let sets: Vec<_> = (1..=8).map(|h| chain.set(h)).collect();
    let checks: Vec<_> = (1..=8)
        .zip(&commits)
        .zip(&sets)
        .map(|((h, extended), set)| ExtendedCheck {
            set,
            block_id: chain.id(h),
            height: chain.block(h).height(),
            extended,
        })
        .collect();
    let together = verify_extended_commits(CHAIN, &checks);
    assert_eq!(
        together[..7],
        [
            Ok(()),
            Err(CommitError::WrongExtensionSignature { index: 2 }),
            Err(CommitError::WrongSignature { index: 3 }),
            Ok(()),
            Err(CommitError::ExtensionMissing { index: 1 }),
            Err(CommitError::WrongSignature { index: 1 }),
            Err(CommitError::WrongExtensionSignature { index: 0 }),
        ]
    );
    assert_eq!(
        together[7],
        Err(CommitError::SetSize {
            expected: 4,
            got: 3
        })
    );
    for (check, result) in checks.iter().zip(together) {
        let one = verify_extended_commit(
            CHAIN,
            check.set,
            check.block_id,
            check.height,
            check.extended,
        );
        assert_eq!(one, result, "{}", check.height);
    }
    assert!(verify_extended_commits(CHAIN, &[]).is_empty());
}

/// Block 2 of a chain with its extended commit, bent where asked; the rest of the chain goes on.
fn with_extended(
    bend: impl Fn(&mut ExtendedCommit),
) -> (Chain, Arc<perihelion_types::FetchedBlock>) {
    let chain = Chain::new(&[equals(0..4)], 3);
    let mut one = extended(
        &chain.commit_for(2, chain.id(2), 0, |_| Cast::Block),
        &chain.set(2),
    );
    bend(&mut one);
    let bytes = {
        use prost::Message as _;
        perihelion_proto::tendermint::types::ExtendedCommit::from(&one).encode_to_vec()
    };
    let raw = chain.block(2).raw().clone();
    let block = perihelion_types::FetchedBlock::decode(raw, Some(bytes.into())).unwrap();
    (chain, Arc::new(block))
}

fn certified(chain: &Chain, block: &Arc<perihelion_types::FetchedBlock>) -> CertifiedBlock {
    let run = chain.run_of(vec![Arc::clone(block)], chain.block(3));
    certified_blocks(&run).0.into_iter().next().unwrap()
}

#[test]
fn no_pin_covers_an_extended_commit() {
    let (chain, block) = with_extended(|_| {});
    let mut good = certified(&chain, &block);
    assert_eq!(good.extended_commit(), None, "certified is not verified");
    assert_eq!(
        good.verify_extended_commit(CHAIN, &equals(0..3)),
        Err(CommitError::OtherSet)
    );
    assert_eq!(good.verify_extended_commit(CHAIN, &chain.set(2)), Ok(()));
    assert_eq!(good.extended_commit(), block.extended_commit());

    let (chain, block) = with_extended(|one| {
        one.extended_signatures[3].extension = Bytes::from_static(b"other");
    });
    let mut bad = certified(&chain, &block);
    assert_eq!(
        bad.verify_extended_commit(CHAIN, &chain.set(2)),
        Err(CommitError::WrongExtensionSignature { index: 3 })
    );
    assert_eq!(bad.extended_commit(), None);

    // Another peer's copy of the same block mends it.
    let (_, copy) = with_extended(|_| {});
    let mut mended = bad.with_extended_commit_of(copy).unwrap();
    assert_eq!(mended.extended_commit(), None);
    assert_eq!(mended.verify_extended_commit(CHAIN, &chain.set(2)), Ok(()));
    assert!(mended.extended_commit().is_some());
    assert!(
        bad.with_extended_commit_of(Arc::clone(chain.block(1)))
            .is_none()
    );
}

#[test]
fn an_extended_commit_makes_its_own_block_final_without_a_block_above() {
    let (chain, block) = with_extended(|_| {});
    let last = CertifiedBlock::decided_extended(Arc::clone(&block), &chain.set(2), CHAIN).unwrap();
    assert_eq!(last.block_id(), chain.id(2));
    assert_eq!(last.commit().unwrap().block_id, chain.id(2));
    assert_eq!(last.extended_commit(), block.extended_commit());

    let (chain, block) = with_extended(|one| one.extended_signatures.truncate(3));
    assert!(matches!(
        CertifiedBlock::decided_extended(block, &chain.set(2), CHAIN),
        Err(CommitError::SetSize { .. })
    ));
    let plain = Arc::clone(chain.block(2));
    assert_eq!(
        CertifiedBlock::decided_extended(plain, &chain.set(2), CHAIN).unwrap_err(),
        CommitError::NoExtendedCommit
    );
}

#[test]
fn consensus_and_replay_make_a_block_final_by_its_commit() {
    let chain = Chain::new(&[equals(0..4)], 2);
    let block = Arc::clone(chain.block(2));
    let set = chain.set(2);
    let decided =
        CertifiedBlock::decided(Arc::clone(&block), chain.full_commit(), &set, CHAIN).unwrap();
    assert_eq!(decided.commit(), Some(&chain.full_commit()));
    assert!(decided.commit_verified());
    assert!(matches!(
        CertifiedBlock::decided(
            Arc::clone(&block),
            chain.commit(|_| Cast::Absent),
            &set,
            CHAIN
        ),
        Err(CommitError::NotEnoughPower { .. })
    ));
    let for_another = chain.commit_for(1, chain.id(1), 0, |_| Cast::Block);
    assert!(matches!(
        CertifiedBlock::decided(block, for_another, &set, CHAIN),
        Err(CommitError::Height { .. })
    ));
}
