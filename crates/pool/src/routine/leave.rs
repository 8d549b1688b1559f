//! How the executor goes to consensus, and what is told on the way.

use std::{future::pending, time::Duration};

use perihelion_state::Executor;
use perihelion_types::Height;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Pool, PoolError, PoolExit};
use crate::{
    Handover, PoolInput,
    applier::{Applier, Report},
};

/// What the executor's thread reports, as long as there is one.
pub(super) async fn reports(
    applier: &mut Option<Applier>,
    batch: &mut Vec<Report>,
    most: usize,
) -> usize {
    match applier {
        Some(applier) => applier.reports.recv_many(batch, most).await,
        None => pending().await,
    }
}

/// The executor, once it has left its thread.
pub(super) async fn left(
    leaving: &mut Option<JoinHandle<Result<Executor, PoolError>>>,
) -> Result<Executor, PoolError> {
    match leaving {
        Some(task) => task.await.unwrap_or(Err(PoolError::ThreadEnded("apply"))),
        None => pending().await,
    }
}

/// The executor, where it is among the inputs that were not taken.
pub(super) fn queued_executor(
    taken: Vec<PoolInput>,
    inputs: &mut mpsc::Receiver<PoolInput>,
) -> Option<Executor> {
    let queued = std::iter::from_fn(|| inputs.try_recv().ok());
    taken
        .into_iter()
        .chain(queued)
        .find_map(|input| match input {
            PoolInput::Executor(executor) => Some(*executor),
            _ => None,
        })
}

impl Pool {
    /// Ends the executor's thread, which has nothing left to do, and makes durable what was applied:
    /// consensus notes in its own log that it is.
    pub(super) fn take_leave(&mut self, height: Height) {
        let Some(applier) = self.applier.take() else {
            return;
        };
        self.leaving = Some(tokio::task::spawn_blocking(move || {
            let mut executor = applier
                .stop()
                .map_err(|_| PoolError::ThreadEnded("apply"))?;
            executor.flush().map_err(|error| PoolError::Apply {
                height,
                error: Box::new(error),
            })?;
            Ok(executor)
        }));
    }

    /// The executor has left its thread: it goes before what was found final meanwhile.
    pub(super) fn hand_over(&mut self, result: Result<Executor, PoolError>) {
        self.leaving = None;
        match result {
            Ok(executor) => {
                let handover = Handover::CaughtUp(Box::new(executor));
                self.handovers.push_front(handover);
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// Of several final heights in a row the last one is enough.
    pub(super) fn push_handover(&mut self, handover: Handover) {
        if let (Handover::Pinned(height), Some(Handover::Pinned(last))) =
            (&handover, self.handovers.back_mut())
        {
            *last = *height;
        } else {
            self.handovers.push_back(handover);
        }
    }

    /// Whether something is to be told to the owner of consensus, and the executor is not to go first.
    pub(super) fn may_hand_over(&self) -> bool {
        self.leaving.is_none() && !self.handovers.is_empty()
    }

    /// Which call of the application is running, and for how long.
    pub(super) fn busy(&self) -> Option<(String, Duration)> {
        self.applier.as_ref().and_then(Applier::busy)
    }

    /// Ends the pool. The executor is wherever it has got to, if it was not given back at last.
    pub(super) async fn stop(mut self, given_back: Option<Executor>) -> PoolExit {
        if let Some(applier) = self.applier.take() {
            let stopped = tokio::task::spawn_blocking(move || applier.stop()).await;
            return PoolExit {
                executor: stopped.ok().and_then(Result::ok),
                error: self.failed,
            };
        }
        if self.leaving.is_some() {
            let result = left(&mut self.leaving).await;
            self.hand_over(result);
        }
        let executor = self
            .handovers
            .into_iter()
            .find_map(|waiting| match waiting {
                Handover::CaughtUp(executor) => Some(*executor),
                Handover::Pinned(_) | Handover::FallenBehind { .. } => None,
            })
            .or(given_back);
        PoolExit {
            executor,
            error: self.failed,
        }
    }
}
