//! A virtual consensus: it has the executor for a while, and takes one block after another from honest
//! peers that are connected.

use std::time::Duration;

use perihelion_schedule::{Decided, Effect, Mode};
use perihelion_types::Height;

use super::{Kind, World, world::Event};

/// How often it looks for a block that a peer has.
const LOOKS: Duration = Duration::from_millis(5);

/// How consensus behaves.
#[derive(Debug, Clone)]
pub struct Consensus {
    /// From a peer's having a block to its being applied here.
    pub takes: Duration,
    /// From its being asked for the executor to its giving it back. The block at hand is applied.
    pub leaves: Duration,
    /// From when to when it decides nothing.
    pub hangs: Option<(Duration, Duration)>,
    /// How long after a block is applied it tells of it, or of a later one instead.
    pub tells_after: Duration,
}

impl Default for Consensus {
    /// A quick one.
    fn default() -> Self {
        Self {
            takes: Duration::from_millis(20),
            leaves: Duration::from_millis(20),
            hangs: None,
            tells_after: Duration::ZERO,
        }
    }
}

/// What became of the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It went to consensus after this height.
    Entered(i64),
    /// This height was found to be final meanwhile.
    Pinned(i64),
    /// It was asked back, with this height final.
    Behind(i64),
    /// It came back after this height.
    Back(i64),
}

/// Where it stands.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// It has the executor.
    has_executor: bool,
    /// It is to give it back.
    leaves: bool,
    /// The height that it applies.
    at: Option<i64>,
    /// It is about to tell what it has applied.
    tells: bool,
    /// The last height that was found to be final since it has it.
    pinned: i64,
}

impl World {
    /// Carries out what the schedule wants of consensus.
    pub(super) fn switch(&mut self, effect: &Effect) {
        let progress = self.schedule.progress();
        match *effect {
            Effect::CaughtUp { height } => {
                self.log(format!("caught up at {height}"));
                let at = (self.now - self.origin, height.get());
                self.outcome.caught_up.get_or_insert(at);
                assert!(!self.running.has_executor, "consensus has it already");
                assert_eq!(height.get(), self.apply_next - 1, "it has nothing to do");
                assert_eq!(progress.mode, Mode::Consensus);
                if let Some(&applied) = self.applied_times.get(&height.get()) {
                    let after = self.now - applied;
                    self.outcome.entered_after = self.outcome.entered_after.max(Some(after));
                }
                self.running = Running {
                    has_executor: true,
                    ..Running::default()
                };
                self.note(Switch::Entered(height.get()));
                self.at(self.now, Event::Consider);
            }
            Effect::Pinned { height } => {
                let height = height.get();
                assert!(self.running.has_executor, "consensus does not have it");
                assert!(height > self.running.pinned, "ascending");
                assert!(height < self.tip(), "the block above {height} exists");
                self.running.pinned = height;
                self.note(Switch::Pinned(height));
            }
            Effect::FallenBehind { pinned } => {
                let behind = pinned.since(self.schedule.height());
                let least = i64::from(self.setup.config.reenter_behind);
                assert!(behind >= least, "{behind} blocks behind");
                assert_eq!(pinned.get(), self.running.pinned, "each was told before");
                assert!(!self.running.leaves, "it was asked already");
                self.running.leaves = true;
                self.note(Switch::Behind(pinned.get()));
                let leaves = self.setup.consensus.clone().unwrap_or_default().leaves;
                self.at(self.now + leaves, Event::Back);
            }
            _ => {}
        }
    }

    /// Looks for the next block.
    pub(super) fn consider(&mut self) {
        let Some(consensus) = self.setup.consensus.clone() else {
            return;
        };
        if !self.running.has_executor || self.running.leaves || self.running.at.is_some() {
            return;
        }
        let next = self.apply_next;
        let elapsed = self.now - self.origin;
        let hangs = consensus.hangs;
        let hangs = hangs.is_some_and(|(from, to)| from <= elapsed && elapsed < to);
        let tip = self.tip();
        let honest = self
            .nodes
            .iter()
            .filter(|node| node.spec.kind == Kind::Honest);
        let has = honest.filter(|node| node.connected && tip - node.spec.lag >= next);
        if !hangs && has.count() > 0 {
            self.running.at = Some(next);
            self.at(self.now + consensus.takes, Event::Decided);
        } else {
            self.at(self.now + LOOKS, Event::Consider);
        }
    }

    /// The block at hand is applied.
    pub(super) fn decided(&mut self) {
        let Some(height) = self.running.at.take() else {
            return;
        };
        self.apply_next = height + 1;
        self.outcome.height = height;
        self.applied_times.insert(height, self.now);
        self.log(format!("decided {height}"));
        if !self.running.tells {
            self.running.tells = true;
            let after = self.setup.consensus.clone().unwrap_or_default().tells_after;
            self.at(self.now + after, Event::Told);
        }
        self.at(self.now, Event::Consider);
    }

    /// What it has applied is told.
    pub(super) fn told(&mut self) {
        if self.running.has_executor {
            self.running.tells = false;
            let decided = self.facts(self.apply_next - 1);
            self.schedule.handle_decided(self.now, decided);
        }
    }

    /// The executor comes back.
    pub(super) fn back(&mut self) {
        self.decided();
        self.running = Running::default();
        let height = self.apply_next - 1;
        self.note(Switch::Back(height));
        let decided = self.facts(height);
        self.schedule.handle_executor(self.now, decided);
    }

    /// On the lookout only a few blocks are held or asked for.
    pub(super) fn check_lookout(&mut self) {
        let progress = self.schedule.progress();
        if progress.mode != Mode::Consensus {
            return;
        }
        let window = progress.window;
        let blocks = window.in_flight + window.here + window.linked + window.pinned;
        let most = usize::try_from(self.setup.config.reenter_behind).unwrap_or(usize::MAX) + 2;
        assert!(blocks <= most, "{blocks} blocks on the lookout");
    }

    pub(super) fn has_executor(&self) -> bool {
        !self.running.has_executor
    }

    fn note(&mut self, switch: Switch) {
        self.log(format!("{switch:?}"));
        self.outcome.switches.push((self.now - self.origin, switch));
    }

    fn facts(&self, height: i64) -> Decided {
        let chain = &self.setup.chain;
        Decided {
            height: Height::new(height),
            block_id: chain.id(height),
            last_validators: chain.set(height),
            validators: chain.set(height + 1),
            next_validators: chain.set(height + 2),
            extensions_from: chain.shape().extensions_from.map(Height::new),
            own_power: self.setup.own_power,
        }
    }
}
