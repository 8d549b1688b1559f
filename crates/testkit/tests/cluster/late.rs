//! Nodes that come late.

use perihelion_testkit::{
    home::{ChainShape, make_home},
    network::{NetworkShape, go_on_with},
};
use serde_json::Value;

use crate::setup::{cluster, make, perihelion, turn};

/// A number out of the answer to `/sync_status`.
fn number(sync: &Value, key: &str) -> i64 {
    sync[key].as_str().unwrap().parse().unwrap()
}

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
    // One answer: on a machine that stood still the node may be back in blocksync in the next one.
    let entered = net.poll(LATE, "mode consensus", |node| {
        let sync = node.sync_status().ok()?;
        (sync["mode"] == "consensus").then_some(sync)
    });
    let entered = entered.unwrap();
    let height = number(&entered, "height");
    assert!(height > top, "it was at {height} of a chain beyond {top}");
    assert_eq!(entered["start_height"], "0");
    assert_eq!(entered["catching_up"], false);
    let received = number(&entered, "blocks_received");
    assert!(received >= top, "{received} blocks came by blocksync");
    // Ten heights in one stay in consensus of which not all came by blocksync: the others were
    // decided by consensus. A node that lags fetches blocks; then it is given another ten.
    let mut since = entered;
    let decided = net.poll(LATE, "blocks by consensus", |node| {
        let now = node.sync_status().ok()?;
        let grown = |key| number(&now, key) - number(&since, key);
        let (blocks, fetched) = (grown("height"), grown("blocks_received"));
        let stays = now["mode"] == "consensus" && grown("mode_switches") == 0;
        if stays && fetched < blocks && blocks >= 10 {
            return Some(());
        }
        if !stays || (fetched > 0 && fetched >= blocks) {
            since = now;
        }
        None
    });
    decided.unwrap();
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
    let top = net.top().unwrap();
    net.wait_heights(top + 3).unwrap();
    net.agree(1).unwrap();
    net.stop(0..2).unwrap();
}
