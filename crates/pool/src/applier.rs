//! The thread that owns the executor: applies certified blocks strictly in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use perihelion_certify::{CertifiedBlock, CommitError};
use perihelion_state::{Applied, ApplyError, Executor};
use perihelion_types::{Commit, Height, State};
use tokio::sync::mpsc;

use crate::VerifyMode;

/// Certified blocks that may wait for the executor. The schedule hands out fewer
/// (`Config::applying`), so handing over never waits.
const QUEUE: usize = 1024;

/// What the executor is to do.
enum Job {
    /// Apply a block.
    Apply(CertifiedBlock),
    /// Keep the commit for the last block.
    KeepCommit(Box<Commit>),
}

/// What the executor reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// A block is applied; the state after it.
    Applied {
        applied: Box<Applied>,
        state: Arc<State>,
    },
    /// A block needs an extended commit by the parameters just before it, and came without.
    ExtensionRequired { height: Height },
    /// With every commit verified: the commit for a final block does not hold.
    InvalidCommit { height: Height, error: CommitError },
    /// One could not be; nothing more is applied.
    Failed {
        height: Height,
        error: Box<ApplyError>,
    },
}

/// The way to the executor's thread.
pub(crate) struct Applier {
    pub(crate) reports: mpsc::Receiver<Report>,
    jobs: Sender<Job>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Executor>,
    busy: BusyCall,
}

/// Which call of the application is running, and for how long.
type BusyCall = Box<dyn Fn() -> Option<(String, Duration)> + Send>;

impl Applier {
    /// Moves `executor` to a thread of its own.
    ///
    /// # Errors
    /// When the operating system grants no thread.
    pub(crate) fn start(mut executor: Executor, verify: VerifyMode) -> std::io::Result<Self> {
        let (sender, jobs) = bounded(QUEUE);
        let (reports, receiver) = mpsc::channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let busy = executor.busy_call();
        let thread = thread::Builder::new().name("apply".into()).spawn(move || {
            executor.begin_catch_up();
            let mut ahead = None;
            while let Some(job) = ahead.take().or_else(|| next_job(&mut executor, &jobs)) {
                let block = match job {
                    Job::Apply(block) => block,
                    Job::KeepCommit(commit) => {
                        keep_commit(&mut executor, &commit);
                        continue;
                    }
                };
                // A block that had to wait is handed over again, and so are those above it. One that the
                // application executes already is the next job, and is applied.
                let is_stopped = stopped.load(Ordering::Relaxed);
                if is_stopped && !executor.has_begun()
                    || block.height() != executor.state().next_height()
                {
                    continue;
                }
                ahead = jobs.try_recv().ok();
                let following = match &ahead {
                    Some(Job::Apply(following)) if !is_stopped => Some(following),
                    _ => None,
                };
                let report = apply(&mut executor, block, following, verify);
                let failed = matches!(report, Report::Failed { .. } | Report::InvalidCommit { .. });
                if reports.blocking_send(report).is_err() || failed {
                    break;
                }
            }
            // Who takes the executor learns of it by the first thing that it does.
            if let Err(error) = executor.end_catch_up() {
                tell_not_durable(&error);
            }
            executor
        })?;
        Ok(Self {
            reports: receiver,
            jobs: sender,
            stop,
            thread,
            busy: Box::new(move || busy().map(|(call, since)| (call.to_string(), since))),
        })
    }

    /// Hands over the next block; `false` when the thread has stopped.
    pub(crate) fn apply(&self, block: CertifiedBlock) -> bool {
        self.jobs.try_send(Job::Apply(block)).is_ok()
    }

    /// Hands over the commit for the last block, to be kept for consensus. With more to do than
    /// fits there are later blocks, and it is needed no more.
    pub(crate) fn keep_commit(&self, commit: Box<Commit>) {
        if self.jobs.try_send(Job::KeepCommit(commit)).is_err() {
            tracing::debug!("the last commit is not kept: blocks wait");
        }
    }

    /// Which call of the application is running, and for how long.
    pub(crate) fn busy(&self) -> Option<(String, Duration)> {
        (self.busy)()
    }

    /// Ends the thread after the block that it is at, and gives the executor back.
    pub(crate) fn stop(self) -> thread::Result<Executor> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.jobs);
        self.thread.join()
    }
}

fn keep_commit(executor: &mut Executor, commit: &Commit) {
    let height = commit.height;
    match executor.keep_last_commit(commit) {
        Ok(kept) => tracing::debug!(%height, kept, "the last block's own commit was verified"),
        // The store takes no more writes then; the next block tells of it.
        Err(error) => tracing::error!(%height, %error, "the last commit cannot be stored"),
    }
}

/// The next job; meanwhile what was applied is made durable when its time has come.
fn next_job(executor: &mut Executor, jobs: &Receiver<Job>) -> Option<Job> {
    if let Ok(job) = jobs.try_recv() {
        return Some(job);
    }
    // What the last block left is not to wait for one that may be long in coming. A failed write
    // closes the store for writing; the next block tells of it.
    if let Err(error) = executor.settle() {
        tell_not_durable(&error);
    }
    loop {
        let Some(deadline) = executor.flush_deadline() else {
            return jobs.recv().ok();
        };
        match jobs.recv_deadline(deadline) {
            Ok(job) => return Some(job),
            Err(RecvTimeoutError::Disconnected) => return None,
            // A failed sync closes the store for writing; the next block tells of it.
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = executor.flush() {
                    tell_not_durable(&error);
                    return jobs.recv().ok();
                }
            }
        }
    }
}

/// A store that failed before has told whoever used it then.
fn tell_not_durable(error: &ApplyError) {
    let is_told = matches!(error, ApplyError::Storage { source, .. } if source.is_consequence());
    if is_told {
        tracing::debug!(%error, "what was applied cannot be made durable");
    } else {
        tracing::error!(%error, "what was applied cannot be made durable");
    }
}

fn apply(
    executor: &mut Executor,
    mut block: CertifiedBlock,
    following: Option<&CertifiedBlock>,
    verify: VerifyMode,
) -> Report {
    let height = block.height();
    let state = executor.state_arc();
    if state.consensus_params.vote_extensions_enabled(height) && block.extended_commit().is_none() {
        return Report::ExtensionRequired { height };
    }
    if verify == VerifyMode::Every
        && let Err(error) = block.verify_commit(&state.chain_id, &state.validators)
    {
        return Report::InvalidCommit { height, error };
    }
    // With every commit verified, what follows is verified first.
    let following = following.filter(|_| verify == VerifyMode::Pinned);
    match executor.apply_unsettled(&block, following) {
        Ok(applied) => Report::Applied {
            applied: Box::new(applied),
            state: executor.state_arc(),
        },
        Err(error) => Report::Failed {
            height,
            error: Box::new(error),
        },
    }
}
