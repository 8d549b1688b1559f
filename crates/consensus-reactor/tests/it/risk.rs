//! What the store tells of our own signatures.

use std::path::Path;

use bytes::Bytes;
use perihelion_consensus::{Message, WalMessage};
use perihelion_consensus_reactor::privval::{
    DoubleSignRisk, SignState, check_replayed, check_sign_state, check_signed_lately,
};
use perihelion_crypto::{PrivateKey, PublicKey};
use perihelion_proto::tendermint::types as pb;
use perihelion_store::{BlockSave, Store, StoreOptions, Sync};
use perihelion_test_support::{self as vectors, Hex};
use perihelion_types::{
    BlockIdFlag, Commit, ConsensusParams, FetchedBlock, Genesis, GenesisDefaults, Time,
};
use prost::Message as _;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    block: Hex,
    seen_commit: Hex,
}

struct Chain {
    _folder: tempfile::TempDir,
    store: Store,
    genesis: Genesis,
    commits: Vec<Commit>,
}

impl Chain {
    /// The keys of validators that signed something.
    fn signers(&self) -> Vec<PublicKey> {
        let keys = self.genesis.validators.iter();
        let signers: Vec<_> = keys
            .map(|validator| validator.pub_key.clone())
            .filter(|key| !signed(&self.commits, key, true).is_empty())
            .collect();
        assert!(signers.len() > 1);
        signers
    }
}

/// A store with a chain of the vectors; with the last block's commit, or as blocksync leaves it.
fn chain(seen: bool) -> Chain {
    let rows: Vec<Row> = vectors::load_lines("chain_basic/blocks.jsonl");
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
    let mut commits = Vec::new();
    for row in &rows {
        let raw = Bytes::copy_from_slice(&row.block);
        let block = FetchedBlock::decode(raw, None).unwrap();
        let commit = pb::Commit::decode(&row.seen_commit[..]).unwrap();
        let commit = Commit::try_from(commit).unwrap();
        let save = BlockSave {
            block: &block,
            commit: seen.then_some((&commit).into()),
            extended_commit: None,
            results: Some(b""),
        };
        store.save_block(&save, Sync::No).unwrap();
        commits.push(commit);
    }
    let genesis = vectors::read("chain_basic/genesis.json");
    let defaults = GenesisDefaults {
        time: Time::ZERO,
        consensus_params: ConsensusParams::default_v038(),
    };
    Chain {
        _folder: folder,
        store,
        genesis: Genesis::from_json(genesis.as_bytes(), &defaults).unwrap(),
        commits,
    }
}

/// Heights at which a validator signed for the block, and for anything.
fn signed(commits: &[Commit], key: &PublicKey, nil_too: bool) -> Vec<i64> {
    let address = key.address();
    let signed = |commit: &&Commit| {
        commit.signatures.iter().any(|place| {
            let counts = match place.block_id_flag {
                BlockIdFlag::Commit => true,
                BlockIdFlag::Nil => nil_too,
                _ => false,
            };
            counts && place.validator_address[..] == address.as_bytes()[..]
        })
    };
    let heights = commits.iter().filter(signed);
    heights.map(|commit| commit.height.get()).collect()
}

fn stranger() -> PublicKey {
    PrivateKey::ed25519_from_secret(b"stranger").public_key()
}

fn state(height: i64, round: i32, step: i8) -> SignState {
    SignState {
        height,
        round,
        step,
        ..SignState::default()
    }
}

/// The height of the refusal, if any.
fn stale(chain: &Chain, state: &SignState, key: &PublicKey) -> Option<i64> {
    let (path, chain_id) = (Path::new("/home/state.json"), &chain.genesis.chain_id);
    let checked = check_sign_state(state, path, key, chain_id, &chain.store);
    let Err(error) = checked else {
        return None;
    };
    let text = error.to_string();
    for part in ["/home/state.json", "stake", "Restore the newest", "height"] {
        assert!(text.contains(part), "{text}");
    }
    let DoubleSignRisk::StaleState { signed, .. } = error else {
        panic!("{text}");
    };
    Some(signed.get())
}

#[test]
fn vector_chain_shows_a_state_that_is_older_than_the_store() {
    for seen in [true, false] {
        let chain = chain(seen);
        let known = chain.commits.len() - usize::from(!seen);
        let commits = &chain.commits[..known];
        for key in &chain.signers() {
            let last = signed(commits, key, true).last().copied();
            assert_eq!(stale(&chain, &SignState::default(), key), last);
            let Some(last) = last else { continue };
            let round = commits[usize::try_from(last).unwrap() - 1].round.get();
            assert_eq!(stale(&chain, &state(last, round, 3), key), None);
            assert_eq!(stale(&chain, &state(last + 1, 0, 0), key), None);
            assert_eq!(stale(&chain, &state(last, round, 2), key), Some(last));
            assert_eq!(stale(&chain, &state(last - 1, 9, 3), key), Some(last));
        }
        assert_eq!(stale(&chain, &SignState::default(), &stranger()), None);
    }
}

#[test]
fn vector_chain_is_searched_so_many_blocks_back_for_own_signatures() {
    let chain = chain(true);
    let height = i64::try_from(chain.commits.len()).unwrap();
    let chain_id = &chain.genesis.chain_id;
    for key in &chain.signers() {
        let heights = signed(&chain.commits, key, false);
        for back in [0, 1, 2, 3, 10, 50, chain.commits.len() as u64 + 5, u64::MAX] {
            let from = height.saturating_sub(i64::try_from(back).unwrap_or(i64::MAX));
            let expected = heights.iter().copied().rfind(|at| *at > from);
            let found = match check_signed_lately(&chain.store, key, chain_id, back) {
                Ok(()) => None,
                Err(DoubleSignRisk::SignedLately { signed, look_back }) => {
                    assert_eq!(look_back, back);
                    Some(signed.get())
                }
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, expected, "{back} back");
        }
    }
}

/// Of the last block's commit, which may come from one peer, only what decides was verified: a place
/// that a liar filled in must not keep a validator from going on.
#[test]
fn vector_chain_with_a_forged_place_in_the_last_commit_refuses_nobody() {
    let chain = chain(true);
    let key = stranger();
    let mut commit = chain.commits.last().unwrap().clone();
    for place in &mut commit.signatures {
        place.validator_address = Bytes::copy_from_slice(key.address().as_bytes());
        place.block_id_flag = BlockIdFlag::Commit;
        place.signature = Bytes::from_static(&[1; 64]);
    }
    chain.store.save_seen_commit(&commit, Sync::No).unwrap();
    assert_eq!(stale(&chain, &SignState::default(), &key), None);
    check_signed_lately(&chain.store, &key, &chain.genesis.chain_id, u64::MAX).unwrap();
}

/// The log's records of a validator that signed, against states from before, of and after that.
#[test]
fn a_state_older_than_the_own_messages_in_the_log_is_refused() {
    let vote = |kind| {
        let vote = perihelion_types::Vote {
            vote_type: kind,
            height: perihelion_types::Height::new(7),
            round: perihelion_types::Round::new(1),
            block_id: perihelion_types::BlockId::NIL,
            timestamp: perihelion_types::Time::ZERO,
            validator_address: Bytes::from_static(&[1; 20]),
            validator_index: 0,
            signature: Bytes::from_static(&[1; 64]),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        Message::Vote(std::sync::Arc::new(vote))
    };
    let path = Path::new("/home/state.json");
    for (step, kind) in [
        (2, perihelion_types::SignedMsgType::Prevote),
        (3, perihelion_types::SignedMsgType::Precommit),
    ] {
        let ours = WalMessage::Message {
            peer: None,
            message: vote(kind),
        };
        for fine in [state(7, 1, step), state(7, 2, 0), state(8, 0, 1)] {
            check_replayed(&fine, path, &ours).unwrap();
        }
        for old in [state(7, 1, step - 1), state(7, 0, 3), state(6, 9, 3)] {
            let error = check_replayed(&old, path, &ours).unwrap_err().to_string();
            for part in [
                "/home/state.json",
                "height 7 round 1 pre",
                "stake",
                "Restore",
            ] {
                assert!(error.contains(part), "{error}");
            }
        }
        // What peers sent says nothing of us.
        let theirs = WalMessage::Message {
            peer: Some("0123456789abcdef0123456789abcdef01234567".parse().unwrap()),
            message: vote(kind),
        };
        check_replayed(&SignState::default(), path, &theirs).unwrap();
    }
    let end = WalMessage::EndHeight(perihelion_types::Height::new(9));
    check_replayed(&SignState::default(), path, &end).unwrap();
}

#[test]
fn an_empty_store_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
    let key = &stranger();
    check_sign_state(&SignState::default(), Path::new("x"), key, "chain", &store).unwrap();
    check_signed_lately(&store, key, "chain", u64::MAX).unwrap();
}
