//! What the schedule wants done.

use std::{sync::Arc, time::Instant};

use perihelion_schedule::{Effect, RunRequest};
use perihelion_types::{Height, PeerId};
use tracing::{debug, info};

use super::{Pool, PoolError};
use crate::{
    Command, ConnectionId, Handover, explain,
    workers::{EXTENDED_BATCH, EXTENDED_BATCH_BYTES, Job, WithExtended},
};

impl Pool {
    pub(super) fn carry_out_effects(&mut self) {
        while self.failed.is_none()
            && let Some(effect) = self.schedule.poll_effect()
        {
            self.carry_out(effect);
        }
        self.flush_extended();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Request { peer, height } => {
                let proven = self.schedule.relies_on(peer);
                self.command(peer, |connection| Command::Request {
                    peer,
                    connection,
                    height,
                    proven,
                });
            }
            Effect::AskStatus { peer } => {
                self.command(peer, |connection| Command::AskStatus { peer, connection });
            }
            Effect::Punish { peer, fault, ban } => {
                self.command(peer, |connection| Command::Punish {
                    peer,
                    connection,
                    fault,
                    ban,
                });
            }
            Effect::Certify(request) => self.certify(request),
            Effect::Probe(request) => {
                let chain_id = Arc::clone(&self.chain_id);
                self.submit(Job::Probe { request, chain_id });
            }
            Effect::Cancel { run } => self.certified.cancel(run),
            Effect::VerifyExtended {
                height,
                from,
                block,
                set,
            } => {
                let copy = self
                    .certified
                    .get(height)
                    .and_then(|certified| certified.with_extended_commit_of(block));
                match copy {
                    Some(block) => self.verify_extended(WithExtended { from, block, set }),
                    None => self.schedule.handle_extended_commit_verdict(
                        Instant::now(),
                        height,
                        from,
                        false,
                    ),
                }
            }
            Effect::Decide { id, block, set } => {
                let chain_id = Arc::clone(&self.chain_id);
                self.certified.await_run(id);
                self.submit(Job::Decide {
                    id,
                    block,
                    set,
                    chain_id,
                });
            }
            Effect::Apply { height, .. } => self.apply(height),
            Effect::CaughtUp { height } => {
                info!(%height, "caught up");
                self.take_leave(height);
            }
            Effect::Pinned { height } => self.push_handover(Handover::Pinned(height)),
            Effect::FallenBehind { pinned } => {
                let height = self.schedule.height();
                info!(%height, %pinned, "consensus is behind final blocks: back to blocksync");
                self.push_handover(Handover::FallenBehind { pinned });
            }
            Effect::Stalled { reason } => {
                let next = self.schedule.height().next();
                let busy = self.busy();
                let away = || self.absence.tell();
                // Whoever shows progress tells people.
                if let Some(reason) = explain::reason(Some(reason), next, busy, away) {
                    debug!(%reason, "no progress");
                }
            }
            Effect::Halt { reason } => {
                if self.failed.is_none() {
                    self.failed = Some(PoolError::Halted(Box::new(reason)));
                }
            }
        }
    }

    /// Adds to what is verified in one batch.
    fn verify_extended(&mut self, block: WithExtended) {
        self.to_verify_bytes += block.block.fetched().memory();
        self.to_verify.push(block);
        if self.to_verify.len() >= EXTENDED_BATCH || self.to_verify_bytes >= EXTENDED_BATCH_BYTES {
            self.flush_extended();
        }
    }

    fn flush_extended(&mut self) {
        if !self.to_verify.is_empty() {
            self.to_verify_bytes = 0;
            let blocks = std::mem::take(&mut self.to_verify);
            let chain_id = Arc::clone(&self.chain_id);
            self.submit(Job::Extended { blocks, chain_id });
        }
    }

    fn certify(&mut self, request: RunRequest) {
        let Some(first) = request.blocks.first() else {
            return;
        };
        // The schedule has linked it to what is certified; applying checks it against the state.
        let previous = first.block().header.last_block_id;
        let run = perihelion_certify::Run {
            chain_id: Arc::clone(&self.chain_id),
            anchor: perihelion_certify::Anchor {
                height: request.anchor.height,
                set: request.anchor.set,
                next: request.anchor.next,
                confirmed: request.anchor.confirmed,
            },
            previous,
            blocks: request.blocks,
            closing: request.closing,
        };
        let known = self.sets.iter().cloned().collect();
        self.certified.await_run(request.id);
        self.submit(Job::Certify {
            id: request.id,
            run,
            known,
        });
    }

    fn apply(&mut self, height: Height) {
        let handed_over = self
            .certified
            .get(height)
            .zip(self.applier.as_ref())
            .is_some_and(|(block, applier)| applier.apply(block.clone()));
        if !handed_over {
            self.failed = Some(PoolError::ThreadEnded("apply"));
        }
    }

    /// A command about a peer that is connected.
    pub(super) fn command(&mut self, peer: PeerId, command: impl FnOnce(ConnectionId) -> Command) {
        if let Some(&connection) = self.connections.get(&peer) {
            self.push_command(command(connection));
        }
    }

    pub(super) fn push_command(&mut self, command: Command) {
        if !self.commands.is_empty() {
            self.commands.push_back(command);
            return;
        }
        if let Err(error) = self.command_sender.try_send(command) {
            self.commands.push_back(error.into_inner());
        }
    }
}
