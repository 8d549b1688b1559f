//! When consensus is entered, in the simulated network.

use std::{sync::Arc, time::Duration};

use perihelion_testkit::{
    chain::{Chain, Shape},
    sim::{Kind, PeerSpec, Switch, World},
};

use crate::{
    network::{
        BEHIND, ENTERED, SECOND, configured, count, growing, missing, network, switches, tail,
    },
    scenarios::{EXTENSIONS, MINUTE, assert_synced, banned, peers},
};

/// Rule: consensus is entered within a second of the last block applied, whatever the peers.
#[test]
fn consensus_is_entered_within_a_second_of_the_last_block() {
    for latency in [1, 20, 150] {
        for count in [1, 3, 30] {
            let all = vec![PeerSpec::new(Kind::Honest).latency_ms(latency); count];
            let mut standing = network(configured(all.clone()));
            standing.consensus = None;
            let outcome = World::new(standing).run(MINUTE);
            assert_synced(&outcome);
            assert!(outcome.entered_after.unwrap() < SECOND, "{outcome:?}");
            // And on a chain that goes on meanwhile.
            let live = growing(network(configured(all)), 300, 1_000);
            let outcome = World::new(live).run(MINUTE);
            let (at, height) = outcome.caught_up.expect("caught up");
            assert!(at < 10 * SECOND && height >= 299, "{at:?}, {height}");
            assert!(outcome.entered_after.unwrap() < SECOND, "{outcome:?}");
        }
    }
}

/// Rule: who is slow to tell its status, or never does, keeps consensus from being entered for one
/// deadline in all, however often a block is made meanwhile.
#[test]
fn who_is_slow_to_tell_its_status_does_not_keep_the_node_in_blocksync() {
    for kind in [Kind::SlowStatus, Kind::Mute] {
        let mut all = peers(Kind::Honest, 3);
        all.extend(peers(kind, 4));
        let outcome = World::new(growing(network(configured(all)), 100, 1_000)).run(MINUTE);
        let (at, _) = outcome.caught_up.expect("caught up");
        assert!(at < 25 * SECOND, "{kind:?}: {at:?}");
    }
}

/// Rule: nor where the wall clock is of no help: what all statuses of a peer together may be waited for
/// is one deadline.
#[test]
fn slow_statuses_are_waited_for_once_and_not_after_each_block() {
    for kind in [Kind::SlowStatus, Kind::Mute] {
        let mut all = peers(Kind::Honest, 3);
        all.extend(peers(kind, 4));
        let mut net = growing(network(configured(all)), 100, 1_000);
        net.wall = net.chain.time(3_700);
        let outcome = World::new(net).run(MINUTE);
        let (at, _) = outcome.caught_up.expect("caught up");
        assert!(at < 25 * SECOND, "{kind:?}: {at:?}");
    }
}

/// Rule: where precommits carry extensions, a plain commit for the last block is not enough, though the
/// block above has one: the proposer of the next block needs the extensions.
#[test]
fn with_extensions_a_plain_commit_of_the_last_block_is_not_enough() {
    for kind in [Kind::NoExtended, Kind::BadExtended] {
        let mut net = network(configured(peers(kind, 2)));
        net.chain = Arc::clone(&EXTENSIONS);
        (net.applied, net.last_commit_verified) = (20, false);
        // The chain stands: nobody has a good one for block 21.
        net.growth = Some((21, 60 * MINUTE));
        let outcome = World::new(net.clone()).run(MINUTE);
        assert_eq!((outcome.caught_up, outcome.height), (None, 20), "{kind:?}");
        net.peers.extend(peers(Kind::Honest, 1));
        let outcome = World::new(net).run(MINUTE);
        assert_eq!(outcome.caught_up.map(|it| it.1), Some(21), "{kind:?}");
    }
}

/// Rule: somebody who could serve the next block must be there: who was, and has left, does not count,
/// and whoever comes after it is heard.
#[test]
fn who_has_left_is_no_peer_that_could_serve_the_next_block() {
    let mut gone = PeerSpec::new(Kind::Honest).leaves_ms(2_000, None);
    gone.lag = 60;
    let mut away = PeerSpec::new(Kind::Honest).joins_ms(600_000);
    away.persistent = true;
    let late = PeerSpec::new(Kind::Honest).joins_ms(40_000);
    let mut net = network(vec![gone, away, late]);
    net.consensus = None;
    let outcome = World::new(net).run(5 * MINUTE);
    assert_synced(&outcome);
    assert!(outcome.caught_up.unwrap().0 > 40 * SECOND, "{outcome:?}");
}

/// Rule: who delivers each block as soon as it is made, and claims more than is ever made, keeps nobody
/// in blocksync: by the wall clock not more than a few blocks can be left. Consensus stays then.
#[test]
fn who_delivers_each_new_block_and_claims_more_does_not_keep_the_node_in_blocksync() {
    for (every, within, most) in [(50, 30, 60), (1_000, 35, 4), (5_000, 90, 2)] {
        for liars in [1, 3] {
            let mut all = peers(Kind::Honest, 3);
            all.extend(vec![PeerSpec::new(Kind::FrontRunner).latency_ms(1); liars]);
            let net = growing(network(configured(all)), 100, every);
            let outcome = World::new(net.clone()).run_for(90 * SECOND);
            let what = format!("every {every} ms, {liars} liars");
            let missing = missing(&net, &outcome);
            let (at, _) = outcome.caught_up.unwrap();
            assert!(at < within * SECOND, "{what}: {at:?}");
            assert!(missing <= most, "{what}: {missing} missing");
            let told = switches(&outcome);
            assert_eq!(count(&outcome, ENTERED), 1, "{what}: {told:?}");
            assert_eq!(count(&outcome, BEHIND), 0, "{what}: {told:?}");
            assert_eq!(outcome.punished, [], "{what}");
        }
    }
}

/// Rule: nor do honest peers far away, whose next block is there before each of them has answered.
#[test]
fn a_chain_that_is_quicker_than_its_peers_answers_is_entered() {
    for (every, latency) in [(50, 50), (50, 150), (200, 300), (1_000, 700)] {
        for count_of in [1, 4] {
            let all = vec![PeerSpec::new(Kind::Honest).latency_ms(latency); count_of];
            let mut net = growing(network(configured(all)), 100, every);
            net.consensus.as_mut().unwrap().takes = Duration::from_millis(every / 2);
            let outcome = World::new(net.clone()).run_for(90 * SECOND);
            let what = format!("every {every} ms, {count_of} peers {latency} ms away");
            let missing = missing(&net, &outcome);
            let (at, _) = outcome.caught_up.unwrap();
            assert!(at < 35 * SECOND, "{what}: {at:?}");
            let allowed = 3 + 3_000 / i64::try_from(every).unwrap();
            assert!(missing <= allowed, "{what}: {missing} missing");
            let told = switches(&outcome);
            assert_eq!(count(&outcome, ENTERED), 1, "{what}: {told:?}");
            assert_eq!(count(&outcome, BEHIND), 0, "{what}: {told:?}");
        }
    }
}

/// Rule: a wall clock that is wrong makes no old block new, whoever claims what: a node that catches up
/// comes past the blocks that look new, however slowly.
#[test]
fn a_wrong_clock_does_not_end_the_sync_too_early() {
    for ahead in [-3_600, -200, -100, -20, 20, 3_600] {
        for (liars, rate) in [(0, 2), (0, 200), (2, 2), (2, 200)] {
            let mut net = growing(network(Vec::new()), 300, 1_000);
            let block = net.chain.block(200).unwrap().raw().len() as u64;
            let honest = PeerSpec::new(Kind::Honest).bandwidth(block * rate);
            let liar = PeerSpec::new(Kind::FrontRunner).bandwidth(block * rate);
            net.peers = vec![honest];
            net.peers.extend(vec![liar; liars]);
            net.peers = configured(net.peers);
            net.consensus = None;
            net.wall = net.chain.time(301 + ahead);
            let outcome = World::new(net.clone()).run(8 * MINUTE);
            let what = format!("{ahead} s ahead, {liars} liars, {rate} blocks/s");
            match outcome.caught_up {
                Some(_) => assert!(missing(&net, &outcome) <= 2, "{what}: {outcome:?}"),
                // It waits for the liar, for want of a clock.
                None => assert!(liars > 0 && outcome.height > 350, "{what}: {outcome:?}"),
            }
        }
    }
}

/// Rule: a sole validator waits for nobody, and goes on alone.
#[test]
fn a_sole_validator_enters_at_once_and_stays() {
    let mut away = configured(peers(Kind::Honest, 1));
    away[0].joins = MINUTE * 60;
    let mut alone = network(away);
    alone.chain = Arc::new(Chain::new(Shape::simple(1), 4));
    alone.own_power = 10;
    for applied in [0, 3] {
        alone.applied = applied;
        let outcome = World::new(alone.clone()).run_for(MINUTE);
        assert_eq!(outcome.caught_up, Some((Duration::ZERO, applied)));
        assert_eq!(switches(&outcome), [Switch::Entered(applied)]);
    }
}

/// Rule: all validators that restart at once get on, whoever of them is ahead: none waits for another
/// to start, nor for a block that nobody has.
#[test]
fn all_validators_that_restart_together_start() {
    let heights = [60, 60, 59, 57, 41];
    for (own, &height) in heights.iter().enumerate() {
        let others = heights
            .iter()
            .enumerate()
            .filter(|&(index, _)| index != own);
        let peer = |(index, &height): (usize, &i64)| {
            let mut peer = PeerSpec::new(Kind::Honest).joins_ms(500 * index as u64);
            peer.lag = 60 - height;
            peer
        };
        let mut all = network(configured(others.map(peer).collect()));
        all.applied = height;
        all.own_power = 10;
        all.consensus = None;
        let outcome = World::new(all).run(MINUTE);
        let (at, entered) = outcome
            .caught_up
            .unwrap_or_else(|| panic!("{}", tail(&outcome)));
        assert!(at < 5 * SECOND, "from {height}: {at:?}");
        // The last block is not final without one above it.
        assert_eq!(entered, height.max(59), "from {height}");
    }
}

/// Where precommits carry extensions, the last block is final by its own extended commit, which is
/// here before consensus begins above it.
#[test]
fn with_extensions_the_last_block_comes_with_its_extended_commit() {
    for kind in [Kind::Honest, Kind::NoExtended, Kind::BadExtended] {
        let mut all = peers(kind, 2);
        all.extend(peers(Kind::Honest, 1));
        let mut net = network(configured(all));
        net.chain = Arc::clone(&EXTENSIONS);
        net.consensus = None;
        let outcome = World::new(net).run(MINUTE);
        assert_eq!(outcome.caught_up.map(|it| it.1), Some(30), "{kind:?}");
        assert_eq!(banned(&outcome), Vec::<usize>::new());
    }
    // Nobody has a good one: blocksync waits.
    let mut net = network(configured(peers(Kind::BadExtended, 2)));
    net.chain = Arc::clone(&EXTENSIONS);
    let outcome = World::new(net).run_for(MINUTE);
    assert_eq!((outcome.caught_up, outcome.height), (None, 6));
    // It stopped with a last block whose extended commit is missing: only another block has one.
    let mut net = network(configured(peers(Kind::Honest, 2)));
    net.chain = Arc::clone(&EXTENSIONS);
    (net.applied, net.last_commit_verified) = (20, false);
    net.growth = Some((21, 10 * SECOND));
    let outcome = World::new(net).run(MINUTE);
    let (at, height) = outcome.caught_up.expect("caught up");
    assert!(height >= 21, "at {at:?} after {height}");
}

/// Rule: a wiped validator that is not the chain by itself does not count as caught up at an old
/// height, whoever is there first, and when: with all peers down at the start as well.
#[test]
fn a_wiped_validator_with_up_to_two_thirds_does_not_start_at_an_old_height() {
    // With exactly 2/3, half, and little.
    for (own, other) in [(20, 10), (10, 10), (1, 99)] {
        let shape = Shape::simple(2).with_validators(move |_| vec![(0, own), (1, other)]);
        let chain = Arc::new(Chain::new(shape, 60));
        for (joins, seeds) in [(0, 0), (5_000, 0), (30_000, 0), (120_000, 0), (30_000, 3)] {
            for configures in [true, false] {
                let mut all = vec![
                    PeerSpec::new(Kind::Honest).joins_ms(joins),
                    PeerSpec::new(Kind::Honest).joins_ms(joins + 4_000),
                ];
                // Some who have told nothing, or pruned what is needed, are there before.
                all.extend(vec![PeerSpec::new(Kind::Mute); seeds]);
                all.extend(vec![PeerSpec::new(Kind::Honest).base(30); seeds]);
                if configures {
                    all = configured(all);
                }
                let mut wiped = network(all);
                wiped.chain = Arc::clone(&chain);
                wiped.own_power = own;
                wiped.consensus = None;
                let outcome = World::new(wiped).run(5 * MINUTE);
                assert_synced(&outcome);
                assert_eq!(switches(&outcome), [Switch::Entered(59)]);
                let (at, _) = outcome.caught_up.unwrap();
                assert!(at > Duration::from_millis(joins), "{at:?}");
            }
        }
    }
}

/// Nor one that was wiped in a moment: the last blocks of the chain, which stands without it, are but a
/// second old when it starts. They are no reason to begin below them.
#[test]
fn a_wiped_validator_that_starts_at_once_does_not_take_the_last_blocks_for_new_ones() {
    let shape = Shape::simple(2).with_validators(|_| vec![(0, 20), (1, 10)]);
    let chain = Arc::new(Chain::new(shape, 60));
    let block = chain.block(40).unwrap().raw().len() as u64;
    for tenths in [5, 10, 20, 100, 1_000] {
        let slow = PeerSpec::new(Kind::Honest).bandwidth(block * tenths / 10);
        let mut wiped = network(configured(vec![slow]));
        wiped.chain = Arc::clone(&chain);
        wiped.wall = chain.time(61);
        wiped.own_power = 20;
        wiped.consensus = None;
        assert_synced(&World::new(wiped).run(5 * MINUTE));
    }
}

/// A slow peer that is the only one ahead is waited for.
#[test]
fn a_wiped_validator_waits_for_its_only_slow_peer() {
    let shape = Shape::simple(2).with_validators(|_| vec![(0, 20), (1, 10)]);
    let slow = PeerSpec::new(Kind::Honest).latency_ms(1_000).bandwidth(500);
    let mut behind = PeerSpec::new(Kind::Honest);
    behind.lag = 50;
    let mut wiped = network(configured(vec![slow, behind]));
    wiped.chain = Arc::new(Chain::new(shape, 60));
    wiped.own_power = 20;
    wiped.consensus = None;
    assert_synced(&World::new(wiped).run(30 * MINUTE));
}
