//! Rotation and updates of validator sets.

use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Verdict, each, load};
use perihelion_types::{Address, DecodeError, PublicKey, Validator, ValidatorSet};
use prost::Message;
use serde::Deserialize;

/// Index of a key, power.
type Change = (usize, i64);
/// Index of a key, power, priority.
type Row = (usize, i64, i64);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "explanations")]
struct File {
    about: String,
    made_by: String,
    row: String,
    keys: Vec<Key>,
    rotations: Vec<Rotation>,
    increments: Vec<Increment>,
    increments_one_by_one: Vec<OneByOne>,
    increments_refused: Vec<IncrementRefused>,
    updates: Vec<Update>,
    new_set_refused: Vec<NewSetRefused>,
    rescaling: Vec<Rescaling>,
    increments_from_priorities: Vec<FromPriorities>,
    decodings: Vec<Decoding>,
    rebuilt_from_list: Vec<Rebuilt>,
    random_runs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    index: usize,
    public: Hex,
    address: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    set: Vec<Row>,
    proposer: Option<(usize, i64)>,
    total_power: Option<i64>,
    hash: Hex,
    proto: Option<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    name: String,
    powers: Vec<i64>,
    start: Set,
    steps: Vec<RotationStep>,
    end_proto: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotationStep {
    proposer: usize,
    priorities: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Increment {
    powers: Vec<i64>,
    times: i32,
    before: Set,
    after: Set,
    original_after_copy: Set,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneByOne {
    powers: Vec<i64>,
    times: i32,
    after: Set,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IncrementRefused {
    times: i32,
    set: Option<String>,
    verdict: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    name: String,
    before: Set,
    changes: Vec<Change>,
    verdict: Verdict,
    after: Set,
    after_next_increment: Option<Set>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSetRefused {
    changes: Vec<Change>,
    verdict: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rescaling {
    priorities: Vec<i64>,
    window: i64,
    verdict: Verdict,
    after: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "explanations")]
struct FromPriorities {
    powers_rule: String,
    priorities: Vec<i64>,
    times: i32,
    verdict: Verdict,
    after: Vec<Row>,
    proposer: Option<(usize, i64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decoding {
    name: String,
    proto: Hex,
    verdict: Verdict,
    decoded: Option<Set>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebuilt {
    set: Set,
    rebuilt: Set,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    run: usize,
    start_changes: Vec<Change>,
    start: Vec<Row>,
    steps: Vec<Step>,
    end_hash: Hex,
    end_proto: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    increment: i32,
    changes: Vec<Change>,
    set: Option<Vec<Row>>,
    proposer: Option<(usize, i64)>,
    refused: Option<Verdict>,
}

impl File {
    fn read() -> Self {
        let file: Self = load("validator_set.json");
        each("keys", &file.keys, |index, key| {
            assert_eq!(key.index, index);
            assert_eq!(file.key(index).address().as_bytes()[..], key.address[..]);
        });
        file
    }

    fn key(&self, index: usize) -> PublicKey {
        PublicKey::Ed25519(self.keys[index].public[..].try_into().unwrap())
    }

    fn address(&self, index: usize) -> Address {
        Address::try_from(&self.keys[index].address[..]).unwrap()
    }

    fn changes(&self, changes: &[Change]) -> Vec<Validator> {
        changes
            .iter()
            .map(|&(index, power)| Validator::new(self.key(index), power))
            .collect()
    }

    fn validators(&self, rows: &[Row]) -> Vec<Validator> {
        rows.iter()
            .map(|&(index, power, proposer_priority)| Validator {
                proposer_priority,
                ..Validator::new(self.key(index), power)
            })
            .collect()
    }

    fn new_set(&self, powers: &[i64]) -> ValidatorSet {
        let changes: Vec<_> = powers.iter().copied().enumerate().collect();
        ValidatorSet::new(self.changes(&changes)).unwrap()
    }

    fn assert_rows(&self, what: &str, set: &ValidatorSet, rows: &[Row]) {
        let rows = self.validators(rows);
        assert_eq!(set.validators(), rows, "{what}");
        for (index, validator) in rows.iter().enumerate() {
            let (found, _) = set.by_address(&validator.address).unwrap();
            assert_eq!(rows[found].address, validator.address, "{what}");
            assert!(found <= index, "{what}");
        }
    }

    fn assert_proposer(&self, what: &str, set: &ValidatorSet, proposer: (usize, i64)) {
        let found = set.proposer().unwrap();
        let found = (found.address, found.proposer_priority);
        assert_eq!(found, (self.address(proposer.0), proposer.1), "{what}");
    }

    fn assert_set(&self, what: &str, set: &ValidatorSet, expected: &Set) {
        self.assert_rows(what, set, &expected.set);
        if let Some(proposer) = expected.proposer {
            self.assert_proposer(what, set, proposer);
        }
        if let Some(total) = expected.total_power {
            assert_eq!(set.total_voting_power(), total, "{what}");
        }
        assert_eq!(set.hash().as_bytes(), &expected.hash[..], "{what}");
        if let Some(proto) = &expected.proto {
            assert_proto(what, set, proto);
        }
    }
}

fn assert_proto(what: &str, set: &ValidatorSet, proto: &Hex) {
    let encoded = pb::ValidatorSet::from(set).encode_to_vec();
    assert_eq!(Hex(encoded), *proto, "{what}");
}

fn decode(proto: &Hex) -> Result<ValidatorSet, DecodeError> {
    pb::ValidatorSet::decode(&proto[..])?.try_into()
}

#[test]
fn vector_rotations() {
    let file = File::read();
    each("rotations", &file.rotations, |_, case| {
        let mut set = file.new_set(&case.powers);
        file.assert_set(&case.name, &set, &case.start);
        each("steps", &case.steps, |step, expected| {
            set.increment_proposer_priority(1).unwrap();
            let what = format!("{} step {step}", case.name);
            let proposer = set.proposer().unwrap();
            assert_eq!(proposer.address, file.address(expected.proposer), "{what}");
            let priorities: Vec<_> = set
                .validators()
                .iter()
                .map(|validator| validator.proposer_priority)
                .collect();
            assert_eq!(priorities, expected.priorities, "{what}");
        });
        assert_proto(&case.name, &set, &case.end_proto);
    });
}

#[test]
fn vector_increments() {
    let file = File::read();
    each("increments", &file.increments, |_, case| {
        let what = format!("{:?} by {}", case.powers, case.times);
        let set = file.new_set(&case.powers);
        file.assert_set(&what, &set, &case.before);
        let mut copy = set.clone();
        copy.increment_proposer_priority(case.times).unwrap();
        file.assert_set(&what, &copy, &case.after);
        file.assert_set(&what, &set, &case.original_after_copy);
        assert_eq!(set.load_rotated(case.times.into()).unwrap(), copy, "{what}");
    });
    each(
        "increments_one_by_one",
        &file.increments_one_by_one,
        |_, case| {
            let what = format!("{:?} by {}", case.powers, case.times);
            let mut set = file.new_set(&case.powers);
            for _ in 0..case.times {
                set.increment_proposer_priority(1).unwrap();
            }
            file.assert_set(&what, &set, &case.after);
        },
    );
    each("increments_refused", &file.increments_refused, |_, case| {
        let mut set = match case.set.as_deref() {
            Some("empty") => ValidatorSet::empty(),
            None => file.new_set(&[1, 2]),
            Some(other) => panic!("unknown set {other:?}"),
        };
        let before = set.clone();
        let result = set.increment_proposer_priority(case.times);
        case.verdict
            .assert_agrees(&format!("by {}", case.times), &result);
        assert_eq!(set, before);
    });
}

#[test]
fn vector_increments_from_priorities() {
    let file = File::read();
    let cases = &file.increments_from_priorities;
    each("increments_from_priorities", cases, |_, case| {
        let what = format!("{:?}", case.priorities);
        let mut set = by_hand(&file, &case.priorities, |index| 10 + index as i64);
        let result = set.increment_proposer_priority(case.times);
        case.verdict.assert_agrees(&what, &result);
        file.assert_rows(&what, &set, &case.after);
        if let Some(proposer) = case.proposer {
            file.assert_proposer(&what, &set, proposer);
        }
    });
}

#[test]
fn vector_rescaling() {
    let file = File::read();
    each("rescaling", &file.rescaling, |_, case| {
        let what = format!("{:?} into {}", case.priorities, case.window);
        let mut set = by_hand(&file, &case.priorities, |_| 1);
        let result = set.rescale_priorities(case.window);
        case.verdict.assert_agrees(&what, &result);
        file.assert_rows(&what, &set, &case.after);
    });
}

/// A set with the first keys in order and the priorities given.
fn by_hand(file: &File, priorities: &[i64], power: impl Fn(usize) -> i64) -> ValidatorSet {
    let rows: Vec<Row> = priorities
        .iter()
        .enumerate()
        .map(|(index, priority)| (index, power(index), *priority))
        .collect();
    let validators = file.validators(&rows);
    let proposer = validators[0].clone();
    ValidatorSet::from_parts(validators, proposer).unwrap()
}

#[test]
fn vector_updates() {
    let file = File::read();
    each("updates", &file.updates, |_, case| {
        let mut set = match &case.before.proto {
            Some(_) => start_of(&file, case),
            None => ValidatorSet::empty(),
        };
        file.assert_set(&case.name, &set, &case.before);
        let result = set.update(file.changes(&case.changes));
        case.verdict.assert_agrees(&case.name, &result);
        file.assert_set(&case.name, &set, &case.after);
        if let Some(expected) = &case.after_next_increment {
            set.increment_proposer_priority(1).unwrap();
            file.assert_set(&case.name, &set, expected);
        }
    });
    each("new_set_refused", &file.new_set_refused, |_, case| {
        let result = ValidatorSet::new(file.changes(&case.changes));
        case.verdict
            .assert_agrees(&format!("{:?}", case.changes), &result);
    });
}

/// The set before an update, whose proposer is the member that it has just chosen: a new set with
/// the same powers, rotated until it is the one of the case.
fn start_of(file: &File, case: &Update) -> ValidatorSet {
    let powers: Vec<Change> = case.before.set.iter().map(|row| (row.0, row.1)).collect();
    let proto = case.before.proto.as_ref().unwrap();
    (1..=100)
        .find_map(|times| {
            let mut set = ValidatorSet::new(file.changes(&powers)).unwrap();
            set.increment_proposer_priority(times).unwrap();
            let encoded = pb::ValidatorSet::from(&set).encode_to_vec();
            (encoded == proto[..]).then_some(set)
        })
        .unwrap_or_else(|| panic!("{}: no rotation gives the set before", case.name))
}

#[test]
fn vector_decodings() {
    let file = File::read();
    each("decodings", &file.decodings, |_, case| {
        let result = decode(&case.proto);
        case.verdict.assert_agrees(&case.name, &result);
        assert_eq!(case.decoded.is_some(), case.verdict.ok, "{}", case.name);
        if let (Ok(set), Some(expected)) = (&result, &case.decoded) {
            file.assert_set(&case.name, set, expected);
        }
    });
    each(
        "rebuilt_from_list",
        &file.rebuilt_from_list,
        |index, case| {
            let validators = file.validators(&case.set.set);
            let what = format!("rebuilt {index}");
            let rebuilt = ValidatorSet::from_existing(validators).unwrap();
            file.assert_set(&what, &rebuilt, &case.rebuilt);
            file.assert_set(
                &what,
                &decode(case.set.proto.as_ref().unwrap()).unwrap(),
                &case.set,
            );
        },
    );
}

#[test]
fn vector_random_runs() {
    let file = File::read();
    each("random_runs", &file.random_runs, |_, run| {
        let mut set = ValidatorSet::new(file.changes(&run.start_changes)).unwrap();
        file.assert_rows(&format!("run {}", run.run), &set, &run.start);
        each("steps", &run.steps, |step, case| {
            let what = format!("run {} step {step}", run.run);
            if case.increment > 0 {
                set.increment_proposer_priority(case.increment).unwrap();
            }
            let before = set.clone();
            let result = set.update(file.changes(&case.changes));
            let accepted = Verdict {
                ok: true,
                error: None,
                panic: None,
                class: None,
            };
            case.refused
                .as_ref()
                .unwrap_or(&accepted)
                .assert_agrees(&what, &result);
            if result.is_err() {
                assert_eq!(set, before, "{what}");
            }
            if let Some(rows) = &case.set {
                file.assert_rows(&what, &set, rows);
            }
            if let Some(proposer) = case.proposer {
                file.assert_proposer(&what, &set, proposer);
            }
        });
        let what = format!("end of run {}", run.run);
        assert_eq!(set.hash().as_bytes(), &run.end_hash[..], "{what}");
        assert_proto(&what, &set, &run.end_proto);
    });
}
