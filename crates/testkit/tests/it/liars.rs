//! What liars cost, in virtual time: beside one the sync takes at most one and a half times as long
//! as without, beside nine at most twice.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use perihelion_testkit::{
    chain::{Chain, Shape},
    sim::{Kind, Outcome, PeerSpec, Setup, World},
};

use crate::scenarios::{MINUTE, stale_fork};

const BLOCKS: usize = 2_000;

/// A chain with vote extensions, one of whose validators is replaced every fifty blocks; and a fork
/// of it.
static CHAIN: LazyLock<(Arc<Chain>, Arc<Chain>)> = LazyLock::new(|| {
    let mut shape = Shape::simple(4).with_validators(|height| {
        let from = u32::try_from(height / 50).unwrap();
        (from..from + 5).map(|person| (person, 10)).collect()
    });
    shape.extensions_from = Some(1);
    let chain = Chain::new(shape, BLOCKS);
    let fork = stale_fork(&chain, 150);
    (Arc::new(chain), Arc::new(fork))
});

/// Each honest peer sends as many blocks a second.
const HONEST: u64 = 2_800;

fn honest() -> PeerSpec {
    let size = CHAIN.0.block(1_000).unwrap().raw().len() as u64;
    PeerSpec::new(Kind::Honest)
        .latency_ms(1)
        .bandwidth(size * HONEST)
}

/// Far quicker than an honest peer.
fn liar(kind: Kind) -> PeerSpec {
    let mut liar = honest();
    liar.kind = kind;
    liar.bandwidth *= 20;
    liar
}

const KINDS: [Kind; 9] = [
    Kind::CorruptBody,
    Kind::ForgedCommit,
    Kind::StaleFork,
    Kind::BadExtended,
    Kind::NoExtended,
    Kind::WithholdTenths,
    Kind::Inflated,
    Kind::OtherEncoding,
    Kind::Silent,
];

fn sync(honest_peers: usize, liars: &[Kind]) -> Outcome {
    let mut peers: Vec<PeerSpec> = liars.iter().map(|&kind| liar(kind)).collect();
    peers.extend(vec![honest(); honest_peers]);
    for peer in &mut peers {
        peer.persistent = true;
    }
    let mut setup = Setup::new(&CHAIN.0, peers);
    setup.fork = Arc::clone(&CHAIN.1);
    setup.apply_time = Duration::from_micros(200);
    setup.check_every = 100;
    World::new(setup).run(5 * MINUTE)
}

/// When the chain's last block but one was applied.
fn took(outcome: &Outcome) -> Duration {
    let last = format!(" applied {}", BLOCKS - 1);
    let line = outcome.log.iter().find(|line| line.ends_with(&last));
    let line = line.unwrap_or_else(|| panic!("stuck at {}: {:?}", outcome.height, outcome.stalls));
    Duration::from_micros(line.split(' ').next().unwrap().parse().unwrap())
}

#[track_caller]
fn assert_cost(honest_peers: usize, crowds: &[Vec<Kind>], goal: f64) {
    let alone = took(&sync(honest_peers, &[]));
    let mut over = Vec::new();
    for crowd in crowds {
        let outcome = sync(honest_peers, crowd);
        let took = took(&outcome);
        let ratio = took.as_secs_f64() / alone.as_secs_f64();
        let line = format!(
            "{honest_peers} honest beside {} x {:?}: {took:.2?} instead of {alone:.2?}, {ratio:.2} times; {:?} requests",
            crowd.len(),
            crowd[0],
            outcome.requests
        );
        if ratio > goal {
            over.push(line);
        }
    }
    assert_eq!(over, Vec::<String>::new(), "more than {goal} times as long");
}

#[test]
fn one_liar_beside_one_honest_peer() {
    assert_cost(1, &KINDS.map(|kind| vec![kind]), 1.5);
}

#[test]
fn one_liar_beside_three_honest_peers() {
    assert_cost(3, &KINDS.map(|kind| vec![kind]), 1.5);
}

#[test]
fn nine_liars_beside_one_honest_peer() {
    let crowds = KINDS.map(|kind| vec![kind; 9]);
    assert_cost(1, &[&crowds[..], &[KINDS.to_vec()]].concat(), 2.0);
}
