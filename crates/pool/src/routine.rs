//! The pool routine: one task, one owner of the schedule.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_certify::{CertifiedBlock, CommitError, RunVerdict, SignatureCount};
use perihelion_schedule::{
    Applied, BodyFault, Effect, Fault, Progress, Reception, RunId, RunRequest, Schedule,
    StallReason, Start, Verdict,
};
use perihelion_state::{ApplyError, Executor};
use perihelion_types::{Address, Block, Height, PeerId, State, ValidatorSet};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant as TokioInstant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Absence, Command, ConnectionId, PoolConfig, PoolInput, VerifyMode,
    applier::{Applier, Report},
    certified::Certified,
    explain::{self, ApplyTimes},
    translate,
    workers::{DECODE_BATCH_BYTES, Decoded, Done, Encoded, Job, Workers},
};

/// Inputs that may wait for the routine. It takes them in batches; the reactor waits beyond it,
/// which holds back reading from peers.
const INPUTS: usize = 1024;

/// Commands that may wait for the reactor; the routine keeps what does not fit, at most what the
/// schedule's window allows.
const COMMANDS: usize = 1024;

/// Inputs of one kind that are handled before the next kind gets its turn.
const BATCH: usize = 256;

/// How often progress is published at the most: a status is read a few times a second.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Why the pool stopped for good. Nobody is to blame but this node, its application or its disk.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A block could not be applied.
    #[error("block {height} could not be applied: {error}")]
    Apply {
        /// Its height.
        height: Height,
        /// What happened.
        #[source]
        error: Box<ApplyError>,
    },
    /// The schedule found a contradiction that no peer can solve.
    #[error("blocksync has halted: {0}")]
    Halted(Box<StallReason>),
    /// With every commit verified: a final block's commit does not hold. Nobody can be blamed: who
    /// serves the final block serves the chain.
    #[error("the chain's commit at final block {height} is invalid: {error}")]
    InvalidFinalCommit {
        /// The block's height.
        height: Height,
        /// What is wrong with the commit.
        error: Box<perihelion_certify::CommitError>,
    },
    /// A thread of the pool ended.
    #[error("the {0} thread has ended unexpectedly")]
    ThreadEnded(&'static str),
    /// No thread could be started.
    #[error("a thread could not be started: {0}")]
    Start(#[from] std::io::Error),
}

/// What a stopped pool gives back.
pub struct PoolExit {
    /// The executor, with the state after the last applied block; `None` when its thread panicked.
    pub executor: Option<Executor>,
    /// Why it stopped, unless it was asked to.
    pub error: Option<PoolError>,
}

/// The way to a running pool.
pub struct PoolHandle {
    /// Where the reactor tells what peers say.
    pub inputs: mpsc::Sender<PoolInput>,
    /// What the reactor is to do.
    pub commands: mpsc::Receiver<Command>,
    /// How far the node is.
    pub progress: watch::Receiver<Progress>,
    /// The task.
    pub task: JoinHandle<PoolExit>,
}

/// Starts a pool's threads and its task.
///
/// # Errors
/// When a thread cannot be started; the executor is lost then, and the node cannot go on.
pub fn start(
    config: &PoolConfig,
    executor: Executor,
    last_commit: LastCommitKnown,
    stop: CancellationToken,
) -> Result<PoolHandle, PoolError> {
    let schedule = new_schedule(config, executor.state(), last_commit);
    let (inputs, input_receiver) = mpsc::channel(INPUTS);
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (progress_sender, progress) = watch::channel(schedule.progress());
    let chain_id: Arc<str> = executor.state().chain_id.as_str().into();
    let (workers, done) = Workers::start(config.workers, config.verify, config.rules.clone())?;
    let (applier, reports) = Applier::start(executor, config.verify)?;
    let pool = Pool {
        schedule,
        workers,
        applier,
        chain_id,
        verify: config.verify,
        own_address: config.own_address,
        connections: HashMap::new(),
        certified: Certified::new(),
        sets: VecDeque::new(),
        jobs: VecDeque::new(),
        to_decode: Vec::new(),
        to_decode_bytes: 0,
        commands: VecDeque::new(),
        command_sender,
        progress: progress_sender,
        published: Instant::now(),
        times: ApplyTimes::default(),
        absence: config.absence.clone(),
        failed: None,
    };
    let task = tokio::spawn(pool_routine(pool, input_receiver, done, reports, stop));
    Ok(PoolHandle {
        inputs,
        commands,
        progress,
        task,
    })
}

/// Whether a commit for the last applied block itself is at hand that was verified in full. After a
/// crash in the middle of a run it is not, and the node stays in blocksync until it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastCommitKnown {
    /// It is, or there is no block yet.
    Verified,
    /// It is not.
    Missing,
}

fn new_schedule(config: &PoolConfig, state: &State, last_commit: LastCommitKnown) -> Schedule {
    let first = state.last_block_height == Height::ZERO;
    let start = Start {
        initial_height: state.initial_height,
        height: state.last_block_height,
        block_id: state.last_block_id,
        validators: Arc::clone(&state.validators),
        next_validators: Arc::clone(&state.next_validators),
        last_validators: (!first).then(|| Arc::clone(&state.last_validators)),
        last_commit_verified: first || last_commit == LastCommitKnown::Verified,
        extensions_from: extensions_from(state),
        persistent: config.persistent.clone(),
        own_power: own_power(&state.validators, config.own_address),
    };
    Schedule::new(config.schedule.clone(), start, Instant::now())
}

/// The state of the routine.
pub(crate) struct Pool {
    schedule: Schedule,
    workers: Workers,
    applier: Applier,
    chain_id: Arc<str>,
    verify: VerifyMode,
    own_address: Option<Address>,
    /// The connection of each peer that is connected.
    connections: HashMap<PeerId, ConnectionId>,
    /// Certified and not yet applied.
    certified: Certified<RunId, CertifiedBlock>,
    /// Validator sets that our own state knows, the newest last: for `VerifyMode::Every`.
    sets: VecDeque<Arc<ValidatorSet>>,
    /// Jobs that found the workers' queue full.
    jobs: VecDeque<Job>,
    /// Blocks that wait to fill a decoding job.
    to_decode: Vec<Encoded>,
    to_decode_bytes: usize,
    /// Commands that found the reactor's queue full.
    commands: VecDeque<Command>,
    command_sender: mpsc::Sender<Command>,
    progress: watch::Sender<Progress>,
    published: Instant,
    /// Where the time of applying goes.
    times: ApplyTimes,
    absence: Absence,
    failed: Option<PoolError>,
}

/// Validator sets that are kept for verifying every commit ahead of the application. A set that is
/// not among them is verified when its block is applied.
const KNOWN_SETS: usize = 8;

/// Takes what peers, workers and the executor report, in batches, feeds the schedule and carries out
/// its effects; ends when asked to, when the reactor is gone, or when the node must halt.
pub(crate) async fn pool_routine(
    mut pool: Pool,
    mut inputs: mpsc::Receiver<PoolInput>,
    mut done: mpsc::Receiver<Done>,
    mut reports: mpsc::Receiver<Report>,
    stop: CancellationToken,
) -> PoolExit {
    let (mut report_batch, mut done_batch, mut input_batch) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        pool.carry_out_effects();
        pool.publish_progress();
        if pool.failed.is_some() {
            break;
        }
        let deadline = pool.next_wake_up();
        // What was applied frees memory, what was certified feeds the executor, what comes in can
        // wait the longest: in this order, each in bounded batches.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            count = reports.recv_many(&mut report_batch, BATCH) => {
                if count == 0 {
                    pool.failed = Some(PoolError::ThreadEnded("apply"));
                }
                report_batch.drain(..).for_each(|report| pool.take_report(report));
            }
            count = done.recv_many(&mut done_batch, BATCH) => {
                if count == 0 {
                    pool.failed = Some(PoolError::ThreadEnded("verify"));
                }
                done_batch.drain(..).for_each(|result| pool.take_result(result));
            }
            permit = pool.command_sender.clone().reserve_owned(), if !pool.commands.is_empty() => {
                match (permit, pool.commands.pop_front()) {
                    (Ok(permit), Some(command)) => { permit.send(command); }
                    _ => break,
                }
            }
            count = inputs.recv_many(&mut input_batch, BATCH), if pool.jobs.is_empty() => {
                if count == 0 {
                    break;
                }
                input_batch.drain(..).for_each(|input| pool.take_input(input));
                pool.flush_decoding();
            }
            () = sleep_until(deadline) => {
                pool.schedule.handle_deadline(Instant::now());
            }
        }
    }
    pool.stop().await
}

impl Pool {
    fn next_wake_up(&self) -> TokioInstant {
        let publish = self.published + PROGRESS_INTERVAL;
        let wake = self
            .schedule
            .poll_deadline()
            .map_or(publish, |deadline| deadline.min(publish));
        TokioInstant::from_std(wake)
    }

    async fn stop(self) -> PoolExit {
        let Self {
            applier, failed, ..
        } = self;
        let executor = tokio::task::spawn_blocking(move || applier.stop()).await;
        PoolExit {
            executor: executor.ok().and_then(Result::ok),
            error: failed,
        }
    }

    fn publish_progress(&mut self) {
        let now = Instant::now();
        if now >= self.published + PROGRESS_INTERVAL || self.failed.is_some() {
            self.published = now;
            let progress = self.schedule.progress();
            let (next, busy) = (self.schedule.height().next(), self.applier.busy());
            let away = || self.absence.tell();
            let progress = explain::explain(progress, next, &self.times, busy, away);
            self.progress.send_replace(progress);
        }
    }

    // Inputs.

    fn take_input(&mut self, input: PoolInput) {
        let now = Instant::now();
        match input {
            PoolInput::PeerAdded { peer, connection } => {
                // What was decided of an earlier connection is not carried out on this one.
                self.carry_out_effects();
                self.connections.insert(peer, connection);
                self.schedule.handle_peer_added(now, peer);
            }
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
            PoolInput::Starved => {
                let window = self.schedule.progress().window;
                if window.pinned == 0 && window.held_bytes > 0 {
                    self.schedule.handle_starved(now);
                }
            }
            PoolInput::NoBlock { peer, height } => {
                self.schedule.handle_no_block(now, peer, height);
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
                self.to_decode_bytes += block.len();
                self.to_decode.push(Encoded {
                    peer,
                    connection,
                    block,
                    extended_commit,
                    hold,
                });
                if self.to_decode_bytes >= DECODE_BATCH_BYTES {
                    self.flush_decoding();
                }
            }
        }
    }

    fn flush_decoding(&mut self) {
        if !self.to_decode.is_empty() {
            self.to_decode_bytes = 0;
            let blocks = std::mem::take(&mut self.to_decode);
            self.submit(Job::Decode(blocks));
        }
    }

    fn submit(&mut self, job: Job) {
        if let Some(job) = self.workers.try_submit(job) {
            self.jobs.push_back(job);
        }
    }

    /// Hands over the jobs that found no room, as far as there is room now.
    fn resubmit(&mut self) {
        for _ in 0..self.jobs.len() {
            let Some(job) = self.jobs.pop_front() else {
                return;
            };
            if let Some(job) = self.workers.try_submit(job) {
                self.jobs.push_back(job);
            }
        }
    }

    // Results of the workers.

    fn take_result(&mut self, done: Done) {
        match done {
            Done::Decoded(blocks) => blocks.into_iter().for_each(|block| self.take_block(block)),
            Done::Certified {
                id,
                verdict,
                signatures,
            } => {
                self.take_verdict(id, verdict, signatures);
            }
            Done::Probed {
                id,
                verdict,
                in_full,
            } => {
                if let Some(commit) = in_full {
                    self.applier.keep_commit(commit);
                }
                let (verdict, signatures) = match verdict {
                    Ok(signatures) => (Verdict::Vouched, signatures),
                    Err(error) => (
                        Verdict::Suspect {
                            fault: translate::commit_error(&error),
                        },
                        SignatureCount::ZERO,
                    ),
                };
                self.tell_verdict(id, verdict, signatures);
            }
            Done::Extended {
                height,
                from,
                result,
            } => {
                let good = result.is_ok();
                match result {
                    Ok(block) => {
                        if let Some(kept) = self.certified.get_mut(height) {
                            *kept = block;
                        }
                    }
                    Err(error) => {
                        debug!(%height, peer = %from, %error, "extended commit discarded");
                    }
                }
                self.schedule
                    .handle_extended_commit_verdict(Instant::now(), height, from, good);
            }
            Done::Decided {
                id,
                signatures,
                result,
            } => {
                self.take_decided(id, result, signatures);
            }
        }
        self.resubmit();
    }

    /// A block that its own extended commit was to make final.
    fn take_decided(
        &mut self,
        id: RunId,
        result: Result<CertifiedBlock, CommitError>,
        signatures: SignatureCount,
    ) {
        let awaited = self.certified.take_verdict(id);
        let verdict = match result {
            Ok(block) if awaited => {
                let to = block.height();
                self.certified.insert(to, id, block);
                Verdict::Pinned { to }
            }
            Ok(_) => Verdict::Drifted,
            Err(error) => {
                debug!(%error, "extended commit of the last block discarded");
                Verdict::Suspect {
                    fault: translate::commit_error(&error),
                }
            }
        };
        self.tell_verdict(id, verdict, signatures);
    }

    fn tell_verdict(&mut self, id: RunId, verdict: Verdict, signatures: SignatureCount) {
        self.schedule
            .handle_verdict(Instant::now(), id, verdict, signatures.get());
    }

    fn take_block(&mut self, decoded: Decoded) {
        let Decoded {
            peer,
            connection,
            result,
        } = decoded;
        let now = Instant::now();
        match result {
            // It was asked for over an earlier connection, and is asked for again.
            Ok(_) if self.connections.get(&peer) != Some(&connection) => {}
            // A link does not show it; a peer of this network cannot have it from anybody else.
            Ok(block) if block.block().header.chain_id != *self.chain_id => {
                let (height, fault) = (block.height(), BodyFault::OtherChain);
                self.schedule.handle_bad_block(now, peer, height, fault);
            }
            Ok(block) => {
                let height = block.height();
                match self.schedule.handle_block(now, peer, block) {
                    Reception::Wanted | Reception::Late | Reception::Refused => {}
                    Reception::Unsolicited => debug!(%peer, %height, "block was never asked for"),
                }
            }
            Err(refused) => {
                let fault = translate::body_fault(&refused.error);
                debug!(%peer, height = ?refused.height, error = %refused.error, "block refused");
                match refused.height {
                    Some(height) => self.schedule.handle_bad_block(now, peer, height, fault),
                    None => self.push_command(Command::Punish {
                        peer,
                        connection,
                        fault: Fault::Body {
                            height: Height::ZERO,
                            fault: BodyFault::Undecodable,
                        },
                        ban: true,
                    }),
                }
            }
        }
    }

    fn take_verdict(&mut self, id: RunId, verdict: RunVerdict, signatures: SignatureCount) {
        if !self.certified.take_verdict(id) {
            // Its signatures count all the same; the schedule knows the run no more.
            self.tell_verdict(id, Verdict::Drifted, signatures);
            return;
        }
        let verdict = match verdict {
            RunVerdict::Certified { blocks, .. } => {
                let Some(last) = blocks.last() else { return };
                let to = last.height();
                for block in blocks {
                    self.certified.insert(block.height(), id, block);
                }
                Verdict::Pinned { to }
            }
            RunVerdict::Drifted => Verdict::Drifted,
            RunVerdict::Suspect { fault, .. } => Verdict::Suspect {
                fault: translate::commit_fault(&fault),
            },
            RunVerdict::Unfitting { fault } => {
                info!(%fault, "the first block offered does not fit our genesis");
                Verdict::Suspect {
                    fault: translate::unfitting(&fault),
                }
            }
            RunVerdict::Broken { fault } => {
                // The schedule links blocks before it asks; halving leads to the pair at fault.
                warn!(%fault, run = id.get(), "a run that does not link was given to certification");
                Verdict::Drifted
            }
            RunVerdict::LocalFault { fault } => translate::local_fault(&fault),
            RunVerdict::InvalidFinalCommit { height, error } => {
                self.failed = Some(PoolError::InvalidFinalCommit {
                    height,
                    error: Box::new(error),
                });
                return;
            }
        };
        self.tell_verdict(id, verdict, signatures);
    }

    // Reports of the executor.

    fn take_report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Applied { applied, state } => {
                self.certified.remove(applied.height);
                self.times.add(applied.times);
                self.remember(&state.next_validators);
                self.schedule
                    .handle_applied(now, applied_facts(&state, self.own_address));
            }
            Report::ExtensionRequired { height } => {
                self.schedule.handle_extension_required(now, height);
            }
            Report::InvalidCommit { height, error } => {
                self.schedule.handle_apply_failed(now, height, None);
                self.failed = Some(PoolError::InvalidFinalCommit {
                    height,
                    error: Box::new(error),
                });
            }
            Report::Failed { height, error } => {
                self.schedule.handle_apply_failed(now, height, None);
                self.failed = Some(PoolError::Apply { height, error });
            }
        }
    }

    fn remember(&mut self, set: &Arc<ValidatorSet>) {
        if self.verify == VerifyMode::Every
            && self
                .sets
                .back()
                .is_none_or(|last| last.hash() != set.hash())
        {
            self.sets.push_back(Arc::clone(set));
            if self.sets.len() > KNOWN_SETS {
                self.sets.pop_front();
            }
        }
    }

    // Effects of the schedule.

    fn carry_out_effects(&mut self) {
        while self.failed.is_none()
            && let Some(effect) = self.schedule.poll_effect()
        {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Request { peer, height } => {
                self.command(peer, |connection| Command::Request {
                    peer,
                    connection,
                    height,
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
                    Some(block) => {
                        let chain_id = Arc::clone(&self.chain_id);
                        self.submit(Job::Extended {
                            height,
                            from,
                            block,
                            set,
                            chain_id,
                        });
                    }
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
            Effect::CaughtUp { height } => info!(%height, "caught up"),
            Effect::Stalled { reason } => {
                let next = self.schedule.height().next();
                let busy = self.applier.busy();
                let away = || self.absence.tell();
                if let Some(reason) = explain::reason(Some(reason), next, busy, away) {
                    warn!(%reason, "no progress");
                }
            }
            Effect::Halt { reason } => {
                if self.failed.is_none() {
                    self.failed = Some(PoolError::Halted(Box::new(reason)));
                }
            }
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
            .is_some_and(|block| self.applier.apply(block.clone()));
        if !handed_over {
            self.failed = Some(PoolError::ThreadEnded("apply"));
        }
    }

    /// A command about a peer that is connected.
    fn command(&mut self, peer: PeerId, command: impl FnOnce(ConnectionId) -> Command) {
        if let Some(&connection) = self.connections.get(&peer) {
            self.push_command(command(connection));
        }
    }

    fn push_command(&mut self, command: Command) {
        if !self.commands.is_empty() {
            self.commands.push_back(command);
            return;
        }
        if let Err(error) = self.command_sender.try_send(command) {
            self.commands.push_back(error.into_inner());
        }
    }
}

/// What the schedule needs to know of the state after a block.
fn applied_facts(state: &State, own_address: Option<Address>) -> Applied {
    Applied {
        height: state.last_block_height,
        next_validators: Arc::clone(&state.next_validators),
        extensions_from: extensions_from(state),
        own_power: own_power(&state.validators, own_address),
    }
}

/// The height from which blocks need extended commits, by the state's parameters.
pub(crate) fn extensions_from(state: &State) -> Option<Height> {
    let height = state.consensus_params.abci.vote_extensions_enable_height;
    (height > 0).then(|| Height::new(height))
}

/// Our power in a set; 0 for a node that does not validate.
pub(crate) fn own_power(set: &ValidatorSet, own_address: Option<Address>) -> i64 {
    own_address
        .and_then(|address| set.by_address(&address))
        .map_or(0, |(_, validator)| validator.voting_power)
}
