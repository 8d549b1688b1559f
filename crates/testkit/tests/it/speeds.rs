//! How quick a sync is in simulated networks, in virtual time.

use std::{sync::Arc, time::Duration};

use perihelion_testkit::{
    chain::{Chain, Shape},
    sim::{Kind, PeerSpec, Setup, World},
};

use crate::scenarios::MINUTE;

/// Seconds until all blocks but the last are applied.
fn took(setup: Setup) -> f64 {
    let last = setup.chain.height() - 1;
    let outcome = World::new(setup).run(20 * MINUTE);
    assert_eq!(outcome.halted, None);
    let (at, height) = outcome.caught_up.expect("caught up");
    assert_eq!(height, last);
    at.as_secs_f64()
}

/// A quick application, and books that are checked now and then.
fn quick(chain: &Arc<Chain>, peers: Vec<PeerSpec>) -> Setup {
    let mut setup = Setup::new(chain, peers);
    setup.apply_time = Duration::from_micros(10);
    setup.check_every = 10_000;
    setup
}

/// Rule: each peer is asked for as much as it can send, however far away it is, and nobody is waited
/// for. The start, until the blocks of all were seen, is left out.
#[test]
fn a_hundred_peers_of_mixed_speed_reach_nine_tenths_of_their_sum() {
    // From 20 to 600 kB/s, with 10 to 600 ms there and back, in no order.
    let peers: Vec<PeerSpec> = (0..100_u64)
        .map(|number| {
            let place = number * 37 % 100;
            let bandwidth = 20_000.0 * 30_f64.powf(place as f64 / 99.0);
            PeerSpec::new(Kind::Honest)
                .latency_ms(5 + number * 61 % 100 * 3)
                .bandwidth(bandwidth as u64)
        })
        .collect();
    let sum: u64 = peers.iter().map(|peer| peer.bandwidth).sum();
    let shape = Shape::simple(4).with_transactions(|_| (1, 1_500));
    let sync = |blocks| {
        let chain = Arc::new(Chain::new(shape.clone(), blocks));
        let size = chain.block(1_000).unwrap().raw().len();
        (took(quick(&chain, peers.clone())), size * blocks)
    };
    let (start, before) = sync(30_000);
    let (end, bytes) = sync(60_000);
    let rate = (bytes - before) as f64 / (end - start);
    assert!(rate >= 0.9 * sum as f64, "{rate} of {sum} bytes a second");
    assert!(start < 12.0, "{start} s for {before} bytes");
}

/// Rule: so many workers verify so many times as fast.
#[test]
fn sixteen_workers_verify_fourteen_times_as_fast_as_one() {
    let chain = Arc::new(Chain::new(Shape::simple(60), 1_500));
    let with = |workers| {
        let near = PeerSpec::new(Kind::Honest).bandwidth(1 << 30).latency_ms(1);
        let mut setup = quick(&chain, vec![near; 4]);
        // One commit of each two blocks is verified.
        setup.config.run_blocks = 2;
        setup.config.longest_run = 2;
        // As the node has it.
        setup.config.runs = 2 * workers;
        setup.workers = workers;
        took(setup)
    };
    let one = with(1);
    for workers in [2, 4, 8, 16] {
        let (took, least) = (with(workers), 0.875 * workers as f64);
        assert!(
            one / took >= least,
            "{workers} workers: {took} s, one {one} s"
        );
    }
}

/// Rule: large blocks come once each from peers that take seconds for each, and what is on its way
/// fits the window from the start, when no size is known.
#[test]
fn large_blocks_from_ten_peers_come_once() {
    const BLOCKS: u64 = 60;
    let shape = Shape::simple(4).with_transactions(|_| (3, 1_000_000));
    let chain = Arc::new(Chain::new(shape, BLOCKS as usize));
    let size = chain.block(5).unwrap().raw().len();
    // All together a link of 12 MB/s.
    let peers = vec![PeerSpec::new(Kind::Honest).bandwidth(1_200_000); 10];
    let mut setup = quick(&chain, peers);
    setup.check_every = 1;
    setup.largest_block = size;
    setup.config.window_bytes = 19 * size;
    let window = setup.config.window_bytes;
    let outcome = World::new(setup).run(20 * MINUTE);
    let (at, height) = outcome.caught_up.expect("caught up");
    assert_eq!(height, chain.height() - 1);
    let requests: u64 = outcome.requests.iter().sum();
    assert!(requests <= BLOCKS * 11 / 10, "{requests} requests");
    // A quarter more is expected of a block than there was in the last ones.
    assert!(outcome.most_bytes <= window * 5 / 4 + 2 * size);
    let least = BLOCKS as f64 * size as f64 / 12e6;
    assert!(at.as_secs_f64() <= 1.5 * least, "{at:?}, not {least} s");
}
