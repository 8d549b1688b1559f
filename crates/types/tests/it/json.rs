//! JSON forms against the answers of a real node.

use std::{collections::HashMap, fmt::Debug};

use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{each, load, load_lines};
use perihelion_types::{
    Block, BlockId, BlockMeta, Commit, ConsensusParams, Evidence, FetchedBlock, Header,
    SignedHeader, Validator, json,
};
use prost::Message;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::replay::{BlockCase, Chain, names};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "for tests of the server")]
struct File {
    about: String,
    made_by: String,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "for tests of the server")]
struct Exchange {
    name: String,
    method: String,
    path: String,
    body: Option<String>,
    status: u16,
    content_type: Option<String>,
    cache_control: Option<String>,
    answer: String,
    stable: bool,
}

/// The fields of an answer's result, as they were written.
type Fields<'a> = HashMap<&'a str, &'a RawValue>;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    result: Option<Fields<'a>>,
}

/// Runs `check` on the result of every good answer of a file.
fn for_each_result(route: &str, mut check: impl FnMut(&str, &Fields<'_>)) {
    let file: File = load(&format!("rpc/{route}.json"));
    let mut checked = 0;
    each("exchanges", &file.exchanges, |index, exchange| {
        let Ok(answer) = serde_json::from_str::<Answer<'_>>(&exchange.answer) else {
            return;
        };
        if let Some(result) = answer.result {
            check(&format!("{route} {index} {}", exchange.name), &result);
            checked += 1;
        }
    });
    assert!(checked > 0, "{route} holds no result");
}

/// Writes as CometBFT wrote, and reads what was written.
fn assert_form<T>(what: &str, value: &T, raw: &RawValue)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    assert_eq!(json::to_string(value).unwrap(), raw.get(), "{what}");
    assert_eq!(
        serde_json::from_str::<T>(raw.get()).unwrap(),
        *value,
        "{what}"
    );
}

fn integer(raw: &RawValue) -> i64 {
    serde_json::from_str::<String>(raw.get())
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn vector_json_genesis() {
    let chain = Chain::replay("chain_basic");
    for_each_result("genesis", |what, result| {
        let text = json::to_string(&chain.genesis).unwrap();
        assert_eq!(text, result["genesis"].get(), "{what}");
    });
}

#[test]
fn vector_json_validators() {
    let chain = Chain::replay("chain_basic");
    for_each_result("validators", |what, result| {
        let height = integer(result["block_height"]);
        let state = match chain
            .blocks
            .iter()
            .find(|block| block.case.height == height)
        {
            Some(block) => &block.before,
            None => &chain.blocks.last().unwrap().after,
        };
        assert_eq!(state.next_height().get(), height, "{what}");
        let page: Vec<Validator> = serde_json::from_str(result["validators"].get()).unwrap();
        assert_eq!(page.len() as i64, integer(result["count"]), "{what}");
        assert_eq!(
            state.validators.len() as i64,
            integer(result["total"]),
            "{what}"
        );
        let Some(first) = page.first() else {
            return;
        };
        let (start, _) = state.validators.by_address(&first.address).unwrap();
        let members = &state.validators.validators()[start..start + page.len()];
        assert_form(what, &members.to_vec(), result["validators"]);
    });
}

#[test]
fn vector_json_consensus_params() {
    let chain = Chain::replay("chain_basic");
    for_each_result("consensus_params", |what, result| {
        let height = integer(result["block_height"]);
        let block = chain
            .blocks
            .iter()
            .find(|block| block.case.height == height);
        let params: &ConsensusParams = match block {
            Some(block) => &block.before.consensus_params,
            None => &chain.blocks.last().unwrap().after.consensus_params,
        };
        assert_form(what, params, result["consensus_params"]);
    });
}

/// The blocks of the chain that the node held, by height, and their seen commits.
fn blocks() -> HashMap<i64, (FetchedBlock, Commit)> {
    let cases: Vec<BlockCase> = load_lines("chain_basic/blocks.jsonl");
    cases
        .into_iter()
        .map(|case| {
            let block = FetchedBlock::decode(case.block.0.into(), None).unwrap();
            let commit = pb::Commit::decode(&case.seen_commit[..]).unwrap();
            (case.height, (block, commit.try_into().unwrap()))
        })
        .collect()
}

/// The height in the header of an answer.
fn height_of(header: &RawValue) -> i64 {
    serde_json::from_str::<Header>(header.get())
        .unwrap()
        .height
        .get()
}

/// Writes as CometBFT wrote.
fn assert_written<T: Serialize>(what: &str, value: &T, raw: &RawValue) {
    assert_eq!(json::to_string(value).unwrap(), raw.get(), "{what}");
}

#[derive(Deserialize)]
struct BlockFields<'a> {
    #[serde(borrow)]
    header: &'a RawValue,
}

#[test]
fn vector_json_blocks() {
    let blocks = blocks();
    for_each_result("block", |what, result| {
        let raw = result["block"];
        if raw.get() == "null" {
            return;
        }
        let fields: BlockFields<'_> = serde_json::from_str(raw.get()).unwrap();
        let (fetched, _) = &blocks[&height_of(fields.header)];
        assert_written::<Block>(what, fetched.block(), raw);
        assert_form::<BlockId>(what, &fetched.block_id(), result["block_id"]);
    });
    for_each_result("header", |what, result| {
        let raw = result["header"];
        if raw.get() == "null" {
            return;
        }
        let (fetched, _) = &blocks[&height_of(raw)];
        assert_form(what, &fetched.block().header, raw);
    });
}

#[test]
fn vector_json_commits() {
    let blocks = blocks();
    for_each_result("commit", |what, result| {
        let raw = result["signed_header"];
        let fields: HashMap<&str, &RawValue> = serde_json::from_str(raw.get()).unwrap();
        let height = height_of(fields["header"]);
        let (fetched, seen) = &blocks[&height];
        let canonical: bool = serde_json::from_str(result["canonical"].get()).unwrap();
        let commit = if canonical {
            let (next, _) = &blocks[&(height + 1)];
            next.block().last_commit.clone().unwrap()
        } else {
            seen.clone()
        };
        assert_form(what, &commit, fields["commit"]);
        let signed = SignedHeader {
            header: fetched.block().header.clone(),
            commit,
        };
        assert_written(what, &signed, raw);
    });
}

#[test]
fn vector_json_block_metas() {
    let blocks = blocks();
    for_each_result("blockchain", |what, result| {
        let metas: Vec<&RawValue> = serde_json::from_str(result["block_metas"].get()).unwrap();
        for raw in metas {
            let fields: HashMap<&str, &RawValue> = serde_json::from_str(raw.get()).unwrap();
            let (fetched, _) = &blocks[&height_of(fields["header"])];
            assert_written(what, &BlockMeta::of(fetched), raw);
        }
    });
}

/// Evidence is in no recorded answer: what is written is read back, from every block that has some.
#[test]
fn vector_json_evidence_round_trips() {
    let mut kinds = (0, 0);
    each("chains", &names(), |_, name| {
        let cases: Vec<BlockCase> = load_lines(&format!("{name}/blocks.jsonl"));
        each(name, &cases, |_, case| {
            let block = FetchedBlock::decode(case.block.0.clone().into(), None).unwrap();
            for evidence in &block.block().evidence {
                let text = json::to_string(evidence).unwrap();
                let read: Evidence = serde_json::from_str(&text).unwrap();
                assert_eq!(read, *evidence, "{name} height {}", case.height);
                match evidence {
                    Evidence::DuplicateVote(_) => kinds.0 += 1,
                    Evidence::LightClientAttack(_) => kinds.1 += 1,
                }
            }
        });
    });
    assert!(
        kinds.0 > 0 && kinds.1 > 0,
        "evidence of both kinds: {kinds:?}"
    );
}
