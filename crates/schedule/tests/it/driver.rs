//! A schedule with a made-up clock, whose workers and executor answer at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_schedule::{
    Applied, CommitFault, Config, Decided, Effect, RunId, Schedule, Verdict,
};
use perihelion_types::{Height, HeightRange};

use crate::blocks::{CHAINS, SET, peer, start};

/// Peers are numbers.
pub(crate) type Number = u8;

pub(crate) struct Driver {
    pub(crate) schedule: Schedule,
    now: Instant,
    /// What peers claim.
    claims: BTreeMap<Number, i64>,
    /// All requests so far, in order.
    requests: Vec<(Number, i64)>,
    /// Those that have no answer yet.
    open: Vec<(Number, i64)>,
    /// Heights of blocks whose last commits do not hold.
    pub(crate) bad_commits: BTreeSet<i64>,
    /// Whether probes are answered.
    pub(crate) probes: bool,
    /// Whether blocks are applied.
    pub(crate) applies: bool,
    /// Whether runs are verified.
    pub(crate) certifies: bool,
    /// Whether peers tell their statuses when they are asked.
    pub(crate) tells: bool,
    /// Heights of blocks whose last commits were probed, in order.
    pub(crate) probed: Vec<i64>,
    /// Runs that were taken back.
    pub(crate) cancelled: Vec<RunId>,
    /// Heights after which consensus got the executor.
    pub(crate) entered: Vec<i64>,
}

impl Driver {
    #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
    pub(crate) fn new(config: Config) -> Self {
        let now = Instant::now();
        Self {
            schedule: Schedule::new(config, start(), now),
            now,
            requests: Vec::new(),
            open: Vec::new(),
            bad_commits: BTreeSet::new(),
            probes: true,
            applies: true,
            claims: BTreeMap::new(),
            certifies: true,
            tells: false,
            probed: Vec::new(),
            cancelled: Vec::new(),
            entered: Vec::new(),
        }
    }

    /// A peer joins that claims the blocks up to `top`.
    pub(crate) fn join(&mut self, number: Number, top: i64) {
        self.claims.insert(number, top);
        self.schedule.handle_peer_added(self.now, peer(number));
        self.tell(number);
        self.settle();
    }

    fn tell(&mut self, number: Number) {
        if let Some(&top) = self.claims.get(&number) {
            let range = HeightRange::new(Height::new(1), Height::new(top)).unwrap();
            self.schedule.handle_status(self.now, peer(number), range);
        }
    }

    /// Consensus has come to the main chain's block of this height.
    pub(crate) fn decide(&mut self, height: i64) {
        let decided = Self::decided(height);
        self.schedule.handle_decided(self.now, decided);
        self.settle();
    }

    /// It gives the executor back after this height.
    pub(crate) fn give_back(&mut self, height: i64) {
        let decided = Self::decided(height);
        self.schedule.handle_executor(self.now, decided);
        self.settle();
    }

    fn decided(height: i64) -> Decided {
        Decided {
            height: Height::new(height),
            block_id: CHAINS[0][usize::try_from(height - 1).unwrap()].block_id(),
            last_validators: Arc::clone(&SET),
            validators: Arc::clone(&SET),
            next_validators: Arc::clone(&SET),
            extensions_from: None,
            own_power: 0,
        }
    }

    pub(crate) fn leave(&mut self, number: Number) {
        self.claims.remove(&number);
        self.schedule.handle_peer_removed(self.now, peer(number));
        self.open.retain(|&(other, _)| other != number);
        self.settle();
    }

    /// A peer answers a request with the block of one of [`CHAINS`].
    #[track_caller]
    pub(crate) fn deliver(&mut self, number: Number, height: i64, chain: usize) {
        self.close(number, height);
        let block = &CHAINS[chain][usize::try_from(height - 1).unwrap()];
        self.schedule
            .handle_block(self.now, peer(number), Arc::clone(block));
        self.settle();
    }

    /// A peer answers a request by saying that it has no such block.
    #[track_caller]
    pub(crate) fn deny(&mut self, number: Number, height: i64) {
        self.close(number, height);
        self.schedule
            .handle_no_block(self.now, peer(number), Height::new(height));
        self.settle();
    }

    #[track_caller]
    fn close(&mut self, number: Number, height: i64) {
        let asked = self.open.iter().position(|&it| it == (number, height));
        let asked = asked.unwrap_or_else(|| panic!("{number} owes no {height}: {:?}", self.open));
        self.open.remove(asked);
    }

    /// Time passes, with all that is due in it.
    pub(crate) fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.schedule.poll_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.schedule.handle_deadline(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// Heights that a peer was asked for, in order.
    pub(crate) fn asked(&self, number: Number) -> Vec<i64> {
        let of_peer = self.requests.iter().filter(|(asked, _)| *asked == number);
        of_peer.map(|&(_, height)| height).collect()
    }

    /// Whom a height was asked of, in order.
    pub(crate) fn asked_for(&self, height: i64) -> Vec<Number> {
        let of_height = self.requests.iter().filter(|(_, asked)| *asked == height);
        of_height.map(|&(number, _)| number).collect()
    }

    /// What a peer has yet to answer.
    pub(crate) fn owes(&self, number: Number) -> Vec<i64> {
        let open = self.open.iter().filter(|(asked, _)| *asked == number);
        open.map(|&(_, height)| height).collect()
    }

    fn settle(&mut self) {
        while let Some(effect) = self.schedule.poll_effect() {
            match effect {
                Effect::Request { peer, height } => {
                    let request = (peer.as_bytes()[0], height.get());
                    self.requests.push(request);
                    self.open.push(request);
                }
                Effect::AskStatus { peer } if self.tells => self.tell(peer.as_bytes()[0]),
                Effect::CaughtUp { height } => self.entered.push(height.get()),
                Effect::Cancel { run } => self.cancelled.push(run),
                Effect::Certify(request) if self.certifies => {
                    let last = request.blocks.last().unwrap().height();
                    let verdict =
                        self.judge(request.closing.height(), Verdict::Pinned { to: last });
                    self.schedule
                        .handle_verdict(self.now, request.id, verdict, 1);
                }
                Effect::Probe(request) => {
                    self.probed.push(request.closing.height().get());
                    if !self.probes {
                        continue;
                    }
                    let verdict = self.judge(request.closing.height(), Verdict::Vouched);
                    self.schedule
                        .handle_verdict(self.now, request.id, verdict, 1);
                }
                Effect::Apply { height, .. } if self.applies => {
                    let applied = Applied {
                        height,
                        next_validators: Arc::clone(&SET),
                        extensions_from: None,
                        own_power: 0,
                    };
                    self.schedule.handle_applied(self.now, applied);
                }
                Effect::Punish { peer, .. } => {
                    let number = peer.as_bytes()[0];
                    self.open.retain(|&(other, _)| other != number);
                }
                _ => {}
            }
        }
        self.schedule.check().unwrap();
    }

    fn judge(&self, closing: Height, good: Verdict) -> Verdict {
        if self.bad_commits.contains(&closing.get()) {
            let fault = CommitFault::WrongSignature;
            Verdict::Suspect { fault }
        } else {
            good
        }
    }
}
