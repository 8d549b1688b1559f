//! The application's thread: it owns the executor while consensus has it, and does what the round
//! state machine asks for, in the order asked.

mod pools;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{Answer, Ask, RequestId};
use perihelion_evidence::EvidencePool;
use perihelion_mempool::Mempool;
use perihelion_state::ApplyError;
use perihelion_types::RulesByHeight;
use thiserror::Error;

pub use self::pools::PoolFollower;
use self::worker::{Job, Worker};
use crate::privval::LeasedExecutor;

/// Jobs that may wait. The state machine asks for one thing and waits for the answer, so there are
/// two at most: a block to be stored, and the same to be applied.
const QUEUE: usize = 8;

/// The pools that blocks are made of, and that take note of each block that is applied.
pub(crate) struct Pools {
    /// Transactions.
    pub(crate) mempool: Arc<Mempool>,
    /// Evidence.
    pub(crate) evidence: Arc<EvidencePool>,
}

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum AppReport {
    /// For [`Consensus::handle_answer`](perihelion_consensus::Consensus::handle_answer).
    Answer {
        /// Of the question.
        id: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Application, store or state failed: the thread has ended, and the node is to stop.
    Failed(Box<ApplyError>),
}

/// The thread has ended; if it failed, it has told why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the thread of the application has ended")]
pub(crate) struct AppEnded;

/// The way to the thread.
pub(crate) struct AppThread {
    jobs: SyncSender<Job>,
    thread: JoinHandle<Option<LeasedExecutor>>,
    busy: BusyCall,
}

/// Which call of the application is running, and for how long.
type BusyCall = Box<dyn Fn() -> Option<(String, Duration)> + Send + Sync>;

impl AppThread {
    /// Moves `executor` to a thread of its own, and brings `pools` to its height. `report` is
    /// called on that thread, and must not wait for what this one does.
    ///
    /// # Errors
    /// When the system makes no thread.
    pub(crate) fn start(
        executor: LeasedExecutor,
        pools: Pools,
        rules: RulesByHeight,
        report: impl Fn(AppReport) + Send + 'static,
    ) -> io::Result<Self> {
        let busy = executor.executor().busy_call();
        let pools = Arc::new(PoolFollower::new(pools.mempool, pools.evidence, rules));
        let worker = Worker::new(executor, pools, report);
        let (jobs, inbox) = mpsc::sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("application".into())
            .spawn(move || worker.run(&inbox))?;
        Ok(Self {
            jobs,
            thread,
            busy: Box::new(move || busy().map(|(call, since)| (call.to_string(), since))),
        })
    }

    /// Has a question answered. Never waits.
    pub(crate) fn ask(&self, id: RequestId, ask: Ask) {
        self.give(Job::Ask { id, ask });
    }

    /// Stores a decided block with its commit, and waits until both survive a power cut.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(crate) fn commit(&self, block: &Arc<CertifiedBlock>) -> Result<(), AppEnded> {
        let (stored, is_stored) = mpsc::sync_channel(1);
        let block = Arc::clone(block);
        self.jobs
            .send(Job::Store { block, stored })
            .map_err(|_| AppEnded)?;
        is_stored.recv().map_err(|_| AppEnded)
    }

    /// Has the block that was stored executed; the answer is [`Answer::Applied`]. Never waits.
    pub(crate) fn apply(&self, id: RequestId, block: Arc<CertifiedBlock>) {
        self.give(Job::Apply { id, block });
    }

    /// Which call of the application is running, and for how long.
    pub(crate) fn busy(&self) -> Option<(String, Duration)> {
        (self.busy)()
    }

    /// Ends the thread after the jobs that it was given, and gives the executor back.
    ///
    /// # Errors
    /// When the thread had failed: the executor is gone.
    pub(crate) fn end(self) -> Result<LeasedExecutor, AppEnded> {
        drop(self.jobs);
        match self.thread.join() {
            Ok(Some(executor)) => Ok(executor),
            Ok(None) | Err(_) => Err(AppEnded),
        }
    }

    fn give(&self, job: Job) {
        match self.jobs.try_send(job) {
            // A thread that has ended has told so.
            Ok(()) | Err(mpsc::TrySendError::Disconnected(_)) => {}
            Err(mpsc::TrySendError::Full(_)) => {
                tracing::error!("more was asked of the application than can be asked at a time");
            }
        }
    }
}
