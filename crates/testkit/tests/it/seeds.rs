//! Random networks: after every step no honest peer is punished, nothing is applied that is not
//! final, every bound is kept; and with one honest peer the sync ends.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use perihelion_testkit::{
    chain::{Cast, Chain, Shape},
    sim::{Kind, PeerSpec, Random, Setup, World},
};

use crate::scenarios::{CHAIN, EXTENSIONS, FORK, MINUTE, stale_fork};

const SEEDS: u64 = 1_000;

/// Chains with a fork each.
static CHAINS: LazyLock<Vec<(Arc<Chain>, Arc<Chain>)>> = LazyLock::new(|| {
    let churn = Shape::simple(4).with_validators(|height| {
        let from = u32::try_from(height / 2).unwrap();
        (from..from + 5)
            .map(|person| (person, 10 + i64::from(person % 3)))
            .collect()
    });
    let jump = Shape::simple(4).with_validators(|height| {
        let people = if height < 16 { 4 } else { 13 };
        (0..people).map(|person| (person, 10)).collect()
    });
    let mut votes =
        Shape::simple(7).with_casts(|height, person| match (height + i64::from(person)) % 7 {
            0 => Cast::Absent,
            1 => Cast::Nil,
            _ => Cast::Block,
        });
    votes.rounds = Arc::new(|height| i32::try_from(height % 3).unwrap());
    votes.initial_height = 1000;
    votes.bent_at = Some(1020);
    let jump = Chain::new(jump, 40);
    let deceived = jump.fork(15, 10, |shape| {
        shape.casts = Arc::new(|height, person| {
            if height < 16 || (height == 16 && person < 4) {
                Cast::Block
            } else {
                Cast::Absent
            }
        });
    });
    let churn = Chain::new(churn, 40);
    let votes = Chain::new(votes, 40);
    let forked = |chain: Chain, at: i64| {
        let fork = stale_fork(&chain, at);
        (Arc::new(chain), Arc::new(fork))
    };
    vec![
        (Arc::clone(&CHAIN), Arc::clone(&FORK)),
        (
            Arc::clone(&EXTENSIONS),
            Arc::new(stale_fork(&EXTENSIONS, 12)),
        ),
        (Arc::new(jump), Arc::new(deceived)),
        forked(churn, 10),
        forked(votes, 1010),
    ]
});

fn any_kind(random: &mut Random, chain: &Chain) -> Kind {
    let kinds = [
        Kind::Honest,
        Kind::Silent,
        Kind::Mute,
        Kind::CorruptBody,
        Kind::ForgedCommit,
        Kind::StaleFork,
        Kind::BadExtended,
        Kind::NoExtended,
        Kind::Withhold(chain.height() - i64::try_from(random.below(30)).unwrap()),
        Kind::Inflated,
        Kind::MaxHeight,
        Kind::MaxHeightSilent,
        Kind::Lowered,
        Kind::Impossible,
        Kind::NoBlockFlood,
        Kind::OtherEncoding,
        Kind::Drip,
        Kind::Unsolicited,
    ];
    kinds[usize::try_from(random.below(kinds.len() as u64)).unwrap()]
}

fn any_peer(random: &mut Random, chain: &Chain) -> PeerSpec {
    let mut peer = PeerSpec::new(any_kind(random, chain))
        .latency_ms(1 + random.below(400))
        .bandwidth(2_000 << random.below(12))
        .joins_ms(random.below(3) * random.below(4_000));
    if random.one_in(4) {
        peer.base = chain.height() - i64::try_from(random.below(30)).unwrap();
    }
    if random.one_in(4) {
        peer.lag = i64::try_from(random.below(20)).unwrap();
    }
    if random.one_in(3) {
        let back = (!random.one_in(2)).then(|| 100 + random.below(5_000));
        peer = peer.leaves_ms(100 + random.below(6_000), back);
    }
    peer
}

fn any_setup(seed: u64) -> Setup {
    let mut random = Random::new(seed);
    let index = usize::try_from(random.below(CHAINS.len() as u64)).unwrap();
    let (chain, fork) = &CHAINS[index];
    let mut peers: Vec<PeerSpec> = (0..random.below(10))
        .map(|_| any_peer(&mut random, chain))
        .collect();
    let mut honest = PeerSpec::new(Kind::Honest)
        .latency_ms(1 + random.below(300))
        .bandwidth(5_000 << random.below(10))
        .joins_ms(random.below(2) * random.below(8_000));
    honest.persistent = true;
    let place = usize::try_from(random.below(peers.len() as u64 + 1)).unwrap();
    peers.insert(place, honest);
    let mut setup = Setup::new(chain, peers);
    setup.fork = Arc::clone(fork);
    setup.apply_time = Duration::from_micros(100 << random.below(10));
    setup.workers = 1 + usize::try_from(random.below(4)).unwrap();
    setup.config.run_blocks = 1 << random.below(8);
    setup.config.window_blocks = 8 << random.below(8);
    setup.config.window_bytes = (64 << 10) << random.below(8);
    setup.config.runs = 1 + usize::try_from(random.below(4)).unwrap();
    setup.config.applying = 1 + usize::try_from(random.below(20)).unwrap();
    setup.config.dial_deadline = Duration::from_secs(15);
    setup
}

fn run(seed: u64) -> Vec<String> {
    let setup = any_setup(seed);
    // Where there are extended commits, the last block may be final by its own.
    let end = setup.chain.height() - 1;
    let last = end + i64::from(setup.chain.shape().extensions_from.is_some());
    let kinds = setup.peers.clone();
    let outcome = World::new(setup).run(10 * MINUTE);
    let log = || outcome.log[outcome.log.len().saturating_sub(150)..].join("\n");
    assert_eq!(outcome.halted, None, "seed {seed}");
    assert!(
        outcome
            .caught_up
            .is_some_and(|(_, height)| (end..=last).contains(&height)),
        "seed {seed}: {:?} of {end}, peers {kinds:#?}\n{}",
        outcome.caught_up,
        log()
    );
    outcome.log
}

fn run_share(share: u64) {
    for seed in (0..SEEDS).filter(|seed| seed % 4 == share) {
        run(seed);
    }
}

#[test]
fn a_thousand_random_networks_first_quarter() {
    run_share(0);
}

#[test]
fn a_thousand_random_networks_second_quarter() {
    run_share(1);
}

#[test]
fn a_thousand_random_networks_third_quarter() {
    run_share(2);
}

#[test]
fn a_thousand_random_networks_fourth_quarter() {
    run_share(3);
}

/// A chain that goes on, and a fork of it.
static GROWING: LazyLock<(Arc<Chain>, Arc<Chain>)> = LazyLock::new(|| {
    let chain = Chain::new(Shape::simple(4), 500);
    let fork = stale_fork(&chain, 170);
    (Arc::new(chain), Arc::new(fork))
});

/// Rule: on a chain that goes on, consensus is entered in the end, whoever claims and sends what beside
/// one honest peer; and never more than a few blocks below the chain's end.
#[test]
fn random_networks_on_a_chain_that_goes_on() {
    let (chain, fork) = &*GROWING;
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut peers: Vec<PeerSpec> = (0..random.below(8))
            .map(|_| {
                let mut peer = any_peer(&mut random, chain);
                if random.one_in(3) {
                    peer.kind = Kind::FrontRunner;
                }
                peer
            })
            .collect();
        let mut honest = PeerSpec::new(Kind::Honest)
            .latency_ms(1 + random.below(300))
            .bandwidth(20_000 << random.below(8))
            .joins_ms(random.below(2) * random.below(8_000));
        honest.persistent = true;
        peers.push(honest);
        let mut setup = Setup::new(chain, peers);
        setup.fork = Arc::clone(fork);
        setup.growth = Some((160, Duration::from_secs(1)));
        let skew = i64::try_from(random.below(3_000)).unwrap() - 1_500;
        setup.wall = chain.time(161).checked_add_nanos(skew * 1_000_000).unwrap();
        setup.config.dial_deadline = Duration::from_secs(15);
        let kinds = setup.peers.clone();
        let outcome = World::new(setup).run(3 * MINUTE);
        let log = || outcome.log[outcome.log.len().saturating_sub(150)..].join("\n");
        assert_eq!(outcome.halted, None, "seed {seed}");
        let Some((at, height)) = outcome.caught_up else {
            panic!("seed {seed}, peers {kinds:#?}\n{}", log());
        };
        let made = 160 + i64::try_from(at.as_secs()).unwrap();
        assert!(
            height + 12 >= made,
            "seed {seed}: {height} of {made}\n{}",
            log()
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
