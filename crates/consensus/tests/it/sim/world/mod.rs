//! The simulated network: an event heap, and everything that must hold after each event.

mod liveness;
mod network;
mod shell;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_consensus::{Answer, Consensus, Now, RequestId};
use perihelion_types::{BlockId, Height};

use self::liveness::Healed;
use super::{
    adversary::Adversary,
    gossip::Payload,
    memo::Memo,
    node::{Ledger, Node},
    plan::Plan,
    rng::Rng,
};
use crate::chain::{self, Built, Validators};

/// The height at which the network heals, if it has not before.
const HEALS_AT: i64 = 4;

/// In one run of so many every signature is verified when it first comes.
const VERIFIED_IN: u64 = 16;

/// What happens.
#[derive(Debug)]
enum Event {
    Deliver {
        to: usize,
        from: usize,
        payload: Payload,
    },
    Deadline {
        node: usize,
        life: u32,
    },
    Answer {
        node: usize,
        life: u32,
        id: RequestId,
        answer: Box<Answer>,
    },
    Gossip {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Evil,
    Partition,
    Heal,
}

/// One run.
pub(crate) struct World {
    rng: Rng,
    plan: Plan,
    origin: Instant,
    time: Duration,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    happening: BTreeMap<u64, Event>,
    next_event: u64,
    /// The honest ones, then the byzantine ones, which have no core.
    nodes: Vec<Node>,
    honest: usize,
    groups: Vec<u64>,
    healed: Option<Healed>,
    adversary: Adversary,
    memo: Arc<Memo>,
    /// The first few blocks of each height that were proposed: what the adversary plays with.
    known: BTreeMap<Height, Vec<Built>>,
    /// All that were proposed.
    proposed: HashSet<BlockId>,
    decided: BTreeMap<Height, BlockId>,
    ledger: Ledger,
    /// Decides who never sees which vote.
    blindness: u64,
    txs: u64,
    pub(crate) stats: Stats,
    pub(crate) log: Option<Vec<String>>,
    failure: Option<String>,
}

/// What a run saw: a simulation in which nothing goes wrong proves nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) events: u64,
    pub(crate) heights: u64,
    pub(crate) late_rounds: u64,
    pub(crate) crashes: u64,
    pub(crate) replayed: u64,
    pub(crate) partitions: u64,
    pub(crate) reports: u64,
    pub(crate) punished: u64,
    pub(crate) invalid: u64,
    pub(crate) evil_decided: u64,
    pub(crate) sign_conflicts: u64,
    pub(crate) reproposed: u64,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let genesis = Validators::new(&plan.powers, plan.extensions).genesis;
        let evil = plan.byzantine;
        // Validators 0..byzantine are the evil ones; those without power come last.
        let total = plan.powers.len() + plan.followers;
        let honest: Vec<usize> = (evil..total).collect();
        let mut nodes: Vec<Node> = honest
            .iter()
            .map(|number| Node::new(*number, chain::key(*number), &genesis))
            .collect();
        let evil_nodes: Vec<_> = (0..evil)
            .map(|number| (nodes.len() + number, chain::key(number)))
            .collect();
        for number in 0..evil {
            nodes.push(Node::new(number, chain::key(number), &genesis));
        }
        let mut world = Self {
            groups: vec![0; nodes.len()],
            honest: honest.len(),
            adversary: Adversary::new(evil_nodes),
            nodes,
            rng,
            plan,
            origin: Instant::now(),
            time: Duration::ZERO,
            events: BinaryHeap::new(),
            happening: BTreeMap::new(),
            next_event: 0,
            healed: None,
            memo: Arc::new(Memo::new(!seed.is_multiple_of(VERIFIED_IN))),
            known: BTreeMap::new(),
            proposed: HashSet::new(),
            decided: BTreeMap::new(),
            ledger: Ledger::default(),
            blindness: seed,
            txs: 0,
            stats: Stats::default(),
            log: traced.then(Vec::new),
            failure: None,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.honest {
            self.after_ms(0..50, Event::Restart { node });
            self.after_ms(0..60, Event::Gossip { node });
        }
        if !self.adversary.nodes.is_empty() {
            self.after_ms(0..100, Event::Evil);
        }
        if self.plan.partitions {
            self.after_ms(0..1000, Event::Partition);
        }
        let heals = self.plan.heals_after;
        self.at(heals, Event::Heal);
    }

    /// Runs until every honest node has decided two heights after the network healed, which must be
    /// soon (`liveness`).
    pub(crate) fn run(&mut self) -> Result<Stats, String> {
        loop {
            let Some(Reverse((at, number))) = self.events.pop() else {
                return Err("nothing happens any more".to_owned());
            };
            self.time = at;
            let event = self.happening.remove(&number).expect("it was scheduled");
            self.stats.events += 1;
            self.happen(event);
            if let Some(failure) = self.failure.take() {
                return Err(format!("at {:?}: {failure}", self.time));
            }
            if let Some(progress) = self.check_progress() {
                progress?;
                return self.finish();
            }
        }
    }

    fn finish(&mut self) -> Result<Stats, String> {
        self.stats.heights = self.decided.len() as u64;
        let conflicts = self.nodes.iter().map(|node| node.disk.signed.conflicts);
        self.stats.sign_conflicts = conflicts.map(u64::from).sum();
        // Where nobody lies, a restart leads to the very same votes; else the signer may have to
        // refuse one, because claims of majorities are not in the log.
        if self.plan.byzantine == 0 && self.stats.sign_conflicts > 0 {
            return Err("another vote was wanted after a restart".to_owned());
        }
        Ok(self.stats)
    }

    fn places(&self) -> String {
        let place = |node: &Node| match &node.core {
            None => "down".to_owned(),
            Some(core) => format!("{}/{}/{}", core.height(), core.round(), core.step()),
        };
        let places: Vec<_> = self.nodes[..self.honest].iter().map(place).collect();
        places.join(" ")
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, payload } => self.deliver(to, from, payload),
            Event::Deadline { node, life } => {
                let now = self.now(node);
                if let Some(core) = self.core(node, life) {
                    core.handle_deadline(now);
                    self.drain(node);
                }
            }
            Event::Answer {
                node,
                life,
                id,
                answer,
            } => {
                let now = self.now(node);
                if let Some(core) = self.core(node, life) {
                    core.handle_answer(now, id, *answer);
                    self.drain(node);
                }
            }
            Event::Gossip { node } => self.gossip(node),
            Event::Restart { node } => self.restart(node),
            Event::Evil => self.evil(),
            Event::Partition => self.partition(),
            Event::Heal => self.heal(),
        }
    }

    fn core(&mut self, node: usize, life: u32) -> Option<&mut Consensus> {
        let node = &mut self.nodes[node];
        node.core.as_mut().filter(|_| node.life == life)
    }

    /// The clocks of the nodes are apart by some ms.
    fn now(&self, node: usize) -> Now {
        let nanos = i64::try_from(self.time.as_nanos()).unwrap() + node as i64 * 7_000_000;
        let genesis = self.nodes[0].disk.blocks.first().map_or_else(
            || self.nodes[0].disk.state.last_block_time,
            |block| block.block().header.time,
        );
        Now {
            instant: self.origin + self.time,
            time: genesis.checked_add_nanos(nanos).unwrap(),
        }
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event)));
        self.happening.insert(self.next_event, event);
    }

    fn after_ms(&mut self, ms: std::ops::Range<u64>, event: Event) {
        let wait = Duration::from_micros(self.rng.within(ms.start * 1000..ms.end * 1000 + 1));
        self.at(self.time + wait, event);
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        let time = self.time;
        if let Some(log) = &mut self.log {
            log.push(format!("{time:?} {}", line()));
        }
    }

    fn fail(&mut self, reason: String) {
        self.trace(|| format!("FAILED {reason}"));
        self.failure.get_or_insert(reason);
    }
}
