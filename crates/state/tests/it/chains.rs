//! Every chain of the vectors, block by block: requests, results, states, validators, parameters.

use std::sync::Arc;

use perihelion_abci::{AppConnections, Application, KvStore, KvStoreOptions};
use perihelion_proto::tendermint::{abci as pb_abci, state as pb_state, types as pb_types};
use perihelion_state::{AppColumn, Executor, ExecutorConfig, Rules};
use perihelion_store::{Store, StoreOptions};
use perihelion_test_support::each;
use perihelion_testkit::ParamsApp;
use perihelion_types::{Height, RulesByHeight, State};
use prost::Message;

use crate::{
    apps::{Recorded, Trouble},
    chain_file::{Chain, Line},
};

/// A state as its bytes, with the version of the software that recorded it left out: it names the
/// program and not the chain.
fn encoded(mut state: pb_state::State) -> String {
    if let Some(version) = &mut state.version {
        version.software.clear();
    }
    hex::encode(state.encode_to_vec())
}

fn recorded_state(bytes: &[u8]) -> String {
    encoded(pb_state::State::decode(bytes).unwrap())
}

fn same_state(what: &str, ours: &State, recorded: &[u8]) {
    assert_eq!(
        encoded(pb_state::State::from(ours)),
        recorded_state(recorded),
        "{what}"
    );
}

fn check_line(chain: &Chain, line: &Line, state: &State, store: &Store) {
    let height = Height::new(line.height);
    let what = format!("{}, height {height}", chain.name);
    assert_eq!(state.last_block_height, height, "{what}");
    assert_eq!(
        state.app_hash[..],
        line.app_hash_after[..],
        "{what}: app hash"
    );
    assert_eq!(
        state.last_results_hash.as_bytes(),
        &line.results_hash_after[..],
        "{what}: results hash"
    );
    if let Some(recorded) = &line.state_after {
        same_state(&what, state, recorded);
    }
    assert_eq!(
        store.load_block_bytes(height).unwrap().unwrap(),
        line.block.0,
        "{what}: bytes"
    );
    let response = store.load_results(height).unwrap().unwrap();
    assert_eq!(
        hex::encode(response),
        hex::encode(&line.finalize_response.0),
        "{what}: response"
    );
    assert_eq!(
        store.load_extended_commit(height).unwrap().is_some(),
        line.extended_commit.is_some(),
        "{what}: extended commit"
    );
}

/// Before the block: the sets and parameters that it was made with.
fn check_before(chain: &Chain, line: &Line, state: &State) {
    let what = format!("{}, before height {}", chain.name, line.height);
    let set = &state.validators;
    assert_eq!(set.hash().as_bytes(), &line.validators_hash[..], "{what}");
    assert_eq!(
        state.next_validators.hash().as_bytes(),
        &line.next_validators_hash[..],
        "{what}"
    );
    assert_eq!(set.len(), line.validators.len(), "{what}");
    for (ours, (address, key, power, priority)) in set.validators().iter().zip(&line.validators) {
        assert_eq!(ours.address.as_bytes()[..], address[..], "{what}");
        assert_eq!(ours.pub_key.as_bytes(), &key[..], "{what}");
        assert_eq!(ours.voting_power, *power, "{what}");
        assert_eq!(ours.proposer_priority, *priority, "{what}");
    }
    let params = pb_types::ConsensusParams::from(&state.consensus_params).encode_to_vec();
    assert_eq!(
        hex::encode(params),
        hex::encode(&line.consensus_params.0),
        "{what}"
    );
    assert_eq!(
        state.consensus_params.hash().as_bytes(),
        &line.consensus_hash[..],
        "{what}"
    );
}

fn replay(chain: &Chain, rules: Rules, app: impl FnOnce(&Arc<Store>) -> Arc<dyn Application>) {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(home.path(), &StoreOptions::default()).unwrap());
    let (app, log) = Recorded::new(app(&store), Trouble::None);
    let app = AppConnections::in_process(app);
    let config = ExecutorConfig {
        rules: RulesByHeight::always(rules),
        ..ExecutorConfig::default()
    };
    let from_genesis = State::from_genesis(&chain.genesis, "").unwrap();
    same_state(
        "from genesis",
        &from_genesis,
        &chain.start.state_from_genesis,
    );
    let mut executor = Executor::start(
        Arc::clone(&store),
        &chain.genesis,
        app.consensus,
        &app.query,
        config,
    )
    .unwrap();
    same_state(
        "after InitChain",
        executor.state(),
        &chain.start.state_after_init_chain,
    );
    check_start(chain, &log.lock().unwrap(), executor.state());

    each(chain.name, &chain.blocks, |_, line| {
        check_before(chain, line, executor.state());
        let block = line.certified(executor.state());
        assert_eq!(block.block_id().hash.as_bytes(), &line.header_hash[..]);
        let applied = executor.apply(&block).unwrap();
        assert_eq!(applied.num_txs, line.tx_hashes.len());
        assert_eq!(applied.block_id, block.block_id());
        assert_eq!(
            applied.params_changed,
            line.consensus_param_updates.is_some()
        );
        if let Some(count) = line.evidence_count {
            assert_eq!(block.block().evidence.len(), count);
        }
        let id = pb_types::BlockId::decode(&line.block_id[..]).unwrap();
        assert_eq!(id.hash[..], *applied.block_id.hash.as_bytes());
        check_line(chain, line, executor.state(), &store);
        let log = log.lock().unwrap();
        let (request, response) = log.finalized.last().unwrap();
        assert_eq!(
            hex::encode(request.encode_to_vec()),
            hex::encode(&line.finalize_request.0),
            "{}, height {}: request",
            chain.name,
            line.height
        );
        assert_eq!(
            hex::encode(response.encode_to_vec()),
            hex::encode(&line.finalize_response.0)
        );
        assert_eq!(log.finalized.len(), log.commits.len());
    });
    executor.flush().unwrap();
    let stored = store.load_state().unwrap().unwrap();
    assert_eq!(&stored, executor.state(), "{}: as stored", chain.name);
}

fn check_start(chain: &Chain, log: &crate::apps::Log, state: &State) {
    let genesis_set = chain.genesis.validator_set().unwrap();
    assert_eq!(
        genesis_set.hash().as_bytes(),
        &chain.start.genesis_validators_hash[..]
    );
    assert_eq!(state.last_block_height, Height::ZERO);
    let [info] = &log.infos[..] else {
        panic!("{} times Info", log.infos.len());
    };
    let recorded = pb_abci::RequestInfo::decode(&chain.start.info_request[..]).unwrap();
    assert_eq!(info.abci_version, recorded.abci_version);
    assert_eq!(info.block_version, recorded.block_version);
    assert_eq!(info.p2p_version, recorded.p2p_version);
    let [init] = &log.init_chains[..] else {
        panic!("{} times InitChain", log.init_chains.len());
    };
    let recorded = pb_abci::RequestInitChain::decode(&chain.start.init_chain_request[..]).unwrap();
    // The recorder had the application's state in memory, the file has it indented.
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    assert_eq!(json(&init.app_state_bytes), json(&recorded.app_state_bytes));
    let mut init = init.clone();
    init.app_state_bytes = recorded.app_state_bytes;
    assert_eq!(
        hex::encode(init.encode_to_vec()),
        hex::encode(&chain.start.init_chain_request.0),
        "{}: InitChain",
        chain.name
    );
}

fn built_in(store: &Arc<Store>) -> Arc<dyn Application> {
    let column = Arc::new(AppColumn::new(Arc::clone(store)));
    Arc::new(KvStore::persistent(column, KvStoreOptions::default()).unwrap())
}

fn in_memory(_: &Arc<Store>) -> Arc<dyn Application> {
    Arc::new(KvStore::in_memory(KvStoreOptions::default()))
}

#[test]
fn vector_chain_basic_with_the_state_in_the_block() {
    replay(&Chain::load("chain_basic"), Rules::V038, built_in);
}

#[test]
fn vector_chain_basic_in_memory() {
    replay(&Chain::load("chain_basic"), Rules::V038, in_memory);
}

#[test]
fn vector_chain_initial_height() {
    replay(&Chain::load("chain_initial_height"), Rules::V038, built_in);
}

#[test]
fn vector_chain_extensions() {
    replay(&Chain::load("chain_extensions"), Rules::V038, built_in);
}

#[test]
fn vector_chain_params() {
    replay(&Chain::load("chain_params"), Rules::V038, |_| {
        Arc::new(ParamsApp::new())
    });
}

#[test]
fn vector_chain_params_v040() {
    replay(&Chain::load("chain_params_v0.40"), Rules::V040, |_| {
        Arc::new(ParamsApp::new())
    });
}

/// The answers that the recorder got at the start are those of our application.
#[test]
fn vector_start_of_each_chain() {
    let chains = [
        ("chain_basic", true),
        ("chain_initial_height", true),
        ("chain_extensions", true),
        ("chain_params", false),
        ("chain_params_v0.40", false),
    ];
    for (name, is_kvstore) in chains {
        let chain = Chain::load(name);
        let app: Arc<dyn Application> = if is_kvstore {
            Arc::new(KvStore::in_memory(KvStoreOptions::default()))
        } else {
            Arc::new(ParamsApp::new())
        };
        let request = pb_abci::RequestInfo::decode(&chain.start.info_request[..]).unwrap();
        let answer = app.info(&request).unwrap().encode_to_vec();
        assert_eq!(
            hex::encode(answer),
            hex::encode(&chain.start.info_response.0)
        );
        let request = pb_abci::RequestInitChain::decode(&chain.start.init_chain_request[..]);
        let answer = app.init_chain(&request.unwrap()).unwrap().encode_to_vec();
        assert_eq!(
            hex::encode(answer),
            hex::encode(&chain.start.init_chain_response.0),
            "{name}"
        );
    }
}
