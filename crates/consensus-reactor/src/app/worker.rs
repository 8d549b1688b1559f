use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use perihelion_certify::CertifiedBlock;
use perihelion_consensus::{Answer, Ask, BlockVerdict, RequestId};
use perihelion_state::{ApplyError, Executor, ValidationError};
use perihelion_types::{FetchedBlock, Time};

use super::{AppReport, PoolFollower};
use crate::privval::LeasedExecutor;

/// What the thread is to do.
pub(super) enum Job {
    /// Answer a question.
    Ask {
        /// Of the question.
        id: RequestId,
        /// The question.
        ask: Ask,
    },
    /// Store a decided block.
    Store {
        /// The block.
        block: Arc<CertifiedBlock>,
        /// Told once it is synced.
        stored: SyncSender<()>,
    },
    /// Execute it.
    Apply {
        /// Of the order.
        id: RequestId,
        /// The block.
        block: Arc<CertifiedBlock>,
    },
}

/// What the thread owns.
pub(super) struct Worker<R> {
    executor: LeasedExecutor,
    pools: Arc<PoolFollower>,
    report: R,
}

impl<R: Fn(AppReport)> Worker<R> {
    pub(super) fn new(executor: LeasedExecutor, pools: Arc<PoolFollower>, report: R) -> Self {
        Self {
            executor,
            pools,
            report,
        }
    }

    /// Does the jobs in order, until nobody can give any more; then returns the executor. The first
    /// failure ends it: the application may have executed what is not stored.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) -> Option<LeasedExecutor> {
        let mut done = self.enter();
        while done.is_ok() {
            let Ok(job) = jobs.recv() else {
                return Some(self.executor);
            };
            done = self.take(job);
        }
        if let Err(error) = done {
            (self.report)(AppReport::Failed(Box::new(error)));
        }
        None
    }

    /// What blocksync left for later: its last blocks are synced, and the pools know of them. From
    /// now on they take note of blocksync's blocks too.
    fn enter(&mut self) -> Result<(), ApplyError> {
        let executor = self.executor.executor_mut();
        executor.flush()?;
        executor.follow(Arc::clone(&self.pools) as _);
        self.pools.catch_up(&executor.state_arc())
    }

    fn take(&mut self, job: Job) -> Result<(), ApplyError> {
        match job {
            Job::Ask { id, ask } => {
                let answer = self.answer(ask)?;
                (self.report)(AppReport::Answer { id, answer });
                Ok(())
            }
            Job::Store { block, stored } => {
                self.executor.executor_mut().store_decided(&block)?;
                // Who gave up waiting has no use for it.
                let _ = stored.send(());
                Ok(())
            }
            Job::Apply { id, block } => self.apply(id, &block),
        }
    }

    fn answer(&self, ask: Ask) -> Result<Answer, ApplyError> {
        let executor = self.executor.executor();
        Ok(match ask {
            Ask::MakeBlock {
                height,
                proposer,
                last_commit,
                ..
            } => {
                let made = executor.make_block(height, proposer, &last_commit, &*self.pools)?;
                made.map_or(Answer::NoBlock, |block| Answer::Block(Box::new(block)))
            }
            Ask::ProcessProposal { block } => {
                Answer::Verdict(match self.judge(executor, &block, wall_clock())? {
                    Some(invalid) => invalid,
                    None if executor.process_proposal(&block)? => BlockVerdict::Accepted,
                    None => BlockVerdict::Rejected,
                })
            }
            // More than a third of honest power found its time fit.
            Ask::ValidateBlock { block } => {
                let verdict = self.judge(executor, &block, None)?;
                Answer::Verdict(verdict.unwrap_or(BlockVerdict::Accepted))
            }
            Ask::ExtendVote {
                block, validator, ..
            } => Answer::Extension(executor.extend_vote(&block, validator)?),
            Ask::VerifyExtension { vote } => {
                Answer::ExtensionAccepted(executor.verify_vote_extension(&vote)?)
            }
        })
    }

    /// Why a block does not follow from the state; `None` where it does.
    fn judge(
        &self,
        executor: &Executor,
        block: &FetchedBlock,
        now: Option<Time>,
    ) -> Result<Option<BlockVerdict>, ApplyError> {
        let evidence = &self.pools.evidence;
        let verdict =
            executor.validate_proposed(block, now, |list| evidence.check_evidence(list))?;
        Ok(verdict.err().map(|fault| match fault {
            early @ ValidationError::TimeAhead { .. } => BlockVerdict::Early(early.to_string()),
            fault => BlockVerdict::Invalid(fault.to_string()),
        }))
    }

    /// The answer does not wait for transactions to be checked again: the next height begins
    /// meanwhile, and what it asks for is done after that.
    fn apply(&mut self, id: RequestId, block: &CertifiedBlock) -> Result<(), ApplyError> {
        let pools = Arc::clone(&self.pools);
        let executor = self.executor.executor_mut();
        let (applied, hold) = executor.apply_locked(block, || pools.hold_for_consensus())?;
        let state = executor.state_arc();
        tracing::info!(
            height = applied.height.get(),
            hash = %applied.block_id.hash,
            txs = applied.num_txs,
            failed = applied.failed_txs,
            "block applied"
        );
        let rules = self.pools.rules.at(state.next_height());
        let answer = Answer::Applied { state, rules };
        (self.report)(AppReport::Answer { id, answer });
        hold.recheck()
    }
}

/// What the clock says; `None` where it stands before 1970 and says nothing.
fn wall_clock() -> Option<Time> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    let nanos = i32::try_from(since.subsec_nanos()).ok()?;
    Some(Time::new(seconds, nanos))
}
