//! Nodes that come late.

use perihelion_testkit::{
    home::{ChainShape, make_home},
    network::{NetworkShape, go_on_with},
};

use crate::setup::{cluster, make, perihelion, turn};

/// A node without anything syncs a thousand blocks from four validators that go on meanwhile, and
/// then follows by consensus.
#[test]
fn a_late_node_syncs_a_thousand_blocks_and_follows_by_consensus() {
    const BLOCKS: u64 = 1_000;
    const LATE: usize = 4;
    let turn = turn();
    let mut shape = ChainShape::new("late", 4, BLOCKS);
    shape.churn = 0;
    let chain = make_home(&turn.folder.path().join("chain"), &shape).unwrap();
    let top = chain.height.get();
    let nodes = turn.folder.path().join("nodes");
    let launches = go_on_with(&chain, shape.seed, 4, 1, &nodes, &perihelion()).unwrap();
    let mut net = cluster(launches);
    net.start(0..4).unwrap();
    net.wait_heights(top + 2).unwrap();
    net.start([LATE]).unwrap();
    let entered = net.wait_mode(LATE, "consensus").unwrap();
    assert!(entered > top, "it was at {entered} of a chain beyond {top}");
    let sync = net.node(LATE).sync_status().unwrap();
    assert_eq!(sync["start_height"], "0");
    assert_eq!(sync["catching_up"], false);
    let blocks = |status: &serde_json::Value| {
        let text = status["blocks_received"].as_str().unwrap();
        text.parse::<i64>().unwrap()
    };
    let received = blocks(&sync);
    assert!(received >= top, "{received} blocks came by blocksync");
    net.wait_height(LATE, entered + 10).unwrap();
    // What came since was decided by consensus, but for few that may have been on their way.
    let since = blocks(&net.node(LATE).sync_status().unwrap()) - received;
    assert!(since < 10, "{since} blocks more came by blocksync");
    net.agree(1).unwrap();
    net.stop(0..5).unwrap();
}

/// Each precommit has an extension from the first block on; one validator has more than 2/3 of the
/// power and begins alone. The other needs its extended commits.
#[test]
fn vote_extensions_from_the_first_height_with_a_second_validator_that_starts_late() {
    let turn = turn();
    let shape = NetworkShape {
        powers: vec![67, 33],
        extensions_height: 1,
        ..NetworkShape::new("extensions", 2)
    };
    let mut net = make(&turn, &shape);
    // Whoever knows of no peer needs to wait for none.
    net.launch(0).persistent_peers.clear();
    net.start([0]).unwrap();
    net.wait_height(0, 10).unwrap();
    net.start([1]).unwrap();
    let entered = net.wait_mode(1, "consensus").unwrap();
    assert!(entered >= 9, "it entered consensus at {entered}");
    let signed = net.wait_signed(0, 1, entered + 1).unwrap();
    net.wait_heights(signed + 3).unwrap();
    net.agree(1).unwrap();

    // The large one alone cannot propose without the extended commit that it has; killed, it does.
    net.kill([0]).unwrap();
    net.start([0]).unwrap();
    net.wait_mode(0, "consensus").unwrap();
    let top = net.top();
    net.wait_heights(top + 3).unwrap();
    net.agree(1).unwrap();
    net.stop(0..2).unwrap();
}
