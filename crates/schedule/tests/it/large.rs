//! Blocks that take long to arrive because they are large.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_schedule::{Config, Effect, Schedule};
use perihelion_types::{Height, HeightRange, PeerId};

use crate::blocks::{CHAINS, peer, start};

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

/// Rule: a block that is on its way at a fair rate is not asked of a second peer.
#[test]
fn what_is_arriving_is_asked_of_one_peer() {
    let asked = after(9, 2_000_000);
    assert!(asked.values().all(|peers| peers.len() == 1), "{asked:?}");
    for rate in [0, 20_000] {
        let asked = after(9, rate);
        let lowest = &asked[&Height::new(1)];
        assert!(lowest.len() > 1, "{rate} bytes a second: {asked:?}");
    }
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
        let first = asked[&Height::new(1)][0];
        schedule.handle_block(start + STEP, first, Arc::clone(&CHAINS[0][0]));
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
