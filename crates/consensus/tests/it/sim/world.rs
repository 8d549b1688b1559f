//! The simulated network: an event heap, and everything that must hold after each event.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{
    Announce, Answer, Ask, BlockVerdict, Consensus, Effect, Message, Now, RequestId, Verify,
    votes::{MAX_CATCHUP_ROUNDS, MAX_MAJ23_CLAIMS},
};
use perihelion_types::{
    BlockId, Commit, FetchedBlock, Height, PartSet, Proposal, Rules, State, Vote,
};

use super::{
    adversary::Adversary,
    gossip::{self, Payload},
    memo::Memo,
    node::{Ledger, Node},
    plan::Plan,
    rng::Rng,
};
use crate::chain::{self, Built, CHAIN_ID, Validators};

/// How long after the network has healed every honest node must have decided two more heights.
const PATIENCE: Duration = Duration::from_secs(240);

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
    healed: Option<(Duration, Height)>,
    adversary: Adversary,
    memo: Arc<Memo>,
    known: BTreeMap<Height, Vec<Built>>,
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

    /// Runs until every honest node has decided two heights after the network healed.
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
            if let Some((since, height)) = self.healed {
                let aim = height.plus(2);
                let done = |node: &Node| node.disk.state.last_block_height >= aim;
                if self.nodes[..self.honest].iter().all(done) {
                    return self.finish();
                }
                if self.time > since + PATIENCE {
                    return Err(format!("no progress to {aim}: {}", self.places()));
                }
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

/// The network.
impl World {
    fn send(&mut self, from: usize, to: usize, payload: Payload) {
        let cut = self.healed.is_none() && self.groups[from] != self.groups[to];
        if cut || to >= self.honest || self.is_blind(to, &payload) {
            return;
        }
        let (loss, longest) = match self.healed {
            None => (self.plan.loss, self.plan.delay_ms),
            Some(_) => (0, 20),
        };
        if self.rng.chance(loss, 100) {
            return;
        }
        let copies = 1 + u64::from(self.rng.chance(self.plan.duplicates, 100));
        for _ in 0..copies {
            let payload = payload.clone();
            self.after_ms(1..longest, Event::Deliver { to, from, payload });
        }
    }

    /// Whether `to` never sees this vote before the network heals.
    fn is_blind(&self, to: usize, payload: &Payload) -> bool {
        let Payload::Message(Message::Vote(vote)) = payload else {
            return false;
        };
        let place = [
            to as u64,
            vote.height.get().unsigned_abs(),
            vote.round.get().unsigned_abs().into(),
            vote.vote_type.to_i32().unsigned_abs().into(),
            vote.validator_index.unsigned_abs().into(),
        ];
        let mut mixed = self.blindness;
        for number in place {
            mixed = Rng::new(mixed ^ number).next();
        }
        self.healed.is_none() && Rng::new(mixed).chance(self.plan.blind, 100)
    }

    fn broadcast(&mut self, from: usize, message: &Message) {
        for to in 0..self.honest {
            if to != from {
                self.send(from, to, Payload::Message(message.clone()));
            }
        }
    }

    fn deliver(&mut self, to: usize, from: usize, payload: Payload) {
        let now = self.now(to);
        let peer = self.nodes[from].peer;
        let Some(core) = &mut self.nodes[to].core else {
            return;
        };
        match payload {
            Payload::Message(message) => core.handle_message(now, peer, message),
            Payload::Claim(claim) => core.handle_maj23(peer, &claim),
        }
        self.drain(to);
    }

    fn gossip(&mut self, node: usize) {
        for to in 0..self.honest {
            let Some(core) = &self.nodes[to].core else {
                continue;
            };
            if to != node {
                for payload in gossip::news(&self.nodes[node], core) {
                    self.send(node, to, payload);
                }
            }
        }
        if self.rng.chance(1, 8) {
            let now = self.now(node);
            if let Some(core) = &mut self.nodes[node].core {
                core.handle_txs_available(now);
                self.drain(node);
            }
        }
        self.after_ms(20..60, Event::Gossip { node });
    }

    fn evil(&mut self) {
        let victim = self.rng.index(self.honest);
        let time = self.now(victim).time;
        if let Some(core) = &self.nodes[victim].core {
            let known = self.known.get(&core.height());
            let known = known.map_or(&[][..], |known| &known[..]);
            let turn = self.adversary.act(&mut self.rng, core, known, time);
            let height = core.height();
            for block in turn.blocks {
                self.remember(height, block);
            }
            for sent in turn.sent {
                if let (Payload::Message(message), true) = (&sent.payload, sent.is_signed) {
                    let key = self.nodes[sent.from].key.public_key();
                    self.memo.made(&key, message);
                }
                for to in 0..self.honest {
                    if sent.half & (1 << to) != 0 {
                        let (from, payload) = (sent.from, sent.payload.clone());
                        let wait = Duration::from_millis(sent.delay_ms + 1);
                        self.at(self.time + wait, Event::Deliver { to, from, payload });
                    }
                }
            }
        }
        self.after_ms(20..140, Event::Evil);
    }

    fn remember(&mut self, height: Height, block: Built) {
        let known = self.known.entry(height).or_default();
        if known.len() < 8 && known.iter().all(|known| known.id() != block.id()) {
            known.push(block);
        }
    }

    fn partition(&mut self) {
        if self.healed.is_some() {
            return;
        }
        self.stats.partitions += 1;
        let groups = self.rng.within(1..4);
        for node in 0..self.groups.len() {
            self.groups[node] = self.rng.within(0..groups);
        }
        let groups = self.groups.clone();
        self.trace(|| format!("partition {groups:?}"));
        self.after_ms(100..1500, Event::Partition);
    }

    fn heal(&mut self) {
        if self.healed.is_none() {
            let height = |node: &Node| node.disk.state.last_block_height;
            let highest = self.nodes.iter().map(height).max().unwrap();
            self.healed = Some((self.time, highest));
            self.trace(|| "healed".to_owned());
        }
    }
}

/// The shells.
impl World {
    fn restart(&mut self, node: usize) {
        let now = self.now(node);
        let memo: Arc<dyn Verify> = self.memo.clone();
        let booted = self.nodes[node].boot(now, &self.plan.config, memo);
        let records = match booted {
            Ok(records) => records,
            Err(error) => return self.fail(format!("{node} cannot start: {error}")),
        };
        self.trace(|| format!("{node} starts, {} records", records.len()));
        let life = self.nodes[node].life;
        for record in records {
            self.stats.replayed += 1;
            self.trace(|| format!("{node} replays {record:?}"));
            if let Some(core) = self.core(node, life) {
                core.replay(now, record);
                self.drain(node);
            }
            if self.core(node, life).is_some_and(|core| core.is_waiting()) {
                return self.fail(format!("{node} waits while it replays"));
            }
        }
        if let Some(core) = self.core(node, life) {
            core.start(now);
            self.drain(node);
        }
    }

    fn crash(&mut self, node: usize) {
        self.stats.crashes += 1;
        let disk = &self.nodes[node].disk;
        let unsynced = disk.wal.len() - disk.synced;
        let kept = self.rng.index(unsynced + 1);
        self.nodes[node].crash(kept);
        self.trace(|| format!("{node} crashes"));
        self.after_ms(10..800, Event::Restart { node });
    }

    /// Does what a node wants, in order; it may crash between any two effects.
    fn drain(&mut self, node: usize) {
        while let Some(core) = &mut self.nodes[node].core {
            let Some(effect) = core.poll_effect() else {
                break;
            };
            self.perform(node, effect);
            let every = self.plan.crash_every;
            if self.healed.is_none() && every > 0 && self.rng.chance(1, every) {
                return self.crash(node);
            }
        }
        self.check_bounds(node);
        let life = self.nodes[node].life;
        let deadline = self.nodes[node]
            .core
            .as_ref()
            .and_then(Consensus::poll_deadline);
        if let Some(at) = deadline {
            let at = at.saturating_duration_since(self.origin).max(self.time);
            self.at(at, Event::Deadline { node, life });
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Append { message, sync } => {
                let disk = &mut self.nodes[node].disk;
                disk.wal.push(message);
                if sync {
                    disk.synced = disk.wal.len();
                }
            }
            Effect::SyncWal => {
                let disk = &mut self.nodes[node].disk;
                disk.synced = disk.wal.len();
            }
            Effect::Sign { id, request } => {
                self.trace(|| format!("{node} wants signed {request:?}"));
                let shell = &mut self.nodes[node];
                let answer = shell.disk.signed.sign(&shell.key, request);
                let key = shell.key.public_key();
                match &answer {
                    Answer::SignedVote(vote) => {
                        let vote = Arc::new(Vote::clone(vote));
                        self.memo.made(&key, &Message::Vote(vote));
                    }
                    Answer::SignedProposal(proposal) => {
                        let proposal = Arc::new(Proposal::clone(proposal));
                        self.memo.made(&key, &Message::Proposal(proposal));
                    }
                    _ => {}
                }
                if !self.ledger.admits(node, &answer) {
                    self.fail(format!("{node} signs twice: {answer:?}"));
                }
                self.answer(node, id, answer);
            }
            Effect::Ask { id, ask } => {
                let answer = self.asked(node, &ask);
                self.answer(node, id, answer);
            }
            Effect::Announce(announce) => self.announced(node, announce),
            Effect::Commit(block) => self.committed(node, block),
            Effect::Apply { id, block } => {
                let disk = &mut self.nodes[node].disk;
                disk.state = Arc::new(chain::execute(&disk.state, block.fetched()));
                let state = Arc::clone(&disk.state);
                let rules = Rules::V038;
                self.answer(node, id, Answer::Applied { state, rules });
            }
            Effect::Report { first, second } => {
                self.stats.reports += 1;
                let honest = &self.nodes[..self.honest];
                let address = &first.validator_address;
                if honest
                    .iter()
                    .any(|n| n.key.public_key().address().as_bytes()[..] == address[..])
                    || first.block_id == second.block_id
                {
                    self.fail(format!(
                        "{node} reports an honest one: {first:?} {second:?}"
                    ));
                }
            }
            Effect::Punish { peer, fault } => {
                self.stats.punished += 1;
                if self.nodes[..self.honest]
                    .iter()
                    .any(|node| node.peer == peer)
                {
                    self.fail(format!("{node} punishes the honest {peer}: {fault}"));
                }
            }
            Effect::Notice(_) => {}
            Effect::Halt(halt) => self.fail(format!("{node} halts: {halt}")),
        }
    }

    /// Answers at once, or late while it runs.
    fn answer(&mut self, node: usize, id: RequestId, answer: Answer) {
        let now = self.now(node);
        let life = self.nodes[node].life;
        let Some(core) = &mut self.nodes[node].core else {
            return;
        };
        let replaying = core.poll_deadline().is_none() && !core.is_waiting();
        if !replaying && self.started(node) && self.rng.chance(1, self.plan.slow_answers) {
            let answer = Box::new(answer);
            return self.after_ms(
                1..60,
                Event::Answer {
                    node,
                    life,
                    id,
                    answer,
                },
            );
        }
        if let Some(core) = &mut self.nodes[node].core {
            core.handle_answer(now, id, answer);
        }
    }

    /// Whether the log was replayed.
    fn started(&self, node: usize) -> bool {
        self.nodes[node]
            .core
            .as_ref()
            .is_some_and(Consensus::is_started)
    }

    fn asked(&mut self, node: usize, ask: &Ask) -> Answer {
        match ask {
            Ask::MakeBlock {
                proposer,
                last_commit,
                height,
                ..
            } => {
                // Never the same twice, like a mempool.
                self.txs += 1;
                let mut txs = vec![format!("tx {}", self.txs)];
                if self.rng.chance(1, 4) {
                    let number = self.plan.byzantine + self.rng.index(self.honest);
                    let base = self.plan.powers.get(number).copied().unwrap_or(1);
                    let power = base + self.rng.within(0..5) as i64;
                    txs.push(format!("power:{number}:{power}"));
                }
                txs.truncate(self.rng.index(3));
                let txs: Vec<&[u8]> = txs.iter().map(|tx| tx.as_bytes()).collect();
                let state = Arc::clone(&self.nodes[node].disk.state);
                let block = chain::raw_block(&state, last_commit.to_commit(), &txs, *proposer);
                self.remember(*height, Built::of(&block));
                Answer::Block(Box::new(block))
            }
            Ask::ProcessProposal { block } => Answer::Verdict(self.judged(node, block)),
            Ask::ValidateBlock { block } => {
                let verdict = match self.judged(node, block) {
                    BlockVerdict::Rejected => BlockVerdict::Accepted,
                    verdict => verdict,
                };
                Answer::Verdict(verdict)
            }
            Ask::ExtendVote { round, .. } => {
                Answer::Extension(Bytes::from(format!("{node} in {round}")))
            }
            Ask::VerifyExtension { vote } => Answer::ExtensionAccepted(!vote.extension.is_empty()),
        }
    }

    fn judged(&mut self, node: usize, block: &FetchedBlock) -> BlockVerdict {
        let state = Arc::clone(&self.nodes[node].disk.state);
        let memo = Arc::clone(&self.memo);
        let verdict = chain::validate(&state, block.block(), |commit| holds(&state, commit, &memo));
        match verdict {
            Err(reason) => {
                self.stats.invalid += 1;
                BlockVerdict::Invalid(reason)
            }
            Ok(()) if chain::accepts(block.block()) => BlockVerdict::Accepted,
            Ok(()) => BlockVerdict::Rejected,
        }
    }

    /// What is this node's own goes to all at once; the rest is gossiped.
    fn announced(&mut self, node: usize, announce: Announce) {
        let address = self.nodes[node].key.public_key().address();
        let address = &address.as_bytes()[..];
        let Some(core) = &self.nodes[node].core else {
            return;
        };
        let proposes = core
            .proposer()
            .is_some_and(|p| p.address.as_bytes()[..] == *address);
        let message = match announce {
            Announce::Vote(vote) if vote.validator_address[..] == *address => Message::Vote(vote),
            Announce::Proposal(proposal) if proposes => {
                if proposal.pol_round.get() >= 0 {
                    self.stats.reproposed += 1;
                }
                Message::Proposal(proposal)
            }
            Announce::Part {
                height,
                round,
                part,
            } if proposes => Message::Part {
                height,
                round,
                part,
            },
            Announce::RoundStep(step) => {
                return self
                    .trace(|| format!("{node} {}/{}/{}", step.height, step.round, step.step));
            }
            _ => return,
        };
        self.trace(|| format!("{node} says {message:?}"));
        self.broadcast(node, &message);
    }

    /// Agreement and validity.
    fn committed(&mut self, node: usize, block: Arc<CertifiedBlock>) {
        let (height, id) = (block.height(), block.block_id());
        self.trace(|| format!("{node} decides {height} {id}"));
        let first = *self.decided.entry(height).or_insert(id);
        if first != id {
            self.fail(format!(
                "{node} decides {id} at {height}, another decided {first}"
            ));
        }
        if self.judged(node, block.fetched()) != BlockVerdict::Accepted {
            self.fail(format!("{node} decides the invalid block {id} at {height}"));
        }
        let known = self.known.get(&height);
        if !known.is_some_and(|known| known.iter().any(|built| built.id() == id))
            && known.is_none_or(|known| known.len() < 8)
        {
            self.fail(format!(
                "{node} decides {id} at {height}, which nobody proposed"
            ));
        }
        let disk = &mut self.nodes[node].disk;
        if height.get() != disk.blocks.len() as i64 + 1 {
            return self.fail(format!("{node} decides {height} out of order"));
        }
        let extensions = disk.state.consensus_params.vote_extensions_enabled(height);
        if block.extended_commit().is_some() != extensions || block.commit().is_none() {
            return self.fail(format!("{node} decides {height} without its commit"));
        }
        let commit = block.commit().expect("checked");
        self.stats.late_rounds += u64::from(commit.round.get() > 0);
        let evil = block.block().data.iter().any(|tx| tx.starts_with(b"evil"));
        self.stats.evil_decided += u64::from(evil);
        let raw = block.fetched().raw().clone();
        disk.parts.push(PartSet::from_data(raw));
        disk.blocks.push(block);
        if height.get() >= HEALS_AT {
            self.heal();
        }
    }

    fn check_bounds(&mut self, node: usize) {
        let Some(core) = &self.nodes[node].core else {
            return;
        };
        let votes = core.votes();
        let validators = votes.validators().len();
        let rounds = usize::try_from(core.round().get()).unwrap() + 2 + MAX_CATCHUP_ROUNDS;
        let mut within = core.dropped_inputs() == 0
            && votes.catchup_rounds() <= MAX_CATCHUP_ROUNDS
            && votes.rounds().count() <= rounds;
        let round = core.round();
        for set in [votes.prevotes(round), votes.precommits(round)]
            .into_iter()
            .flatten()
        {
            let (held, claims) = set.held();
            within &= claims <= MAX_MAJ23_CLAIMS && held <= validators * (1 + claims);
        }
        if !within {
            self.fail(format!("{node} keeps more than it may"));
        }
    }
}

/// Whether the signatures of a last commit hold, remembered for all nodes.
fn holds(state: &State, commit: &Commit, memo: &Memo) -> bool {
    let set = &state.last_validators;
    let bytes = commit.sign_bytes(CHAIN_ID);
    let mut power = 0;
    for (place, validator) in commit.signatures.iter().zip(set.validators()) {
        if place.signature.is_empty() {
            continue;
        }
        let Some(message) = bytes.of(place) else {
            return false;
        };
        if !memo.verify(&validator.pub_key, &message, &place.signature) {
            return false;
        }
        if place.block_id_flag == perihelion_types::BlockIdFlag::Commit {
            power += validator.voting_power;
        }
    }
    commit.signatures.len() == set.len() && power * 3 > set.total_voting_power() * 2
}
