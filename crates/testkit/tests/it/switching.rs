//! From blocksync to consensus and back, in the simulated network. After every step the world checks
//! that only one of both has the executor, that nothing is applied by blocksync meanwhile, that only
//! final blocks are told as such, and that few are held.

use std::{sync::Arc, time::Duration};

use perihelion_schedule::{Mode, ModeReason};
use perihelion_testkit::{
    chain::{Chain, Shape},
    sim::{Consensus, Kind, Outcome, PeerSpec, Setup, Switch, World},
};

use crate::scenarios::{EXTENSIONS, MINUTE, assert_synced, banned, peers, setup};

const SECOND: Duration = Duration::from_secs(1);

fn tail(outcome: &Outcome) -> String {
    outcome.log[outcome.log.len().saturating_sub(150)..].join("\n")
}

/// A network with consensus.
fn network(peers: Vec<PeerSpec>) -> Setup {
    let mut setup = setup(peers);
    setup.config.follow = false;
    setup.consensus = Some(Consensus::default());
    setup
}

fn configured(mut peers: Vec<PeerSpec>) -> Vec<PeerSpec> {
    for peer in &mut peers {
        peer.persistent = true;
    }
    peers
}

/// A chain that makes a block every `every_ms`, from block `from` on, and tells the time.
fn growing(mut setup: Setup, from: i64, every_ms: u64) -> Setup {
    let every = Duration::from_millis(every_ms);
    let mut shape = Shape::simple(4);
    shape.spacing = every;
    setup.chain = Arc::new(Chain::new(shape, 2_000));
    setup.growth = Some((from, every));
    // A block's time is that of the votes below it.
    setup.wall = setup.chain.time(from + 1);
    setup
}

/// How many blocks were missing when consensus was entered.
fn missing(net: &Setup, outcome: &Outcome) -> i64 {
    let (from, every) = net.growth.expect("it grows");
    let (at, height) = outcome
        .caught_up
        .unwrap_or_else(|| panic!("{}", tail(outcome)));
    let made = from + i64::try_from(at.as_nanos() / every.as_nanos()).unwrap();
    // The last one is final by the next.
    made - 1 - height
}

fn switches(outcome: &Outcome) -> Vec<Switch> {
    outcome.switches.iter().map(|&(_, switch)| switch).collect()
}

fn count(outcome: &Outcome, kind: fn(&Switch) -> bool) -> usize {
    switches(outcome).iter().filter(|it| kind(it)).count()
}

const ENTERED: fn(&Switch) -> bool = |it| matches!(it, Switch::Entered(_));
const BEHIND: fn(&Switch) -> bool = |it| matches!(it, Switch::Behind(_));
const PINNED: fn(&Switch) -> bool = |it| matches!(it, Switch::Pinned(_));

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

/// Rule: whoever has left consensus looks at the clock anew: it does not go to and fro in a moment.
#[test]
fn consensus_that_was_left_is_entered_by_the_clock_after_a_while() {
    let mut all = peers(Kind::Honest, 3);
    all.push(PeerSpec::new(Kind::FrontRunner).latency_ms(1));
    let mut net = growing(network(configured(all)), 100, 1_000);
    net.consensus.as_mut().unwrap().hangs = Some((Duration::ZERO, 60 * MINUTE));
    let outcome = World::new(net).run_for(3 * MINUTE);
    assert!(count(&outcome, ENTERED) > 2, "{:?}", switches(&outcome));
    let mut back = Duration::ZERO;
    for &(at, switch) in &outcome.switches {
        match switch {
            Switch::Back(_) => back = at,
            Switch::Entered(_) => assert!(at >= back + 20 * SECOND, "{back:?}, {at:?}"),
            Switch::Pinned(_) | Switch::Behind(_) => {}
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

/// Rule: a node in consensus that was cut off falls behind by final blocks, catches up by blocksync,
/// and enters consensus again, every time; whether its peers are configured or not.
#[test]
fn a_healed_partition_leads_back_by_blocksync() {
    for (configures, tells_after) in [(true, 0), (true, 700), (false, 0)] {
        let mut all = peers(Kind::Honest, 3);
        for peer in &mut all {
            *peer = peer.clone().leaves_ms(20_000, Some(200_000));
        }
        let all = if configures { configured(all) } else { all };
        let mut net = growing(network(all), 100, 1_000);
        let consensus = net.consensus.as_mut().unwrap();
        // Two hundred blocks behind, it would take a minute by consensus.
        consensus.takes = Duration::from_millis(300);
        consensus.tells_after = Duration::from_millis(tells_after);
        let outcome = World::new(net).run_for(Duration::from_secs(450));
        let entered: Vec<Switch> = switches(&outcome).into_iter().filter(ENTERED).collect();
        assert_eq!(
            entered.len(),
            3,
            "{:?}\n{}",
            switches(&outcome),
            tail(&outcome)
        );
        assert_eq!(count(&outcome, BEHIND), 2, "{:?}", switches(&outcome));
        assert_eq!(outcome.punished, []);
        assert_eq!(outcome.mode, Mode::Consensus);
        // Soon after the end of each partition.
        for (healed, behind, again) in [(220, 1, 1), (440, 2, 2)] {
            let nth = |kind: fn(&Switch) -> bool, n: usize| {
                let found = outcome.switches.iter().filter(|(_, it)| kind(it)).nth(n);
                found.map_or(Duration::MAX, |it| it.0)
            };
            let (left, back) = (nth(BEHIND, behind - 1), nth(ENTERED, again));
            let healed = Duration::from_secs(healed);
            assert!(left > healed && left < healed + 3 * SECOND, "{left:?}");
            assert!(back > left && back < healed + 8 * SECOND, "{back:?}");
        }
        let Switch::Entered(height) = entered[1] else {
            panic!("{entered:?}");
        };
        assert!(height >= 100 + 219, "caught up with the chain: {height}");
    }
}

/// The same when the connections stay and this node alone hangs, as a suspended one does.
#[test]
fn a_consensus_that_hangs_for_200_blocks_is_left_and_entered_again() {
    let mut net = growing(network(configured(peers(Kind::Honest, 3))), 100, 1_000);
    let consensus = net.consensus.as_mut().unwrap();
    consensus.hangs = Some((20 * SECOND, 220 * SECOND));
    let outcome = World::new(net).run_for(Duration::from_secs(240));
    let told = switches(&outcome);
    assert!(count(&outcome, BEHIND) >= 1, "{told:?}");
    assert!(outcome.height >= 338, "{}", outcome.height);
    assert_eq!(outcome.mode, Mode::Consensus);
    // As long as it hangs it is left and entered, with each three blocks that are made.
    assert!(count(&outcome, ENTERED) <= 200 / 3 + 2, "{told:?}");
    assert_eq!(outcome.punished, []);
}

/// What was certified on the lookout is applied as it is.
#[test]
fn what_is_certified_is_not_fetched_again() {
    let mut net = growing(network(configured(peers(Kind::Honest, 1))), 100, 1_000);
    net.consensus.as_mut().unwrap().hangs = Some((10 * SECOND, 30 * SECOND));
    let outcome = World::new(net).run_for(Duration::from_secs(40));
    let behind = outcome.log.iter().position(|line| line.contains("Behind("));
    let behind = behind.expect("it fell behind");
    let Some(&(_, Switch::Behind(pinned))) = outcome.switches.iter().find(|(_, it)| BEHIND(it))
    else {
        panic!("{:?}", outcome.switches);
    };
    let again = |line: &&String| {
        let words: Vec<&str> = line.split(' ').collect();
        words[1] == "ask" && words[4].parse::<i64>().unwrap() <= pinned
    };
    let again: Vec<&String> = outcome.log[behind..].iter().filter(again).collect();
    assert_eq!(again, Vec::<&String>::new());
    let applied = format!(" applied {pinned}");
    assert!(
        outcome.log[behind..]
            .iter()
            .any(|line| line.ends_with(&applied))
    );
}

/// Rule: claims alone cause requests, and few: nothing is told of them, and consensus goes on.
#[test]
fn claims_alone_never_leave_consensus() {
    let kinds = [
        Kind::MaxHeight,
        Kind::MaxHeightSilent,
        Kind::Inflated,
        Kind::Creeping,
        Kind::ForgedCommit,
        Kind::StaleFork,
    ];
    for kind in kinds {
        let mut all = peers(Kind::Honest, 3);
        let liars = 5;
        for index in 0..liars {
            let mut liar = PeerSpec::new(kind).joins_ms(10_000 + 1_000 * index);
            // Liars about blocks need blocks that consensus does not have.
            if matches!(kind, Kind::ForgedCommit | Kind::StaleFork) {
                liar.lag = -8;
            }
            all.push(liar);
        }
        let mut net = growing(network(configured(all)), 100, 1_000);
        if kind == Kind::StaleFork {
            net.fork = Arc::new(crate::scenarios::stale_fork(&net.chain, 115));
        }
        let outcome = World::new(net).run_for(2 * MINUTE);
        let told = switches(&outcome);
        assert_eq!(count(&outcome, ENTERED), 1, "{kind:?}: {told:?}");
        assert_eq!(told.len(), 1, "{kind:?}: {told:?}");
        assert!(outcome.height >= 218, "{kind:?}: {}", outcome.height);
        // Each is asked for a few blocks with each status at the most.
        let most = 2 * MINUTE.as_secs() / 5 * 4 * liars;
        assert!(outcome.lookout_requests > 0, "{kind:?}: nobody was asked");
        assert!(
            outcome.lookout_requests < most,
            "{kind:?}: {}",
            outcome.lookout_requests
        );
        assert!(banned(&outcome).iter().all(|&index| index >= 3), "{kind:?}");
    }
}

/// Rule: a healthy node on a fast chain fetches nothing beside consensus, and does not go to and fro,
/// though its peers are always some blocks ahead of what it has applied.
#[test]
fn a_fast_chain_is_no_reason_to_leave_consensus() {
    for (every, late) in [(50, 0), (50, 200), (50, 500), (1_000, 1_500)] {
        let all = vec![PeerSpec::new(Kind::Honest).latency_ms(2); 5];
        let mut net = growing(network(configured(all)), 100, every);
        let consensus = net.consensus.as_mut().unwrap();
        // It takes as long for a block as the chain does: what it has hung for once it stays behind.
        let from = 10 * SECOND;
        consensus.hangs = Some((from, from + Duration::from_millis(late)));
        consensus.takes = Duration::from_millis(every);
        let outcome = World::new(net).run_for(60 * SECOND);
        let what = format!("every {every} ms, {late} ms late");
        assert_eq!(
            count(&outcome, ENTERED),
            1,
            "{what}: {:?}",
            switches(&outcome)
        );
        assert_eq!(count(&outcome, BEHIND), 0, "{what}");
        let expected = 100 + i64::try_from((59_000 - late) / every).unwrap();
        assert!(
            outcome.height >= expected - 2,
            "{} of {expected}",
            outcome.height
        );
        if late < 1_000 {
            assert_eq!(outcome.lookout_requests, 0, "{what}");
        }
    }
}

/// Rule: it takes as many final blocks as the setting says to leave consensus, and no fewer.
#[test]
fn fewer_final_blocks_than_the_setting_says_do_not_leave_consensus() {
    for (reenter_behind, ahead) in [(1, 0), (1, 1), (3, 2), (3, 3), (10, 9), (10, 10)] {
        let mut net = network(configured(peers(Kind::Honest, 2)));
        net.config.reenter_behind = reenter_behind;
        // Consensus decides nothing, and the chain stands when `ahead` blocks are final above it.
        net.consensus = None;
        let blocks = usize::try_from(40 + ahead).unwrap();
        net.chain = Arc::new(Chain::new(Shape::simple(4), blocks));
        net.growth = Some((40, 10 * SECOND));
        let outcome = World::new(net).run_for(5 * MINUTE);
        let told = switches(&outcome);
        assert_eq!(told[0], Switch::Entered(39), "{told:?}");
        let behind = ahead >= i64::from(reenter_behind);
        assert_eq!(count(&outcome, BEHIND), usize::from(behind), "{told:?}");
        let pinned: Vec<Switch> = told.into_iter().filter(PINNED).collect();
        let expected: Vec<Switch> = (40..40 + ahead).map(Switch::Pinned).collect();
        assert_eq!(pinned, expected);
    }
}

/// Rule: a crash at any moment of the switch, and the node goes on from what is stored.
#[test]
fn a_crash_in_the_middle_of_a_switch() {
    let mut net = growing(network(configured(peers(Kind::Honest, 2))), 100, 500);
    net.consensus.as_mut().unwrap().hangs = Some((10 * SECOND, 20 * SECOND));
    let whole = World::new(net.clone()).run_for(30 * SECOND);
    assert!(count(&whole, BEHIND) > 0, "{:?}", whole.switches);
    for &(at, switch) in &whole.switches {
        // What was stored by then: nothing more was applied since the last one of these.
        let before = World::new(net.clone()).run_for(at);
        assert!(before.switches.iter().any(|&(_, it)| it == switch));
        let mut again = net.clone();
        again.applied = before.height;
        let from = 100 + i64::try_from(at.as_millis() / 500).unwrap();
        again.growth = Some((from, SECOND / 2));
        again.wall = again.chain.time(from + 1);
        again.consensus.as_mut().unwrap().hangs = None;
        let outcome = World::new(again).run_for(10 * SECOND);
        assert_eq!(outcome.mode, Mode::Consensus, "after {switch:?} at {at:?}");
        assert!(outcome.height > before.height, "after {switch:?}");
        assert_eq!(count(&outcome, ENTERED), 1, "after {switch:?}");
    }
}

/// Rule: why and since when are told.
#[test]
fn the_reason_of_the_mode_is_told() {
    let mut net = growing(network(configured(peers(Kind::Honest, 2))), 100, 1_000);
    net.consensus.as_mut().unwrap().hangs = Some((10 * SECOND, 60 * MINUTE));
    net.consensus.as_mut().unwrap().leaves = 60 * MINUTE;
    let outcome = World::new(net).run_for(60 * SECOND);
    let left = outcome.switches.iter().find(|(_, it)| BEHIND(it));
    let at = left.expect("it is behind").0;
    assert_eq!(outcome.mode, Mode::BlockSync);
    let ModeReason::FellBehind { applied, pinned } = outcome.why else {
        panic!("{}", outcome.why);
    };
    assert_eq!(
        (applied.get(), pinned.get() >= applied.get() + 3),
        (outcome.height, true)
    );
    assert!(
        outcome.in_mode >= 60 * SECOND - at - SECOND,
        "{:?}",
        outcome.in_mode
    );
    let behind = pinned.since(applied);
    let told = format!("consensus was {behind} blocks behind final block {pinned}");
    assert_eq!(outcome.why.to_string(), told);
    let fresh = World::new(network(Vec::new())).run_for(SECOND);
    assert_eq!(
        (fresh.mode, fresh.why),
        (Mode::WaitForPeers, ModeReason::Started)
    );
    let entered = World::new(network(peers(Kind::Honest, 1))).run_for(SECOND * 20);
    let at = entered.caught_up.expect("caught up").1;
    assert_eq!(entered.why.to_string(), format!("caught up at height {at}"));
}
