//! Which linked blocks are verified together, and what their verdicts mean.

use std::{sync::Arc, time::Instant};

use perihelion_types::{BlockId, Height, PeerId};

use super::Schedule;
use crate::{
    CommitFault, Effect, Mode, RunAnchor, RunId, RunRequest, StallReason, Verdict,
    slot::{Content, Exclusion, Extended, Stage},
    timer::Timer,
};

/// A run that the workers verify: `first ..= last`, closed by the commit in the block above.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) first: Height,
    pub(super) last: Height,
    /// How far it will be final if its commit holds: `last`, or the one below where the set is
    /// not the anchor's any more. The next run starts above.
    pub(super) predicted: Height,
    closing: Content,
    /// It is one block that its own extended commit makes final; there is no closing block.
    by_extended: bool,
    verdict: Option<Verdict>,
}

/// What a probed commit is to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Which of two blocks that do not link is wrong; the lower one is the next to certify.
    Frontier,
    /// Whether the block that an accused peer sent was signed, too.
    Hearing,
    /// Whether the last applied block's own commit holds, in full.
    OwnCommit,
}

/// A single commit that the workers verify.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) id: RunId,
    /// The height of the block that holds the commit.
    pub(super) height: Height,
    pub(super) from: PeerId,
    pub(super) content: Content,
    /// The block id that the commit names.
    pub(super) names: BlockId,
    pub(super) purpose: Purpose,
}

impl Schedule {
    /// The workers' verdict on a run or a probe, and how many signatures they verified. Verdicts
    /// may come in any order; those of cancelled runs are ignored.
    pub fn handle_verdict(&mut self, now: Instant, id: RunId, verdict: Verdict, signatures: u64) {
        self.tick(now);
        self.totals.signatures_verified += signatures;
        if let Some(probe) = self.probe.take_if(|probe| probe.id == id) {
            match verdict {
                Verdict::Vouched | Verdict::Pinned { .. } => self.probed(probe, None),
                Verdict::Suspect { fault } => self.probed(probe, Some(fault)),
                Verdict::Drifted => self.probed(probe, Some(CommitFault::TooLittlePower)),
                Verdict::LocalFault {
                    height,
                    ours,
                    theirs,
                } => {
                    self.halt(StallReason::LocalFault {
                        height,
                        ours,
                        theirs,
                    });
                }
            }
        } else if let Some(run) = self.runs.iter_mut().find(|run| run.id == id) {
            run.verdict = Some(verdict);
            self.settle();
        }
        self.upkeep(now);
    }

    /// Takes verdicts in the order of heights.
    fn settle(&mut self) {
        while let Some(run) = self.runs.pop_front_if(|run| run.verdict.is_some()) {
            let length = run.last.since(run.first) + 1;
            match run.verdict.clone().unwrap_or(Verdict::Drifted) {
                Verdict::Pinned { to } if to >= run.first => self.pinned(&run, to.min(run.last)),
                Verdict::LocalFault {
                    height,
                    ours,
                    theirs,
                } => {
                    self.halt(StallReason::LocalFault {
                        height,
                        ours,
                        theirs,
                    });
                }
                Verdict::Suspect { fault } => self.failed(&run, Some(fault)),
                Verdict::Drifted if length == 1 => {
                    self.failed(&run, Some(CommitFault::TooLittlePower));
                }
                Verdict::Drifted | Verdict::Pinned { .. } | Verdict::Vouched => {
                    self.drift_limit = usize::try_from(length / 2).unwrap_or(1).max(1);
                    self.failed(&run, None);
                }
            }
        }
    }

    /// A run's commit did not make it final: its blocks are linked as before, and later runs, which
    /// were built on it, are taken back.
    fn failed(&mut self, run: &Run, fault: Option<CommitFault>) {
        self.release(run.first, run.last);
        self.cancel_runs();
        if run.by_extended {
            self.not_decided(run.first);
            return;
        }
        let closing = run.last.next();
        let same = self
            .held(closing)
            .is_some_and(|held| held.content == run.closing);
        if let Some(fault) = fault
            && same
        {
            self.doubt(closing, fault);
        }
    }

    /// Takes all runs in flight back.
    pub(super) fn cancel_runs(&mut self) {
        for run in std::mem::take(&mut self.runs) {
            self.release(run.first, run.last);
            self.effects.push_back(Effect::Cancel { run: run.id });
        }
    }

    /// Blocks of a run that came to nothing are linked as before.
    fn release(&mut self, first: Height, last: Height) {
        let mut height = first;
        while height <= last {
            if let Some(slot) = self.slot_mut(height)
                && matches!(slot.stage, Stage::Certifying(_))
            {
                slot.stage = Stage::Linked;
            }
            height = height.next();
        }
    }

    /// A run is final up to `to`.
    fn pinned(&mut self, run: &Run, to: Height) {
        let from = run.first.max(self.certified_to.next());
        self.release(run.first, run.last);
        if let Some(later) = self.runs.front() {
            // The block above `to` may be part of the next run already.
            let (id, first, last) = (later.id, later.first, later.last.min(run.last));
            let mut height = first;
            while height <= last {
                self.set_stage(height, Stage::Certifying(id));
                height = height.next();
            }
        }
        self.certified_to = self.certified_to.max(to);
        let mut height = from;
        while height <= to {
            self.set_stage(height, Stage::Certified(run.id));
            let above = self.held(height.next());
            let commit = above.and_then(|held| held.block.block().last_commit.as_ref());
            self.totals.signatures_total +=
                commit.map_or(0, |commit| commit.signatures.len()) as u64;
            if let Some(slot) = self.slot_mut(height) {
                slot.seek = false;
                if run.by_extended {
                    slot.extended = Extended::Good;
                    slot.spare = false;
                }
            }
            self.unchecked.insert(height);
            self.note_need(height);
            if !self.has_executor {
                self.tell_pinned(height);
            }
            height = height.next();
        }
        let length = usize::try_from(to.since(run.first) + 1).unwrap_or(0);
        self.totals.longest_run = self.totals.longest_run.max(length);
        if length + 1 >= self.drift_limit {
            let grown = self.drift_limit + self.drift_limit / 4 + 1;
            self.drift_limit = grown.min(self.config.longest_run);
        }
        if to < run.predicted {
            self.cancel_runs();
        }
        self.advance_anchor();
        let mut height = from;
        while height <= to {
            self.judge(height);
            height = height.next();
        }
        self.check_extended();
    }

    fn set_stage(&mut self, height: Height, stage: Stage) {
        if let Some(slot) = self.slot_mut(height)
            && slot.held.is_some()
        {
            slot.stage = stage;
        }
    }

    /// Makes the best known set V: that of the height after the last certified one, by our own
    /// state or by the certified header below it.
    pub(super) fn advance_anchor(&mut self) {
        let next = self.certified_to.next();
        if self.certified_to == self.applied.0 {
            let set = Arc::clone(&self.anchors.current);
            self.anchors.restore(next, set);
        } else if self.certified_to == self.applied.0.next() {
            let set = Arc::clone(&self.anchors.next);
            self.anchors.restore(next, set);
        } else if self.anchors.anchor.2 != next {
            let header = self
                .held(self.certified_to)
                .map(|held| &held.block.block().header);
            if let Some(hash) = header.map(|header| header.next_validators_hash) {
                self.anchors.certify(next, hash);
            }
        }
    }

    /// Gives runs to the workers while there are linked blocks that need not wait.
    pub(super) fn launch(&mut self, now: Instant) {
        self.timers.stop(Timer::Run);
        while self.runs.len() < self.config.runs && self.halted.is_none() {
            let certified = self.certified_to;
            let first = self
                .runs
                .back()
                .map_or(certified, |run| run.predicted)
                .next();
            let available = usize::try_from(self.linked_to.since(first)).unwrap_or(0);
            if available == 0 {
                self.waiting_since = None;
                self.decide();
                return;
            }
            let exact = self.anchors.anchor.2 == first;
            let Some(length) = self.run_length(first, available, exact) else {
                if let Some(at) = self.doubt_ends(first) {
                    self.timers.set(Timer::Run, at);
                }
                return;
            };
            if !self.is_due(now, first, available, length) {
                let since = self.waiting_since.unwrap_or(now);
                let at =
                    (since + self.config.run_wait).min(self.last_linked + self.config.run_idle);
                self.timers.set(Timer::Run, at);
                return;
            }
            self.send_run(first, length, exact);
            self.waiting_since = Some(now);
        }
    }

    /// Has the chain's last block made final by its extended commit, when nothing is above it, it is
    /// the next to apply, and its parameters ask for one. Three copies are tried; after that the
    /// block above it is waited for.
    fn decide(&mut self) {
        let height = self.first();
        let alone = self.linked_to == height
            && self.certified_to == self.applied.0
            && self.runs.is_empty()
            && self.target().0 <= height
            && self.mode != Mode::Consensus;
        let open = self.slot(height).is_some_and(|slot| {
            let from = slot.held.as_ref().map(|held| held.from);
            slot.stage == Stage::Linked && from.is_some_and(|from| !slot.undecided.contains(&from))
        });
        if !alone || !open || !self.needs_extended(height) {
            return;
        }
        let Some(held) = self.held(height).cloned() else {
            return;
        };
        if held.block.extended_commit().is_none() {
            self.not_decided(height);
            return;
        }
        let id = self.new_run_id();
        self.set_stage(height, Stage::Certifying(id));
        self.runs.push_back(Run {
            id,
            first: height,
            last: height,
            predicted: height,
            closing: held.content,
            by_extended: true,
            verdict: None,
        });
        self.effects.push_back(Effect::Decide {
            id,
            block: held.block,
            set: Arc::clone(&self.anchors.current),
        });
    }

    /// A copy of the last block has no good extended commit. Another peer's may; nobody is to
    /// blame.
    fn not_decided(&mut self, height: Height) {
        let Some(slot) = self.slot_mut(height) else {
            return;
        };
        let Some(from) = slot.held.as_ref().map(|held| held.from) else {
            return;
        };
        slot.undecided.push(from);
        slot.exclude(from, Exclusion::SetAside);
        let now = self.now;
        if let Some(known) = self.peers.get_mut(&from) {
            known.bench(now, self.config.bench);
        }
        if self.second_for(height, &[], false).is_some() {
            self.drop_block(height);
        }
    }

    /// The longest run from `first` that may be closed: within what the drift of the set allows,
    /// on a commit that has not failed, over no block that came into doubt of late and for which
    /// another copy is on its way. A run of one block needs the set of just its height.
    fn run_length(&self, first: Height, available: usize, exact: bool) -> Option<usize> {
        let least = if exact { 1 } else { 2 };
        let most = available.min(self.config.longest_run);
        let most = most.min(self.drift_limit);
        let mut best = None;
        for length in 1..=most {
            let inside = first.plus(length as i64 - 1);
            let doubtful = self.slot(inside).is_some_and(|slot| {
                slot.is_doubtful(self.now, self.config.hedge_after.1)
                    && (self.wanted.contains(&inside) || self.is_timely(inside, slot))
            });
            if doubtful {
                break;
            }
            let closing = self.held(inside.next());
            if length >= least && closing.is_some_and(|held| !held.no_close) {
                best = Some(length);
            }
        }
        best
    }

    /// When the first block from `first` on that keeps a run from being closed does so no more.
    fn doubt_ends(&self, first: Height) -> Option<Instant> {
        let patience = self.config.hedge_after.1;
        let from = self.index(first)?;
        let linked = usize::try_from(self.linked_to.since(first)).unwrap_or(0);
        let mut near = self
            .slots
            .iter()
            .skip(from)
            .take(linked.min(self.config.hedge_depth));
        let doubtful = near.find(|slot| slot.is_doubtful(self.now, patience))?;
        doubtful.doubted.map(|since| since + patience)
    }

    /// Whether a run need not wait for more blocks.
    fn is_due(&self, now: Instant, first: Height, available: usize, length: usize) -> bool {
        let size = self.block_size.get().unwrap_or(0.0);
        let since = self.waiting_since.unwrap_or(now);
        let above = self.slot(self.linked_to.next());
        length >= self.config.run_blocks
            || length < available
            || length as f64 * size >= self.config.window_bytes as f64 / 8.0
            || now >= since + self.config.run_wait
            || now >= self.last_linked + self.config.run_idle
            || self.target().0 <= self.linked_to
            || self.mode == Mode::Consensus
            || above.is_some_and(|slot| slot.stage == Stage::Here)
            || first == self.initial_height
    }

    fn send_run(&mut self, first: Height, length: usize, exact: bool) {
        let last = first.plus(length as i64 - 1);
        let id = self.new_run_id();
        let mut blocks = Vec::with_capacity(length);
        let mut height = first;
        while height <= last {
            let Some(held) = self.held(height) else {
                return;
            };
            blocks.push(Arc::clone(&held.block));
            height = height.next();
        }
        let Some(above) = self.held(height) else {
            return;
        };
        let (closing, content) = (Arc::clone(&above.block), above.content);
        let next = (first == self.first()).then(|| Arc::clone(&self.anchors.next));
        let (set, hash, anchored) = self.anchors.anchor.clone();
        let own = blocks
            .last()
            .map(|block| block.block().header.validators_hash);
        let second = next.is_some() && length == 2 && {
            let known = own.and_then(|hash| self.anchors.by_hash(hash));
            known.is_some_and(|known| known.as_ref() == self.anchors.next.as_ref())
        };
        let whole = length == 1 || own == Some(hash) || second;
        let mut height = first;
        while height <= last {
            self.set_stage(height, Stage::Certifying(id));
            height = height.next();
        }
        self.runs.push_back(Run {
            id,
            first,
            last,
            predicted: if whole { last } else { last.prev() },
            closing: content,
            by_extended: false,
            verdict: None,
        });
        self.effects.push_back(Effect::Certify(RunRequest {
            id,
            anchor: RunAnchor {
                set,
                next,
                height: anchored,
                exact,
                confirmed: first > self.initial_height,
            },
            blocks,
            closing,
        }));
    }
}
