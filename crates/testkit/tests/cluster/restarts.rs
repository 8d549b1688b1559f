//! Validators that crash.

use perihelion_testkit::network::NetworkShape;

use crate::setup::{make, turn};

/// The steps prevote and precommit as `/consensus_state` tells them: `HEIGHT/ROUND/STEP`.
const VOTING: [i64; 2] = [4, 6];

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
        let killed_at = net.top();
        net.wait_height(other, killed_at + 4).unwrap();
        net.start([victim]).unwrap();
        let back_at = net.wait_mode(victim, "consensus").unwrap();
        net.wait_signed(other, victim, back_at.max(killed_at) + 1)
            .unwrap();
    }
    // Half of the power decides nothing. Beyond what was under way when they died, that is: both
    // wait for votes that nobody casts.
    net.kill([1, 2]).unwrap();
    let mut halted = Vec::new();
    for survivor in [0, 3] {
        let at = net.poll(survivor, "votes that stay alone", |node| {
            let state = node.call("/consensus_state").ok()?;
            let at = state["round_state"]["height/round/step"].as_str()?;
            let at: Vec<i64> = at.split('/').map_while(|part| part.parse().ok()).collect();
            let status = node.status().ok()?;
            let waits = at.len() == 3 && VOTING.contains(&at[2]) && at[0] == status.height + 1;
            waits.then_some(status.height)
        });
        halted.push(at.unwrap());
    }
    let top = net.top();
    net.start([2]).unwrap();
    net.wait_heights(top + 3).unwrap();
    net.start([1]).unwrap();
    net.wait_mode(1, "consensus").unwrap();
    net.wait_signed(0, 1, top + 4).unwrap();
    assert!(
        halted.iter().all(|height| (top - 1..=top).contains(height)),
        "two of four validators went on: {halted:?}, then {top}"
    );
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();

    // All at once, each where it was.
    net.start(0..4).unwrap();
    net.wait_heights(top + 6).unwrap();
    net.agree(1).unwrap();
    net.stop(0..4).unwrap();
}
