//! Attacks on the progress of a sync by few peers, found by attacking a node: each stopped it, or
//! made it end. Beside them there are honest peers, and the sync ends in the usual time or nearly.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use perihelion_schedule::{Fault, StallReason};
use perihelion_testkit::{
    chain::{Chain, Shape},
    sim::{Kind, Outcome, PeerSpec, Setup, World},
};

use crate::scenarios::{MINUTE, assert_synced, banned, setup};

/// Long enough that a sync takes several round trips.
static LONG: LazyLock<Arc<Chain>> = LazyLock::new(|| Arc::new(Chain::new(Shape::simple(4), 1500)));

fn honest(latency_ms: u64) -> PeerSpec {
    let mut peer = PeerSpec::new(Kind::Honest).latency_ms(latency_ms);
    peer.persistent = true;
    peer
}

/// Peers that are replaced every `life_ms` by others who are as they were, not all at once, from
/// 50 ms on.
fn changing(kind: Kind, count: u64, life_ms: u64) -> Vec<PeerSpec> {
    let one = |index| {
        PeerSpec::new(kind)
            .latency_ms(1)
            .joins_ms(50 + life_ms * index / count)
            .leaves_ms(life_ms, Some(20))
    };
    (0..count).map(one).collect()
}

fn seconds(outcome: &Outcome) -> f64 {
    let (at, _) = outcome.caught_up.unwrap_or_else(|| {
        let log = &outcome.log[outcome.log.len().saturating_sub(100)..];
        panic!("not caught up at {}\n{}", outcome.height, log.join("\n"))
    });
    at.as_secs_f64()
}

/// The block above H is forged so that it names another block than the honest one at H; nobody but
/// honest peers then sends H again. The honest block at H must not stay in doubt for as long as
/// somebody new can be asked for it.
#[test]
fn one_forged_block_and_silent_connections_do_not_stop_the_sync() {
    for forgers in [1, 3] {
        for withholders in [2, 12, 36] {
            let mut peers = vec![PeerSpec::new(Kind::LinkForger).latency_ms(1); forgers];
            peers.extend(changing(Kind::WithholdPairs, withholders, 3_000));
            peers.push(honest(50));
            let outcome = World::new(setup(peers)).run(2 * MINUTE);
            assert_synced(&outcome);
            let took = seconds(&outcome);
            assert!(took < 5.0, "{took} s");
            let forged = |(index, fault, _): &(usize, Fault, bool)| {
                *index < forgers
                    && matches!(fault, Fault::Forged { .. } | Fault::ForgedCommit { .. })
            };
            assert!(
                outcome.punished.iter().all(forged),
                "{:?}",
                outcome.punished
            );
        }
    }
}

/// The same, and when the honest block at H is in doubt a forged one is offered in its place.
#[test]
fn a_forged_copy_of_a_block_in_doubt_does_not_stop_the_sync() {
    let mut peers = vec![PeerSpec::new(Kind::LinkForger).latency_ms(1)];
    peers.extend(changing(Kind::NinthForger, 4, 3_000));
    peers.extend(changing(Kind::WithholdPairs, 32, 3_000));
    peers.push(honest(50));
    let outcome = World::new(setup(peers)).run(2 * MINUTE);
    assert_synced(&outcome);
    let took = seconds(&outcome);
    assert!(took < 5.0, "{took} s");
}

/// Anybody can offer a first block for other validators than ours.
#[test]
fn a_strangers_unfitting_first_block_does_not_halt_the_node() {
    let mut late = honest(20);
    late.joins = MINUTE / 2;
    let mut setup = setup(vec![PeerSpec::new(Kind::OtherValidators), late]);
    setup.config.dial_deadline = MINUTE;
    let outcome = World::new(setup).run(2 * MINUTE);
    assert_synced(&outcome);
    let told = |reason: &StallReason| matches!(reason, StallReason::OtherGenesis { .. });
    assert!(outcome.stalls.iter().any(told), "{:?}", outcome.stalls);
    assert_eq!(banned(&outcome), Vec::<usize>::new());
}

/// Nor does it keep a node from the first height of a new chain.
#[test]
fn a_strangers_unfitting_first_block_does_not_keep_a_new_chain_from_starting() {
    let mut setup = setup(vec![PeerSpec::new(Kind::OtherValidators), honest(20)]);
    setup.growth = Some((0, 60 * MINUTE));
    let outcome = World::new(setup).run(MINUTE);
    assert_eq!((outcome.halted, outcome.height), (None, 0));
    assert!(outcome.caught_up.is_some(), "{:?}", outcome.stalls);
}

/// A configured peer that offers one that fits outweighs another that does not.
#[test]
fn one_of_two_configured_peers_with_an_unfitting_first_block_does_not_halt_the_node() {
    let mut liar = PeerSpec::new(Kind::OtherValidators).latency_ms(1);
    liar.persistent = true;
    let outcome = World::new(setup(vec![liar, honest(200)])).run(MINUTE);
    assert_synced(&outcome);
}

/// Who is new is asked for little, and nothing that is needed soon, once others have proven
/// themselves.
#[test]
fn silent_peers_with_changing_ids_do_not_stop_the_sync() {
    let sync = |mut peers: Vec<PeerSpec>| {
        peers.push(honest(50));
        let mut setup = Setup::new(&LONG, peers);
        setup.check_every = 100;
        seconds(&World::new(setup).run(5 * MINUTE))
    };
    let alone = sync(Vec::new());
    for kind in [Kind::Silent, Kind::Fading] {
        for (count, life) in [(20, 2_000), (39, 1_000), (39, 300)] {
            let besieged = sync(changing(kind, count, life));
            assert!(besieged < 2.0 * alone, "{besieged} s instead of {alone}");
        }
    }
}

/// A claim that was not kept does not stand again because another number is claimed.
#[test]
fn claims_that_grow_do_not_keep_the_node_from_being_caught_up() {
    for growth in [None, Some((30, Duration::from_secs(2)))] {
        let mut peers = vec![
            PeerSpec::new(Kind::Creeping),
            PeerSpec::new(Kind::Creeping).joins_ms(5_000),
        ];
        peers.push(honest(20));
        let mut setup = setup(peers);
        setup.growth = growth;
        let outcome = World::new(setup).run(2 * MINUTE);
        assert!(seconds(&outcome) < 40.0, "{}", seconds(&outcome));
        assert_eq!(outcome.punished, []);
    }
}
