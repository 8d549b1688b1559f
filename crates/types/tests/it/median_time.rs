//! The time of the next block.

use std::collections::HashMap;

use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Moment, Verdict, each, load};
use perihelion_types::{Commit, MedianTimeRule, Time, ValidatorSet, median_time};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "explanations")]
struct File {
    about: String,
    made_by: String,
    sets: Option<Vec<Set>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "for tests that sign")]
struct Set {
    name: String,
    proto: Hex,
    hash: Hex,
    total_power: i64,
    private_keys: Vec<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "explanations")]
struct Case {
    name: String,
    set: String,
    commit: Hex,
    flags: String,
    median: Option<Moment>,
    verdict: Verdict,
}

fn sets(file: &File) -> HashMap<String, ValidatorSet> {
    let mut sets = HashMap::new();
    each("sets", file.sets.as_ref().unwrap(), |_, case| {
        let message = pb::ValidatorSet::decode(&case.proto[..]).unwrap();
        let set = ValidatorSet::try_from(message).unwrap();
        assert_eq!(set.total_voting_power(), case.total_power, "{}", case.name);
        assert_eq!(set.hash().as_bytes(), &case.hash[..], "{}", case.name);
        sets.insert(case.name.clone(), set);
    });
    sets
}

fn check(sets: &HashMap<String, ValidatorSet>, case: &Case, rule: MedianTimeRule) {
    let commit: Commit = pb::Commit::decode(&case.commit[..])
        .unwrap()
        .try_into()
        .unwrap();
    let result = median_time(&commit, &sets[&case.set], rule);
    case.verdict.assert_agrees(&case.name, &result);
    if let Ok(time) = result {
        let median = case.median.as_ref().unwrap();
        assert_eq!(
            time,
            Time::new(median.seconds, median.nanos),
            "{}",
            case.name
        );
        assert_eq!(time.to_string(), median.text, "{}", case.name);
        assert_eq!(median.text.parse::<Time>().unwrap(), time, "{}", case.name);
    }
}

/// The file of v0.40 holds only what differs, so the rest holds by both rules.
#[test]
fn vector_median_times() {
    let v038: File = load("median_time.json");
    let v040: File = load("median_time_v0.40.json");
    assert!(v040.sets.is_none());
    let sets = sets(&v038);
    each("cases", &v040.cases, |_, case| {
        check(&sets, case, MedianTimeRule::V040)
    });
    each("cases", &v038.cases, |_, case| {
        check(&sets, case, MedianTimeRule::V038);
        let differs = v040.cases.iter().any(|other| other.commit == case.commit);
        if !differs {
            check(&sets, case, MedianTimeRule::V040);
        }
    });
}
