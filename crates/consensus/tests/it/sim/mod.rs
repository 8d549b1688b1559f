//! A simulated network of the state machine: loss, delay, reordering, duplication, partitions,
//! crashes at any effect, and less than a third of the power byzantine. The same seed is the same
//! run. `PERIHELION_SIM_SEEDS=FROM..TO` chooses the seeds, `PERIHELION_SIM_TRACE=SEED` prints one.
#![allow(
    clippy::print_stderr,
    reason = "what a run saw is shown to who asks for it"
)]

mod adversary;
mod gossip;
mod memo;
mod node;
mod plan;
mod rng;
mod world;

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use perihelion_types::{Commit, ExtendedCommit, ExtendedCommitSig};

use self::world::{Stats, World};

/// The seeds of a run without settings.
const SEEDS: Range<u64> = 0..2_000;

/// How many lines of a failed run's log are shown.
const SHOWN: usize = 120;

fn without_extensions(commit: &Commit) -> ExtendedCommit {
    ExtendedCommit {
        height: commit.height,
        round: commit.round,
        block_id: commit.block_id,
        extended_signatures: commit
            .signatures
            .iter()
            .map(|place| ExtendedCommitSig {
                commit_sig: place.clone(),
                extension: Bytes::new(),
                extension_signature: Bytes::new(),
            })
            .collect(),
    }
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("PERIHELION_SIM_SEEDS") else {
        return SEEDS;
    };
    let ends: Option<Vec<u64>> = text.split("..").map(|end| end.parse().ok()).collect();
    match ends.as_deref() {
        Some([from, to]) if from < to => *from..*to,
        _ => panic!("PERIHELION_SIM_SEEDS must be FROM..TO, got {text:?}"),
    }
}

/// The log of a run, and how it ended.
fn traced(seed: u64) -> (Vec<String>, Result<Stats, String>) {
    let mut world = World::new(seed, true);
    let result = world.run();
    (world.log.take().unwrap(), result)
}

fn show(seed: u64) {
    let (log, result) = traced(seed);
    for line in &log[log.len().saturating_sub(SHOWN)..] {
        eprintln!("{line}");
    }
    eprintln!("seed {seed}: {result:?}");
}

#[test]
fn simulated_networks_agree_and_go_on() {
    if let Ok(seed) = std::env::var("PERIHELION_SIM_TRACE") {
        return show(seed.parse().expect("PERIHELION_SIM_TRACE must be a seed"));
    }
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new(Stats::default());
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().len() >= 5 {
                        return;
                    }
                    match World::new(seed, false).run() {
                        Ok(stats) => all.lock().unwrap().add(&stats),
                        Err(reason) => failed.lock().unwrap().push((seed, reason)),
                    }
                }
            });
        }
    });
    let (all, failed) = (all.into_inner().unwrap(), failed.into_inner().unwrap());
    eprintln!("{seeds:?}: {all:?}");
    if let Some((seed, _)) = failed.first() {
        show(*seed);
        panic!("{failed:#?}");
    }
    // Everything that may happen did.
    if seeds.end - seeds.start >= 1_000 {
        let seen = [
            all.late_rounds,
            all.crashes,
            all.replayed,
            all.partitions,
            all.reports,
            all.punished,
            all.invalid,
            all.evil_decided,
            all.reproposed,
        ];
        assert!(seen.iter().all(|count| *count > 0), "{all:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 14, 159] {
        let (first, second) = (traced(seed), traced(seed));
        assert!(first.0.len() > 20);
        assert_eq!(first, second);
    }
    assert_ne!(traced(1).0, traced(2).0);
}

impl Stats {
    fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.heights += other.heights;
        self.late_rounds += other.late_rounds;
        self.crashes += other.crashes;
        self.replayed += other.replayed;
        self.partitions += other.partitions;
        self.reports += other.reports;
        self.punished += other.punished;
        self.invalid += other.invalid;
        self.evil_decided += other.evil_decided;
        self.sign_conflicts += other.sign_conflicts;
        self.reproposed += other.reproposed;
    }
}
