//! The scenarios that a blocksync must survive, one test each. Each names the rule that it guards;
//! without that rule it fails.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use perihelion_schedule::{Fault, StallReason};
use perihelion_testkit::{
    chain::{Cast, Chain, Shape},
    sim::{Kind, Outcome, PeerSpec, Random, Setup, World},
};
use perihelion_types::{CommitSig, DecodeError, FetchedBlock, Height};

pub(crate) static CHAIN: LazyLock<Arc<Chain>> =
    LazyLock::new(|| Arc::new(Chain::new(Shape::simple(4), 60)));

/// A fork of the chain from height 10 on, that outsiders signed.
pub(crate) static FORK: LazyLock<Arc<Chain>> = LazyLock::new(|| Arc::new(stale_fork(&CHAIN, 10)));

pub(crate) static EXTENSIONS: LazyLock<Arc<Chain>> = LazyLock::new(|| {
    let mut shape = Shape::simple(4);
    shape.extensions_from = Some(7);
    Arc::new(Chain::new(shape, 30))
});

pub(crate) fn stale_fork(chain: &Chain, from: i64) -> Chain {
    let length = usize::try_from(chain.height() - from).unwrap();
    let validators = Arc::clone(&chain.shape().validators);
    chain.fork(from, length, |shape| {
        shape.validators = Arc::new(move |height| {
            if height > from + 1 {
                (100..104).map(|person| (person, 10)).collect()
            } else {
                validators(height)
            }
        });
        shape.casts = Arc::new(move |height, person| {
            if height > from && person < 100 {
                Cast::Absent
            } else {
                Cast::Block
            }
        });
    })
}

trait IntoHeight {
    fn into_height(self) -> Height;
}

impl IntoHeight for i64 {
    fn into_height(self) -> Height {
        Height::new(self)
    }
}

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn peers(kind: Kind, count: usize) -> Vec<PeerSpec> {
    vec![PeerSpec::new(kind); count]
}

pub(crate) fn with_honest(kind: Kind, count: usize, honest: usize) -> Vec<PeerSpec> {
    let mut all = peers(kind, count);
    all.extend(peers(Kind::Honest, honest));
    all
}

pub(crate) fn setup(peers: Vec<PeerSpec>) -> Setup {
    let mut setup = Setup::new(&CHAIN, peers);
    setup.fork = Arc::clone(&FORK);
    setup
}

/// The same where a configured peer that never comes keeps the node from consensus.
pub(crate) fn kept_in_blocksync(mut setup: Setup) -> Setup {
    let mut away = PeerSpec::new(Kind::Honest);
    away.persistent = true;
    away.joins = 24 * 60 * MINUTE;
    setup.config.dial_deadline = away.joins;
    setup.peers.push(away);
    setup
}

pub(crate) fn sync(peers: Vec<PeerSpec>) -> Outcome {
    World::new(setup(peers)).run(2 * MINUTE)
}

/// Synced up to the block below the chain's last one.
#[track_caller]
pub(crate) fn assert_synced(outcome: &Outcome) {
    let log = || outcome.log[outcome.log.len().saturating_sub(200)..].join("\n");
    assert_eq!(outcome.halted, None, "{}", log());
    assert!(
        outcome.caught_up.is_some(),
        "not caught up at {}\n{}",
        outcome.height,
        log()
    );
    assert_eq!(outcome.height, 59, "{}", log());
}

pub(crate) fn banned(outcome: &Outcome) -> Vec<usize> {
    let mut banned: Vec<usize> = outcome
        .punished
        .iter()
        .filter(|p| p.2)
        .map(|p| p.0)
        .collect();
    banned.sort_unstable();
    banned
}

/// FS-DIST-SAFE-SYNC. Rule: a height is asked only of peers whose range has it, lowest first.
#[test]
fn scenario_01_many_peers_with_random_ranges() {
    let mut random = Random::new(1);
    let mut all = peers(Kind::Honest, 1);
    for _ in 0..20 {
        let mut peer = PeerSpec::new(Kind::Honest)
            .latency_ms(random.below(200))
            .base(1 + i64::try_from(random.below(50)).unwrap());
        peer.lag = i64::try_from(random.below(10)).unwrap();
        all.push(peer);
    }
    let outcome = sync(all.clone());
    assert_synced(&outcome);
    for line in outcome.log.iter().filter(|line| line.contains(" ask ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let (peer, height): (usize, i64) = (words[2].parse().unwrap(), words[4].parse().unwrap());
        let top = if height > 59 {
            i64::MAX
        } else {
            60 - all[peer].lag
        };
        assert!((all[peer].base..=top).contains(&height), "{line}");
    }
}

/// Rule: what a silent peer owes is asked of others once its deadline has passed.
#[test]
fn scenario_02_silent_peers_time_out() {
    let mut setup = setup(with_honest(Kind::Silent, 9, 1));
    // No second request near the apply height: the deadline alone must do it.
    setup.config.hedge_depth = 0;
    let outcome = World::new(setup).run(2 * MINUTE);
    assert_synced(&outcome);
}

/// Rule: what a departed peer owes is asked of others at once.
#[test]
fn scenario_03_a_peer_leaves_in_mid_flight() {
    let mut setup = setup(vec![
        PeerSpec::new(Kind::Silent)
            .latency_ms(1)
            .leaves_ms(100, None),
        PeerSpec::new(Kind::Honest),
    ]);
    setup.config.hedge_depth = 0;
    setup.config.peer_deadline = 60 * MINUTE;
    let outcome = World::new(setup).run_for(Duration::from_secs(20));
    assert!(outcome.requests[0] > 0, "the departed peer was asked");
    assert_eq!(outcome.height, 59);
}

/// Rule: a status lower than one before contradicts itself.
#[test]
fn scenario_04_a_lowered_height_is_banned() {
    let outcome = sync(with_honest(Kind::Lowered, 1, 1));
    assert_synced(&outcome);
    assert_eq!(banned(&outcome), [0]);
    assert!(matches!(
        outcome.punished[0].1,
        Fault::StatusWentBack { .. }
    ));
}

/// Rule: a base above the height contradicts itself.
#[test]
fn scenario_05_a_base_above_the_height_is_banned() {
    let outcome = sync(with_honest(Kind::Impossible, 1, 1));
    assert_synced(&outcome);
    assert_eq!(banned(&outcome), [0]);
    assert!(matches!(
        outcome.punished[0].1,
        Fault::StatusImpossible { .. }
    ));
}

/// Rule: a peer that has pruned the next height is asked once we have come to its base.
#[test]
fn scenario_06_a_base_above_our_height_is_admitted_later() {
    let mut low = PeerSpec::new(Kind::Honest);
    low.lag = 30;
    let outcome = sync(vec![low, PeerSpec::new(Kind::Honest).base(25)]);
    assert_synced(&outcome);
    assert!(outcome.requests[1] >= 29, "{:?}", outcome.requests);
}

/// Rule: caught up needs a peer whose base is not above the next height.
#[test]
fn scenario_07_all_peers_pruned_is_not_caught_up() {
    let all = vec![
        PeerSpec::new(Kind::Honest).base(30),
        PeerSpec::new(Kind::Honest).base(40),
    ];
    let outcome = World::new(setup(all)).run_for(MINUTE);
    assert_eq!((outcome.caught_up, outcome.height), (None, 0));
    let told = StallReason::AllPruned {
        next: 1.into_height(),
        lowest_base: 30.into_height(),
        peers: 2,
    };
    assert_eq!(outcome.stalls, [told]);
}

/// Rule: peers that join later than a deadline after a height was applied do not prolong it, and a
/// claim stands only until its owner says NoBlock or misses its deadline.
#[test]
fn scenario_08_staggered_claims_of_the_largest_height() {
    for kind in [Kind::MaxHeight, Kind::MaxHeightSilent] {
        for back in [Some(1_000), None] {
            let mut first = PeerSpec::new(kind);
            let mut second = PeerSpec::new(kind).joins_ms(3_500);
            if back.is_some() {
                first = first.leaves_ms(7_000, back);
                second = second.leaves_ms(7_000, back);
            }
            let outcome = sync(vec![first, second, PeerSpec::new(Kind::Honest)]);
            assert_synced(&outcome);
            let (at, _) = outcome.caught_up.unwrap();
            assert!(at < Duration::from_secs(40), "{at:?}");
        }
    }
    // One more every three seconds, the first one before anybody else: there is always one whose
    // claim is open. At the end of the chain no block is left that could tell them from others.
    let liar = |number: u64| {
        let joins = 3_000 * number;
        PeerSpec::new(Kind::MaxHeightSilent)
            .latency_ms(1)
            .joins_ms(joins)
    };
    let mut all: Vec<PeerSpec> = (0..35).map(liar).collect();
    all.extend(peers(Kind::Honest, 1));
    for applied in [0, 59] {
        let mut setup = setup(all.clone());
        setup.applied = applied;
        let outcome = World::new(setup).run(4 * MINUTE);
        assert_synced(&outcome);
        let (at, _) = outcome.caught_up.unwrap();
        let expected = Duration::from_secs(2)..Duration::from_secs(40);
        assert!(expected.contains(&at), "from {applied}: {at:?}");
    }
}

/// Rule: near the apply height a late block is asked of a second peer.
#[test]
fn scenario_09_a_throttler_just_under_the_production_rate() {
    let block = CHAIN.block(40).unwrap().raw().len() as u64;
    // One block in 1.1 s where the chain makes one a second.
    let throttler = PeerSpec::new(Kind::Honest)
        .latency_ms(1)
        .bandwidth(block * 10 / 11);
    let mut setup = setup(vec![
        throttler.clone(),
        throttler,
        PeerSpec::new(Kind::Honest),
    ]);
    setup.growth = Some((30, Duration::from_secs(1)));
    let outcome = World::new(setup).run(MINUTE);
    let (at, _) = outcome.caught_up.expect("it escapes");
    assert!(at < Duration::from_secs(20), "{at:?}");
}

/// Rule: only who sent what is not final is guilty (FS-ISSUE-KILL).
#[test]
fn scenario_10_only_the_guilty_of_a_pair_is_punished() {
    for kind in [Kind::CorruptBody, Kind::ForgedCommit, Kind::StaleFork] {
        for honest in [1, 3] {
            let outcome = sync(with_honest(kind, 1, honest));
            assert_synced(&outcome);
            assert_eq!(banned(&outcome), [0], "{kind:?} beside {honest}");
        }
    }
}

/// Rule: an extended commit is there exactly where the parameters ask for one, verified in full;
/// a bad one costs its sender the request and no more.
#[test]
fn scenario_11_extended_commits() {
    for kind in [Kind::NoExtended, Kind::BadExtended] {
        let mut setup = setup(with_honest(kind, 2, 1));
        setup.chain = Arc::clone(&EXTENSIONS);
        let outcome = World::new(setup).run(MINUTE);
        assert_eq!(outcome.caught_up.unwrap().1, 30, "{kind:?}");
        assert_eq!(outcome.punished, [], "{kind:?}");
    }
    // One that is not asked for is left out.
    let outcome = sync(peers(Kind::BadExtended, 1));
    assert_synced(&outcome);
    assert_eq!(outcome.punished, []);
    // Without any peer that has them, the node waits and says so.
    let mut alone = setup(peers(Kind::BadExtended, 2));
    alone.chain = Arc::clone(&EXTENSIONS);
    let outcome = World::new(alone).run_for(MINUTE);
    assert_eq!((outcome.caught_up, outcome.height), (None, 6));
    let told = StallReason::ExtendedCommit {
        height: 7.into_height(),
    };
    assert!(outcome.stalls.contains(&told), "{:?}", outcome.stalls);
}

/// Rule: NoBlock frees the request and the height is asked of others at once; unasked ones change
/// nothing.
#[test]
fn scenario_12_no_block_is_asked_elsewhere_at_once() {
    let mut setup = setup(with_honest(Kind::NoBlockFlood, 5, 1));
    setup.config.hedge_depth = 0;
    setup.config.retry_after = 60 * MINUTE;
    let outcome = World::new(setup).run_for(Duration::from_secs(2));
    assert_eq!(outcome.height, 59);
    assert_eq!(outcome.punished, []);
}

/// Rule: each height is asked again by itself; what fails at the same time is not lost.
#[test]
fn scenario_13_two_peers_fail_at_once() {
    let mut all = with_honest(Kind::ForgedCommit, 2, 1);
    all.extend(peers(Kind::StaleFork, 2));
    all.extend(peers(Kind::CorruptBody, 2));
    let outcome = sync(all);
    assert_synced(&outcome);
    // (A liar that nobody came to ask before it was over is no wonder.)
    assert!(
        banned(&outcome).iter().all(|&index| index != 2),
        "{:?}",
        outcome.punished
    );
}

/// Rule: what was asked for once is never unsolicited.
#[test]
fn scenario_14_late_answers_are_nobodys_fault() {
    let slow = PeerSpec::new(Kind::Honest).latency_ms(1_500);
    let quick = PeerSpec::new(Kind::Honest).joins_ms(4_000);
    let mut setup = setup(vec![slow.clone(), slow, quick]);
    setup.config.peer_deadline = Duration::from_secs(2);
    let outcome = World::new(setup).run_for(MINUTE);
    assert_synced(&outcome);
    assert!(
        outcome.log.iter().any(|line| line.ends_with("Late")),
        "none was late"
    );
    assert_eq!(outcome.punished, []);
}

/// Rule: a block that was never asked for disconnects; beyond the bounds nothing is decoded.
#[test]
fn scenario_15_unsolicited_and_oversized() {
    let outcome = sync(with_honest(Kind::Unsolicited, 1, 1));
    assert_synced(&outcome);
    let (peer, fault, ban) = outcome.punished[0];
    assert!(matches!(fault, Fault::Unsolicited { .. }) && peer == 0 && !ban);

    let mut block = CHAIN.block(9).unwrap().block().clone();
    let commit = block.last_commit.as_mut().unwrap();
    commit.signatures = vec![CommitSig::absent(); 10_001];
    block.header.last_commit_hash = commit.hash();
    let refused = FetchedBlock::decode(block.encode(), None).unwrap_err();
    assert!(matches!(refused, DecodeError::TooMany { .. }), "{refused}");
}

/// Rule: effects queue up in one owner; however many fail at once, none is lost.
#[test]
fn scenario_16_a_storm_of_errors() {
    let mut all = peers(Kind::CorruptBody, 40);
    all.extend(peers(Kind::ForgedCommit, 10));
    all.extend(peers(Kind::Honest, 1));
    let outcome = sync(all);
    assert_synced(&outcome);
    // Each that was asked sent a body that is not its header's, most of them at the same moment.
    let asked: Vec<usize> = (0..40).filter(|&liar| outcome.requests[liar] > 0).collect();
    let banned = banned(&outcome);
    let told: Vec<usize> = banned.iter().copied().filter(|&liar| liar < 40).collect();
    assert_eq!(told, asked);
    assert!(asked.len() > 3, "{asked:?}");
    let mut once = outcome.punished.iter().map(|it| it.0).collect::<Vec<_>>();
    once.sort_unstable();
    assert_eq!(once, banned, "each is punished once");
}

/// Rule: each who sent what is not final is told, however many are found out at one moment.
#[test]
fn scenario_16_many_are_found_out_at_once() {
    let liars = 20;
    let mut all = vec![PeerSpec::new(Kind::ForgedCommit).latency_ms(1); liars];
    all.extend(peers(Kind::Honest, 1));
    let outcome = World::new(setup(all)).run_for(MINUTE);
    assert_synced(&outcome);
    let sent: BTreeSet<usize> = outcome
        .log
        .iter()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let (at, from) = (words.get(2)?, words.get(4)?);
            let forged = words[1] == "block" && at.parse::<i64>().ok()? > 1;
            forged.then(|| from.trim_end_matches(':').parse().unwrap())
        })
        .filter(|&from| from < liars)
        .collect();
    let told: BTreeSet<usize> = banned(&outcome).into_iter().collect();
    assert_eq!(told, sent);
    let moments: Vec<&str> = outcome
        .log
        .iter()
        .filter(|line| line.contains(" punish "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(
        moments.windows(2).any(|pair| pair[0] == pair[1]),
        "never two at once: {moments:?}"
    );
}

/// Rule: who owes nothing has no deadline; small blocks are no slowness.
#[test]
fn scenario_17_empty_blocks_and_a_slow_application() {
    let shape = Shape::simple(4).with_transactions(|_| (0, 0));
    let mut setup = setup(peers(Kind::Honest, 3));
    setup.chain = Arc::new(Chain::new(shape, 60));
    setup.apply_time = Duration::from_secs(20);
    let outcome = World::new(setup).run(60 * MINUTE);
    assert_synced(&outcome);
    assert_eq!(outcome.punished, []);
    let requests: u64 = outcome.requests.iter().sum();
    assert!(requests < 80, "blocks were asked for again: {requests}");
}

/// Rule: the initial height is like any other but that it convicts nobody; pruned, late and
/// leaving peers.
#[test]
fn scenario_19_initial_height_extensions_pruning_late_joiners() {
    let mut shape = Shape::simple(4);
    shape.initial_height = 1000;
    shape.extensions_from = Some(1007);
    let mut setup = setup(vec![
        PeerSpec::new(Kind::Honest).leaves_ms(60, Some(700)),
        PeerSpec::new(Kind::Honest).base(1020),
        PeerSpec::new(Kind::Honest).joins_ms(900),
    ]);
    setup.chain = Arc::new(Chain::new(shape, 40));
    setup.applied = 999;
    let outcome = World::new(setup).run(2 * MINUTE);
    assert_eq!(outcome.caught_up.expect("caught up").1, 1039);
}

/// Rule: held and expected bytes stay within the window's budget.
#[test]
fn scenario_21_large_blocks_from_many_peers() {
    let shape = Shape::simple(4).with_transactions(|_| (4, 64 * 1024));
    let mut setup = setup(peers(Kind::Honest, 50));
    setup.chain = Arc::new(Chain::new(shape, 60));
    setup.config.window_bytes = 2 << 20;
    let block = setup.chain.block(5).unwrap().memory();
    setup.largest_block = block;
    let outcome = World::new(setup.clone()).run(2 * MINUTE);
    assert_synced(&outcome);
    let bound = setup.config.window_bytes + 3 * block * 5 / 4;
    assert!(
        outcome.most_bytes <= bound,
        "{} above {bound}",
        outcome.most_bytes
    );

    // Blocks that are a thousand times as large as all before: far more of them are on their way
    // than there is room for. They are held as far as there is, and come again seldom.
    let shape = Shape::simple(4).with_transactions(|height| match height {
        ..20 => (1, 100),
        _ => (4, 64 * 1024),
    });
    setup.chain = Arc::new(Chain::new(shape, 60));
    let outcome = World::new(setup.clone()).run(10 * MINUTE);
    assert_synced(&outcome);
    let bound = setup.config.window_bytes + 6 * block;
    assert!(
        outcome.most_held <= bound,
        "{} above {bound}",
        outcome.most_held
    );
    let requests: u64 = outcome.requests.iter().sum();
    assert!(requests <= 100, "{requests}");
}

/// Rule: after a crash at any height the sync goes on there, and is not over before the last
/// applied block's own commit was verified.
#[test]
fn scenario_22_a_crash_at_any_height() {
    for applied in [0, 1, 2, 17, 57, 58] {
        for last_commit_verified in [true, false] {
            let mut setup = setup(peers(Kind::Honest, 2));
            setup.applied = applied;
            setup.last_commit_verified = last_commit_verified;
            assert_synced(&World::new(setup).run(MINUTE));
        }
    }
    // At the very end there is no block that could hold the commit: the node stays.
    let mut setup = setup(peers(Kind::Honest, 2));
    setup.applied = 60;
    setup.last_commit_verified = false;
    assert_eq!(World::new(setup.clone()).run(2 * MINUTE).caught_up, None);
    setup.last_commit_verified = true;
    assert!(World::new(setup).run(2 * MINUTE).caught_up.is_some());
}

/// Rule: what comes after its deadline is taken all the same, and its sender is asked again.
#[test]
fn scenario_23_one_single_slow_peer() {
    let slow = PeerSpec::new(Kind::Honest).latency_ms(1_000).bandwidth(500);
    let mut setup = setup(vec![slow]);
    setup.config.peer_deadline = Duration::from_secs(5);
    assert_synced(&World::new(setup.clone()).run(30 * MINUTE));
    // Even if every single block comes after its deadline.
    setup.config.peer_deadline = Duration::from_millis(1_200);
    let outcome = World::new(kept_in_blocksync(setup)).run_for(30 * MINUTE);
    assert_eq!((outcome.height, outcome.punished), (59, vec![]));
}

/// Rule: what nobody delivered is asked again of those who did not, after a while.
#[test]
fn scenario_23_one_single_peer_that_forgets() {
    let mut setup = kept_in_blocksync(setup(peers(Kind::Forgetful, 1)));
    setup.config.hedge_depth = 0;
    let outcome = World::new(setup).run_for(10 * MINUTE);
    assert_eq!((outcome.height, outcome.punished), (59, vec![]));
}

/// Rule: a final block that yields another app hash is our fault.
#[test]
fn scenario_24_a_wrong_application() {
    let mut setup = setup(peers(Kind::Honest, 3));
    setup.wrong_app_at = Some(20);
    let outcome = World::new(setup).run(MINUTE);
    assert!(
        matches!(outcome.halted, Some(StallReason::LocalFault { height, ours, theirs })
            if height.get() == 20 && ours != theirs),
        "{:?}",
        outcome.halted
    );
    assert_eq!((outcome.height, outcome.punished), (19, vec![]));
}
