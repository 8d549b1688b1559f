//! The pool routine: one task, one owner of the schedule. What it takes in is in `inputs` and
//! `results`, what it does in `effects`, and how the executor goes and comes in `leave`.

mod effects;
mod inputs;
mod leave;
mod results;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_certify::CertifiedBlock;
use perihelion_schedule::{Applied, Decided, Mode, Progress, RunId, Schedule, StallReason, Start};
use perihelion_state::{ApplyError, Executor};
use perihelion_types::{
    Address, Height, PeerId, State, Time, ValidatorSet, bounds::MAX_BLOCK_BYTES,
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant as TokioInstant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Absence, Command, ConnectionId, Handover, PoolConfig, PoolInput, VerifyMode,
    applier::Applier,
    certified::Certified,
    explain::{self, ApplyTimes},
    gather::Gathered,
    later_rules::LaterRules,
    workers::{Done, Job, WithExtended, Workers},
};

/// Inputs that may wait for the routine. It takes them in batches; the reactor waits beyond it,
/// which holds back reading from peers.
const INPUTS: usize = 1024;

/// Commands that may wait for the reactor; the routine keeps what does not fit, at most what the
/// schedule's window allows.
const COMMANDS: usize = 1024;

/// Hand-overs that may wait for the owner of consensus. What it does not take the routine keeps: a few,
/// since only the last one counts of several heights that are final.
const HANDOVERS: usize = 16;

/// Inputs of one kind that are handled before the next kind gets its turn.
const BATCH: usize = 256;

/// How often progress is published, but for a change of the mode, which is told at once: a status is read
/// a few times a second.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Why the pool stopped for good. Nobody is to blame but this node, its application or its disk.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A block could not be applied.
    #[error("block {height} could not be applied")]
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
    #[error("a thread could not be started")]
    Start(#[from] std::io::Error),
}

/// What a stopped pool gives back.
pub struct PoolExit {
    /// The executor, with the state after the last applied block; `None` when its thread panicked, or
    /// when consensus has it.
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
    /// What goes to consensus.
    pub handover: mpsc::Receiver<Handover>,
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
    let (handover_sender, handover) = mpsc::channel(HANDOVERS);
    let (progress_sender, progress) = watch::channel(schedule.progress());
    let chain_id: Arc<str> = executor.state().chain_id.as_str().into();
    let (workers, done) = Workers::start(config.workers, config.verify, config.rules.clone())?;
    let applier = Applier::start(executor, config.verify)?;
    let pool = Pool {
        schedule,
        workers,
        applier: Some(applier),
        leaving: None,
        handovers: VecDeque::new(),
        handover_sender,
        chain_id,
        verify: config.verify,
        own_address: config.own_address,
        connections: HashMap::new(),
        certified: Certified::new(),
        sets: VecDeque::new(),
        jobs: VecDeque::new(),
        to_decode: Gathered::default(),
        to_verify: Vec::new(),
        to_verify_bytes: 0,
        commands: VecDeque::new(),
        command_sender,
        progress: progress_sender,
        published: Instant::now(),
        published_mode: Mode::WaitForPeers,
        times: ApplyTimes::default(),
        absence: config.absence.clone(),
        later_rules: LaterRules::new(config.persistent.clone()),
        failed: None,
    };
    let task = tokio::spawn(pool_routine(pool, input_receiver, done, stop));
    Ok(PoolHandle {
        inputs,
        commands,
        handover,
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
        largest_block: largest_block(state),
    };
    let schedule = perihelion_schedule::Config {
        runs: RUNS_A_WORKER * config.workers.get(),
        ..config.schedule.clone()
    };
    Schedule::new(schedule, start, Instant::now())
}

/// The state of the routine.
pub(crate) struct Pool {
    schedule: Schedule,
    workers: Workers,
    /// The thread that owns the executor; `None` while it is on its way to consensus, or there.
    applier: Option<Applier>,
    /// The executor on its way.
    leaving: Option<JoinHandle<Result<Executor, PoolError>>>,
    /// What waits to be told to the owner of consensus.
    handovers: VecDeque<Handover>,
    handover_sender: mpsc::Sender<Handover>,
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
    to_decode: Gathered,
    /// Final blocks whose extended commits wait to fill a job; none between two turns.
    to_verify: Vec<WithExtended>,
    to_verify_bytes: usize,
    /// Commands that found the reactor's queue full.
    commands: VecDeque<Command>,
    command_sender: mpsc::Sender<Command>,
    progress: watch::Sender<Progress>,
    published: Instant,
    published_mode: Mode,
    /// Where the time of applying goes.
    times: ApplyTimes,
    absence: Absence,
    /// Whose blocks do not follow the configured rules, but later ones.
    later_rules: LaterRules,
    failed: Option<PoolError>,
}

/// Runs that are certified at a time, for each worker: one, and one that waits for it.
const RUNS_A_WORKER: usize = 2;

/// Validator sets that are kept for verifying every commit ahead of the application. A set that is
/// not among them is verified when its block is applied.
const KNOWN_SETS: usize = 8;

/// Takes what peers, workers and the executor report, in batches, feeds the schedule and carries out
/// its effects; ends when asked to, when the reactor is gone, or when the node must halt.
pub(crate) async fn pool_routine(
    mut pool: Pool,
    mut inputs: mpsc::Receiver<PoolInput>,
    mut done: mpsc::Receiver<Done>,
    stop: CancellationToken,
) -> PoolExit {
    let (mut report_batch, mut done_batch, mut input_batch) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let now = Instant::now();
        pool.schedule.handle_clock(now, wall_clock());
        pool.carry_out_effects();
        pool.decode_what_is_due(now);
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
            count = leave::reports(&mut pool.applier, &mut report_batch, BATCH) => {
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
            result = leave::left(&mut pool.leaving), if pool.leaving.is_some() => {
                pool.hand_over(result);
            }
            permit = pool.handover_sender.clone().reserve_owned(), if pool.may_hand_over() => {
                // Where nobody takes it any more, what goes by is not lost: it may be the executor.
                let Ok(permit) = permit else { break };
                if let Some(handover) = pool.handovers.pop_front() {
                    permit.send(handover);
                }
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
            }
            () = sleep_until(deadline) => {
                pool.schedule.handle_deadline(Instant::now());
            }
        }
    }
    // Consensus may have given it back a moment ago.
    inputs.close();
    let given_back = leave::queued_executor(input_batch, &mut inputs);
    pool.stop(given_back).await
}

impl Pool {
    fn next_wake_up(&self) -> TokioInstant {
        let publish = self.published + PROGRESS_INTERVAL;
        let deadlines = [self.schedule.poll_deadline(), self.to_decode.deadline()];
        let wake = deadlines.into_iter().flatten().fold(publish, Instant::min);
        TokioInstant::from_std(wake)
    }

    fn publish_progress(&mut self) {
        let now = Instant::now();
        let mode = self.schedule.mode();
        let is_due = now >= self.published + PROGRESS_INTERVAL;
        if is_due || mode != self.published_mode || self.failed.is_some() {
            (self.published, self.published_mode) = (now, mode);
            let progress = self.schedule.progress();
            let (next, busy) = (self.schedule.height().next(), self.busy());
            let away = || self.absence.tell();
            let progress = explain::explain(progress, next, &self.times, busy, away);
            self.progress.send_replace(progress);
        }
    }
}

/// What the wall clock shows.
fn wall_clock() -> Time {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Time::new(
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        i32::try_from(since.subsec_nanos()).unwrap_or(0),
    )
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

/// What it needs to know of a state that consensus has come to.
fn decided_facts(state: &State, own_address: Option<Address>) -> Decided {
    Decided {
        height: state.last_block_height,
        block_id: state.last_block_id,
        last_validators: Arc::clone(&state.last_validators),
        validators: Arc::clone(&state.validators),
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

/// The largest block that the state's parameters allow, in bytes.
fn largest_block(state: &State) -> usize {
    usize::try_from(state.consensus_params.max_block_bytes()).unwrap_or(MAX_BLOCK_BYTES)
}

/// Our power in a set; 0 for a node that does not validate.
pub(crate) fn own_power(set: &ValidatorSet, own_address: Option<Address>) -> i64 {
    own_address
        .and_then(|address| set.by_address(&address))
        .map_or(0, |(_, validator)| validator.voting_power)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error and its causes, as they are shown: each once.
    #[test]
    fn a_cause_is_told_once() {
        let stopped = ApplyError::Stopped {
            height: Height::new(8),
            stopped: Height::new(7),
        };
        let cause = stopped.to_string();
        let error = PoolError::Apply {
            height: Height::new(8),
            error: Box::new(stopped),
        };
        let mut told = vec![error.to_string()];
        let mut next = std::error::Error::source(&error);
        while let Some(source) = next {
            told.push(source.to_string());
            next = source.source();
        }
        let told = told.join(": ");
        assert_eq!(told.matches(&cause).count(), 1, "{told}");
        let start = PoolError::from(std::io::Error::other("too many"));
        assert_eq!(start.to_string().matches("too many").count(), 0);
    }
}
