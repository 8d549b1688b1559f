//! What subscribers are told of rounds: CometBFT's events, out of what the state machine shows.

use std::sync::Arc;

use perihelion_consensus::{Announce, Consensus, RoundStep, Step, TimeoutInfo};
use perihelion_events::{EventBus, RoundEvent};
use perihelion_types::{BlockId, Height, Round};

/// Remembers what was told, so that each thing is told once.
#[derive(Debug, Default)]
pub(super) struct RoundWatcher {
    height: Option<Height>,
    /// The last round whose beginning was told.
    begun: Option<Round>,
    complete: Option<BlockId>,
    polka: Option<Round>,
    valid: Option<Round>,
    locked: Option<(Round, BlockId)>,
}

impl RoundWatcher {
    /// Looks for what has changed: when the state machine has come to rest, and what it announced
    /// before was told.
    pub(super) fn look(&mut self, core: &Consensus, bus: &EventBus) {
        if !bus.has_subscribers() {
            return;
        }
        self.enter(&core.round_step());
        let (height, round) = (core.height(), core.round());
        let step = core.step().name();
        if core.step() > Step::NewHeight {
            self.begin(core, bus);
        }
        let complete = core.block().map(|block| block.block_id());
        if let Some(block_id) = complete.filter(|_| complete != self.complete) {
            bus.publish_round(RoundEvent::CompleteProposal {
                height,
                round,
                step,
                block_id,
            });
        }
        self.complete = complete;
        let valid = core.valid().map(|valid| valid.round);
        if valid.is_some() && valid != self.valid {
            bus.publish_round(RoundEvent::ValidBlock {
                height,
                round,
                step,
            });
        }
        self.valid = valid;
        if core.votes().polka(round).is_some() && self.polka != Some(round) {
            self.polka = Some(round);
            bus.publish_round(RoundEvent::Polka {
                height,
                round,
                step,
            });
        }
        self.tell_lock(core, bus);
    }

    fn tell_lock(&mut self, core: &Consensus, bus: &EventBus) {
        // A block that is decided is no longer locked on, and nothing was unlocked.
        if core.step() == Step::Commit {
            return;
        }
        let (height, round) = (core.height(), core.round());
        let step = core.step().name();
        let locked = core
            .locked()
            .map(|locked| (locked.round, locked.block.block_id()));
        let before = std::mem::replace(&mut self.locked, locked);
        if before == locked {
            return;
        }
        bus.publish_round(match (before, locked) {
            (_, None) => RoundEvent::Unlock {
                height,
                round,
                step,
            },
            (Some((_, before)), Some((_, now))) if before == now => RoundEvent::Relock {
                height,
                round,
                step,
            },
            (_, Some(_)) => RoundEvent::Lock {
                height,
                round,
                step,
            },
        });
    }

    /// Tells of an announcement; peers hear of it too.
    pub(super) fn hear(&mut self, announce: &Announce, core: &Consensus, bus: &EventBus) {
        if !bus.has_subscribers() {
            return;
        }
        match announce {
            Announce::RoundStep(entered) => {
                self.enter(entered);
                let place = (entered.height, entered.round, entered.step);
                if place == (core.height(), core.round(), core.step()) {
                    self.look(core, bus);
                }
                bus.publish_round(RoundEvent::NewRoundStep {
                    height: entered.height,
                    round: entered.round,
                    step: entered.step.name(),
                });
            }
            Announce::Vote(vote) => bus.publish_round(RoundEvent::Vote(Arc::clone(vote))),
            Announce::ValidBlock { .. } | Announce::Proposal(_) | Announce::Part { .. } => {}
        }
    }

    /// Tells of a timeout that ran out and was still awaited.
    pub(super) fn timeout(&self, timeout: &TimeoutInfo, core: &Consensus, bus: &EventBus) {
        let place = (timeout.height, timeout.round);
        if !bus.has_subscribers() || place != (core.height(), core.round()) {
            return;
        }
        let (height, round) = place;
        let step = timeout.step.name();
        match timeout.step {
            Step::Propose => bus.publish_round(RoundEvent::TimeoutPropose {
                height,
                round,
                step,
            }),
            Step::PrevoteWait | Step::PrecommitWait => {
                bus.publish_round(RoundEvent::TimeoutWait {
                    height,
                    round,
                    step,
                });
            }
            _ => {}
        }
    }

    fn enter(&mut self, at: &RoundStep) {
        if Some(at.height) != self.height {
            *self = Self {
                height: Some(at.height),
                ..Self::default()
            };
        }
    }

    fn begin(&mut self, core: &Consensus, bus: &EventBus) {
        let (height, round) = (core.height(), core.round());
        if self.begun == Some(round) {
            return;
        }
        self.begun = Some(round);
        let Some(proposer) = core.proposer().map(|proposer| proposer.address) else {
            return;
        };
        let place = core.validators().by_address(&proposer);
        let index = place.and_then(|(index, _)| i32::try_from(index).ok());
        bus.publish_round(RoundEvent::NewRound {
            height,
            round,
            step: Step::NewRound.name(),
            proposer,
            index: index.unwrap_or(-1),
        });
    }
}
