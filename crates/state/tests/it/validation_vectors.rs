//! Blocks, right and bent, against a state.

use std::{collections::HashMap, sync::Arc};

use perihelion_certify::{History, HistoryError};
use perihelion_proto::tendermint::{state as pb_state, types as pb};
use perihelion_state::{LastCommit, Rules, ValidationError, validate_block};
use perihelion_test_support::{
    block_validation::{File, StateCase},
    each,
};
use perihelion_types::{
    Block, Commit, Evidence, Header, Height, SignedHeader, State, ValidatorSet,
};
use prost::Message;

/// The chain that a state stands on.
struct Chain {
    state: State,
    past: HashMap<i64, (Header, Commit, Arc<ValidatorSet>)>,
    committed: Vec<(Height, perihelion_types::Hash)>,
}

impl Chain {
    fn of(case: &StateCase) -> Self {
        let state = State::try_from(pb_state::State::decode(&case.state[..]).unwrap()).unwrap();
        assert_eq!(state.chain_id, case.chain_id);
        assert_eq!(state.initial_height.get(), case.initial_height);
        assert_eq!(state.last_block_height.get(), case.last_block_height);
        assert_eq!(
            state.last_block_time.seconds(),
            case.last_block_time.seconds
        );
        assert_eq!(state.app_hash[..], case.app_hash[..]);
        assert_eq!(
            state.last_results_hash.as_bytes(),
            &case.last_results_hash[..]
        );
        assert_eq!(state.version.app, case.version_app);
        let encoded = |set: &ValidatorSet| pb::ValidatorSet::from(set).encode_to_vec();
        assert_eq!(encoded(&state.validators), case.validators.0);
        assert_eq!(encoded(&state.next_validators), case.next_validators.0);
        let params = pb::ConsensusParams::from(&state.consensus_params).encode_to_vec();
        assert_eq!(params, case.consensus_params.0);
        let past = case.history.iter().map(|past| {
            let header = pb::Header::decode(&past.header[..]).unwrap();
            let commit = pb::Commit::decode(&past.commit[..]).unwrap();
            let set = pb::ValidatorSet::decode(&past.validators[..]).unwrap();
            let row = (
                Header::try_from(header).unwrap(),
                Commit::try_from(commit).unwrap(),
                Arc::new(ValidatorSet::try_from(set).unwrap()),
            );
            (past.height, row)
        });
        Self {
            past: past.collect(),
            state,
            committed: Vec::new(),
        }
    }
}

impl History for Chain {
    fn header(&self, height: Height) -> Result<Option<Header>, HistoryError> {
        Ok(self.past.get(&height.get()).map(|past| past.0.clone()))
    }

    fn signed_header(&self, height: Height) -> Result<Option<SignedHeader>, HistoryError> {
        if height >= self.state.last_block_height {
            return Ok(None);
        }
        Ok(self.past.get(&height.get()).map(|past| SignedHeader {
            header: past.0.clone(),
            commit: past.1.clone(),
        }))
    }

    fn validators(&self, height: Height) -> Result<Option<Arc<ValidatorSet>>, HistoryError> {
        Ok(self.past.get(&height.get()).map(|past| Arc::clone(&past.2)))
    }

    fn is_committed(&self, evidence: &Evidence) -> Result<bool, HistoryError> {
        Ok(self
            .committed
            .contains(&(evidence.height(), evidence.hash())))
    }
}

fn run(file: &str, rules: Rules) {
    let stateless = rules;
    let file = File::load(file);
    let mut chains: HashMap<String, Chain> = HashMap::new();
    each("states", &file.states, |_, case| {
        chains.insert(case.name.clone(), Chain::of(case));
    });
    // The chain of these blocks holds evidence already: what the case of that name repeats.
    for case in &file.cases {
        if case.name == "duplicate vote: committed before" {
            let block = Block::decode(case.block.0.clone().into()).unwrap();
            let chain = chains.get_mut(&case.state).unwrap();
            for evidence in &block.evidence {
                chain.committed.push((evidence.height(), evidence.hash()));
            }
        }
    }
    each("cases", &file.cases, |_, case| {
        let what = format!("{}, {}", case.state, case.name);
        let chain = &chains[&case.state];
        let decoded = Block::decode_by(case.block.0.clone().into(), stateless);
        if !case.from_proto.ok {
            // It cannot arrive: the other verdicts are of a block in CometBFT's memory, where
            // empty hashes are filled in.
            assert!(!case.validate_basic.ok, "{what}");
            let refused = decoded
                .map_err(ValidationError::from_decode)
                .and_then(|block| {
                    validate_block(&chain.state, &block, LastCommit::Verify, rules, chain)
                });
            assert!(refused.is_err(), "{what}: accepted");
            return;
        }
        let block = decoded.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(block.hash().as_bytes(), &case.header_hash[..], "{what}");
        let verdict = |last_commit| validate_block(&chain.state, &block, last_commit, rules, chain);
        let full = verdict(LastCommit::Verify);
        case.validate_block.assert_agrees(&what, &full);
        let trusting = verdict(LastCommit::Trust);
        case.skip_last_commit
            .assert_agrees(&format!("{what}, last commit trusted"), &trusting);
        // CometBFT v0.40 accepts these once it has validated a block with the same header; a block is
        // judged anew here each time, as v0.38 does.
        if let Some(after) = &case.after_the_right_block {
            assert_ne!(after.ok, full.is_ok(), "{what}: judged anew");
        }
    });
}

/// For the cases that do not decode.
trait FromDecode {
    fn from_decode(error: perihelion_types::DecodeError) -> ValidationError;
}

impl FromDecode for ValidationError {
    fn from_decode(error: perihelion_types::DecodeError) -> ValidationError {
        ValidationError::Basic(perihelion_types::InvalidError::new(
            "block",
            error.to_string(),
        ))
    }
}

#[test]
fn vector_block_validation() {
    run("block_validation.json", Rules::V038);
}

#[test]
fn vector_block_validation_v040() {
    run("block_validation_v0.40.json", Rules::V040);
}
