//! What the schedule makes of what consensus decides.

use std::time::Duration;

use perihelion_schedule::{Config, Mode, ModeReason};

use crate::driver::Driver;

/// Claims are looked into at once.
fn config() -> Config {
    Config {
        lookout_after: Duration::ZERO,
        ..Config::default()
    }
}

/// Consensus has the executor after block 19; peer 0 has told block 20, which is held.
fn in_consensus() -> Driver {
    let mut driver = Driver::new(config());
    driver.tells = true;
    driver.join(0, 20);
    driver.wait(10);
    for height in 1..=20 {
        for _ in 0..100 {
            if !driver.owes(0).contains(&height) {
                driver.wait(10);
            }
        }
        driver.deliver(0, height, 0);
    }
    driver.wait(2_000);
    assert_eq!(driver.entered, [19]);
    driver
}

/// Rule: where consensus decides another block than the one that is held, what was built on that one is
/// neither verified nor kept: it is asked of others, and its sender is heard.
#[test]
fn what_is_built_on_another_block_than_the_decided_one_is_dropped() {
    let mut driver = in_consensus();
    driver.decide(20);
    driver.certifies = false;
    driver.join(1, 40);
    driver.wait(10);
    for height in 21..=24 {
        driver.deliver(1, height, 2);
    }
    let window = driver.schedule.progress().window;
    assert_eq!((window.linked, window.pinned), (4, 0));
    assert_eq!(driver.cancelled, []);
    driver.decide(21);
    assert!(!driver.cancelled.is_empty(), "the run was taken back");
    let window = driver.schedule.progress().window;
    assert_eq!((window.linked, window.here), (0, 0));
    // Its sender is heard: the block above the other block 21 is asked of it once more.
    assert_eq!(driver.asked_for(22), [1, 1]);
}

/// Rule: a commit that is being verified for a block that consensus has decided meanwhile keeps no other
/// one waiting.
#[test]
fn the_verdict_on_a_decided_block_is_not_waited_for() {
    let mut driver = in_consensus();
    driver.probes = false;
    driver.join(1, 40);
    driver.wait(10);
    // It names another block 20.
    let before = driver.probed.len();
    driver.deliver(1, 21, 1);
    assert_eq!(driver.probed[before..], [21]);
    driver.decide(21);
    // Whoever sent another block 21 is heard with the block above.
    driver.deliver(1, 22, 1);
    assert_eq!(driver.probed[before..], [21, 22]);
}

/// Rule: once blocksync has the executor again, those who claim more are heard, though they came long
/// after the last block.
#[test]
fn who_came_while_consensus_stood_still_is_heard_when_it_is_left() {
    let mut driver = in_consensus();
    driver.wait(60_000);
    driver.join(1, 40);
    driver.wait(100);
    driver.give_back(19);
    driver.wait(1_000);
    assert_eq!(driver.schedule.mode(), Mode::BlockSync);
    assert_eq!(driver.schedule.progress().why, ModeReason::LeftConsensus);
    assert_eq!(driver.entered, [19]);
}
