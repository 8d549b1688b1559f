//! `verify_commit*.json`: verdicts of a real CometBFT on each way of verifying commits.

use std::collections::BTreeMap;

use perihelion_certify::{CommitError, CommitVerification, Rules, TrustLevel};
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Verdict, each, load};
use perihelion_types::{
    BlockId, BlockIdFlag, Commit, CommitSig, Height, Round, Time, ValidatorSet,
};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct File {
    about: String,
    made_by: String,
    chain_id: String,
    verdicts: String,
    /// The file of v0.40 shares those of v0.38.
    #[serde(default)]
    sets: Vec<Set>,
    cases: Vec<Case>,
    #[serde(default)]
    odd_calls: Vec<OddCall>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct Set {
    name: String,
    proto: Hex,
    hash: Hex,
    private_keys: Vec<Hex>,
    total_power: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    set: String,
    chain_id: String,
    block_id: Hex,
    height: i64,
    commit: Hex,
    validate_basic: Verdict,
    verdicts: Verdicts,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdicts {
    full: Verdict,
    light: Verdict,
    light_all: Verdict,
    trusting_1_3: Verdict,
    trusting_2_3: Verdict,
    trusting_1_1: Verdict,
    trusting_1_3_all: Verdict,
    trusting_2_3_all: Verdict,
    trusting_1_1_all: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OddCall {
    name: String,
    set: String,
    commit: Hex,
    verdict: Verdict,
}

type Sets = BTreeMap<String, ValidatorSet>;

fn sets(file: &File) -> Sets {
    let mut sets = Sets::new();
    each("sets", &file.sets, |_, set| {
        let proto = pb::ValidatorSet::decode(&set.proto[..]).unwrap();
        let decoded = ValidatorSet::try_from(proto).unwrap();
        assert_eq!(
            decoded.total_voting_power(),
            set.total_power,
            "{}",
            set.name
        );
        assert_eq!(decoded.hash().as_bytes(), &set.hash[..], "{}", set.name);
        sets.insert(set.name.clone(), decoded);
    });
    sets
}

/// The commit as it is in memory: the verifying calls are made whether it is valid or not.
fn commit(bytes: &[u8]) -> Commit {
    let proto = pb::Commit::decode(bytes).unwrap();
    Commit {
        height: Height::new(proto.height),
        round: Round::new(proto.round),
        block_id: BlockId::try_from(proto.block_id.unwrap()).unwrap(),
        signatures: proto.signatures.into_iter().map(place).collect(),
    }
}

fn place(sig: pb::CommitSig) -> CommitSig {
    let timestamp = sig.timestamp.unwrap_or_default();
    CommitSig {
        block_id_flag: match sig.block_id_flag {
            1 => BlockIdFlag::Absent,
            2 => BlockIdFlag::Commit,
            3 => BlockIdFlag::Nil,
            other => BlockIdFlag::Unknown(other),
        },
        validator_address: sig.validator_address,
        timestamp: Time::new(timestamp.seconds, timestamp.nanos),
        signature: sig.signature,
    }
}

/// The vectors' name for an error. `None` where they give none, because CometBFT panics.
fn class(error: &CommitError) -> Option<&'static str> {
    Some(match error {
        CommitError::SetSize { .. } => "set size",
        CommitError::Height { .. } => "height",
        CommitError::BlockId { .. } => "block ID",
        CommitError::NotEnoughPower { .. } => "not enough power",
        CommitError::WrongSignature { .. } => "wrong signature",
        CommitError::SignatureLength { .. } => "signature length",
        CommitError::MalformedPlace { .. } => "malformed signature entry",
        CommitError::AddressMismatch { .. } => "address mismatch",
        CommitError::DoubleVote { .. } => "double vote",
        CommitError::TrustLevel => "trust level",
        CommitError::TrustLevelOverflow => "overflow",
        CommitError::UnknownFlag { .. }
        | CommitError::KeyType { .. }
        | CommitError::EmptySet
        | CommitError::ExtensionMissing { .. }
        | CommitError::ExtensionUnexpected { .. }
        | CommitError::WrongExtensionSignature { .. }
        | CommitError::NoCommit
        | CommitError::NoExtendedCommit
        | CommitError::OtherSet => return None,
    })
}

fn agree<T>(what: &str, verdict: &Verdict, result: &Result<T, CommitError>) {
    assert_eq!(
        result.is_ok(),
        verdict.ok,
        "{what}: {verdict:?}, we say {:?}",
        result.as_ref().err()
    );
    if let (Some(expected), Err(error)) = (&verdict.class, result) {
        assert_eq!(class(error), Some(expected.as_str()), "{what}: {error:?}");
    }
    if let (Some(text), Err(CommitError::NotEnoughPower { got, needed })) = (&verdict.error, result)
    {
        assert!(
            text.ends_with(&format!("got {got}, needed more than {needed}")),
            "{what}: {text}, we say {got} of {needed}"
        );
    }
    if let (Some(text), Err(CommitError::WrongSignature { index })) = (&verdict.error, result) {
        assert!(
            text.contains(&format!("(#{index})")),
            "{what}: {text}, we say {index}"
        );
    }
}

fn check(case: &Case, sets: &Sets, rules: Rules) {
    let set = &sets[&case.set];
    let commit = commit(&case.commit);
    let block_id = BlockId::try_from(pb::BlockId::decode(&case.block_id[..]).unwrap()).unwrap();
    let height = Height::new(case.height);
    let verification = CommitVerification::new(&case.chain_id, set, &commit).rules(rules);
    let third = TrustLevel::ONE_THIRD;
    let two_thirds = TrustLevel::TWO_THIRDS;
    let all = TrustLevel::new(1, 1);
    let Verdicts {
        full,
        light,
        light_all,
        trusting_1_3,
        trusting_2_3,
        trusting_1_1,
        trusting_1_3_all,
        trusting_2_3_all,
        trusting_1_1_all,
    } = &case.verdicts;
    for (way, verdict, result) in [
        ("full", full, verification.full(block_id, height)),
        ("light", light, verification.light(block_id, height)),
        (
            "light_all",
            light_all,
            verification.light_all(block_id, height),
        ),
        ("trusting_1_3", trusting_1_3, verification.trusting(third)),
        (
            "trusting_2_3",
            trusting_2_3,
            verification.trusting(two_thirds),
        ),
        ("trusting_1_1", trusting_1_1, verification.trusting(all)),
        (
            "trusting_1_3_all",
            trusting_1_3_all,
            verification.trusting_all(third),
        ),
        (
            "trusting_2_3_all",
            trusting_2_3_all,
            verification.trusting_all(two_thirds),
        ),
        (
            "trusting_1_1_all",
            trusting_1_1_all,
            verification.trusting_all(all),
        ),
    ] {
        let what = format!("{}, {}, {way}", case.name, case.set);
        agree(&what, verdict, &result);
    }
    case.validate_basic.assert_agrees(
        &format!("{}, {}, validate_basic", case.name, case.set),
        &commit.validate_basic_by(rules),
    );
}

#[test]
fn vector_verdicts_on_commits_by_v038() {
    let file: File = load("verify_commit.json");
    let sets = sets(&file);
    each("cases", &file.cases, |_, case| {
        check(case, &sets, Rules::V038)
    });
}

/// The file of v0.40 holds what differs; everything else must hold by its rules as well.
#[test]
fn vector_verdicts_on_commits_by_v040() {
    let base: File = load("verify_commit.json");
    let sets = sets(&base);
    let file: File = load("verify_commit_v0.40.json");
    let differs: Vec<_> = file
        .cases
        .iter()
        .map(|case| (&case.name, &case.set))
        .collect();
    each("cases", &file.cases, |_, case| {
        check(case, &sets, Rules::V040)
    });
    for case in &base.cases {
        if !differs.contains(&(&case.name, &case.set)) {
            check(case, &sets, Rules::V040);
        }
    }
}

/// The level that the name of an odd call of trusting verification speaks of.
fn trust_level(name: &str) -> TrustLevel {
    match name {
        "denominator 0" => TrustLevel::new(1, 0),
        "numerator 0" => TrustLevel::new(0, 3),
        "numerator overflows" => TrustLevel::new(9, 9),
        "8 of 8, just no overflow" => TrustLevel::new(8, 8),
        "more than all" => TrustLevel::new(3, 2),
        other => panic!("odd call {other:?}"),
    }
}

#[test]
fn vector_odd_calls() {
    let file: File = load("verify_commit.json");
    let sets = sets(&file);
    each("odd_calls", &file.odd_calls, |_, call| {
        let (way, argument) = call.name.split_once(", ").unwrap();
        if matches!(argument, "no set" | "no commit") {
            // Our functions take both by reference: such a call does not compile.
            assert!(["full", "light", "trusting"].contains(&way));
            assert_eq!(
                call.verdict.class.as_deref(),
                Some(argument),
                "{}",
                call.name
            );
            return;
        }
        assert_eq!(way, "trusting", "{}", call.name);
        let commit = commit(&call.commit);
        let result = CommitVerification::new(&file.chain_id, &sets[&call.set], &commit)
            .trusting(trust_level(argument));
        agree(&call.name, &call.verdict, &result);
    });
}
