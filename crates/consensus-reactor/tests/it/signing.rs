//! What the signer gives away, and what it keeps.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use perihelion_abci::{AppConnections, Noop};
use perihelion_consensus_reactor::{
    files::FileError,
    privval::{
        FilePrivval, LastLock, LeasedExecutor, SignError, SignState, SigningLease, ValidatorKey,
        WITHOUT_A_COPY,
    },
};
use perihelion_crypto::PrivateKey;
use perihelion_state::{Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_types::{
    BlockId, ConsensusParams, Genesis, GenesisValidator, Hash, Height, PartSetHeader, Proposal,
    Round, SignedMsgType, Time, Vote,
};
use proptest::prelude::*;

pub(crate) const CHAIN: &str = "sign-chain";

pub(crate) fn executor() -> Executor {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), &StoreOptions::default()).unwrap());
    let app = AppConnections::in_process(Arc::new(Noop));
    let key = PrivateKey::ed25519_from_secret(b"genesis").public_key();
    let genesis = Genesis {
        genesis_time: Time::new(1_700_000_000, 0),
        chain_id: CHAIN.to_owned(),
        initial_height: Height::new(1),
        consensus_params: ConsensusParams::default_v038(),
        validators: vec![GenesisValidator {
            address: key.address(),
            pub_key: key,
            power: 1,
            name: String::new(),
        }],
        app_hash: Bytes::new(),
        app_state: Bytes::new(),
    };
    let config = ExecutorConfig::default();
    Executor::start(store, &genesis, app.consensus, &app.query, config).unwrap()
}

pub(crate) fn lease() -> (LeasedExecutor, SigningLease) {
    LeasedExecutor::new(executor())
}

struct Home {
    folder: tempfile::TempDir,
    key: ValidatorKey,
}

impl Home {
    fn new(key: PrivateKey) -> Self {
        let home = Self {
            folder: tempfile::tempdir().unwrap(),
            key: ValidatorKey { key },
        };
        SignState::default().save(&home.state()).unwrap();
        home
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("data.json")
    }

    fn open(&self) -> FilePrivval {
        FilePrivval::open(self.key.clone(), &self.state()).unwrap()
    }
}

fn ed25519() -> PrivateKey {
    PrivateKey::ed25519_from_secret(b"validator")
}

fn block(byte: u8) -> BlockId {
    BlockId {
        hash: Hash::of(&[byte]),
        part_set_header: PartSetHeader {
            total: 1,
            hash: Hash::of(&[byte, byte]),
        },
    }
}

fn vote(vote_type: SignedMsgType, height: i64, round: i32, block_id: BlockId) -> Vote {
    Vote {
        vote_type,
        height: Height::new(height),
        round: Round::new(round),
        block_id,
        timestamp: Time::new(1_700_000_000, 1),
        validator_address: Bytes::from_static(&[1; 20]),
        validator_index: 0,
        signature: Bytes::new(),
        extension: Bytes::new(),
        extension_signature: Bytes::new(),
    }
}

fn proposal(height: i64, round: i32, block_id: BlockId) -> Proposal {
    Proposal {
        proposal_type: SignedMsgType::Proposal,
        height: Height::new(height),
        round: Round::new(round),
        pol_round: Round::new(-1),
        block_id,
        timestamp: Time::new(1_700_000_000, 1),
        signature: Bytes::new(),
    }
}

#[test]
fn both_kinds_of_keys_sign() {
    let (_executor, lease) = lease();
    for key in [ed25519(), PrivateKey::secp256k1_from_secret(b"validator")] {
        let home = Home::new(key);
        let mut signer = home.open();
        let mut vote = vote(SignedMsgType::Precommit, 3, 1, block(1));
        vote.extension = Bytes::from_static(b"extension");
        signer.sign_vote(&lease, CHAIN, &mut vote).unwrap();
        let public = signer.public_key();
        public
            .verify(&vote.sign_bytes(CHAIN), &vote.signature)
            .unwrap();
        let extension = vote.extension_sign_bytes(CHAIN);
        public
            .verify(&extension, &vote.extension_signature)
            .unwrap();
        assert_eq!(signer.address(), home.key.public_key().address());
        let mut proposal = proposal(4, 0, block(2));
        signer.sign_proposal(&lease, CHAIN, &mut proposal).unwrap();
        let public = signer.public_key();
        public
            .verify(&proposal.sign_bytes(CHAIN), &proposal.signature)
            .unwrap();
    }
}

/// Two that sign with one state would sign twice, whatever name each knows it by.
#[test]
fn a_sign_state_has_one_signer() {
    let home = Home::new(ed25519());
    let signer = home.open();
    let other_name = home.folder.path().join("link.json");
    std::os::unix::fs::symlink(home.state(), &other_name).unwrap();
    for name in [home.state(), other_name.clone()] {
        let error = FilePrivval::open(home.key.clone(), &name).unwrap_err();
        assert!(matches!(error, FileError::Locked { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(home.state().to_str().unwrap()), "{text}");
        assert!(text.contains("another process signs"), "{text}");
    }
    drop(signer);
    FilePrivval::open(home.key.clone(), &other_name).unwrap();
}

/// Where a link leads is where another node may be started from: that is the file which is kept,
/// and the link goes on leading there.
#[test]
fn a_sign_state_behind_a_link_is_written_where_the_link_leads() {
    let (_executor, lease) = lease();
    let home = Home::new(ed25519());
    let folder = home.folder.path().join("linked");
    fs::create_dir(&folder).unwrap();
    let link = folder.join("link.json");
    // Relative to the link's folder, not to that of the process.
    std::os::unix::fs::symlink("../data.json", &link).unwrap();
    let mut signer = FilePrivval::open(home.key.clone(), &link).unwrap();
    let mut first = vote(SignedMsgType::Prevote, 1, 0, block(1));
    signer.sign_vote(&lease, CHAIN, &mut first).unwrap();
    assert_eq!(SignState::load(&home.state()).unwrap(), *signer.state());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // A link that is turned to another file while the signer lives turns nothing.
    let other = folder.join("other.json");
    SignState::default().save(&other).unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let mut second = vote(SignedMsgType::Prevote, 2, 0, block(1));
    signer.sign_vote(&lease, CHAIN, &mut second).unwrap();
    assert_eq!(SignState::load(&home.state()).unwrap(), *signer.state());
    assert_eq!(SignState::load(&other).unwrap(), SignState::default());
    // What makes or resets a state writes through a link as well.
    signer.state().save(&link).unwrap();
    assert_eq!(SignState::load(&other).unwrap(), *signer.state());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    fs::remove_file(&other).unwrap();
    let error = SignState::default().save(&link).unwrap_err();
    assert!(error.to_string().contains("cannot be written"), "{error}");
    let linked = fs::read_dir(&folder).unwrap().count();
    assert_eq!(linked, 1, "nothing but the link");
}

/// The signature stands in the file before anyone has it; where it cannot, nobody gets it.
#[test]
fn what_cannot_be_recorded_is_not_signed() {
    let (_executor, lease) = lease();
    let home = Home::new(ed25519());
    let folder = home.folder.path().join("moved");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("state.json");
    SignState::default().save(&path).unwrap();
    let mut signer = FilePrivval::open(home.key.clone(), &path).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let mut first = vote(SignedMsgType::Prevote, 1, 0, block(1));
    let error = signer.sign_vote(&lease, CHAIN, &mut first).unwrap_err();
    assert!(matches!(error, SignError::Record(_)), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    assert!(first.signature.is_empty() && first.extension_signature.is_empty());
    let mut first = proposal(1, 0, block(1));
    signer.sign_proposal(&lease, CHAIN, &mut first).unwrap_err();
    assert!(first.signature.is_empty());
    // Nobody has the first one, so another may be signed when there is room again.
    fs::create_dir(&folder).unwrap();
    let mut second = vote(SignedMsgType::Prevote, 1, 0, block(2));
    signer.sign_vote(&lease, CHAIN, &mut second).unwrap();
    assert_eq!(SignState::load(&path).unwrap(), *signer.state());
    assert_eq!(SignState::load(&path).unwrap().signature, second.signature);
}

#[test]
fn the_file_is_its_owners_and_replaced_whole() {
    let (_executor, lease) = lease();
    let home = Home::new(ed25519());
    let mut signer = home.open();
    for height in 1..20 {
        let mut vote = vote(SignedMsgType::Prevote, height, 0, block(1));
        signer.sign_vote(&lease, CHAIN, &mut vote).unwrap();
        let mode = fs::metadata(home.state()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // It and its lock.
        assert_eq!(fs::read_dir(home.folder.path()).unwrap().count(), 2);
        assert_eq!(SignState::load(&home.state()).unwrap(), *signer.state());
    }
}

#[test]
fn refusals_name_both_places() {
    let (_executor, lease) = lease();
    let home = Home::new(ed25519());
    let mut signer = home.open();
    let mut last = vote(SignedMsgType::Prevote, 7, 3, block(1));
    signer.sign_vote(&lease, CHAIN, &mut last).unwrap();
    for (kind, height, round) in [
        (SignedMsgType::Precommit, 6, 9),
        (SignedMsgType::Precommit, 7, 2),
        (SignedMsgType::Prevote, 7, 3),
    ] {
        let mut vote = vote(kind, height, round, block(2));
        let error = signer
            .sign_vote(&lease, CHAIN, &mut vote)
            .unwrap_err()
            .to_string();
        assert!(error.contains("height 7 round 3 prevote"), "{error}");
        assert!(
            error.contains(&format!("height {height} round {round} pre")),
            "{error}"
        );
    }
    let mut proposal = proposal(7, 3, block(1));
    let error = signer
        .sign_proposal(&lease, CHAIN, &mut proposal)
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("height 7 round 3 proposal is before"),
        "{error}"
    );
}

/// A place written by hand, as the errors tell: no round of its height is signed.
#[test]
fn a_place_without_a_signature_counts_as_signed() {
    let (_executor, lease) = lease();
    let home = Home::new(ed25519());
    let (from, to) = (
        WITHOUT_A_COPY.find('{').unwrap(),
        WITHOUT_A_COPY.find('}').unwrap(),
    );
    let text = WITHOUT_A_COPY[from..=to].replace("\"H\"", "\"50\"");
    fs::write(home.state(), text).unwrap();
    let mut signer = home.open();
    for round in [0, 1, i32::MAX] {
        let mut at = vote(SignedMsgType::Precommit, 50, round, block(1));
        let error = signer.sign_vote(&lease, CHAIN, &mut at).unwrap_err();
        let is_last = matches!(error, SignError::Unknown { .. });
        assert_eq!(is_last, round == i32::MAX, "{error}");
    }
    let mut above = vote(SignedMsgType::Prevote, 51, 0, block(1));
    signer.sign_vote(&lease, CHAIN, &mut above).unwrap();
}

fn refused(home: &Home) -> String {
    let error = FilePrivval::open(home.key.clone(), &home.state()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(home.state().to_str().unwrap()), "{text}");
    for word in ["stake", "restore the newest"] {
        assert!(text.contains(word), "{text}");
    }
    text
}

#[test]
fn a_state_that_is_missing_torn_or_of_another_key_is_refused() {
    let (_executor, lease) = lease();
    let home = Home::new(ed25519());
    let mut vote = vote(SignedMsgType::Prevote, 7, 3, block(1));
    home.open().sign_vote(&lease, CHAIN, &mut vote).unwrap();
    let text = fs::read_to_string(home.state()).unwrap();
    for length in 0..text.len() {
        fs::write(home.state(), &text[..length]).unwrap();
        assert!(refused(&home).contains("is damaged"));
    }
    for (from, to) in [("\"7\"", "\"6\""), (": 3", ": 2"), (": 2,", ": 3,")] {
        let bent = text.replacen(from, to, 1);
        assert_ne!(bent, text);
        fs::write(home.state(), bent).unwrap();
        assert!(refused(&home).contains("not those of signbytes"));
    }
    fs::remove_file(home.state()).unwrap();
    assert!(refused(&home).contains("does not exist"));
    fs::write(home.state(), &text).unwrap();
    home.open();
    let other = Home {
        key: ValidatorKey::generate(),
        ..home
    };
    assert!(refused(&other).contains("is not by the validator key"));
}

#[test]
fn keys_are_never_shown() {
    let home = Home::new(ed25519());
    let shown = format!("{:?} {:#?}", home.open(), home.key);
    let bytes = home.key.key.to_bytes();
    let words: [String; 3] = [
        bytes[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        bytes[..6]
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect(),
        format!("{:?}", &bytes[..6]).replace(['[', ']'], ""),
    ];
    for word in words {
        assert!(!shown.contains(&word), "{shown}");
    }
}

#[test]
fn the_executor_comes_back_for_its_own_lease_only() {
    let (first, of_first) = lease();
    let (second, of_second) = lease();
    let Err(back) = first.end(of_second) else {
        panic!("the lease of another executor passed");
    };
    let (first, of_second) = *back;
    assert_eq!(first.executor().state().last_block_height, Height::ZERO);
    assert!(first.end(of_first).is_ok());
    assert!(second.end(of_second).is_ok());
}

/// What one asks a signer for.
#[derive(Debug, Clone)]
struct Request {
    kind: u8,
    height: i64,
    round: i32,
    block: u8,
    seconds: i64,
    restart: bool,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (
        0_u8..3,
        1_i64..4,
        0_i32..3,
        0_u8..3,
        0_i64..2,
        any::<bool>(),
    )
        .prop_map(|(kind, height, round, block, seconds, restart)| Request {
            kind,
            height,
            round,
            block,
            seconds,
            restart,
        });
    prop::collection::vec(request, 1..40)
}

/// Sign bytes and signature of what was given away for a request.
fn ask(
    signer: &mut FilePrivval,
    lease: &SigningLease,
    request: &Request,
) -> Option<(Vec<u8>, Bytes)> {
    let block_id = match request.block {
        0 => BlockId::NIL,
        byte => block(byte),
    };
    let time = Time::new(1_700_000_000 + request.seconds, 0);
    if request.kind == 0 {
        let mut proposal = proposal(request.height, request.round, block(request.block));
        proposal.timestamp = time;
        signer.sign_proposal(lease, CHAIN, &mut proposal).ok()?;
        return Some((proposal.sign_bytes(CHAIN), proposal.signature));
    }
    let kind = [SignedMsgType::Prevote, SignedMsgType::Precommit][usize::from(request.kind) - 1];
    let mut vote = vote(kind, request.height, request.round, block_id);
    vote.timestamp = time;
    signer.sign_vote(lease, CHAIN, &mut vote).ok()?;
    Some((vote.sign_bytes(CHAIN), vote.signature))
}

fn place(path: &Path) -> (i64, i32, i8) {
    let state = SignState::load(path).unwrap();
    (state.height, state.round, state.step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked for in whatever order, restarts in between: for one height, round and step
    /// there is one signature, over the same bytes, and the place never goes back.
    #[test]
    fn one_place_has_one_signature(requests in requests()) {
        let (_executor, lease) = lease();
        let home = Home::new(ed25519());
        let mut signer = home.open();
        let mut given = std::collections::BTreeMap::new();
        let mut last = (0, 0, 0);
        for request in requests {
            if let Some(signed) = ask(&mut signer, &lease, &request) {
                let at = (request.height, request.round, request.kind);
                prop_assert_eq!(given.entry(at).or_insert_with(|| signed.clone()), &signed);
                signer.public_key().verify(&signed.0, &signed.1).unwrap();
            }
            let now = place(&home.state());
            prop_assert!(now >= last);
            last = now;
            if request.restart {
                drop(signer);
                signer = home.open();
            }
        }
    }
}

/// Who is locked on a block prevotes that one, and proposes it again with the round of its lock.
#[test]
fn the_last_signature_tells_of_the_lock() {
    let state = |round: i32, step: i8, signbytes: Vec<u8>| SignState {
        height: 7,
        round,
        step,
        signature: Bytes::from_static(&[1; 64]),
        signbytes: signbytes.into(),
    };
    let prevote = |round: i32, block_id: BlockId| {
        let vote = vote(SignedMsgType::Prevote, 7, round, block_id);
        state(round, 2, vote.sign_bytes(CHAIN)).lock()
    };
    let precommit = |round: i32, block_id: BlockId| {
        let vote = vote(SignedMsgType::Precommit, 7, round, block_id);
        state(round, 3, vote.sign_bytes(CHAIN)).lock()
    };
    let propose = |round: i32, pol_round: i32| {
        let mut proposal = proposal(7, round, block(1));
        proposal.pol_round = Round::new(pol_round);
        state(round, 1, proposal.sign_bytes(CHAIN)).lock()
    };
    let locked_in = |round: i32| LastLock::Block {
        round: Round::new(round),
        block_id: block(1),
    };
    assert_eq!(SignState::default().lock(), LastLock::None);
    assert_eq!(propose(0, -1), LastLock::None);
    assert_eq!(propose(4, -1), LastLock::None);
    assert_eq!(propose(4, 2), locked_in(2));
    assert_eq!(prevote(0, block(1)), LastLock::None);
    assert_eq!(prevote(4, block(1)), locked_in(3));
    assert_eq!(prevote(4, BlockId::NIL), LastLock::None);
    assert_eq!(precommit(0, block(1)), locked_in(0));
    assert_eq!(precommit(4, block(1)), locked_in(4));
    assert_eq!(precommit(0, BlockId::NIL), LastLock::None);
    assert_eq!(precommit(4, BlockId::NIL), LastLock::Unknown);
    // Where only the place is known.
    for (round, step, lock) in [
        (0, 1, LastLock::None),
        (4, 1, LastLock::Unknown),
        (0, 2, LastLock::None),
        (4, 2, LastLock::Unknown),
        (0, 3, LastLock::Unknown),
    ] {
        let state = SignState {
            signature: Bytes::new(),
            ..state(round, step, Vec::new())
        };
        assert_eq!(state.lock(), lock, "round {round} step {step}");
    }
}
