//! Blocks that take long to arrive because they are large.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_schedule::{Config, Effect, Schedule};
use perihelion_types::{Height, HeightRange, PeerId};

use crate::{
    blocks::{CHAINS, peer, start},
    driver::Driver,
};

const STEP: Duration = Duration::from_millis(100);

/// A schedule with `peers` peers that have blocks 1 to 40, and a moment.
#[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
fn schedule(config: Config, peers: u8) -> (Schedule, Instant) {
    let now = Instant::now();
    let mut schedule = Schedule::new(config, start(), now);
    for n in 0..peers {
        let range = HeightRange::new(Height::new(1), Height::new(40)).unwrap();
        schedule.handle_peer_added(now, peer(n));
        schedule.handle_status(now, peer(n), range);
    }
    (schedule, now)
}

/// Whom each height was asked of by now.
fn drain(schedule: &mut Schedule, asked: &mut BTreeMap<Height, Vec<PeerId>>) {
    while let Some(effect) = schedule.poll_effect() {
        if let Effect::Request { peer, height } = effect {
            asked.entry(height).or_default().push(peer);
        }
    }
}

/// Whom heights were asked of after `seconds` in which each peer sent `rate` bytes a second, and no
/// block was whole.
fn after(seconds: u32, rate: u64) -> BTreeMap<Height, Vec<PeerId>> {
    let (mut schedule, start) = schedule(Config::default(), 3);
    let mut asked = BTreeMap::new();
    drain(&mut schedule, &mut asked);
    for step in 1..=seconds * 10 {
        let now = start + STEP * step;
        for n in 0..3 {
            schedule.handle_bytes(now, peer(n), rate / 10);
        }
        schedule.handle_deadline(now);
        drain(&mut schedule, &mut asked);
    }
    asked
}

/// Rule: a block that is on its way at a fair rate is not asked of a second peer; but whoever comes first
/// and sends one without end does not keep all others from being asked.
#[test]
fn what_is_arriving_is_asked_of_one_peer() {
    let asked = after(4, 2_000_000);
    assert!(asked.values().all(|peers| peers.len() == 1), "{asked:?}");
    let asked = after(9, 2_000_000);
    assert!(asked[&Height::new(1)].len() > 1, "{asked:?}");
    for rate in [0, 20_000] {
        let asked = after(9, rate);
        let lowest = &asked[&Height::new(1)];
        assert!(lowest.len() > 1, "{rate} bytes a second: {asked:?}");
    }
}

/// Rule: neither silence nor lateness is held against a peer whose blocks find no room here; once they
/// do, it has the time that everybody has.
#[test]
fn who_is_held_back_is_not_late() {
    let (mut schedule, start) = schedule(Config::default(), 3);
    let mut asked = BTreeMap::new();
    drain(&mut schedule, &mut asked);
    let before = asked.clone();
    for step in 1..=300 {
        let now = start + STEP * step;
        for n in 0..3 {
            schedule.handle_held_back(now, peer(n));
        }
        schedule.handle_deadline(now);
        drain(&mut schedule, &mut asked);
    }
    assert_eq!(asked, before, "after half a minute");
    let stalls = |schedule: &Schedule| {
        let peers = schedule.progress().peers;
        peers.iter().map(|peer| peer.stalls).sum::<u64>()
    };
    assert_eq!(stalls(&schedule), 0);
    for step in 301..=450 {
        schedule.handle_deadline(start + STEP * step);
        drain(&mut schedule, &mut asked);
    }
    assert!(asked[&Height::new(1)].len() > 1);
    assert!(stalls(&schedule) > 0);
}

/// Rule: in a standstill those are let through who were asked for what everything waits for, however
/// long ago, and nobody else.
#[test]
fn who_owes_what_everything_waits_for_is_known() {
    let few = Config {
        first_allowance: 4,
        ..Config::default()
    };
    let (mut schedule, start) = schedule(few, 3);
    let mut asked = BTreeMap::new();
    drain(&mut schedule, &mut asked);
    let owing = |schedule: &Schedule| BTreeSet::from_iter(schedule.who_owes_the_next());
    let first = asked[&Height::new(1)][0];
    assert_eq!(owing(&schedule), [first].into());
    for second in 1..=30 {
        schedule.handle_deadline(start + STEP * 10 * second);
        drain(&mut schedule, &mut asked);
    }
    let asked_for = |asked: &BTreeMap<Height, Vec<PeerId>>, heights: &[i64]| {
        let heights = heights.iter().map(|&height| &asked[&Height::new(height)]);
        heights.flatten().copied().collect::<BTreeSet<_>>()
    };
    assert_eq!(owing(&schedule), asked_for(&asked, &[1, 2]));
    assert!(owing(&schedule).contains(&first));
    // Who owes only a block that has come from another one is not among them.
    let late = start + STEP * 301;
    schedule.handle_block(late, first, Arc::clone(&CHAINS[0][0]));
    drain(&mut schedule, &mut asked);
    assert_eq!(owing(&schedule), asked_for(&asked, &[2]));
}

/// Rule: who was let go of as slow is asked for nothing that others have, and for everything where
/// nobody else is there.
#[test]
fn who_was_slow_is_asked_only_for_what_nobody_else_has() {
    let top = 40;
    let range = HeightRange::new(Height::new(1), Height::new(top)).unwrap();
    let slow = |schedule: &mut Schedule, now| {
        for n in [8, 9] {
            schedule.handle_peer_added(now, peer(n));
            schedule.handle_slow(now, peer(n));
            schedule.handle_status(now, peer(n), range);
        }
    };
    let (mut schedule, mut now) = self::schedule(Config::default(), 1);
    slow(&mut schedule, now);
    let mut asked = BTreeMap::new();
    drain(&mut schedule, &mut asked);
    assert!(asked.values().flatten().all(|&id| id == peer(0)));

    (schedule, now) = self::schedule(Config::default(), 0);
    slow(&mut schedule, now);
    let mut got = BTreeSet::new();
    while got.len() < usize::try_from(top).unwrap() {
        let mut asked = BTreeMap::new();
        drain(&mut schedule, &mut asked);
        assert!(!asked.is_empty(), "of {} blocks", got.len());
        now += STEP;
        for (height, peers) in asked {
            let block = &CHAINS[0][usize::try_from(height.get()).unwrap() - 1];
            schedule.handle_block(now, peers[0], Arc::clone(block));
            got.insert(height);
        }
    }
}

/// Rule: who still owes a block that another one sent, and that was applied, takes no room in the window.
#[test]
fn what_was_applied_is_expected_no_more() {
    let mut driver = Driver::new(Config::default());
    driver.join(0, 30);
    driver.join(1, 30);
    let expected = |driver: &Driver| driver.schedule.progress().window.expected_bytes;
    assert!(expected(&driver) > 0);
    // Nothing ever comes from the first.
    for _ in 0..40 {
        driver.wait(100);
        for height in driver.owes(1) {
            driver.deliver(1, height, 0);
        }
    }
    assert_eq!(driver.schedule.progress().height, Height::new(29));
    assert!(driver.owes(0).len() > 2, "{:?}", driver.owes(0));
    assert!(driver.owes(0).iter().all(|&height| height < 30));
    assert_eq!(expected(&driver), 0);
}

/// Rule: few large blocks count as near the apply height, so that few of them come twice.
#[test]
fn few_large_blocks_are_asked_twice() {
    let twice = |window_bytes| {
        let config = Config {
            window_bytes,
            ..Config::default()
        };
        let (mut schedule, start) = schedule(config, 3);
        let mut asked = BTreeMap::new();
        drain(&mut schedule, &mut asked);
        // Each has answered once.
        for n in 0..3 {
            let mut of_it = asked.iter().filter(|(_, of)| of.contains(&peer(n)));
            let (height, _) = of_it.next().unwrap();
            let block = &CHAINS[0][usize::try_from(height.get()).unwrap() - 1];
            schedule.handle_block(start + STEP, peer(n), Arc::clone(block));
            drain(&mut schedule, &mut asked);
        }
        for step in 2..40 {
            schedule.handle_deadline(start + STEP * step);
            drain(&mut schedule, &mut asked);
        }
        asked.values().filter(|peers| peers.len() > 1).count()
    };
    let size = CHAINS[0][0].memory();
    assert!(twice(1 << 20) > 8);
    assert!((1..=4).contains(&twice(12 * size)), "{}", twice(12 * size));
}
