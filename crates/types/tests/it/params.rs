//! Hashes of validator sets, parameters and results; updates of parameters.

use perihelion_proto::tendermint::{abci, types as pb};
use perihelion_test_support::{Hex, Verdict, each, load};
use perihelion_types::{
    ConsensusParams, DeterministicResult, Height, ParamsUpdate, ValidatorSet, results,
};
use prost::Message;
use serde::{Deserialize, de::IgnoredAny};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "explanations, and lists that other tests read")]
struct File {
    about: String,
    made_by: String,
    consensus_params: Vec<Params>,
    param_updates: Vec<Update>,
    validator_sets: Option<Vec<Set>>,
    results: Option<Vec<Results>>,
    headers: Option<IgnoredAny>,
    commits: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
    evidence_lists: Option<IgnoredAny>,
    evidence_verdicts: Option<IgnoredAny>,
    block_ids: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    name: String,
    proto: Hex,
    hash: Hex,
    validate_basic: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    name: String,
    from: Hex,
    height: i64,
    update: Option<Hex>,
    to: Hex,
    to_hash: Hex,
    validate_update: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    name: String,
    /// Absent for the empty set.
    proto: Option<Hex>,
    leaves: Vec<Hex>,
    hash: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Results {
    name: String,
    results: Vec<Hex>,
    hashed_leaves: Vec<Hex>,
    hash: Hex,
}

fn decode(proto: &Hex) -> ConsensusParams {
    let message = pb::ConsensusParams::decode(&proto[..]).unwrap();
    message.try_into().unwrap()
}

fn encode(params: &ConsensusParams) -> Hex {
    Hex(pb::ConsensusParams::from(params).encode_to_vec())
}

fn check(name: &str) {
    let file: File = load(name);
    each("consensus_params", &file.consensus_params, |_, case| {
        let params = decode(&case.proto);
        assert_eq!(encode(&params), case.proto, "{}", case.name);
        assert_eq!(params.hash().as_bytes(), &case.hash[..], "{}", case.name);
        case.validate_basic
            .assert_agrees(&case.name, &params.validate_basic());
        let text = perihelion_types::json::to_string(&params).unwrap();
        let read: ConsensusParams = serde_json::from_str(&text).unwrap();
        assert_eq!(read, params, "{}", case.name);
    });
    each("param_updates", &file.param_updates, |_, case| {
        let from = decode(&case.from);
        let update = case
            .update
            .as_ref()
            .map_or_else(ParamsUpdate::default, |update| {
                let message = pb::ConsensusParams::decode(&update[..]).unwrap();
                message.try_into().unwrap()
            });
        let to = from.updated(&update);
        assert_eq!(encode(&to), case.to, "{}", case.name);
        assert_eq!(to.hash().as_bytes(), &case.to_hash[..], "{}", case.name);
        let result = from.validate_update(&update, Height::new(case.height));
        case.validate_update.assert_agrees(&case.name, &result);
    });
}

#[test]
fn vector_consensus_params() {
    check("hashes.json");
    check("hashes_v0.40.json");
}

#[test]
fn vector_validator_set_hashes() {
    let file: File = load("hashes.json");
    each(
        "validator_sets",
        &file.validator_sets.unwrap(),
        |_, case| {
            let set = case
                .proto
                .as_ref()
                .map_or_else(ValidatorSet::empty, |proto| {
                    let message = pb::ValidatorSet::decode(&proto[..]).unwrap();
                    message.try_into().unwrap()
                });
            let leaves: Vec<_> = set
                .validators()
                .iter()
                .map(|validator| Hex(validator.hashed_bytes()))
                .collect();
            assert_eq!(leaves, case.leaves, "{}", case.name);
            assert_eq!(set.hash().as_bytes(), &case.hash[..], "{}", case.name);
            let encoded = pb::ValidatorSet::from(&set).encode_to_vec();
            assert_eq!(
                Hex(encoded),
                case.proto.clone().unwrap_or_default(),
                "{}",
                case.name
            );
        },
    );
}

#[test]
fn vector_results() {
    let file: File = load("hashes.json");
    each("results", &file.results.unwrap(), |_, case| {
        let results: Vec<DeterministicResult> = case
            .results
            .iter()
            .map(|result| (&abci::ExecTxResult::decode(&result[..]).unwrap()).into())
            .collect();
        let leaves: Vec<_> = results.iter().map(|r| Hex(r.hashed_bytes())).collect();
        assert_eq!(leaves, case.hashed_leaves, "{}", case.name);
        assert_eq!(
            results::hash(results).as_bytes(),
            &case.hash[..],
            "{}",
            case.name
        );
    });
}

/// v0.38 does not know the field: an update that carries it leaves the parameters as they encode.
#[test]
fn authority_is_updated_where_there_is_one() {
    let update = ParamsUpdate {
        authority: Some("governance".to_owned()),
        ..ParamsUpdate::default()
    };
    let old = ConsensusParams::default_v038();
    assert_eq!(old.updated(&update), old);
    let new = ConsensusParams::default_v040();
    assert_eq!(
        new.updated(&update).authority.as_deref(),
        Some("governance")
    );
    assert_eq!(new.updated(&ParamsUpdate::default()), new);
}
