//! What the schedule wants done: by peers, workers and the executor.

use std::time::{Duration, Instant};

use perihelion_schedule::{Applied, Effect, Fault, RunId, Verdict};
use perihelion_types::Height;

use super::{
    World, workers,
    world::{Event, index_of},
};

impl World {
    pub(super) fn drain(&mut self) {
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

    pub(super) fn executed(&mut self, height: Height) {
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

    /// How long after the block above was made this one was applied.
    fn note_delay(&mut self, height: i64) {
        let made = self.made_at(height + 1);
        if let Some(made) = made.filter(|&made| made > self.origin) {
            let delay = self.now - made;
            self.outcome.longest_delay = self.outcome.longest_delay.max(Some(delay));
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
}
