//! What is asked of peers of whom no block was applied: anybody can connect, claim everything and
//! be silent, again and again. And whom a block in doubt is asked of, and for how long.

use std::time::Duration;

use perihelion_schedule::Config;

use crate::{
    blocks::LENGTH,
    driver::{Driver, Number},
};

/// Far above all that there is.
const FAR: i64 = 10_000;

/// Few requests and few near heights, so that the blocks there are suffice.
fn small() -> Config {
    Config {
        first_allowance: 4,
        hedge_depth: 16,
        ..Config::default()
    }
}

/// Peer 0 claims the blocks up to `top` and has sent the first four; three of them are applied.
fn with_proven(config: Config, top: i64) -> Driver {
    let mut driver = Driver::new(config);
    driver.join(0, top);
    driver.wait(10);
    for height in 1..=4 {
        driver.deliver(0, height, 0);
    }
    driver.wait(150);
    assert_eq!(driver.schedule.height().get(), 3);
    driver
}

/// Rule: once there is a peer whose blocks were applied, all others together are asked for as much
/// as one new peer, however many they are.
#[test]
fn all_strangers_together_are_asked_for_little() {
    let strangers: std::ops::RangeInclusive<Number> = 1..=30;
    for top in [40, FAR] {
        let config = Config::default();
        let allowance = config.first_allowance;
        let mut driver = with_proven(config, top);
        for stranger in strangers.clone() {
            driver.join(stranger, FAR);
        }
        let owed = |driver: &Driver| {
            let owed = strangers
                .clone()
                .map(|stranger| driver.owes(stranger).len());
            owed.sum::<usize>()
        };
        assert_eq!(owed(&driver), allowance);
        // Who gives its place back leaves it to the next one, and no more.
        let first = strangers.clone().find(|&it| !driver.owes(it).is_empty());
        driver.leave(first.unwrap());
        assert_eq!(owed(&driver), allowance);
    }
}

/// Rule: without a proven peer, everybody is asked: that is how a sync begins.
#[test]
fn strangers_are_all_there_is_at_first() {
    let mut driver = Driver::new(Config::default());
    for stranger in 0..3 {
        driver.join(stranger, FAR);
        assert_eq!(driver.owes(stranger).len(), 16);
    }
}

/// Rule: what is needed soon is left to peers whose blocks were applied, though they have no room for
/// it yet.
#[test]
fn what_is_needed_soon_is_asked_of_no_stranger() {
    let config = small();
    let near = i64::try_from(config.hedge_depth).unwrap();
    let mut driver = with_proven(config, FAR);
    let next = driver.schedule.height().get() + 1;
    let room = *driver.asked(0).last().unwrap();
    assert!(room < next + near, "nothing near is left to ask for");
    for stranger in 1..=5 {
        driver.join(stranger, FAR);
    }
    let asked: Vec<i64> = (1..=5).flat_map(|it| driver.asked(it)).collect();
    assert!(!asked.is_empty());
    assert!(
        asked.iter().all(|&height| height >= next + near),
        "{asked:?}"
    );
}

/// Rule: what somebody failed to deliver is asked of a peer whose blocks were applied, not of the
/// next stranger.
#[test]
fn what_failed_is_asked_of_no_other_stranger() {
    let mut driver = with_proven(small(), FAR);
    driver.join(1, FAR);
    let failed = driver.owes(1)[0];
    driver.join(2, FAR);
    assert!(driver.asked(2).is_empty());
    driver.deny(1, failed);
    let asked = driver.asked(2);
    assert!(!asked.is_empty() && !asked.contains(&failed), "{asked:?}");
    // It is asked of the proven one as soon as that has room.
    while !driver.asked(0).contains(&failed) {
        let next = driver.owes(0)[0];
        assert!(next <= LENGTH as i64, "{failed} is never asked for again");
        driver.deliver(0, next, 0);
    }
    assert_eq!(driver.asked_for(failed), [1, 0]);
}

/// Rule: what a stranger does not deliver soon is asked of a second peer wherever in the window it is,
/// not just when everything waits for it.
#[test]
fn what_is_asked_of_a_silent_stranger_is_soon_asked_of_another() {
    // One that says nothing at all, and one that begins well.
    for answers in [false, true] {
        let mut driver = with_proven(small(), FAR);
        driver.join(1, FAR);
        let mut owed = driver.owes(1);
        assert_eq!(owed.len(), 4);
        if answers {
            driver.wait(10);
            driver.deliver(1, owed.remove(0), 0);
        }
        assert!(owed.iter().all(|&it| driver.asked_for(it) == [1]));
        driver.wait(1_000);
        for height in owed {
            assert_eq!(driver.asked_for(height)[..2], [1, 0], "{height}");
        }
    }
}

/// Rule: so is what is asked of a peer that has never answered, before anybody is proven.
#[test]
fn what_is_asked_of_a_silent_peer_at_the_start_is_soon_asked_of_another() {
    let mut driver = Driver::new(Config {
        hedge_depth: 2,
        ..small()
    });
    driver.applies = false;
    driver.join(0, FAR);
    driver.join(1, FAR);
    let owed = driver.owes(1);
    assert_eq!(owed, [5, 6, 7, 8]);
    driver.wait(10);
    for height in 1..=4 {
        driver.deliver(0, height, 0);
    }
    driver.wait(1_000);
    for height in owed {
        assert_eq!(driver.asked_for(height)[..2], [1, 0], "{height}");
    }
}

/// Rule: what is late is asked of the peer that is most to be relied on, however quick a stranger may
/// be.
#[test]
fn what_is_late_is_asked_of_a_slow_proven_peer_rather_than_a_stranger() {
    let mut driver = Driver::new(Config {
        hedge_after: (Duration::from_secs(1), Duration::from_secs(2)),
        ..small()
    });
    driver.join(0, FAR);
    driver.join(2, FAR);
    assert_eq!(driver.owes(2), [5, 6, 7, 8]);
    driver.wait(10);
    for height in 1..=4 {
        driver.deliver(0, height, 0);
    }
    driver.wait(500);
    for height in 5..=8 {
        driver.deliver(2, height, 0);
    }
    driver.wait(150);
    driver.join(3, FAR);
    let late = driver.owes(0)[0];
    assert_eq!(driver.schedule.height().get() + 2, late);
    assert_eq!(driver.asked_for(late), [0]);
    driver.wait(1_300);
    assert_eq!(driver.asked_for(late)[..2], [0, 2]);
}

/// A block of a fork above the chain's own block 11, which is here: one of the two is forged. Only
/// the forger is there.
fn in_doubt() -> Driver {
    let mut driver = with_proven(small(), 11);
    for height in 5..=11 {
        driver.deliver(0, height, 0);
    }
    driver.leave(0);
    driver.probes = false;
    driver.join(1, 40);
    driver.deliver(1, 12, 1);
    driver
}

/// Rule: another copy of a block in doubt is not asked of who sent the one that is held.
#[test]
fn who_sent_the_block_in_doubt_is_not_asked_for_another() {
    let mut driver = in_doubt();
    driver.wait(5_000);
    assert_eq!(driver.asked_for(12), [1]);
    driver.join(2, 40);
    assert_eq!(driver.asked_for(12), [1, 2], "somebody else is asked");
}

/// Blocks up to 3 are applied, 4 to 6 are here, and the commit for 4 that stands in 5 does not hold:
/// another copy of 5 is wanted.
fn with_a_bad_commit() -> Driver {
    let mut driver = Driver::new(small());
    driver.bad_commits.insert(5);
    driver.join(0, 5);
    driver.wait(10);
    for height in 1..=4 {
        driver.deliver(0, height, 0);
    }
    driver.wait(150);
    driver.deliver(0, 5, 0);
    assert_eq!(driver.schedule.height().get(), 3);
    driver
}

/// Rule: nor of who has sent the same since.
#[test]
fn who_sent_the_same_copy_again_is_not_asked_for_another() {
    let mut driver = with_a_bad_commit();
    driver.join(1, 5);
    assert_eq!(driver.asked_for(5), [0, 1]);
    driver.deliver(1, 5, 0);
    driver.wait(8_000);
    assert_eq!(driver.asked_for(5), [0, 1]);
}

/// Rule: what is above a block in doubt waits for another copy of it, and not for longer than two
/// seconds, though there is always somebody new to be asked.
#[test]
fn a_block_in_doubt_holds_up_the_sync_for_two_seconds_at_most() {
    let mut driver = with_a_bad_commit();
    driver.join(1, 6);
    driver.deliver(1, 6, 0);
    assert_eq!(driver.asked_for(5), [0, 1]);
    let mut last = 1;
    for stranger in 2..=16 {
        driver.wait(150);
        driver.join(stranger, 6);
        driver.leave(last);
        last = stranger;
        if stranger <= 12 {
            assert!(driver.owes(stranger).contains(&5), "{stranger} is asked");
            assert_eq!(driver.schedule.height().get(), 3, "a copy is waited for");
        }
    }
    assert_eq!(driver.schedule.height().get(), 5);
}
