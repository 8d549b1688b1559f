use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_schedule::{
    Applied, BodyFault, CommitFault, Config, Decided, Effect, Mode, Reception, RunId, Schedule,
    Start, Verdict,
};
use perihelion_types::{BlockId, Height, HeightRange, PeerId};
use proptest::prelude::*;

use crate::blocks::{CHAINS, LENGTH, SET, peer, start};

/// An input, with numbers that are reduced to what is possible when it comes.
#[derive(Debug, Clone)]
enum Input {
    Join(u8),
    Leave(u8),
    /// A range that is no lower than the one before, by so much.
    Rise(u8, i64, i64),
    /// Any range.
    Status(u8, i64, i64),
    /// An answer to a request in flight: which request, and out of which chain.
    Deliver(usize, usize),
    /// A block that was perhaps not asked for.
    Push(u8, usize, usize),
    NoBlock(usize),
    UnaskedNoBlock(u8, i64),
    BadBlock(usize),
    Verdict(usize, u8),
    Applied,
    Deadline,
    Wait(u64),
    Bytes(u8, u64),
    Starved,
    ExtensionRequired,
    Extended(usize, bool),
    /// Consensus, if it has the executor, applies so many blocks and tells of the last one.
    Decide(usize),
    /// And gives it back.
    GiveBack,
}

fn input() -> impl Strategy<Value = Input> {
    let number = any::<usize>;
    prop_oneof![
        2 => (0..6u8).prop_map(Input::Join),
        1 => (0..6u8).prop_map(Input::Leave),
        8 => (0..6u8, prop_oneof![20 => Just(0i64), 1 => 1..5i64], 0..20i64)
            .prop_map(|(p, b, h)| Input::Rise(p, b, h)),
        1 => (0..6u8, 0..20i64, 0..60i64).prop_map(|(p, b, h)| Input::Status(p, b, h)),
        20 => (number(), prop_oneof![8 => Just(0usize), 1 => 1..3usize]).prop_map(|(n, c)| Input::Deliver(n, c)),
        1 => (0..6u8, 0..LENGTH, 0..3usize).prop_map(|(p, h, c)| Input::Push(p, h, c)),
        2 => number().prop_map(Input::NoBlock),
        1 => (0..6u8, 0..50i64).prop_map(|(p, h)| Input::UnaskedNoBlock(p, h)),
        1 => number().prop_map(Input::BadBlock),
        8 => (number(), 0..12u8).prop_map(|(n, v)| Input::Verdict(n, v)),
        8 => Just(Input::Applied),
        4 => Just(Input::Deadline),
        4 => (0..3_000u64).prop_map(Input::Wait),
        1 => (0..6u8, 0..100_000u64).prop_map(|(p, b)| Input::Bytes(p, b)),
        1 => Just(Input::Starved),
        1 => Just(Input::ExtensionRequired),
        1 => (number(), any::<bool>()).prop_map(|(n, good)| Input::Extended(n, good)),
        4 => (1..4usize).prop_map(Input::Decide),
        2 => Just(Input::GiveBack),
    ]
}

/// What the owner of a schedule would know, told by its effects alone.
struct Owner {
    schedule: Schedule,
    now: Instant,
    peers: BTreeMap<PeerId, (i64, i64)>,
    requests: Vec<(PeerId, Height)>,
    runs: BTreeMap<RunId, (Height, Height)>,
    checks: Vec<(Height, PeerId)>,
    to_apply: Vec<Height>,
    handed_out: i64,
    allowance: usize,
    /// Consensus has the executor.
    away: bool,
    /// It is wanted back.
    behind: bool,
    pinned: i64,
}

impl Owner {
    #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let start = Start {
            persistent: BTreeSet::from([peer(0)]),
            ..start()
        };
        Self {
            allowance: config.peer_allowance,
            away: false,
            behind: false,
            pinned: 0,
            schedule: Schedule::new(config, start, now),
            now,
            peers: BTreeMap::new(),
            requests: Vec::new(),
            runs: BTreeMap::new(),
            checks: Vec::new(),
            to_apply: Vec::new(),
            handed_out: 0,
        }
    }

    fn pick<T: Copy>(list: &[T], n: usize) -> Option<T> {
        list.get(n.checked_rem(list.len())?).copied()
    }

    fn feed(&mut self, input: Input) {
        let now = self.now;
        match input {
            Input::Join(n) => {
                self.peers.entry(peer(n)).or_insert((1, 1));
                self.schedule.handle_peer_added(now, peer(n));
            }
            Input::Leave(n) => {
                self.forget(peer(n));
                self.schedule.handle_peer_removed(now, peer(n));
            }
            Input::Rise(n, base, height) => {
                if let Some(range) = self.peers.get_mut(&peer(n)) {
                    range.1 = (range.1 + height).min(60);
                    range.0 = (range.0 + base).min(range.1);
                    let range = HeightRange::new(Height::new(range.0), Height::new(range.1));
                    self.schedule.handle_status(now, peer(n), range.unwrap());
                }
            }
            Input::Status(n, base, height) => {
                match HeightRange::new(Height::new(base), Height::new(height)) {
                    Some(range) => self.schedule.handle_status(now, peer(n), range),
                    None => self.schedule.handle_impossible_status(
                        now,
                        peer(n),
                        Height::new(base),
                        Height::new(height),
                    ),
                }
            }
            Input::Deliver(n, chain) => {
                if let Some((from, height)) = Self::pick(&self.requests, n)
                    && let Some(block) =
                        CHAINS[chain].get(usize::try_from(height.get() - 1).unwrap())
                {
                    self.requests.retain(|request| *request != (from, height));
                    let reception = self.schedule.handle_block(now, from, Arc::clone(block));
                    assert_ne!(
                        reception,
                        Reception::Unsolicited,
                        "{height} was asked of {from}"
                    );
                }
            }
            Input::Push(n, height, chain) => {
                let (from, block) = (peer(n), &CHAINS[chain][height]);
                let expected = self.schedule.expects(from, block.height());
                self.requests
                    .retain(|request| *request != (from, block.height()));
                let reception = self.schedule.handle_block(now, from, Arc::clone(block));
                let unsolicited = reception == Reception::Unsolicited;
                assert_eq!(unsolicited, self.peers.contains_key(&from) && !expected);
            }
            Input::NoBlock(n) => {
                if let Some((from, height)) = Self::pick(&self.requests, n) {
                    self.requests.retain(|request| *request != (from, height));
                    self.schedule.handle_no_block(now, from, height);
                }
            }
            Input::UnaskedNoBlock(n, height) => {
                let (from, height) = (peer(n), Height::new(height));
                self.requests.retain(|request| *request != (from, height));
                self.schedule.handle_no_block(now, from, height);
            }
            Input::BadBlock(n) => {
                if let Some((from, height)) = Self::pick(&self.requests, n) {
                    self.schedule
                        .handle_bad_block(now, from, height, BodyFault::Mismatch);
                }
            }
            Input::Verdict(n, verdict) => self.verdict(n, verdict),
            Input::Decide(count) => {
                if self.away {
                    self.decide(count);
                }
            }
            Input::GiveBack => {
                if self.away {
                    self.away = false;
                    self.behind = false;
                    let decided = self.decided();
                    self.schedule.handle_executor(now, decided);
                }
            }
            Input::Applied => {
                if !self.to_apply.is_empty() {
                    let height = self.to_apply.remove(0);
                    let applied = Applied {
                        height,
                        next_validators: Arc::clone(&SET),
                        extensions_from: None,
                        own_power: 0,
                    };
                    self.schedule.handle_applied(now, applied);
                    assert_eq!(self.schedule.height(), height);
                }
            }
            Input::Deadline => {
                if let Some(at) = self.schedule.poll_deadline() {
                    self.now = self.now.max(at);
                    self.schedule.handle_deadline(self.now);
                }
            }
            Input::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.schedule.handle_deadline(self.now);
            }
            Input::Bytes(n, bytes) => self.schedule.handle_bytes(now, peer(n), bytes),
            Input::Starved => self.schedule.handle_starved(now),
            Input::ExtensionRequired => {
                if let Some(&height) = self.to_apply.first() {
                    self.to_apply.clear();
                    self.handed_out = height.get() - 1;
                    self.schedule.handle_extension_required(now, height);
                }
            }
            Input::Extended(n, good) => {
                if let Some((height, from)) = Self::pick(&self.checks, n) {
                    self.checks.retain(|check| *check != (height, from));
                    self.schedule
                        .handle_extended_commit_verdict(now, height, from, good);
                }
            }
        }
        self.drain();
        self.schedule.check().unwrap();
        let late = self
            .schedule
            .poll_deadline()
            .is_some_and(|at| at + Duration::from_secs(3600) < self.now);
        assert!(!late, "deadlines do not lie in the far past");
    }

    fn verdict(&mut self, n: usize, verdict: u8) {
        let runs: Vec<_> = self.runs.iter().map(|(&id, &range)| (id, range)).collect();
        let Some((id, (first, last))) = Self::pick(&runs, n) else {
            return;
        };
        self.runs.remove(&id);
        let verdict = match verdict {
            0 => Verdict::Drifted,
            1 => Verdict::Suspect {
                fault: CommitFault::WrongSignature,
            },
            2 => Verdict::Pinned {
                to: last.prev().max(first),
            },
            3 => Verdict::Vouched,
            _ => Verdict::Pinned { to: last },
        };
        self.schedule.handle_verdict(self.now, id, verdict, 4);
    }

    /// The next blocks are applied, until the chain's end, and the state after the last one is told.
    fn decide(&mut self, count: usize) {
        let left = LENGTH - usize::try_from(self.handed_out).unwrap();
        self.handed_out += i64::try_from(count.min(left)).unwrap();
        let decided = self.decided();
        self.schedule.handle_decided(self.now, decided);
        let halted = self.schedule.progress().mode == Mode::Halted;
        assert!(halted || self.schedule.height().get() == self.handed_out);
    }

    fn decided(&self) -> Decided {
        let block = self.handed_out.checked_sub(1).and_then(|index| {
            let index = usize::try_from(index).ok()?;
            CHAINS[0].get(index)
        });
        Decided {
            height: Height::new(self.handed_out),
            block_id: block.map_or(BlockId::NIL, |block| block.block_id()),
            last_validators: Arc::clone(&SET),
            validators: Arc::clone(&SET),
            next_validators: Arc::clone(&SET),
            extensions_from: None,
            own_power: 0,
        }
    }

    fn forget(&mut self, gone: PeerId) {
        self.peers.remove(&gone);
        self.requests.retain(|(peer, _)| *peer != gone);
    }

    fn drain(&mut self) {
        while let Some(effect) = self.schedule.poll_effect() {
            match effect {
                Effect::Request { peer, height } => {
                    assert!(
                        self.peers.contains_key(&peer),
                        "{peer} is asked and not there"
                    );
                    self.requests.push((peer, height));
                    let progress = self.schedule.progress();
                    let row = progress.peers.iter().find(|row| row.peer == peer);
                    assert!(row.is_none_or(|row| row.in_flight <= self.allowance));
                }
                Effect::AskStatus { .. } | Effect::Stalled { .. } => {}
                Effect::CaughtUp { height } => {
                    let idle = height.get() == self.handed_out && self.to_apply.is_empty();
                    assert!(idle && !self.away, "at {height}");
                    self.away = true;
                    self.pinned = height.get();
                }
                Effect::Pinned { height } => {
                    assert!(self.away && height.get() > self.pinned);
                    self.pinned = height.get();
                }
                Effect::FallenBehind { pinned } => {
                    assert!(self.away && !self.behind);
                    assert_eq!(pinned.get(), self.pinned, "each was told");
                    assert!(pinned.get() >= self.handed_out + 2);
                    self.behind = true;
                }
                Effect::Certify(request) => {
                    let first = request.blocks[0].height();
                    for pair in request.blocks.windows(2) {
                        assert_eq!(pair[1].block().header.last_block_id, pair[0].block_id());
                    }
                    let last = request.blocks.last().unwrap();
                    assert_eq!(
                        request.closing.block().header.last_block_id,
                        last.block_id()
                    );
                    assert!(request.anchor.exact || request.blocks.len() > 1);
                    self.runs.insert(request.id, (first, last.height()));
                }
                Effect::Probe(request) => {
                    let height = request.closing.height();
                    self.runs.insert(request.id, (height, height));
                }
                Effect::Decide { id, block, .. } => {
                    self.runs.insert(id, (block.height(), block.height()));
                }
                Effect::Cancel { run } => {
                    self.runs.remove(&run);
                }
                Effect::VerifyExtended { height, from, .. } => self.checks.push((height, from)),
                Effect::Apply { height, .. } => {
                    assert!(!self.away, "consensus has the executor");
                    assert_eq!(height.get(), self.handed_out + 1, "in order");
                    self.handed_out = height.get();
                    self.to_apply.push(height);
                }
                Effect::Punish { peer, .. } => self.forget(peer),
                Effect::Halt { .. } => {}
            }
        }
    }
}

fn small() -> Config {
    Config {
        window_bytes: 12_000,
        window_blocks: 24,
        peer_allowance: 6,
        first_allowance: 3,
        run_blocks: 4,
        longest_run: 8,
        runs: 2,
        applying: 3,
        hedge_depth: 8,
        reenter_behind: 2,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// One owner a height, counts that are sums, budgets kept, no request lost, every owing peer
    /// with a deadline: [`Schedule::check`] after each input.
    #[test]
    fn the_books_agree_after_any_input(inputs in prop::collection::vec(input(), 1..400)) {
        let mut owner = Owner::new(small());
        for input in inputs {
            owner.feed(input);
        }
    }

    /// The same where the executor goes to consensus soon, and comes back.
    #[test]
    fn the_books_agree_while_consensus_has_the_executor(inputs in prop::collection::vec(input(), 1..400)) {
        let mut owner = Owner::new(small());
        // Everybody has told before it begins, and nobody is ahead.
        owner.feed(Input::Join(0));
        owner.feed(Input::Rise(0, 0, 0));
        for input in inputs {
            owner.feed(input);
        }
    }

    /// The same with the bounds of a node.
    #[test]
    fn the_books_agree_with_a_nodes_bounds(inputs in prop::collection::vec(input(), 1..200)) {
        let mut owner = Owner::new(Config::default());
        for input in inputs {
            owner.feed(input);
        }
    }
}
