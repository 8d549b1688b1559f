//! The schedule itself, by concern: inputs from peers here, then what is asked (`requests`), of whom
//! (`choose`), what is late (`hedge`), what becomes of a copy (`receive`), what links (`link`), what
//! is verified together (`runs`), who is to blame (`blame`, `hearing`), what is applied (`apply`), when the
//! chain has been caught up with (`caught_up`), who has the executor (`switch`), what is told (`report`), and that
//! the books agree (`check`).

mod apply;
mod blame;
mod caught_up;
mod check;
mod choose;
mod hearing;
mod hedge;
mod link;
mod receive;
mod report;
mod requests;
mod runs;
mod switch;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use perihelion_types::{BlockId, FetchedBlock, Height, HeightRange, PeerId, Time, ValidatorSet};

pub use apply::Applied;
use hearing::Hearing;
use runs::{Probe, Run};
pub use switch::Decided;

use crate::{
    BodyFault, Config, Effect, Fault, Mode, ModeReason, Reception, RunId, StallReason,
    abreast::Abreast,
    anchors::Anchors,
    meter::{Mean, Meter},
    peer::Peer,
    slot::{Exclusion, Held, Slot},
    timer::{Timer, Timers},
};

/// Where a schedule begins: our own state.
#[derive(Debug, Clone)]
pub struct Start {
    /// The chain's initial height.
    pub initial_height: Height,
    /// The last applied height; [`Height::ZERO`] before the first block.
    pub height: Height,
    /// Its block id; nil before the first block.
    pub block_id: BlockId,
    /// Validators of the next height.
    pub validators: Arc<ValidatorSet>,
    /// Validators of the height after that.
    pub next_validators: Arc<ValidatorSet>,
    /// Validators of the last applied height; `None` before the first block.
    pub last_validators: Option<Arc<ValidatorSet>>,
    /// Whether a verified commit for the last applied block itself is at hand (true before the
    /// first block). After a crash inside of a run it is not.
    pub last_commit_verified: bool,
    /// From which height on blocks need extended commits, by the present parameters.
    pub extensions_from: Option<Height>,
    /// Configured peers: none may be overlooked before their dial deadline.
    pub persistent: BTreeSet<PeerId>,
    /// Our own voting power in `validators`; 0 when we are no validator.
    pub own_power: i64,
    /// Bytes of a block at most, by the present parameters: what is expected of each until one has come.
    pub largest_block: usize,
}

/// The scheduler of the block pool.
///
/// Invariants: a height is in the window exactly once; it is asked of a peer exactly when that
/// peer's requests hold it; requests for heights of the window and held bytes are counted;
/// blocks up to `linked_to` each name the one before; runs in flight cover ascending heights.
#[derive(Debug)]
pub struct Schedule {
    pub(crate) config: Config,
    mode: Mode,
    mode_since: Instant,
    why: ModeReason,
    /// Consensus has it otherwise, or has yet to give it back.
    has_executor: bool,
    initial_height: Height,
    start_height: Height,
    /// The last applied height and its id.
    applied: (Height, BlockId),
    certified_to: Height,
    linked_to: Height,
    applying_to: Height,
    /// The first one is the height after the last applied one.
    slots: VecDeque<Slot>,
    /// Heights of the window that somebody is to be found for.
    wanted: BTreeSet<Height>,
    /// Of those, the ones that no present peer may be asked for.
    parked: BTreeSet<Height>,
    /// Certified heights whose extended commit was not looked at yet.
    unchecked: BTreeSet<Height>,
    peers: BTreeMap<PeerId, Peer>,
    timers: Timers,
    effects: VecDeque<Effect>,
    anchors: Anchors,
    last_validators: Option<Arc<ValidatorSet>>,
    runs: VecDeque<Run>,
    probe: Option<Probe>,
    /// Peers that sent another block than a final one.
    hearings: BTreeMap<PeerId, Hearing>,
    next_run: u64,
    /// The longest run that the drift of the validator set allows, as learnt.
    drift_limit: usize,
    /// Since when linked blocks wait for their run, and when the last one linked.
    waiting_since: Option<Instant>,
    last_linked: Instant,
    held_bytes: usize,
    /// Requests in flight for heights of the window, and the bytes that were expected of them when they
    /// were made.
    asked: usize,
    expected_then: usize,
    block_size: Mean,
    largest_block: usize,
    extensions_from: Option<Height>,
    /// Configured peers, and those of them that have not told their status yet.
    persistent: BTreeSet<PeerId>,
    untold: BTreeSet<PeerId>,
    /// Since when, in this stretch near the tip, nobody but peers without an applied block has
    /// claimed more.
    strangers_since: Option<Instant>,
    /// Since when there has been a peer that could serve the next height.
    near_since: Option<Instant>,
    /// How what is applied stands to the wall clock.
    abreast: Abreast,
    own_power: i64,
    last_commit_verified: bool,
    started: Instant,
    /// When the last block was applied, or the schedule started.
    applied_at: Instant,
    halted: Option<StallReason>,
    stalled: Option<StallReason>,
    blocks_applied: Meter,
    bytes_received: Meter,
    totals: report::Totals,
    now: Instant,
}

impl Schedule {
    /// A schedule that goes on from `start`.
    #[must_use]
    pub fn new(config: Config, start: Start, now: Instant) -> Self {
        let applied = if start.height == Height::ZERO {
            start.initial_height.prev()
        } else {
            start.height
        };
        let mut schedule = Self {
            mode: Mode::WaitForPeers,
            mode_since: now,
            why: ModeReason::Started,
            has_executor: true,
            initial_height: start.initial_height,
            start_height: start.height,
            applied: (applied, start.block_id),
            certified_to: applied,
            linked_to: applied,
            applying_to: applied,
            slots: VecDeque::new(),
            wanted: BTreeSet::new(),
            parked: BTreeSet::new(),
            unchecked: BTreeSet::new(),
            peers: BTreeMap::new(),
            timers: Timers::default(),
            effects: VecDeque::new(),
            anchors: Anchors::new(applied.next(), start.validators, start.next_validators),
            last_validators: start.last_validators,
            runs: VecDeque::new(),
            probe: None,
            hearings: BTreeMap::new(),
            next_run: 0,
            drift_limit: config.longest_run,
            waiting_since: None,
            last_linked: now,
            held_bytes: 0,
            asked: 0,
            expected_then: 0,
            block_size: Mean::default(),
            largest_block: start.largest_block.max(1),
            extensions_from: start.extensions_from,
            untold: start.persistent.clone(),
            persistent: start.persistent,
            strangers_since: None,
            near_since: None,
            abreast: Abreast::default(),
            own_power: start.own_power,
            last_commit_verified: start.last_commit_verified,
            started: now,
            applied_at: now,
            halted: None,
            stalled: None,
            blocks_applied: Meter::new(now),
            bytes_received: Meter::new(now),
            totals: report::Totals::default(),
            now,
            config,
        };
        schedule
            .timers
            .set(Timer::Stall, now + schedule.config.stall_after);
        schedule.check_caught_up(now);
        schedule
    }

    /// The wall clock shows `wall`. To be told before other inputs, and a few times a second: it may be
    /// set, and it goes on while the machine is suspended. Without it the node may wait for a claim that
    /// is never kept for as long as blocks are made.
    pub fn handle_clock(&mut self, now: Instant, wall: Time) {
        self.tick(now);
        self.abreast.tell(self.now, wall);
    }

    /// A peer connected: it is asked for its status.
    pub fn handle_peer_added(&mut self, now: Instant, peer: PeerId) {
        self.tick(now);
        if self.peers.contains_key(&peer) {
            return;
        }
        let added = Peer::new(now, self.config.first_allowance);
        self.peers.insert(peer, added);
        self.ask_status(now, peer);
    }

    /// A peer is known to have sent so slowly, lately and on another connection, that it held up others:
    /// for a while it is asked only for what nobody else can be asked for.
    pub fn handle_slow(&mut self, now: Instant, peer: PeerId) {
        self.tick(now);
        let (_, most) = self.config.bench;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.bench(now, (most, most));
        }
        self.upkeep(now);
    }

    /// A peer is gone: what it was asked for is asked of others at once; what it delivered stays.
    pub fn handle_peer_removed(&mut self, now: Instant, peer: PeerId) {
        self.tick(now);
        self.remove_peer(peer);
        self.upkeep(now);
    }

    /// A peer told the range of its blocks.
    pub fn handle_status(&mut self, now: Instant, peer: PeerId, range: HeightRange) {
        self.tick(now);
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if let Some(before) = known.range {
            let (was, is) = if range.height() < before.height() {
                (before.height(), range.height())
            } else {
                (before.base(), range.base())
            };
            if is < was {
                let fault = Fault::StatusWentBack {
                    before: was,
                    now: is,
                };
                self.punish(peer, fault, true);
                self.upkeep(now);
                return;
            }
        }
        let raised = known.range.is_none_or(|before| before != range);
        known.range = Some(range);
        known.status_came(now);
        self.untold.remove(&peer);
        if raised {
            known.unserved = None;
            self.readmit(peer, range);
        }
        if self.mode == Mode::WaitForPeers {
            self.set_mode(Mode::BlockSync, ModeReason::PeersTold);
        }
        self.upkeep(now);
    }

    /// A peer told a range that contradicts itself: base above height, or negative.
    pub fn handle_impossible_status(
        &mut self,
        now: Instant,
        peer: PeerId,
        base: Height,
        height: Height,
    ) {
        self.tick(now);
        self.punish(peer, Fault::StatusImpossible { base, height }, true);
        self.upkeep(now);
    }

    /// Bytes came in from a peer on the channel of blocks, of whatever message: it is alive though
    /// its block is large. Optional; without it only whole blocks count.
    pub fn handle_bytes(&mut self, now: Instant, peer: PeerId, bytes: u64) {
        self.tick(now);
        let rate = self.config.minimum_rate;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.received(now, bytes, rate);
            if let Some(at) = self.deadline_of(peer) {
                self.timers.set(Timer::Peer(peer), at);
            }
        }
    }

    /// Nothing is read from a peer for now, for there is no room for what it sends. To be told several
    /// times a second while that is so; without it the peer counts as silent.
    pub fn handle_held_back(&mut self, now: Instant, peer: PeerId) {
        self.tick(now);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.hold_back(now);
            if let Some(at) = self.deadline_of(peer) {
                self.timers.set(Timer::Peer(peer), at);
            }
        }
    }

    /// Whether a block of `height` from `peer` may be looked at: it was asked for, lately or long
    /// ago. To be called before decoding.
    #[must_use]
    pub fn expects(&self, peer: PeerId, height: Height) -> bool {
        self.peers.get(&peer).is_some_and(|known| {
            known.asks.contains_key(&height) || known.overdue.contains_key(&height)
        })
    }

    /// A block arrived that [`expects`](Self::expects) says was never asked for: it costs its
    /// sender the connection.
    pub fn handle_unsolicited(&mut self, now: Instant, peer: PeerId, height: Height) {
        self.tick(now);
        self.punish(peer, Fault::Unsolicited { height }, false);
        self.upkeep(now);
    }

    /// A block arrived and was decoded.
    pub fn handle_block(
        &mut self,
        now: Instant,
        peer: PeerId,
        block: Arc<FetchedBlock>,
    ) -> Reception {
        self.tick(now);
        let height = block.height();
        let bytes = block.memory();
        let reception = match self.take_delivery(now, peer, height, bytes) {
            Some(is_open) => {
                self.hear(peer, &block);
                if is_open {
                    self.place(peer, block)
                } else {
                    Reception::Late
                }
            }
            None => Reception::Unsolicited,
        };
        self.upkeep(now);
        reception
    }

    /// A block arrived whose sender alone can be to blame for what it is.
    pub fn handle_bad_block(
        &mut self,
        now: Instant,
        peer: PeerId,
        height: Height,
        fault: BodyFault,
    ) {
        self.tick(now);
        self.punish(peer, Fault::Body { height, fault }, true);
        self.upkeep(now);
    }

    /// A peer says that it has no such block. Unasked answers are ignored.
    pub fn handle_no_block(&mut self, now: Instant, peer: PeerId, height: Height) {
        self.tick(now);
        let most = self.config.peer_allowance;
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        let Some(ask) = known.take_ask(height) else {
            known.take_overdue(height);
            return;
        };
        known.answered(now, ask, false, most);
        known.no_blocks += 1;
        known.refuted.insert(height);
        if height > known.delivered_to {
            let lower = known.unserved.is_none_or(|unserved| height < unserved);
            if lower {
                known.unserved = Some(height);
            }
        } else {
            known.bench(now, self.config.bench);
        }
        self.strike(height, ask);
        self.after_answer(peer);
        self.give_up(peer, height, Exclusion::NoBlock);
        self.upkeep(now);
    }

    /// The earliest deadline has passed, or some.
    pub fn handle_deadline(&mut self, now: Instant) {
        self.tick(now);
        // Rates fall while nothing happens.
        self.blocks_applied.add(self.now, 0);
        self.bytes_received.add(self.now, 0);
        while let Some(timer) = self.timers.expire(now) {
            match timer {
                Timer::Hedge => self.hedge(now),
                Timer::Run => self.launch(now),
                Timer::Retry => self.retry(),
                Timer::CaughtUp | Timer::Lookout => {}
                Timer::Stall => self.tell_stall(now),
                Timer::Peer(peer) => self.peer_is_late(now, peer),
                Timer::Status(peer) => self.ask_status(now, peer),
            }
        }
        self.upkeep(now);
    }

    /// What is to be done next, in order. Drain it after every input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When `handle_deadline` is to be called, unless an input comes first.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Time does not go back, whatever the caller says.
    fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// What may follow from any input, in the order of dependence.
    fn upkeep(&mut self, now: Instant) {
        if self.halted.is_some() {
            return;
        }
        self.link(now);
        self.advance_hearings();
        self.launch(now);
        self.check_behind();
        self.send_applies();
        self.fill(now);
        self.check_caught_up(now);
    }

    /// The height of the first slot.
    fn first(&self) -> Height {
        self.applied.0.next()
    }

    fn index(&self, height: Height) -> Option<usize> {
        let index = usize::try_from(height.since(self.first())).ok()?;
        (index < self.slots.len()).then_some(index)
    }

    fn slot(&self, height: Height) -> Option<&Slot> {
        self.slots.get(self.index(height)?)
    }

    fn slot_mut(&mut self, height: Height) -> Option<&mut Slot> {
        let index = self.index(height)?;
        self.slots.get_mut(index)
    }

    fn held(&self, height: Height) -> Option<&Held> {
        self.slot(height)?.held.as_ref()
    }

    /// The id of the last applied block or of a held one.
    fn id_at(&self, height: Height) -> Option<BlockId> {
        if height == self.applied.0 {
            return Some(self.applied.1);
        }
        Some(self.held(height)?.block.block_id())
    }

    fn new_run_id(&mut self) -> RunId {
        self.next_run += 1;
        RunId(self.next_run)
    }

    /// Keeps the set of heights to be asked for in step with a slot.
    fn note_need(&mut self, height: Height) {
        let needs = self.slot(height).is_some_and(Slot::needs_ask);
        if needs {
            if !self.parked.contains(&height) {
                self.wanted.insert(height);
            }
        } else {
            self.wanted.remove(&height);
            self.parked.remove(&height);
        }
    }
}
