//! The parts of a node that run, and how they end.

use anyhow::Context as _;
use perihelion_abci::AppError;
use perihelion_consensus_reactor::{ConsensusError, ConsensusHandle};
use perihelion_p2p::SwitchHandle;
use perihelion_pool::PoolExit;
use perihelion_rpc::RpcServer;
use perihelion_state::Executor;
use perihelion_store::StoreError;
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{STOP_TIMEOUT, application::STOP_PATIENCE};

/// Tells the parts to end.
#[derive(Clone, Default)]
pub(super) struct Stops {
    /// Consensus, before all others: it votes no more.
    pub(super) consensus: CancellationToken,
    /// All others.
    pub(super) rest: CancellationToken,
}

/// What runs.
pub(super) struct Parts {
    pub(super) modes: JoinHandle<Result<Option<Executor>, ConsensusError>>,
    pub(super) pool: JoinHandle<PoolExit>,
    pub(super) mempool: JoinHandle<Result<(), AppError>>,
    pub(super) evidence: JoinHandle<Result<(), StoreError>>,
    pub(super) blocksync: JoinHandle<()>,
    pub(super) shown: JoinHandle<()>,
    pub(super) metrics: Option<JoinHandle<()>>,
    pub(super) rpc: Option<RpcServer>,
    pub(super) switch: SwitchHandle,
    pub(super) consensus: ConsensusHandle,
    pub(super) stops: Stops,
}

impl Parts {
    /// Waits until `stop`, or until a part ends by itself since it must, and ends all: consensus
    /// first, the connections last.
    ///
    /// # Errors
    /// Why the node had to stop.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let (mut error, mut modes, mut pool) = (None, None, None);
        let mut blocksync = None;
        tokio::select! {
            () = stop.cancelled() => {}
            ended = self.consensus.ended() => error = Some(ended.into()),
            ended = &mut self.modes => modes = Some(ended),
            ended = &mut self.pool => pool = Some(ended),
            ended = &mut self.mempool => error = reason(ended, "mempool"),
            ended = &mut self.evidence => error = reason(ended, "pool of evidence"),
            ended = &mut self.blocksync => blocksync = Some(ended),
        }
        self.stops.consensus.cancel();
        // Connections to an application are closed after its patience; what then still runs is a
        // built-in one that hangs.
        let deadline = Instant::now() + STOP_PATIENCE + STOP_TIMEOUT;
        let modes = ended_by(deadline, modes, &mut self.modes).await;
        self.stops.rest.cancel();
        let pool = ended_by(deadline, pool, &mut self.pool).await;
        let soon = Instant::now() + STOP_TIMEOUT;
        match ended_by(soon, blocksync, &mut self.blocksync).await {
            Some(ended) => error = error.or_else(|| panicked(ended, "blocksync reactor")),
            None => warn!("the blocksync reactor did not stop in time"),
        }
        self.end_others().await;
        let (Some(modes), Some(pool)) = (modes, pool) else {
            warn!(
                "stopped without waiting for the application, which does not finish its call: what \
                 it is at is done again at the next start"
            );
            return error.map_or(Ok(()), Err);
        };
        let modes = modes.context("switching between blocksync and consensus panicked")?;
        let pool = pool.context("the pool panicked")?;

        let error = error.or(pool.error.map(Into::into));
        let (executor, failed) = match modes {
            Ok(executor) => (executor.or(pool.executor), None),
            Err(failed) => (pool.executor, Some(failed.into())),
        };
        finish(executor, error.or(failed)).await
    }

    async fn end_others(self) {
        for task in [self.shown].into_iter().chain(self.metrics) {
            if tokio::time::timeout(STOP_TIMEOUT, task).await.is_err() {
                warn!("a part of the node did not stop in time");
            }
        }
        if let Some(rpc) = self.rpc {
            let joined = tokio::task::spawn_blocking(|| rpc.join());
            if tokio::time::timeout(STOP_TIMEOUT, joined).await.is_err() {
                warn!("the RPC server did not stop in time");
            }
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.switch.shutdown())
            .await
            .is_err()
        {
            warn!("connections did not close in time");
        }
    }
}

/// How a task ended, if it has ended before or does so by `deadline`.
async fn ended_by<T>(
    deadline: Instant,
    ended: Option<Result<T, JoinError>>,
    task: &mut JoinHandle<T>,
) -> Option<Result<T, JoinError>> {
    match ended {
        Some(ended) => Some(ended),
        None => timeout_at(deadline, task).await.ok(),
    }
}

/// Why a reactor ended before it was told to.
fn reason<E: std::error::Error + Send + Sync + 'static>(
    ended: Result<Result<(), E>, JoinError>,
    part: &'static str,
) -> Option<anyhow::Error> {
    match ended {
        // The switch is gone: whoever ended it tells why.
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.into()),
        Err(error) => panicked(Err(error), part),
    }
}

/// What to say of a task that was not to panic.
fn panicked(ended: Result<(), JoinError>, part: &'static str) -> Option<anyhow::Error> {
    let error = ended.err()?;
    Some(anyhow::anyhow!("the {part} panicked: {error}"))
}

/// Makes what was applied durable and says how it ended.
async fn finish(executor: Option<Executor>, error: Option<anyhow::Error>) -> anyhow::Result<()> {
    let flushed = tokio::task::spawn_blocking(move || {
        let Some(mut executor) = executor else {
            return Ok(None);
        };
        executor
            .flush()
            .map(|()| Some(executor.state().last_block_height))
    })
    .await
    .context("the executor panicked")?;
    match (error, flushed) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(Some(height))) => {
            info!(%height, "stopped");
            Ok(())
        }
        (None, Ok(None)) => anyhow::bail!("the executor's thread panicked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let ended = tokio::spawn(async { panic!("out of ideas") }).await;
        let told = panicked(ended, "blocksync reactor").unwrap().to_string();
        for part in ["the blocksync reactor panicked", "out of ideas"] {
            assert!(told.contains(part), "no {part:?} in {told}");
        }
        let ended = tokio::spawn(async {}).await;
        assert!(panicked(ended, "blocksync reactor").is_none());
    }

    /// A task that waits for an application that hangs does not keep the node from stopping.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_left() {
        let deadline = Instant::now() + STOP_PATIENCE;
        let mut hangs = tokio::spawn(std::future::pending::<u8>());
        assert!(ended_by(deadline, None, &mut hangs).await.is_none());
        assert_eq!(Instant::now(), deadline);
        let mut ends = tokio::spawn(async { 7 });
        let ended = ended_by(deadline + STOP_PATIENCE, None, &mut ends).await;
        assert_eq!(ended.unwrap().unwrap(), 7);
        let ended = ended_by(deadline, Some(Ok(8)), &mut hangs).await;
        assert_eq!(ended.unwrap().unwrap(), 8);
    }
}
