use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_schedule::{BodyFault, Mode, ModeReason, RunId, Schedule, Start, Verdict};
use perihelion_types::{FetchedBlock, Height, PeerId, Time};

use super::{Outcome, PeerSpec, Setup, consensus::Running, peers::Node};

/// Far more happens at one moment only when something asks for itself without end.
const AT_ONCE: u64 = 100_000;

/// What happens at a moment.
#[derive(Debug)]
pub(super) enum Event {
    Join(usize),
    Leave(usize),
    StatusAsked(usize),
    Status(usize, u64),
    Asked(usize, i64),
    Block(usize, Arc<FetchedBlock>, u64),
    Corrupt(usize, i64, u64),
    NoBlock(usize, i64, u64),
    Bytes(usize, u64),
    /// So many bytes of a large block came.
    Sent(usize, u64, u64),
    Verdict(RunId, Verdict, u64),
    Extended(Height, PeerId, bool),
    Executed(Height),
    /// Consensus looks for the next block.
    Consider,
    /// It has applied one.
    Decided,
    /// It tells what it has applied.
    Told,
    /// It gives the executor back.
    Back,
}

/// A running simulation.
pub struct World {
    pub(super) setup: Setup,
    pub(super) chain_id: Arc<str>,
    pub(super) schedule: Schedule,
    pub(super) origin: Instant,
    pub(super) now: Instant,
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    events: BTreeMap<usize, Event>,
    sequence: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) workers_free: Vec<Instant>,
    pub(super) cancelled: BTreeSet<RunId>,
    pub(super) executor_free: Instant,
    pub(super) outcome: Outcome,
    pub(super) running: Running,
    steps: u64,
    /// Steps since the clock moved.
    at_once: u64,
    pub(super) apply_next: i64,
    pub(super) applied_times: BTreeMap<i64, Instant>,
}

impl World {
    /// Puts everything in place.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "an origin; only differences to it count"
    )]
    pub fn new(setup: Setup) -> Self {
        let origin = Instant::now();
        let chain = &setup.chain;
        let initial = chain.shape().initial_height;
        let next = setup.applied + 1;
        let persistent = setup.peers.iter().enumerate();
        let persistent = persistent
            .filter(|(_, spec)| spec.persistent)
            .map(|(index, _)| id_of(index));
        let ours = if setup.other_genesis {
            &setup.fork
        } else {
            chain
        };
        let start = Start {
            initial_height: Height::new(initial),
            height: Height::new(if next == initial { 0 } else { setup.applied }),
            block_id: chain.id(setup.applied),
            validators: ours.set(next),
            next_validators: ours.set(next + 1),
            last_validators: (next > initial).then(|| chain.set(next - 1)),
            last_commit_verified: setup.last_commit_verified,
            extensions_from: chain.shape().extensions_from.map(Height::new),
            persistent: persistent.collect(),
            own_power: setup.own_power,
            largest_block: setup.largest_block,
        };
        let node = |spec: &PeerSpec| Node {
            spec: spec.clone(),
            connected: false,
            connection: 0,
            sends_until: origin,
            statuses: 0,
            asked: 0,
            heights: BTreeSet::new(),
            banned: false,
        };
        let mut world = Self {
            chain_id: chain.shape().chain_id.as_str().into(),
            schedule: Schedule::new(setup.config.clone(), start, origin),
            origin,
            now: origin,
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            nodes: setup.peers.iter().map(node).collect(),
            workers_free: vec![origin; setup.workers],
            cancelled: BTreeSet::new(),
            executor_free: origin,
            outcome: Outcome {
                height: setup.applied,
                took: Duration::ZERO,
                caught_up: None,
                punished: Vec::new(),
                halted: None,
                stalls: Vec::new(),
                requests: vec![0; setup.peers.len()],
                most_bytes: 0,
                most_held: 0,
                signatures: 0,
                longest_run: 0,
                longest_delay: None,
                entered_after: None,
                switches: Vec::new(),
                lookout_requests: 0,
                mode: Mode::WaitForPeers,
                why: ModeReason::Started,
                in_mode: Duration::ZERO,
                log: Vec::new(),
            },
            running: Running::default(),
            steps: 0,
            at_once: 0,
            apply_next: next,
            applied_times: BTreeMap::new(),
            setup,
        };
        for index in 0..world.nodes.len() {
            let spec = world.nodes[index].spec.clone();
            world.at(origin + spec.joins, Event::Join(index));
            if let Some((after, _)) = spec.leaves {
                world.at(origin + after, Event::Leave(index));
            }
        }
        world.drain();
        world
    }

    /// Runs until caught up (or halted), for at most this long in virtual time.
    ///
    /// # Panics
    /// When an invariant is broken.
    #[must_use]
    pub fn run(mut self, limit: Duration) -> Outcome {
        let end = self.origin + limit;
        while self.outcome.caught_up.is_none() && self.outcome.halted.is_none() && self.step(end) {}
        self.finish()
    }

    /// Runs for this long, caught up or not.
    ///
    /// # Panics
    /// When an invariant is broken.
    #[must_use]
    pub fn run_for(mut self, limit: Duration) -> Outcome {
        let end = self.origin + limit;
        while self.outcome.halted.is_none() && self.step(end) {}
        self.finish()
    }

    fn finish(mut self) -> Outcome {
        self.outcome.took = self.now - self.origin;
        let progress = self.schedule.progress();
        self.outcome.signatures = progress.signatures_verified;
        self.outcome.longest_run = progress.longest_run;
        self.outcome.mode = progress.mode;
        self.outcome.why = progress.why;
        self.outcome.in_mode = progress.in_mode;
        self.outcome
    }

    /// The next event or deadline; false when nothing is left before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let event = self.heap.peek().map(|Reverse((at, _, _))| *at);
        let deadline = self.schedule.poll_deadline();
        let next = match (event, deadline) {
            (Some(event), Some(deadline)) => event.min(deadline),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return false,
        };
        if next > end {
            return false;
        }
        self.at_once = if next > self.now { 0 } else { self.at_once + 1 };
        assert!(
            self.at_once < AT_ONCE,
            "time stands still\n{}",
            self.outcome.log[self.outcome.log.len().saturating_sub(50)..].join("\n")
        );
        self.now = self.now.max(next);
        self.schedule.handle_clock(self.now, self.wall());
        if event.is_some_and(|at| at <= self.now) {
            if let Some(Reverse((_, _, key))) = self.heap.pop()
                && let Some(event) = self.events.remove(&key)
            {
                self.happen(event);
            }
        } else {
            self.schedule.handle_deadline(self.now);
            assert!(
                self.schedule.poll_deadline().is_none_or(|at| at > self.now),
                "a deadline that has passed is gone"
            );
        }
        self.drain();
        self.steps += 1;
        if self.steps.is_multiple_of(self.setup.check_every) {
            self.check();
        }
        true
    }

    pub(super) fn at(&mut self, when: Instant, event: Event) {
        self.sequence += 1;
        let key = usize::try_from(self.sequence).unwrap_or(usize::MAX);
        self.heap.push(Reverse((when, self.sequence, key)));
        self.events.insert(key, event);
    }

    pub(super) fn log(&mut self, line: String) {
        let at = (self.now - self.origin).as_micros();
        self.outcome.log.push(format!("{at} {line}"));
    }

    /// The height to which the chain has grown.
    pub(super) fn tip(&self) -> i64 {
        let end = self.setup.chain.height();
        match self.setup.growth {
            None => end,
            Some((from, every)) => {
                let elapsed = self.now - self.origin;
                let grown = elapsed.as_nanos() / every.as_nanos().max(1);
                end.min(from + i64::try_from(grown).unwrap_or(i64::MAX / 2))
            }
        }
    }

    /// What our wall clock shows.
    fn wall(&self) -> Time {
        let elapsed = i64::try_from((self.now - self.origin).as_nanos());
        let wall = elapsed
            .ok()
            .and_then(|it| self.setup.wall.checked_add_nanos(it));
        wall.expect("a simulation is short")
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Join(index) => self.join(index),
            Event::Leave(index) => {
                self.disconnect(index);
                if let Some((_, Some(back))) = self.nodes[index].spec.leaves {
                    self.at(now + back, Event::Join(index));
                    if let Some((after, _)) = self.nodes[index].spec.leaves {
                        self.at(now + back + after, Event::Leave(index));
                    }
                }
            }
            Event::StatusAsked(index) => self.tell_status(index),
            Event::Status(index, connection) if self.live(index, connection) => {
                self.take_status(index);
            }
            Event::Asked(index, height) => self.serve(index, height),
            Event::Block(index, block, connection) if self.live(index, connection) => {
                let height = block.height();
                let reception = self.schedule.handle_block(now, id_of(index), block);
                self.log(format!("block {height} from {index}: {reception:?}"));
            }
            Event::Corrupt(index, height, connection) if self.live(index, connection) => {
                let fault = BodyFault::Mismatch;
                self.schedule
                    .handle_bad_block(now, id_of(index), Height::new(height), fault);
            }
            Event::NoBlock(index, height, connection) if self.live(index, connection) => {
                self.schedule
                    .handle_no_block(now, id_of(index), Height::new(height));
            }
            Event::Bytes(index, connection) if self.live(index, connection) => {
                self.schedule.handle_bytes(now, id_of(index), 1);
                self.at(
                    now + Duration::from_millis(900),
                    Event::Bytes(index, connection),
                );
            }
            Event::Sent(index, connection, bytes) if self.live(index, connection) => {
                self.schedule.handle_bytes(now, id_of(index), bytes);
            }
            Event::Verdict(run, verdict, signatures) => {
                self.log(format!("verdict {}: {verdict:?}", run.get()));
                self.schedule.handle_verdict(now, run, verdict, signatures);
            }
            Event::Extended(height, from, good) => {
                self.schedule
                    .handle_extended_commit_verdict(now, height, from, good);
            }
            Event::Executed(height) => self.executed(height),
            Event::Consider => self.consider(),
            Event::Decided => self.decided(),
            Event::Told => self.told(),
            Event::Back => self.back(),
            Event::Status(..)
            | Event::Block(..)
            | Event::Corrupt(..)
            | Event::NoBlock(..)
            | Event::Bytes(..)
            | Event::Sent(..) => {}
        }
    }

    fn check(&mut self) {
        if let Err(broken) = self.schedule.check() {
            panic!("{broken}\n{}", self.outcome.log.join("\n"));
        }
        let progress = self.schedule.progress();
        let window = progress.window;
        let bytes = window.held_bytes + window.expected_bytes;
        self.outcome.most_bytes = self.outcome.most_bytes.max(bytes);
        self.outcome.most_held = self.outcome.most_held.max(window.held_bytes);
        assert!(progress.mode != Mode::Halted || self.outcome.halted.is_some());
        self.check_lookout();
    }
}

/// The id of the peer with this index.
pub(super) fn id_of(index: usize) -> PeerId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
    PeerId::new(bytes)
}

pub(super) fn index_of(peer: PeerId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&peer.as_bytes()[..8]);
    usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX)
}
