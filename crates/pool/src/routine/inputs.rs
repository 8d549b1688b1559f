//! What comes in: from the reactor, and from consensus.

use std::time::Instant;

use perihelion_types::Block;

use super::{Pool, PoolError, decided_facts};
use crate::{
    Command, PoolInput,
    applier::Applier,
    workers::{Encoded, Job},
};

impl Pool {
    pub(super) fn take_input(&mut self, input: PoolInput) {
        let now = Instant::now();
        match input {
            PoolInput::PeerAdded { peer, connection } => {
                // What was decided of an earlier connection is not carried out on this one.
                self.carry_out_effects();
                self.connections.insert(peer, connection);
                self.schedule.handle_peer_added(now, peer);
            }
            PoolInput::Slow { peer } => self.schedule.handle_slow(now, peer),
            PoolInput::PeerRemoved { peer } => {
                self.carry_out_effects();
                self.connections.remove(&peer);
                self.schedule.handle_peer_removed(now, peer);
            }
            PoolInput::Status { peer, range } => self.schedule.handle_status(now, peer, range),
            PoolInput::ImpossibleStatus { peer, base, height } => {
                self.schedule
                    .handle_impossible_status(now, peer, base, height);
            }
            PoolInput::Bytes { peer, bytes } => self.schedule.handle_bytes(now, peer, bytes),
            PoolInput::HeldBack { peer } => self.schedule.handle_held_back(now, peer),
            PoolInput::Starved => {
                let window = self.schedule.progress().window;
                if window.pinned == 0 && window.held_bytes > 0 {
                    self.schedule.handle_starved(now);
                }
            }
            PoolInput::Standstill => {
                for peer in self.schedule.who_owes_the_next() {
                    let proven = self.schedule.relies_on(peer);
                    self.command(peer, |connection| Command::Admit {
                        peer,
                        connection,
                        proven,
                    });
                }
            }
            PoolInput::NoBlock { peer, height } => {
                self.schedule.handle_no_block(now, peer, height);
            }
            PoolInput::Decided(state) => {
                self.certified.pass(state.last_block_height);
                self.remember(&state.next_validators);
                let facts = decided_facts(&state, self.own_address);
                self.schedule.handle_decided(now, facts);
            }
            PoolInput::Executor(executor) => {
                let state = executor.state_arc();
                match Applier::start(*executor, self.verify) {
                    Ok(applier) => self.applier = Some(applier),
                    Err(error) => self.failed = Some(PoolError::Start(error)),
                }
                self.certified.pass(state.last_block_height);
                self.remember(&state.next_validators);
                let facts = decided_facts(&state, self.own_address);
                self.schedule.handle_executor(now, facts);
            }
            PoolInput::Block {
                peer,
                block,
                extended_commit,
                hold,
            } => {
                let Some(&connection) = self.connections.get(&peer) else {
                    return;
                };
                // What was never asked for is not worth decoding.
                if let Some(height) = Block::peek_height(&block)
                    && !self.schedule.expects(peer, height)
                {
                    self.schedule.handle_unsolicited(now, peer, height);
                    return;
                }
                let encoded = Encoded {
                    peer,
                    connection,
                    block,
                    extended_commit,
                    hold,
                };
                self.to_decode.push(now, encoded);
                if let Some(blocks) = self.to_decode.take_full(self.certified.len()) {
                    self.submit(Job::Decode(blocks));
                }
            }
        }
    }

    /// Hands over the blocks that are not to wait for others any longer.
    pub(super) fn decode_what_is_due(&mut self, now: Instant) {
        if let Some(blocks) = self.to_decode.take_due(now, self.certified.len()) {
            self.submit(Job::Decode(blocks));
        }
    }

    pub(super) fn submit(&mut self, job: Job) {
        if let Some(job) = self.workers.try_submit(job) {
            self.jobs.push_back(job);
        }
    }

    /// Hands over the jobs that found no room, as far as there is room now.
    pub(super) fn resubmit(&mut self) {
        for _ in 0..self.jobs.len() {
            let Some(job) = self.jobs.pop_front() else {
                return;
            };
            if let Some(job) = self.workers.try_submit(job) {
                self.jobs.push_back(job);
            }
        }
    }
}
