use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_schedule::{
    Applied, BodyFault, Config, Effect, Fault, Mode, ModeReason, RunId, Schedule, StallReason,
    Start, Verdict,
};
use perihelion_types::{FetchedBlock, Height, HeightRange, PeerId, Time};

use super::{
    Consensus, Switch,
    consensus::Running,
    peer::{Answer, Kind, PeerSpec, answer},
    workers,
};
use crate::chain::Chain;

/// Far more happens at one moment only when something asks for itself without end.
const AT_ONCE: u64 = 100_000;

/// A simulation before it starts.
#[derive(Clone)]
pub struct Setup {
    /// The chain that honest peers have.
    pub chain: Arc<Chain>,
    /// What forkers serve.
    pub fork: Arc<Chain>,
    /// The peers.
    pub peers: Vec<PeerSpec>,
    /// The schedule's bounds.
    pub config: Config,
    /// How long the application takes for a block.
    pub apply_time: Duration,
    /// Verification workers.
    pub workers: usize,
    /// The height that is applied at the start; one below the initial height for none.
    pub applied: i64,
    /// Whether a verified commit for it is at hand.
    pub last_commit_verified: bool,
    /// Where the schedule does not follow the chain itself: how consensus behaves; none decides nothing.
    pub consensus: Option<Consensus>,
    /// The chain's height at the start, and the time from one block to the next.
    pub growth: Option<(i64, Duration)>,
    /// What our wall clock shows at the start.
    pub wall: Time,
    /// Our own share of the voting power.
    pub own_power: i64,
    /// A height whose application fails with another app hash.
    pub wrong_app_at: Option<i64>,
    /// Our genesis has other validators than the chain.
    pub other_genesis: bool,
    /// Both chains are signed by two thirds: either may be applied, until that is found out.
    pub either_chain: bool,
    /// The schedule's books, whose check costs as much as the window is long, are checked after so
    /// many steps.
    pub check_every: u64,
}

impl Setup {
    /// A fresh node among `peers`.
    #[must_use]
    pub fn new(chain: &Arc<Chain>, peers: Vec<PeerSpec>) -> Self {
        Self {
            chain: Arc::clone(chain),
            fork: Arc::clone(chain),
            peers,
            config: Config::default(),
            apply_time: Duration::from_millis(1),
            workers: 2,
            applied: chain.shape().initial_height - 1,
            last_commit_verified: true,
            consensus: None,
            growth: None,
            // The chain has been standing for an hour.
            wall: chain.time(chain.height() + 3_600),
            own_power: 0,
            wrong_app_at: None,
            other_genesis: false,
            either_chain: false,
            check_every: 1,
        }
    }
}

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

pub(super) struct Node {
    pub(super) spec: PeerSpec,
    pub(super) connected: bool,
    /// Each connection has a number: what was sent on an old one is lost.
    connection: u64,
    sends_until: Instant,
    statuses: i64,
    /// Requests that have come over this connection.
    asked: u64,
    /// Heights that it was asked for.
    heights: BTreeSet<i64>,
    banned: bool,
}

/// What came out of a simulation.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The last applied height.
    pub height: i64,
    /// Virtual time when it ended, or first caught up.
    pub took: Duration,
    /// When the schedule was caught up first, at which height.
    pub caught_up: Option<(Duration, i64)>,
    /// Punished peers by index, with fault and ban.
    pub punished: Vec<(usize, Fault, bool)>,
    /// Why it halted.
    pub halted: Option<StallReason>,
    /// Reasons told while nothing moved.
    pub stalls: Vec<StallReason>,
    /// Requests made, in all and by peer.
    pub requests: Vec<u64>,
    /// Most bytes held and expected at once.
    pub most_bytes: usize,
    /// Signatures verified.
    pub signatures: u64,
    /// The longest run.
    pub longest_run: usize,
    /// Largest delay from a peer holding h+1 to h being applied, once caught up.
    pub follow_delay: Duration,
    /// The longest time from a block's being applied to consensus being entered after it.
    pub entered_after: Option<Duration>,
    /// What became of the executor, and when.
    pub switches: Vec<(Duration, Switch)>,
    /// Requests made while consensus had the executor.
    pub lookout_requests: u64,
    /// What the node was at in the end.
    pub mode: Mode,
    /// Why.
    pub why: ModeReason,
    /// For how long.
    pub in_mode: Duration,
    /// Everything that happened, a line each.
    pub log: Vec<String>,
}

/// A running simulation.
pub struct World {
    pub(super) setup: Setup,
    chain_id: Arc<str>,
    pub(super) schedule: Schedule,
    pub(super) origin: Instant,
    pub(super) now: Instant,
    heap: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    events: BTreeMap<usize, Event>,
    sequence: u64,
    pub(super) nodes: Vec<Node>,
    workers_free: Vec<Instant>,
    cancelled: BTreeSet<RunId>,
    executor_free: Instant,
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
                signatures: 0,
                longest_run: 0,
                follow_delay: Duration::ZERO,
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

    /// When the block of a height will be made.
    fn made_at(&self, height: i64) -> Option<Instant> {
        let (from, every) = self.setup.growth?;
        let blocks = u32::try_from(height - from).ok()?;
        (height <= self.setup.chain.height()).then(|| self.origin + every * blocks)
    }

    fn live(&self, index: usize, connection: u64) -> bool {
        self.nodes[index].connected && self.nodes[index].connection == connection
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
            | Event::Bytes(..) => {}
        }
    }

    fn join(&mut self, index: usize) {
        if self.nodes[index].banned || self.nodes[index].connected {
            return;
        }
        let node = &mut self.nodes[index];
        node.connected = true;
        node.connection += 1;
        node.statuses = 0;
        node.asked = 0;
        node.sends_until = self.now;
        let (kind, connection) = (node.spec.kind, node.connection);
        self.log(format!("{index} joins"));
        self.schedule.handle_peer_added(self.now, id_of(index));
        if kind == Kind::Drip {
            self.at(self.now, Event::Bytes(index, connection));
        }
        if kind == Kind::Unsolicited
            && let Some(block) = self.setup.chain.block(self.setup.chain.height()).cloned()
        {
            self.at(
                self.now + Duration::from_millis(50),
                Event::Block(index, block, connection),
            );
        }
    }

    fn disconnect(&mut self, index: usize) {
        if self.nodes[index].connected {
            self.nodes[index].connected = false;
            self.log(format!("{index} leaves"));
            self.schedule.handle_peer_removed(self.now, id_of(index));
        }
    }

    fn tell_status(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.connected && node.spec.kind != Kind::Mute {
            let slow = u64::from(node.spec.kind == Kind::SlowStatus);
            let takes = node.spec.latency + Duration::from_secs(3 * slow);
            let (at, connection) = (self.now + takes, node.connection);
            self.at(at, Event::Status(index, connection));
        }
    }

    fn take_status(&mut self, index: usize) {
        let tip = self.tip();
        let node = &mut self.nodes[index];
        node.statuses += 1;
        let initial = self.setup.chain.shape().initial_height;
        let top = (tip - node.spec.lag).max(0);
        let base = node.spec.base.max(initial).min(top.max(1));
        let (base, height) = match node.spec.kind {
            Kind::Inflated | Kind::FrontRunner => (base, top + 1000),
            Kind::Creeping => (base, top + 1000 + node.statuses),
            Kind::OtherValidators => (initial, initial + 4),
            Kind::MaxHeight | Kind::MaxHeightSilent => (1, i64::MAX),
            Kind::Lowered => (base, top - node.statuses),
            Kind::Impossible => (top + 1, top),
            _ if top < initial => (0, 0),
            _ => (base, top),
        };
        let (id, now) = (id_of(index), self.now);
        match HeightRange::new(Height::new(base), Height::new(height)) {
            Some(range) => self.schedule.handle_status(now, id, range),
            None => {
                let (base, height) = (Height::new(base), Height::new(height));
                self.schedule
                    .handle_impossible_status(now, id, base, height);
            }
        }
    }

    /// A peer has the request: its answer leaves when what it sent before has left.
    fn serve(&mut self, index: usize, height: i64) {
        let spec = &self.nodes[index].spec;
        let tip = self.tip() - spec.lag;
        if spec.kind == Kind::FrontRunner && height > tip {
            if let Some(at) = self.made_at(height + spec.lag) {
                self.at(at, Event::Asked(index, height));
            }
            return;
        }
        let node = &mut self.nodes[index];
        if !node.connected {
            return;
        }
        node.asked += 1;
        let forgets = node.spec.kind == Kind::Forgetful && node.heights.insert(height);
        let fades = forgets || (node.spec.kind == Kind::Fading && node.asked > 1);
        let (spec, connection) = (node.spec.clone(), node.connection);
        let what = if height < spec.base {
            Answer::NoBlock
        } else if fades {
            Answer::Nothing
        } else {
            answer(spec.kind, &self.setup.chain, &self.setup.fork, height, tip)
        };
        let bytes = match &what {
            Answer::Block(block) => block.raw().len() as u64,
            Answer::Corrupt => 1000,
            Answer::NoBlock | Answer::Nothing => 20,
        };
        let sending = Duration::from_secs_f64(bytes as f64 / spec.bandwidth as f64);
        let leaves = self.nodes[index].sends_until.max(self.now) + sending;
        let arrives = leaves + spec.latency;
        match what {
            Answer::Nothing => return,
            Answer::Block(block) => self.at(arrives, Event::Block(index, block, connection)),
            Answer::Corrupt => self.at(arrives, Event::Corrupt(index, height, connection)),
            Answer::NoBlock => self.at(arrives, Event::NoBlock(index, height, connection)),
        }
        self.nodes[index].sends_until = leaves;
        if spec.kind == Kind::NoBlockFlood {
            for flood in 0..100 {
                self.at(arrives, Event::NoBlock(index, height + flood, connection));
            }
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.schedule.poll_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Request { peer, height } => {
                let index = index_of(peer);
                self.outcome.requests[index] += 1;
                self.outcome.lookout_requests += u64::from(!self.has_executor());
                self.log(format!("ask {index} for {height}"));
                let at = self.now + self.nodes[index].spec.latency;
                self.at(at, Event::Asked(index, height.get()));
            }
            Effect::AskStatus { peer } => {
                let index = index_of(peer);
                let at = self.now + self.nodes[index].spec.latency;
                self.at(at, Event::StatusAsked(index));
            }
            Effect::Certify(request) => {
                let (first, count) = (request.blocks[0].height(), request.blocks.len());
                self.log(format!(
                    "certify {}: {count} from {first}",
                    request.id.get()
                ));
                let (verdict, signatures, time) = workers::certify(&self.chain_id, &request);
                let at = self.worker(time);
                self.at(at, Event::Verdict(request.id, verdict, signatures));
            }
            Effect::Probe(request) => {
                self.log(format!(
                    "probe {}: {}",
                    request.id.get(),
                    request.closing.height()
                ));
                let (verdict, signatures, time) = workers::probe(&self.chain_id, &request);
                let at = self.worker(time);
                self.at(at, Event::Verdict(request.id, verdict, signatures));
            }
            Effect::Cancel { run } => {
                self.cancelled.insert(run);
            }
            Effect::VerifyExtended {
                height,
                from,
                block,
                set,
            } => {
                let good = workers::extended(&self.chain_id, &set, &block);
                let at = self.worker(workers::extended_time(&set));
                self.at(at, Event::Extended(height, from, good));
            }
            Effect::Decide { id, block, set } => {
                self.log(format!("decide {}: {}", id.get(), block.height()));
                let good = workers::extended(&self.chain_id, &set, &block);
                let verdict = if good {
                    Verdict::Pinned { to: block.height() }
                } else {
                    Verdict::Suspect {
                        fault: perihelion_schedule::CommitFault::WrongSignature,
                    }
                };
                let at = self.worker(workers::extended_time(&set));
                self.at(at, Event::Verdict(id, verdict, 2 * set.len() as u64));
            }
            Effect::Apply {
                height,
                run,
                extended,
            } => self.apply(height, run, extended),
            Effect::Punish { peer, fault, ban } => self.punished(index_of(peer), fault, ban),
            effect @ (Effect::CaughtUp { .. }
            | Effect::Pinned { .. }
            | Effect::FallenBehind { .. }) => self.switch(&effect),
            Effect::Stalled { reason } => {
                self.log(format!("stalled: {reason}"));
                self.outcome.stalls.push(reason);
            }
            Effect::Halt { reason } => {
                self.log(format!("halted: {reason}"));
                self.outcome.halted = Some(reason);
            }
        }
    }

    /// When a worker that starts now or when it is free will have worked for `time`.
    fn worker(&mut self, time: Duration) -> Instant {
        let now = self.now;
        let free = self.workers_free.iter_mut().min();
        free.map_or(now + time, |free| {
            *free = (*free).max(now) + time;
            *free
        })
    }

    fn apply(&mut self, height: Height, run: RunId, extended: bool) {
        assert_eq!(height.get(), self.apply_next, "blocks are applied in order");
        assert!(self.has_executor(), "consensus has the executor");
        assert!(
            !self.cancelled.contains(&run),
            "a cancelled run certifies nothing"
        );
        let from = self.setup.chain.shape().extensions_from;
        let needed = from.is_some_and(|from| height.get() >= from);
        assert_eq!(
            extended, needed,
            "an extended commit exactly where there must be one"
        );
        self.apply_next += 1;
        self.executor_free = self.executor_free.max(self.now) + self.setup.apply_time;
        self.at(self.executor_free, Event::Executed(height));
    }

    fn executed(&mut self, height: Height) {
        let now = self.now;
        if self.setup.wrong_app_at == Some(height.get()) {
            let hashes = (
                perihelion_types::Hash::of(b"ours"),
                perihelion_types::Hash::of(b"theirs"),
            );
            self.schedule.handle_apply_failed(now, height, Some(hashes));
            return;
        }
        let shape = self.setup.chain.shape();
        let applied = Applied {
            height,
            next_validators: self.setup.chain.set(height.get() + 2),
            extensions_from: shape.extensions_from.map(Height::new),
            own_power: self.setup.own_power,
        };
        self.schedule.handle_applied(now, applied);
        let id = self.schedule.applied_id();
        let other = self.setup.either_chain && id == self.setup.fork.id(height.get());
        assert!(
            other || id == self.setup.chain.id(height.get()),
            "what is applied at {height} is the chain's block\n{}",
            self.outcome.log.join("\n")
        );
        self.log(format!("applied {height}"));
        self.outcome.height = height.get();
        self.applied_times.insert(height.get(), now);
        self.note_delay(height.get());
    }

    /// How long after the block above was there this one was applied, once caught up.
    fn note_delay(&mut self, height: i64) {
        if let (Some((from, every)), Some((at, caught))) =
            (self.setup.growth, self.outcome.caught_up)
            && height > caught + 2
        {
            let made = every * u32::try_from((height + 1 - from).max(0)).unwrap_or(0);
            let there = self.origin + made.max(at);
            self.outcome.follow_delay = self.outcome.follow_delay.max(self.now - there);
        }
    }

    fn punished(&mut self, index: usize, fault: Fault, ban: bool) {
        self.log(format!("punish {index}: {fault}"));
        let kind = self.nodes[index].spec.kind;
        assert!(
            !kind.is_honest(),
            "an honest peer is punished: {index}, {fault}"
        );
        self.outcome.punished.push((index, fault, ban));
        self.nodes[index].banned |= ban;
        self.nodes[index].connected = false;
    }

    fn check(&mut self) {
        if let Err(broken) = self.schedule.check() {
            panic!("{broken}\n{}", self.outcome.log.join("\n"));
        }
        let progress = self.schedule.progress();
        let window = progress.window;
        let bytes = window.held_bytes + window.expected_bytes;
        self.outcome.most_bytes = self.outcome.most_bytes.max(bytes);
        assert!(progress.mode != Mode::Halted || self.outcome.halted.is_some());
        self.check_lookout();
    }
}

/// The id of the peer with this index.
fn id_of(index: usize) -> PeerId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&(index as u64).to_be_bytes());
    PeerId::new(bytes)
}

fn index_of(peer: PeerId) -> usize {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&peer.as_bytes()[..8]);
    usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX)
}
