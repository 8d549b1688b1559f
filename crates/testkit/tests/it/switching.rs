//! From blocksync to consensus and back, in the simulated network. After every step the world checks
//! that only one of both has the executor, that nothing is applied by blocksync meanwhile, that only
//! final blocks are told as such, and that few are held.

use std::{sync::Arc, time::Duration};

use perihelion_schedule::{Mode, ModeReason};
use perihelion_testkit::{
    chain::{Chain, Shape},
    sim::{Kind, PeerSpec, Switch, World},
};

use crate::{
    network::{
        BEHIND, ENTERED, PINNED, SECOND, configured, count, growing, network, switches, tail,
    },
    scenarios::{MINUTE, banned, peers},
};

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
