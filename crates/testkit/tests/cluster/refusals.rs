//! Validators that must not start.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use perihelion_node::files::SignState;
use perihelion_testkit::{
    cluster::Cluster,
    home::{ChainShape, make_home},
    network::{NetworkShape, go_on_with},
};

use crate::setup::{PATIENCE, cluster, make, perihelion, turn};

/// Longer than a node waits for the status of a configured peer at its start.
const CONFIGURED_AWAITED: Duration = Duration::from_secs(11);

/// A sign state that was lost, or restored from a copy, knows less than the blocks in the store.
#[test]
fn a_sign_state_that_is_older_than_the_chain_is_refused_with_the_remedy() {
    let turn = turn();
    let shape = ChainShape::new("stale", 1, 5);
    let chain = make_home(&turn.folder.path().join("chain"), &shape).unwrap();
    let nodes = turn.folder.path().join("nodes");
    let launches = go_on_with(&chain, shape.seed, 1, 0, &nodes, &perihelion()).unwrap();
    let state = launches[0].home.join("data/priv_validator_state.json");
    SignState::default().save(&state).unwrap();
    let mut net = cluster(launches);
    net.start([0]).unwrap();
    assert_refused(&mut net, 0, "signed block 5");
    assert_eq!(SignState::load(&state).unwrap(), SignState::default());
}

/// A home that has nothing any more, and forgot what was signed, tells nothing at its start: the
/// blocks that it fetches do.
#[test]
fn a_wiped_validator_is_refused_by_its_own_signatures_in_the_blocks_that_it_fetches() {
    let turn = turn();
    let mut net = make(&turn, &NetworkShape::new("wiped", 4));
    net.start(0..4).unwrap();
    wait_until_3_has_signed(&mut net);
    net.stop([3]).unwrap();
    wipe(&mut net, 3);
    net.start([3]).unwrap();
    assert_refused(&mut net, 3, "signed block ");
    assert_signed_nothing(&mut net, 3);
    net.stop(0..3).unwrap();
}

/// Nor does it begin the chain anew while nobody is there to tell of it, though nothing can be
/// decided without it.
#[test]
fn a_wiped_validator_waits_for_its_peers_and_signs_nothing_without_them() {
    let turn = turn();
    let shape = NetworkShape {
        powers: vec![10, 10, 10, 20],
        ..NetworkShape::new("alone", 4)
    };
    let mut net = make(&turn, &shape);
    net.start(0..4).unwrap();
    wait_until_3_has_signed(&mut net);
    net.stop(0..4).unwrap();
    wipe(&mut net, 3);
    net.start([3]).unwrap();
    // By its own clock it has waited for its configured peers, and would count as caught up.
    let waits_for = net.poll(3, "the end of its wait for configured peers", |node| {
        let status = node.sync_status().ok()?;
        assert_eq!(status["mode"], "wait_for_peers", "{status}");
        assert_eq!(status["catching_up"], true, "{status}");
        let waited: u64 = status["mode_time"].as_str()?.parse().ok()?;
        let stalled = status["stalled_reason"].as_str()?.to_owned();
        (Duration::from_nanos(waited) > CONFIGURED_AWAITED).then_some(stalled)
    });
    assert!(waits_for.unwrap().contains("no peers"));
    let status = net.node(3).call("/status").unwrap();
    assert_eq!(status["sync_info"]["catching_up"], true, "{status}");
    assert_eq!(status["sync_info"]["latest_block_height"], "0", "{status}");
    assert_signed_nothing(&mut net, 3);

    net.start(0..3).unwrap();
    assert_refused(&mut net, 3, "signed block ");
    assert_signed_nothing(&mut net, 3);
    net.stop(0..3).unwrap();
}

/// Waits for a precommit of node 3 that blocksync fetches: the last blocks it does not.
fn wait_until_3_has_signed(net: &mut Cluster) {
    let signed = net.wait_signed(0, 3, 1).unwrap();
    net.wait_heights(signed + 2).unwrap();
}

/// A validator that does not run loses all but its keys and its configuration.
fn wipe(net: &mut Cluster, number: usize) {
    let data = net.launch(number).home.join("data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    let state = data.join("priv_validator_state.json");
    SignState::default().save(&state).unwrap();
}

/// Neither the signer's file nor the log of consensus, which is begun when it is entered, has
/// anything.
fn assert_signed_nothing(net: &mut Cluster, number: usize) {
    let data = net.launch(number).home.join("data");
    let state = SignState::load(&data.join("priv_validator_state.json")).unwrap();
    assert_eq!(state, SignState::default());
    assert!(!data.join("cs.wal/wal").exists());
}

/// The node ends, and says why.
fn assert_refused(net: &mut Cluster, number: usize, signed: &str) {
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = net.node_mut(number).ended().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it goes on");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(1));
    let log = net.node(number).log_end();
    for part in ["ERROR", "is too old", signed, "Restore the newest state"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
}

/// With the state that its chain has left it goes on alone.
#[test]
fn a_sole_validator_goes_on_at_once() {
    let turn = turn();
    let shape = ChainShape::new("sole", 1, 5);
    let chain = make_home(&turn.folder.path().join("chain"), &shape).unwrap();
    let nodes = turn.folder.path().join("nodes");
    let launches = go_on_with(&chain, shape.seed, 1, 0, &nodes, &perihelion()).unwrap();
    let mut net = cluster(launches);
    net.start([0]).unwrap();
    net.wait_height(0, 8).unwrap();
    net.stop([0]).unwrap();
}
