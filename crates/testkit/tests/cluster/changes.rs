//! Validator sets that change.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use perihelion_node::files::ValidatorKey;
use perihelion_testkit::{
    cluster::{Cluster, signers},
    network::NetworkShape,
};

use crate::setup::{make, turn};

/// The transaction by which the key-value application gives a node's key a power.
fn power(net: &Cluster, number: usize, power: i64) -> Vec<u8> {
    let file = net
        .node(number)
        .home()
        .join("config/priv_validator_key.json");
    let key = ValidatorKey::load(&file).unwrap().public_key();
    let key = BASE64_STANDARD.encode(key.as_bytes());
    format!("val=ed25519!{key}!{power}").into_bytes()
}

/// Waits until a node tells a set of so many validators.
fn wait_set_size(net: &mut Cluster, number: usize, size: &str) {
    let found = net.poll(number, &format!("{size} validators"), |node| {
        let answer = node.call("/validators").ok()?;
        (answer["total"] == size).then_some(())
    });
    found.unwrap();
}

/// A full node becomes a validator, and a validator becomes a full node.
#[test]
fn validators_join_and_leave_by_transactions() {
    const JOINING: usize = 3;
    const LEAVING: usize = 0;
    let turn = turn();
    let mut net = make(&turn, &NetworkShape::new("changes", 3).others(1));
    net.start(0..4).unwrap();
    net.wait_heights(2).unwrap();
    net.wait_mode(JOINING, "consensus").unwrap();

    // Handed to the node that is no validator yet: it passes it on to those that are.
    let join = power(&net, JOINING, 10);
    net.node(JOINING).broadcast(&join).unwrap();
    wait_set_size(&mut net, 1, "4");
    let top = net.top().unwrap();
    net.wait_signed(1, JOINING, top).unwrap();

    let leave = power(&net, LEAVING, 0);
    net.node(1).broadcast(&leave).unwrap();
    wait_set_size(&mut net, 1, "3");
    let top = net.top().unwrap();
    // The others go on without it, also where it is away.
    net.stop([LEAVING]).unwrap();
    net.wait_heights(top + 5).unwrap();
    let commit = net.node(1).call(&format!("/commit?height={}", top + 4));
    let left = net.address(LEAVING).unwrap();
    let signers = signers(&commit.unwrap());
    assert!(!signers.contains(&left), "{signers:?}");
    // It follows as a full node.
    net.start([LEAVING]).unwrap();
    net.wait_mode(LEAVING, "consensus").unwrap();
    let top = net.top().unwrap();
    net.wait_heights(top + 3).unwrap();
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();
}
