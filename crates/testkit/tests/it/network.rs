//! Simulated networks in which consensus decides blocks.

use std::{sync::Arc, time::Duration};

use perihelion_testkit::{
    chain::{Chain, Shape},
    sim::{Consensus, Outcome, PeerSpec, Setup, Switch},
};

use crate::scenarios::setup;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn tail(outcome: &Outcome) -> String {
    outcome.log[outcome.log.len().saturating_sub(150)..].join("\n")
}

/// A network whose consensus decides blocks.
pub(crate) fn network(peers: Vec<PeerSpec>) -> Setup {
    let mut setup = setup(peers);
    setup.consensus = Some(Consensus::default());
    setup
}

pub(crate) fn configured(mut peers: Vec<PeerSpec>) -> Vec<PeerSpec> {
    for peer in &mut peers {
        peer.persistent = true;
    }
    peers
}

/// A chain that makes a block every `every_ms`, from block `from` on, and tells the time.
pub(crate) fn growing(mut setup: Setup, from: i64, every_ms: u64) -> Setup {
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
pub(crate) fn missing(net: &Setup, outcome: &Outcome) -> i64 {
    let (from, every) = net.growth.expect("it grows");
    let (at, height) = outcome
        .caught_up
        .unwrap_or_else(|| panic!("{}", tail(outcome)));
    let made = from + i64::try_from(at.as_nanos() / every.as_nanos()).unwrap();
    // The last one is final by the next.
    made - 1 - height
}

pub(crate) fn switches(outcome: &Outcome) -> Vec<Switch> {
    outcome.switches.iter().map(|&(_, switch)| switch).collect()
}

pub(crate) fn count(outcome: &Outcome, kind: fn(&Switch) -> bool) -> usize {
    switches(outcome).iter().filter(|it| kind(it)).count()
}

pub(crate) const ENTERED: fn(&Switch) -> bool = |it| matches!(it, Switch::Entered(_));
pub(crate) const BEHIND: fn(&Switch) -> bool = |it| matches!(it, Switch::Behind(_));
pub(crate) const PINNED: fn(&Switch) -> bool = |it| matches!(it, Switch::Pinned(_));
