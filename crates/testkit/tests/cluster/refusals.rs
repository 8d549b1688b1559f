//! Validators that must not start.

use std::{
    thread,
    time::{Duration, Instant},
};

use perihelion_node::files::SignState;
use perihelion_testkit::{
    home::{ChainShape, make_home},
    network::go_on_with,
};

use crate::setup::{PATIENCE, cluster, perihelion, turn};

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
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = net.node_mut(0).ended().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it goes on");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(1));
    let log = net.node(0).log_end();
    for part in [
        "ERROR",
        "is too old",
        "signed block 5",
        "Restore the newest state",
    ] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
    assert_eq!(SignState::load(&state).unwrap(), SignState::default());
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
