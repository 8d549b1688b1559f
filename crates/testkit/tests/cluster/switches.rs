//! From consensus to blocksync and back.

use std::ops::ControlFlow;

use perihelion_testkit::{
    home::{ChainShape, make_home},
    network::{NetworkShape, connect, go_on_with, move_on_to},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::setup::{cluster, make, perihelion, turn};

/// A validator that was stopped comes back 200 blocks later.
#[test]
fn a_validator_that_missed_200_blocks_syncs_them_and_signs_again() {
    const MISSED: i64 = 200;
    let turn = turn();
    let mut net = make(&turn, &NetworkShape::new("stopped", 4));
    for launch in net.launches_mut() {
        // A quarter of the rounds has nobody who proposes.
        *launch = launch
            .clone()
            .set("consensus.timeout_propose", "100ms")
            .set("consensus.timeout_commit", "20ms");
    }
    net.start(0..4).unwrap();
    net.wait_heights(3).unwrap();
    net.wait_signed(0, 3, 2).unwrap();
    net.stop([3]).unwrap();
    let stopped_at = net.top().unwrap();
    // Blocksync ends below the highest block, whose commit comes with the next one.
    net.wait_height(0, stopped_at + MISSED + 1).unwrap();
    net.start([3]).unwrap();
    let entered = net.wait_mode(3, "consensus").unwrap();
    assert!(entered >= stopped_at + MISSED, "it entered at {entered}");
    let sync = net.node(3).sync_status().unwrap();
    let received: i64 = sync["blocks_received"].as_str().unwrap().parse().unwrap();
    assert!(received >= MISSED, "{received} blocks came by blocksync");
    let signed = net.wait_signed(0, 3, entered + 1).unwrap();
    net.wait_heights(signed + 2).unwrap();
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();
}

/// A laptop that was suspended: the process stands still while the others go on, and catches up
/// without a restart.
#[test]
fn a_suspended_validator_catches_up_by_itself_and_signs_again() {
    const MISSED: i64 = 40;
    let turn = turn();
    let mut net = make(&turn, &NetworkShape::new("suspended", 4));
    net.start(0..4).unwrap();
    net.wait_heights(3).unwrap();
    for number in 0..4 {
        net.wait_mode(number, "consensus").unwrap();
    }
    let id = i32::try_from(net.node(2).pid()).unwrap();
    let id = Pid::from_raw(id).unwrap();
    kill_process(id, Signal::STOP).unwrap();
    let suspended_at = net.node(0).status().unwrap().height;
    net.wait_height(0, suspended_at + MISSED).unwrap();
    kill_process(id, Signal::CONT).unwrap();
    net.wait_height(2, suspended_at + MISSED).unwrap();
    let entered = net.wait_mode(2, "consensus").unwrap();
    let signed = net.wait_signed(0, 2, entered + 1).unwrap();
    net.wait_heights(signed + 2).unwrap();
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();
}

/// A validator that was cut off while the others went on for 2,000 blocks: more than consensus makes
/// up for in the time in which it is noticed. It goes back to blocksync without a restart, does not
/// vote meanwhile, and enters consensus again.
#[test]
fn a_validator_that_was_cut_off_goes_back_to_blocksync_by_itself() {
    const BEFORE: u64 = 50;
    const MISSED: u64 = 2_000;
    let turn = turn();
    let folder = |name: &str| turn.folder.path().join(name);
    let shape = ChainShape::new("cut", 4, BEFORE);
    let before = make_home(&folder("before"), &shape).unwrap();
    // Who is cut off signs nothing: blocks with its signatures would tell of a second copy.
    let longer = ChainShape {
        blocks: BEFORE + MISSED,
        gone: Some((3, before.height.next().get())),
        ..shape.clone()
    };
    let after = make_home(&folder("after"), &longer).unwrap();
    let launches = go_on_with(&before, shape.seed, 4, 0, &folder("nodes"), &perihelion());
    let mut net = cluster(launches.unwrap());
    // Two of four decide nothing. Who is away is not waited for: the last one knows of one only.
    for number in [0, 3] {
        let others = net.launch(3 - number).address().unwrap();
        net.launch(number).persistent_peers = vec![others];
    }
    net.start([0, 3]).unwrap();
    for number in [0, 3] {
        let entered = net.wait_mode(number, "consensus").unwrap();
        assert_eq!(entered, before.height.get());
    }
    net.kill([0]).unwrap();
    for number in 0..3 {
        move_on_to(net.launch(number), &after).unwrap();
    }
    connect(net.launches_mut(), 4).unwrap();
    net.start(0..3).unwrap();
    // Its status may be as old as the end of its first stay in consensus.
    let last = after.height.get();
    let entered = net.follow(3, "consensus behind what it missed", |node| {
        let status = node.sync_status().unwrap_or_default();
        let height = status["height"].as_str().and_then(|text| text.parse().ok());
        let height: i64 = height.unwrap_or(0);
        if status["mode"] == "consensus" && height >= last {
            return ControlFlow::Break(height);
        }
        ControlFlow::Continue(height.min(last))
    });
    let entered = entered.unwrap();
    let log = std::fs::read_to_string(net.node(3).log()).unwrap();
    assert!(
        log.contains("back to blocksync"),
        "{}",
        net.node(3).log_end()
    );
    let signed = net.wait_signed(0, 3, entered + 1).unwrap();
    net.wait_heights(signed + 2).unwrap();
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();
}
