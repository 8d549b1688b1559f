//! `block_validation*.json`: verdicts of a real CometBFT on the evidence of blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use perihelion_certify::{EvidenceError, History, HistoryError, verify_evidence_list};
use perihelion_proto::tendermint::{state as state_pb, types as pb};
use perihelion_test_support::{
    block_validation::{Case, File, StateCase},
    each, load_lines,
};
use perihelion_types::{
    Block, Commit, Evidence, Hash, Header, Height, Rules, SignedHeader, State, ValidatorSet,
    evidence::list_bytes,
};
use prost::Message;

/// The chain below a state, as the vectors give it.
struct Chain {
    state: State,
    headers: BTreeMap<Height, Header>,
    commits: BTreeMap<Height, Commit>,
    sets: BTreeMap<Height, Arc<ValidatorSet>>,
    /// Height and hash of all evidence that the chain holds.
    committed: BTreeSet<(Height, Hash)>,
}

impl Chain {
    fn new(case: &StateCase) -> Self {
        let state = State::try_from(state_pb::State::decode(&case.state[..]).unwrap()).unwrap();
        let mut chain = Self {
            state,
            headers: BTreeMap::new(),
            commits: BTreeMap::new(),
            sets: BTreeMap::new(),
            committed: BTreeSet::new(),
        };
        chain.read_committed();
        for past in &case.history {
            let height = Height::new(past.height);
            let header = Header::try_from(pb::Header::decode(&past.header[..]).unwrap()).unwrap();
            let commit = Commit::try_from(pb::Commit::decode(&past.commit[..]).unwrap()).unwrap();
            let set = pb::ValidatorSet::decode(&past.validators[..]).unwrap();
            chain.headers.insert(height, header);
            // The commit for the latest block is not on the chain yet.
            if past.height < case.last_block_height {
                chain.commits.insert(height, commit);
            }
            chain
                .sets
                .insert(height, Arc::new(ValidatorSet::try_from(set).unwrap()));
        }
        chain
    }

    /// The history holds no blocks. That of `chain_params` is the beginning of that chain, as each
    /// version made it.
    fn read_committed(&mut self) {
        for file in [
            "chain_params/blocks.jsonl",
            "chain_params_v0.40/blocks.jsonl",
        ] {
            let lines: Vec<serde_json::Value> = load_lines(file);
            let blocks: Vec<Block> = lines
                .iter()
                .map(|line| {
                    let raw = hex::decode(line["block"].as_str().unwrap()).unwrap();
                    Block::decode(raw.into()).unwrap()
                })
                .collect();
            let is_last = |block: &Block| block.hash() == self.state.last_block_id.hash;
            if let Some(last) = blocks.iter().position(is_last) {
                let evidence = blocks[..=last].iter().flat_map(|block| &block.evidence);
                self.committed = evidence.map(|one| (one.height(), one.hash())).collect();
            }
        }
    }
}

impl History for Chain {
    fn header(&self, height: Height) -> Result<Option<Header>, HistoryError> {
        Ok(self.headers.get(&height).cloned())
    }

    fn signed_header(&self, height: Height) -> Result<Option<SignedHeader>, HistoryError> {
        Ok(self
            .headers
            .get(&height)
            .zip(self.commits.get(&height))
            .map(|(header, commit)| SignedHeader {
                header: header.clone(),
                commit: commit.clone(),
            }))
    }

    fn validators(&self, height: Height) -> Result<Option<Arc<ValidatorSet>>, HistoryError> {
        Ok(self.sets.get(&height).cloned())
    }

    fn is_committed(&self, evidence: &Evidence) -> Result<bool, HistoryError> {
        Ok(self
            .committed
            .contains(&(evidence.height(), evidence.hash())))
    }
}

/// The evidence of a block as bytes, which are bounded by the parameters.
fn evidence_bytes(block: &[u8]) -> Vec<u8> {
    pb::Block::decode(block)
        .unwrap()
        .evidence
        .unwrap_or_default()
        .encode_to_vec()
}

/// The evidence of valid blocks, with their states: valid in every block after that state.
fn valid(cases: &[Case]) -> BTreeSet<(&str, Vec<u8>)> {
    cases
        .iter()
        .filter(|case| case.validate_block.ok)
        .map(|case| (case.state.as_str(), evidence_bytes(&case.block)))
        .collect()
}

/// Checks the evidence of all blocks, and says how many pieces it judged.
fn judge(
    states: &BTreeMap<&str, Chain>,
    cases: &[Case],
    valid: &BTreeSet<(&str, Vec<u8>)>,
    rules: Rules,
) -> usize {
    let mut judged = 0;
    each("cases", cases, |_, case| {
        let chain = &states[case.state.as_str()];
        let block = Block::decode_by(Bytes::copy_from_slice(&case.block), rules);
        let what = format!("{}, {}", case.state, case.name);
        case.from_proto.assert_agrees(&what, &block);
        let Ok(block) = block else { return };
        let max_bytes = chain.state.consensus_params.evidence.max_bytes;
        let size = i64::try_from(list_bytes(&block.evidence)).unwrap();
        if block.evidence.is_empty() || size > max_bytes {
            // Too much of it is refused before it is looked at.
            return;
        }
        let verdict = verify_evidence_list(&block.evidence, &chain.state, chain);
        assert!(
            !matches!(verdict, Err(EvidenceError::History(_))),
            "{what}: {verdict:?}"
        );
        let expected = valid.contains(&(case.state.as_str(), evidence_bytes(&case.block)));
        assert_eq!(verdict.is_ok(), expected, "{what}: {verdict:?}");
        judged += block.evidence.len();
    });
    judged
}

fn chains(states: &[StateCase]) -> BTreeMap<&str, Chain> {
    assert!(!states.is_empty(), "no states");
    states
        .iter()
        .map(|state| (state.name.as_str(), Chain::new(state)))
        .collect()
}

#[test]
fn vector_verdicts_on_evidence_by_v038() {
    let file = File::load("block_validation.json");
    let judged = judge(
        &chains(&file.states),
        &file.cases,
        &valid(&file.cases),
        Rules::V038,
    );
    assert!(judged > 0, "no evidence was judged");
}

/// The file of v0.40 holds the cases that differ: evidence that is valid by v0.38 still is.
#[test]
fn vector_verdicts_on_evidence_by_v040() {
    let base = File::load("block_validation.json");
    let file = File::load("block_validation_v0.40.json");
    let mut accepted = valid(&base.cases);
    accepted.extend(valid(&file.cases));
    judge(&chains(&file.states), &file.cases, &accepted, Rules::V040);
}
