//! Validators that crash.

use perihelion_testkit::{cluster::signers, network::NetworkShape, process::NodeClient};

use crate::setup::{make, turn};

/// The steps prevote and precommit as `/consensus_state` tells them: `HEIGHT/ROUND/STEP`.
const VOTING: [i64; 2] = [4, 6];

/// The height of a node's last block, where it has voted on the next one and waits for others.
fn votes_above(node: &NodeClient) -> Option<i64> {
    let state = node.call("/consensus_state").ok()?;
    let at = state["round_state"]["height/round/step"].as_str()?;
    let at: Vec<i64> = at.split('/').map_while(|part| part.parse().ok()).collect();
    let height = node.status().ok()?.height;
    (at.len() == 3 && VOTING.contains(&at[2]) && at[0] == height + 1).then_some(height)
}

/// Three of four go on without the fourth, whichever it is; two do not, until a third is back.
#[test]
fn validators_are_killed_in_turn_and_two_at_once() {
    let turn = turn();
    let mut net = make(&turn, &NetworkShape::new("restarts", 4));
    net.start(0..4).unwrap();
    net.wait_heights(3).unwrap();
    for victim in 0..4 {
        let other = (victim + 1) % 4;
        net.kill([victim]).unwrap();
        let killed_at = net.top().unwrap();
        net.wait_height(other, killed_at + 4).unwrap();
        net.start([victim]).unwrap();
        let back_at = net.wait_mode(victim, "consensus").unwrap();
        net.wait_signed(other, victim, back_at.max(killed_at) + 1)
            .unwrap();
    }
    // Half of the power decides nothing. Beyond what was under way when they died, that is: both
    // come to wait at the same height for votes that nobody casts.
    net.kill([1, 2]).unwrap();
    let other = net.node(3).client().clone();
    let top = net.poll(0, "votes that stay alone", |node| {
        let top = votes_above(node)?;
        (votes_above(&other)? == top).then_some(top)
    });
    let top = top.unwrap();
    net.start([2]).unwrap();
    net.wait_heights(top + 3).unwrap();
    net.start([1]).unwrap();
    net.wait_mode(1, "consensus").unwrap();
    net.wait_signed(0, 1, top + 4).unwrap();
    // Whatever the survivors were doing when they were looked at: no block was decided by two.
    for height in 1..=top + 3 {
        let commit = net.node(0).call(&format!("/commit?height={height}"));
        let signers = signers(&commit.unwrap());
        assert!(signers.len() >= 3, "{height} by {signers:?}");
    }
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();

    // All at once, each where it was.
    net.start(0..4).unwrap();
    net.wait_heights(top + 6).unwrap();
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();
}
