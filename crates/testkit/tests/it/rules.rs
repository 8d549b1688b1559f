//! Rules of pinning, blame, liveness and the switch, beyond the numbered scenarios.

use std::{sync::Arc, time::Duration};

use perihelion_schedule::{Mode, StallReason};
use perihelion_testkit::{
    chain::{Cast, Chain, Shape},
    sim::{Kind, PeerSpec, World},
};

use crate::scenarios::{
    CHAIN, FORK, MINUTE, assert_synced, banned, kept_in_blocksync, peers, setup, sync, with_honest,
};

/// Rule: a run's last block is final only by its own set. All members of V precommitted a block in
/// round 0 that the newcomers, now the majority, did not join; another one was committed in round
/// 1. Nobody is dishonest but the server of the first.
#[test]
fn the_fork_without_a_dishonest_validator() {
    let change = 31;
    let shape = Shape::simple(4).with_validators(move |height| {
        let people = if height < change { 4 } else { 13 };
        (0..people).map(|person| (person, 10)).collect()
    });
    let chain = Chain::new(shape, 60);
    let fork = chain.fork(change - 1, 10, |shape| {
        shape.casts = Arc::new(move |height, person| {
            if height < change || (height == change && person < 4) {
                Cast::Block
            } else {
                Cast::Absent
            }
        });
    });
    for honest in [1, 2] {
        let mut setup = setup(with_honest(Kind::StaleFork, 2, honest));
        setup.chain = Arc::new(chain.clone());
        setup.fork = Arc::new(fork.clone());
        // Nothing but the fork's own blocks is there when the height is certified.
        setup.peers[2] = setup.peers[2].clone().joins_ms(8_000);
        setup.peers[2].persistent = true;
        let outcome = World::new(setup).run(2 * MINUTE);
        assert_synced(&outcome);
    }
}

/// Rule: a suspect is cleared when its own copy is pinned. The proposer of block 20 bent the round
/// of its last commit; every honest server serves that block.
#[test]
fn a_final_block_with_a_bent_commit_convicts_nobody() {
    let mut shape = Shape::simple(4);
    shape.bent_at = Some(20);
    let mut setup = setup(peers(Kind::Honest, 3));
    setup.chain = Arc::new(Chain::new(shape, 60));
    let mut suspected = 0;
    // A run of some of these lengths is closed by just that block.
    for longest in 2..=19 {
        setup.config.run_blocks = longest;
        setup.config.longest_run = longest;
        let outcome = World::new(setup.clone()).run(2 * MINUTE);
        assert_synced(&outcome);
        assert_eq!(outcome.punished, [], "runs of {longest}");
        suspected += usize::from(outcome.log.iter().any(|line| line.contains("Suspect")));
    }
    assert!(suspected > 0, "block 20 closed no run");
}

/// Rule: two certified blocks at one height halt the node and blame nobody.
#[test]
fn an_equivocating_validator_set_halts_the_node() {
    let mut setup = setup(peers(Kind::Equivocation, 2));
    setup.fork = Arc::new(CHAIN.fork(20, 30, |_| {}));
    setup.applied = 25;
    let outcome = World::new(setup).run_for(MINUTE);
    assert!(
        matches!(outcome.halted, Some(StallReason::TwoCertified { ours, other, .. }) if ours != other),
        "{:?}",
        outcome.halted
    );
    assert_eq!(outcome.punished, []);
}

/// Rule: whichever of two certified blocks is found final first, those who sent the other are not
/// punished: their own next block is heard before anybody is convicted.
#[test]
fn nobody_is_punished_for_the_other_of_two_certified_blocks() {
    let mut halts = 0;
    for (quick, slow) in [(1, 1), (1, 40), (40, 1), (5, 200), (200, 5), (30, 30)] {
        for at in [2, 20, 45] {
            for order in [
                [Kind::Honest, Kind::Equivocation],
                [Kind::Equivocation, Kind::Honest],
            ] {
                let all = order.iter().zip([quick, slow]);
                let all = all.map(|(&kind, ms)| PeerSpec::new(kind).latency_ms(ms));
                let mut setup = setup(all.collect());
                setup.fork = Arc::new(CHAIN.fork(at, 60 - usize::try_from(at).unwrap(), |_| {}));
                setup.either_chain = true;
                let outcome = World::new(setup).run_for(MINUTE);
                let what = format!("{order:?} {quick} ms and {slow} ms away, from {at} on");
                assert_eq!(outcome.punished, [], "{what}");
                match outcome.halted {
                    // Where one is far quicker, nothing is ever asked of the other.
                    None => assert_eq!(outcome.height, 59, "{what}"),
                    Some(StallReason::TwoCertified { ours, other, .. }) => {
                        assert_ne!(ours, other, "{what}");
                        halts += 1;
                    }
                    Some(other) => panic!("{what}: {other}"),
                }
            }
        }
    }
    assert!(halts >= 12, "{halts} of 36 saw both blocks");
}

/// Rule: where no configured peer offers a block that fits our genesis, halt naming both hashes.
#[test]
fn another_genesis_halts_and_convicts_nobody() {
    let other = Shape::simple(4).with_validators(|_| (50..54).map(|person| (person, 10)).collect());
    let mut setup = setup(peers(Kind::Honest, 2));
    for peer in &mut setup.peers {
        peer.persistent = true;
    }
    setup.fork = Arc::new(Chain::new(other, 3));
    setup.other_genesis = true;
    let outcome = World::new(setup).run(MINUTE);
    assert!(
        matches!(outcome.halted, Some(StallReason::OtherGenesis { ours, theirs }) if ours != theirs),
        "{:?}",
        outcome.halted
    );
    assert_eq!(outcome.punished, []);
}

/// Rule: near the apply height a late block is asked of a second peer within two seconds, whether
/// later answers have shown that it is withheld or, at the end of the chain, there are none.
#[test]
fn a_withheld_block_costs_two_seconds_at_most() {
    let honest = sync(peers(Kind::Honest, 2));
    let applied = |outcome: &perihelion_testkit::sim::Outcome| -> u64 {
        let line = outcome
            .log
            .iter()
            .find(|line| line.ends_with("applied 59"))
            .unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    };
    for height in [30, 60] {
        // It is the quicker one, so it is asked.
        let withholder = PeerSpec::new(Kind::Withhold(height)).latency_ms(1);
        let withheld = sync(vec![withholder, PeerSpec::new(Kind::Honest)]);
        assert_synced(&withheld);
        let asked = format!(" ask 0 for {height}");
        assert!(
            withheld.log.iter().any(|line| line.ends_with(&asked)),
            "{height}"
        );
        assert!(
            applied(&withheld) <= applied(&honest) + 2_100_000,
            "{height}"
        );
        assert_eq!(withheld.punished, []);
    }
}

/// Rule: other bytes of the right block are encoded again or asked for elsewhere; nobody is banned.
#[test]
fn another_encoding_bans_nobody() {
    for honest in [0, 1] {
        let outcome = sync(with_honest(Kind::OtherEncoding, 3, honest));
        if honest == 1 {
            assert_synced(&outcome);
        }
        assert_eq!(outcome.punished, [], "beside {honest}");
    }
}

/// The measure: with liars of one kind the sync takes at most twice the time, or two seconds of
/// waiting for the silent more.
#[test]
fn nine_liars_of_each_kind_beside_one_honest_peer() {
    let alone = sync(peers(Kind::Honest, 1));
    let kinds = [
        Kind::CorruptBody,
        Kind::ForgedCommit,
        Kind::StaleFork,
        Kind::BadExtended,
        Kind::Withhold(30),
        Kind::Inflated,
        Kind::MaxHeight,
        Kind::MaxHeightSilent,
        Kind::Lowered,
        Kind::NoBlockFlood,
        Kind::OtherEncoding,
        Kind::Silent,
        Kind::Mute,
        Kind::Drip,
    ];
    for kind in kinds {
        let outcome = sync(with_honest(kind, 9, 1));
        assert_synced(&outcome);
        let (honest, liars) = (applied_at(&alone), applied_at(&outcome));
        assert!(
            liars <= 2 * honest + Duration::from_secs(3),
            "{kind:?}: {liars:?} instead of {honest:?}"
        );
        let lies = matches!(
            kind,
            Kind::CorruptBody | Kind::ForgedCommit | Kind::StaleFork
        );
        if !lies && kind != Kind::Lowered {
            assert_eq!(banned(&outcome), Vec::<usize>::new(), "{kind:?}");
        }
    }
}

fn applied_at(outcome: &perihelion_testkit::sim::Outcome) -> Duration {
    let line = outcome
        .log
        .iter()
        .find(|line| line.ends_with("applied 59"))
        .unwrap();
    Duration::from_micros(line.split(' ').next().unwrap().parse().unwrap())
}

/// Rule: while V drifts, runs are halved; a set that changes at every block is no obstacle.
#[test]
fn validators_that_change_at_every_block() {
    let shape = Shape::simple(4).with_validators(|height| {
        let from = u32::try_from(height).unwrap();
        (from..from + 6).map(|person| (person, 10)).collect()
    });
    let mut setup = setup(peers(Kind::Honest, 3));
    setup.chain = Arc::new(Chain::new(shape, 60));
    let outcome = World::new(setup).run(2 * MINUTE);
    assert_synced(&outcome);
    assert_eq!(outcome.punished, []);
}

/// Rule: one commit makes a whole run final.
#[test]
fn a_long_chain_takes_few_signatures() {
    let mut setup = setup(peers(Kind::Honest, 3));
    setup.chain = Arc::new(Chain::new(Shape::simple(4), 600));
    let outcome = World::new(setup).run(2 * MINUTE);
    assert_eq!(outcome.caught_up.unwrap().1, 599);
    assert!(outcome.longest_run > 100, "{}", outcome.longest_run);
    assert!(outcome.signatures < 600 * 4 / 20, "{}", outcome.signatures);
}

/// Rule: near the end of a chain that goes on, h is applied within a second and a round trip or two of
/// a peer's holding h+1, whatever others claim, for as long as something keeps the node in blocksync.
#[test]
fn new_blocks_are_applied_soon_while_consensus_waits() {
    for liars in [Kind::Honest, Kind::MaxHeight, Kind::Inflated, Kind::Silent] {
        let mut setup = kept_in_blocksync(setup(with_honest(liars, 2, 1)));
        // The first one when peers have been asked again since the end was far.
        setup.growth = Some((20, Duration::from_secs(6)));
        let outcome = World::new(setup).run_for(3 * MINUTE);
        assert_eq!(outcome.mode, Mode::BlockSync, "{liars:?}");
        assert_eq!(outcome.caught_up, None, "{liars:?}");
        assert!(outcome.height > 45, "{liars:?}: {}", outcome.height);
        let delay = outcome.longest_delay.expect("blocks were made");
        assert!(delay < Duration::from_millis(1_200), "{liars:?}: {delay:?}");
    }
}

/// Rule: a sole validator waits for nobody.
#[test]
fn a_sole_validator_starts_at_once() {
    let mut configured = PeerSpec::new(Kind::Honest).joins_ms(600_000);
    configured.persistent = true;
    let mut setup = setup(vec![configured]);
    setup.chain = Arc::new(Chain::new(Shape::simple(1), 4));
    setup.own_power = 10;
    let outcome = World::new(setup).run(MINUTE);
    assert_eq!(outcome.caught_up, Some((Duration::ZERO, 0)));
}

/// Rule: own power above 2/3 waives the need for a peer once every configured peer has told its
/// status or missed its dial deadline, and nothing less does.
#[test]
fn own_power_waives_only_the_need_for_a_peer() {
    let shape = Shape::simple(4).with_validators(|_| vec![(0, 100), (1, 10)]);
    let mut configured = PeerSpec::new(Kind::Honest).joins_ms(600_000);
    configured.persistent = true;
    let mut setup = setup(vec![configured]);
    setup.chain = Arc::new(Chain::new(shape, 4));
    setup.own_power = 100;
    let outcome = World::new(setup.clone()).run(MINUTE);
    assert_eq!(outcome.caught_up, Some((setup.config.dial_deadline, 0)));
    setup.own_power = 10;
    assert_eq!(World::new(setup).run(MINUTE).caught_up, None);
}

/// Rule: a wiped validator that is not the chain by itself does not get past its peers: while one
/// delivers a block that pins, there is no switch.
#[test]
fn a_wiped_validator_with_most_of_the_power_syncs_first() {
    let shape = Shape::simple(4).with_validators(|_| vec![(0, 100), (1, 10)]);
    let mut peer = PeerSpec::new(Kind::Honest).joins_ms(5_000);
    peer.persistent = true;
    let mut setup = setup(vec![peer]);
    setup.chain = Arc::new(Chain::new(shape, 60));
    setup.own_power = 100;
    assert_synced(&World::new(setup).run(MINUTE));
}

/// Rule: keeping up with a chain is not enough to enter consensus: every claim is to be refuted.
#[test]
fn consensus_is_not_entered_for_keeping_up() {
    // A block each 50 ms, of a peer which answers 100 ms after it is asked: it is always ahead by what is
    // made meanwhile.
    let mut setup = setup(vec![PeerSpec::new(Kind::Honest).latency_ms(50)]);
    setup.chain = Arc::new(Chain::new(Shape::simple(4), 500));
    setup.growth = Some((100, Duration::from_millis(50)));
    let outcome = World::new(setup).run(Duration::from_secs(15));
    assert_eq!(outcome.caught_up, None);
    assert!(outcome.height > 300, "{}", outcome.height);
}

/// Rule: all validators that restart at once get on: nobody has more than we have.
#[test]
fn peers_without_blocks_do_not_hold_up_the_start() {
    let mut all = peers(Kind::Honest, 3);
    for peer in &mut all {
        peer.persistent = true;
        peer.lag = 100;
    }
    let outcome = World::new(setup(all)).run(MINUTE);
    let (at, height) = outcome.caught_up.unwrap();
    assert!(height == 0 && at < Duration::from_secs(5), "{at:?}");
}

/// Rule: time, order and chance come in as arguments: the same input gives the same log.
#[test]
fn the_same_simulation_gives_the_same_log() {
    let mut all = with_honest(Kind::ForgedCommit, 2, 2);
    all.extend(peers(Kind::Silent, 2));
    all.extend(peers(Kind::StaleFork, 2));
    let run = || {
        let mut setup = setup(all.clone());
        setup.fork = Arc::clone(&FORK);
        World::new(setup).run(MINUTE).log
    };
    let first = run();
    assert!(first.len() > 100);
    assert_eq!(first, run());
}
