//! From blocksync to consensus, and back.
//!
//! Consensus gets the executor once the chain has been caught up with. From then on the schedule is
//! on the lookout: it asks peers for their statuses, and where one has claimed more than consensus
//! could be about to decide for a while, it fetches a few blocks, links and certifies them, and
//! applies none. What is certified consensus does not vote on. When enough is certified, the node is
//! behind, whatever consensus believes: the executor is asked back, and what is certified by then is
//! applied as it is.
//!
//! A claim alone causes requests and nothing else, to the claimant, and few of them.

use std::{sync::Arc, time::Instant};

use perihelion_types::{BlockId, Height, ValidatorSet};

use super::Schedule;
use crate::{
    Effect, Mode, ModeReason,
    peer::Peer,
    slot::{Attempt, Slot, Stage},
    timer::Timer,
};

/// How far above the last applied height a claim must be to be looked into: the block right above it
/// is the one that consensus decides or applies right now.
const AHEAD: i64 = 2;

/// What of a state that consensus has come to the schedule needs to know.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The last block applied; blocks below it may have been passed over in silence.
    pub height: Height,
    /// Its id.
    pub block_id: BlockId,
    /// Its validators.
    pub last_validators: Arc<ValidatorSet>,
    /// Validators of the next height.
    pub validators: Arc<ValidatorSet>,
    /// Validators of the height after that.
    pub next_validators: Arc<ValidatorSet>,
    /// From which height on blocks need extended commits, by the new state's parameters.
    pub extensions_from: Option<Height>,
    /// Our own voting power in `validators`.
    pub own_power: i64,
}

impl Schedule {
    /// Consensus has applied blocks up to this state. Told late or twice, it changes nothing.
    pub fn handle_decided(&mut self, now: Instant, decided: Decided) {
        self.tick(now);
        self.take_decided(decided);
        self.upkeep(now);
    }

    /// Consensus has given the executor back, with this state: on by blocksync, with what is
    /// certified by now.
    pub fn handle_executor(&mut self, now: Instant, decided: Decided) {
        self.tick(now);
        self.take_decided(decided);
        if !self.has_executor && self.halted.is_none() {
            self.has_executor = true;
            if self.mode == Mode::Consensus {
                self.leave_consensus(ModeReason::LeftConsensus);
            }
            self.stalled = None;
            self.timers
                .set(Timer::Stall, self.now + self.config.stall_after);
        }
        self.upkeep(now);
    }

    /// Hands the executor to consensus. Nothing that was certified waits for it.
    pub(super) fn enter_consensus(&mut self) {
        let height = self.applied.0;
        self.has_executor = false;
        self.set_mode(Mode::Consensus, ModeReason::CaughtUp { height });
        self.forget_patience();
        for peer in self.peers.values_mut() {
            peer.ahead = None;
        }
        self.close_window();
        self.effects.push_back(Effect::CaughtUp { height });
    }

    /// Where enough is certified that consensus has not applied, it is behind.
    pub(super) fn check_behind(&mut self) {
        let (applied, pinned) = (self.applied.0, self.certified_to);
        let allowed = i64::from(self.config.reenter_behind.max(1));
        if self.mode == Mode::Consensus && pinned.since(applied) >= allowed {
            self.leave_consensus(ModeReason::FellBehind { applied, pinned });
            self.effects.push_back(Effect::FallenBehind { pinned });
        }
    }

    /// A block is final that consensus has not told: how far peers are is asked more often.
    pub(super) fn tell_pinned(&mut self, height: Height) {
        self.effects.push_back(Effect::Pinned { height });
        let soon = self.now + self.config.near_interval;
        for &peer in self.peers.keys() {
            self.timers.set_earlier(Timer::Status(peer), soon);
        }
    }

    /// Blocksync again; what peers claim is asked at once, for it may be old.
    fn leave_consensus(&mut self, why: ModeReason) {
        self.set_mode(Mode::BlockSync, why);
        self.near_since = None;
        self.abreast.forget();
        self.forget_patience();
        self.timers.stop(Timer::Lookout);
        let peers: Vec<_> = self.peers.keys().copied().collect();
        for peer in peers {
            self.ask_status(self.now, peer);
        }
    }

    pub(super) fn set_mode(&mut self, mode: Mode, why: ModeReason) {
        self.mode = mode;
        self.mode_since = self.now;
        self.why = why;
        self.totals.switches += 1;
    }

    /// What kept the sync from ending begins anew.
    pub(super) fn forget_patience(&mut self) {
        self.strangers_since = None;
        self.peers.values_mut().for_each(Peer::forget_patience);
    }

    /// Heights that the window may hold: on the lookout as many as show that consensus is behind, the
    /// one above, whose commit shows it, and one more, for where the validators of the last one are not
    /// known it is final only as the last but one of a run.
    pub(super) fn window_blocks(&self) -> usize {
        let all = self.config.window_blocks;
        if self.mode == Mode::Consensus {
            let few = usize::try_from(self.config.reenter_behind.max(1)).unwrap_or(all);
            all.min(few.saturating_add(2))
        } else {
            all
        }
    }

    /// Lets go of what the window holds above its size or above what is linked: claims that were not
    /// kept, and what is being made, which comes by consensus. Fetched as well, it would soon show that
    /// consensus is behind.
    fn close_window(&mut self) {
        let most = self.window_blocks();
        self.unlink(self.first().plus(most as i64));
        while self.end() > self.linked_to.next() {
            let height = self.end().prev();
            if let Some(slot) = self.slots.pop_back() {
                self.let_go(height, slot);
            }
        }
    }

    /// The books of a height that left the window at its far end. Who is asked may still answer.
    fn let_go(&mut self, height: Height, slot: Slot) {
        self.wanted.remove(&height);
        self.parked.remove(&height);
        self.unchecked.remove(&height);
        self.held_bytes -= slot.held.map_or(0, |held| held.bytes);
        let forget = self.config.peer_deadline * 30;
        for peer in slot.asks {
            let known = self.peers.get_mut(&peer);
            if let Some(ask) = known.and_then(|it| it.withdraw(self.now, height, forget)) {
                self.strike(height, ask);
            }
            self.after_answer(peer);
        }
    }

    /// Whether a claim has been above what consensus decides for a while. Consensus has had the time
    /// to apply what was claimed then; it would be fetched in vain.
    pub(super) fn is_someone_ahead(&mut self, now: Instant) -> bool {
        let ahead = self.applied.0.plus(AHEAD);
        let grace = self.config.lookout_after;
        let (mut found, mut next) = (false, None::<Instant>);
        for peer in self.peers.values_mut() {
            match peer.note_ahead(now, ahead).map(|since| since + grace) {
                Some(due) if due <= now => found = true,
                Some(due) => next = Some(next.map_or(due, |next| next.min(due))),
                None => {}
            }
        }
        match next {
            Some(at) => self.timers.set(Timer::Lookout, at),
            None => self.timers.stop(Timer::Lookout),
        }
        found
    }

    fn take_decided(&mut self, decided: Decided) {
        let height = decided.height;
        if self.has_executor || self.halted.is_some() || height < self.first() {
            return;
        }
        if height <= self.certified_to
            && let Some(ours) = self.id_at(height).filter(|ours| *ours != decided.block_id)
        {
            self.two_certified(height, ours, decided.block_id);
            return;
        }
        self.take_back(height);
        let held = self.held(height).map(|held| held.block.block_id());
        if held != Some(decided.block_id) {
            self.unlink(height.next());
        }
        let count = height.since(self.applied.0).unsigned_abs();
        let attempts = self.pass(height, decided.block_id);
        self.applied = (height, decided.block_id);
        self.applied_at = self.now;
        self.applying_to = self.applying_to.max(height);
        self.certified_to = self.certified_to.max(height);
        self.linked_to = self.linked_to.max(height);
        // Consensus stored it with the commit that it had itself counted.
        self.last_commit_verified = true;
        self.last_validators = Some(decided.last_validators);
        self.anchors
            .decided(decided.validators, decided.next_validators);
        self.advance_anchor();
        self.extensions_from = decided.extensions_from;
        self.own_power = decided.own_power;
        self.forget_refuted(height);
        self.blocks_applied.add(self.now, count);
        self.totals.applied += count;
        for attempt in attempts {
            if attempt.content.header != decided.block_id.hash && height > self.initial_height {
                self.accuse_of(attempt.peer, height, attempt.content);
            }
        }
        self.check_extended();
    }

    /// Takes back what is being verified of blocks up to `height`.
    fn take_back(&mut self, height: Height) {
        if self.runs.iter().any(|run| run.first <= height) {
            self.cancel_runs();
        }
        self.probe.take_if(|probe| probe.height <= height);
    }

    /// Moves the window past `height`, whose final block is `id`; gives the copies that peers sent for
    /// it.
    fn pass(&mut self, height: Height, id: BlockId) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let mut below = self.first();
        while below <= height {
            self.wanted.remove(&below);
            self.parked.remove(&below);
            self.unchecked.remove(&below);
            let Some(slot) = self.slots.pop_front() else {
                return Vec::new();
            };
            self.strike_all(below, &slot.asks);
            if let Some(held) = slot.held {
                self.held_bytes -= held.bytes;
                let last = below == height && held.block.block_id() == id;
                let known = self.peers.get_mut(&held.from);
                if let Some(sender) = known
                    && (last || matches!(slot.stage, Stage::Certified(_)))
                {
                    sender.redeem();
                }
            }
            attempts = slot.attempts;
            below = below.next();
        }
        attempts
    }
}
