//! The application that `proxy_app` names: reaching it, and watching it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use perihelion_abci::{
    AppAddress, AppConnections, AppError, AppFault, AppTransport, CallName, ConnectionName,
    KvStore, KvStoreOptions, LostConnection, Noop, RunningCall,
};
use perihelion_consensus_reactor::ConsensusError;
use perihelion_pool::PoolError;
use perihelion_state::{AppColumn, ApplyError, StartError};
use perihelion_store::Store;
use perihelion_types::Height;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{AbciTransport, BaseConfig};

/// Between two attempts to reach an application, as with CometBFT.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// How often running calls are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A call that runs so long is named in the log, and again each time that has doubled. Shorter:
/// applications that are only busy fill the log.
const SLOW_CALL: Duration = Duration::from_secs(10);

/// How long a node that is told to stop waits for a call. Shorter: a large block that was nearly
/// executed is executed anew. Longer: whoever stops the node takes it for stuck.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Connects the application of `base.proxy_app`: a built-in one, or one in another process, which
/// is tried until it is there. `None` when stopped meanwhile.
pub(super) async fn connect(
    base: &BaseConfig,
    store: &Arc<Store>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<AppConnections>> {
    let options = KvStoreOptions::default();
    Ok(Some(match base.proxy_app.as_str() {
        "kvstore" | "kvstore_connsync" => {
            AppConnections::in_process(Arc::new(KvStore::in_memory(options)))
        }
        "persistent_kvstore" | "persistent_kvstore_connsync" => {
            let column = Arc::new(AppColumn::new(Arc::clone(store)));
            let app = KvStore::persistent(column, options)
                .context("the state of persistent_kvstore cannot be read")?;
            AppConnections::in_process(Arc::new(app))
        }
        "noop" => AppConnections::in_process(Arc::new(Noop)),
        address => {
            let address = address.parse().context("proxy_app")?;
            let transport = match base.abci {
                AbciTransport::Socket => AppTransport::Socket,
                AbciTransport::Grpc => AppTransport::Grpc,
            };
            return reach(address, transport, stop).await;
        }
    }))
}

async fn reach(
    address: AppAddress,
    transport: AppTransport,
    stop: &CancellationToken,
) -> anyhow::Result<Option<AppConnections>> {
    loop {
        let target = address.clone();
        let attempt =
            tokio::task::spawn_blocking(move || AppConnections::connect(&target, transport));
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            connected = attempt => connected.context("connecting to the application panicked")?,
        };
        match connected {
            Ok(connections) => {
                info!(%address, %transport, "connected to the application");
                return Ok(Some(connections));
            }
            Err(error) => warn!("{error}; trying again in {} s", RETRY_INTERVAL.as_secs()),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
        }
    }
}

/// Watches the connections: names calls that take long, stops the node when a connection is lost,
/// and gives up waiting for a call when the node is told to stop.
pub(super) struct Watch {
    lost: Arc<Mutex<Option<LostConnection>>>,
    gave_up: Arc<AtomicBool>,
}

impl Watch {
    /// Begins. `stop` is cancelled when a connection is lost.
    pub(super) fn start(apps: &AppConnections, stop: &CancellationToken) -> Self {
        let watch = Self {
            lost: Arc::default(),
            gave_up: Arc::default(),
        };
        let (lost, stopping) = (Arc::clone(&watch.lost), stop.clone());
        apps.on_lost(move |loss| {
            // Whoever is told to stop by it ends its calls itself. What is lost and what helps is the
            // error that the process ends with.
            if !stopping.is_cancelled() {
                warn!(
                    connection = %loss.connection,
                    "a connection to the application is lost: stopping"
                );
            }
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss);
            stopping.cancel();
        });
        let gave_up = Arc::clone(&watch.gave_up);
        tokio::spawn(look(apps.clone(), stop.clone(), gave_up));
        watch
    }

    /// What the end of the node means. That a connection is lost is an error, unless something
    /// else was found first; that nobody waits for a call any longer is none.
    pub(super) fn judge(&self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let lost = self
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (result, lost) {
            (Err(error), _) if self.gave_up.load(Ordering::Acquire) && is_closed(&error) => {
                warn!("stopped without waiting for the application: {error:#}");
                Ok(())
            }
            (Ok(()), Some(lost)) => Err(lost.into()),
            (result, _) => result,
        }
        .map_err(|error| {
            if is_closed(&error) || error.is::<LostConnection>() {
                // What it began with is in its text already.
                let text = error.to_string();
                let remedy = if SPEAKS_OTHERWISE.iter().any(|sign| text.contains(sign)) {
                    "see that proxy_app and abci say where an ABCI application listens and how it \
                     is spoken to"
                } else {
                    "start the application again, then this node"
                };
                anyhow::anyhow!("{text}: {remedy}")
            } else if is_lost_store(&error) {
                anyhow::anyhow!("{error} (`perihelion reset-state` removes it, and no key)")
            } else {
                error
            }
        })
    }
}

/// What is told of whoever answers in another language than that of ABCI over a socket.
const SPEAKS_OTHERWISE: [&str; 4] = [
    "cannot be decoded",
    "nobody asked for",
    "is announced with",
    "is no varint",
];

/// Whether the node could not start for want of what the store has lost: state and blocks, or what a
/// built-in application keeps there.
fn is_lost_store(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(StartError::Storage(error)) => error.is_lost(),
        // What the store said is its text alone.
        Some(StartError::Application(AppError {
            reason: AppFault::Store(error),
            ..
        })) => error.0.contains("restore the folder"),
        _ => false,
    }
}

/// Whether a call ended because its connection was closed.
fn is_closed(error: &anyhow::Error) -> bool {
    let closed = |error: &AppError| matches!(error.reason, AppFault::Closed(_));
    let of_apply = |error: &ApplyError| match error {
        ApplyError::Application(error) => closed(error),
        _ => false,
    };
    if let Some(PoolError::Apply { error, .. }) = error.downcast_ref() {
        return of_apply(error);
    }
    if let Some(ConsensusError::Apply(error)) = error.downcast_ref() {
        return of_apply(error);
    }
    if let Some(StartError::Application(error)) = error.downcast_ref() {
        return closed(error);
    }
    error.downcast_ref().is_some_and(closed)
}

async fn look(apps: AppConnections, stop: CancellationToken, gave_up: Arc<AtomicBool>) {
    let mut slow = SlowCalls::default();
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        for line in slow.news(&apps.running()) {
            warn!("{line}");
        }
    }
    for call in apps.running() {
        info!("stopping once the application has finished {call}");
    }
    tokio::time::sleep(STOP_PATIENCE).await;
    gave_up.store(true, Ordering::Release);
    for call in apps.running() {
        warn!("the application does not finish {call}; its connections are closed");
    }
    apps.close();
}

/// What was said of calls that take long.
#[derive(Default)]
struct SlowCalls(Vec<Slow>);

struct Slow {
    call: (ConnectionName, CallName, Option<Height>),
    /// When it is named again.
    next: Duration,
}

impl SlowCalls {
    /// What is to be said of the calls that run now.
    fn news(&mut self, running: &[RunningCall]) -> Vec<String> {
        let id = |call: &RunningCall| (call.connection, call.call, call.height);
        let mut lines = Vec::new();
        self.0.retain(|slow| {
            let goes_on = running
                .iter()
                .any(|call| id(call) == slow.call && call.elapsed >= slow.next / 2);
            if !goes_on {
                let (connection, call, height) = slow.call;
                let of = height.map_or(String::new(), |height| format!(" of height {height}"));
                lines.push(format!(
                    "the application has finished {call}{of} on the {connection} connection"
                ));
            }
            goes_on
        });
        for call in running.iter().filter(|call| call.elapsed >= SLOW_CALL) {
            let said = self.0.iter_mut().find(|slow| slow.call == id(call));
            let next = call.elapsed * 2;
            match said {
                Some(slow) if call.elapsed < slow.next => continue,
                Some(slow) => slow.next = next,
                None => self.0.push(Slow {
                    call: id(call),
                    next,
                }),
            }
            lines.push(format!(
                "the application has not finished {call} on the {} connection; waiting on",
                call.connection
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use perihelion_store::StoreError;

    use super::*;

    fn finalizing(height: i64, seconds: u64) -> RunningCall {
        RunningCall {
            connection: ConnectionName::Consensus,
            call: CallName::FinalizeBlock,
            height: Some(Height::new(height)),
            elapsed: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn a_slow_call_is_named_each_time_its_time_has_doubled_and_when_it_ends() {
        let mut slow = SlowCalls::default();
        let named = "the application has not finished FinalizeBlock of height 7 (12 s) on the \
                     consensus connection; waiting on";
        assert!(slow.news(&[finalizing(7, 9)]).is_empty());
        assert_eq!(slow.news(&[finalizing(7, 12)]), [named]);
        assert!(slow.news(&[finalizing(7, 13)]).is_empty());
        assert!(slow.news(&[finalizing(7, 23)]).is_empty());
        assert_eq!(slow.news(&[finalizing(7, 24)]).len(), 1);
        assert!(slow.news(&[finalizing(7, 47)]).is_empty());
        let finished =
            "the application has finished FinalizeBlock of height 7 on the consensus connection";
        assert_eq!(slow.news(&[finalizing(8, 1)]), [finished]);
        assert!(slow.news(&[]).is_empty());
        // The same call again, a second one.
        assert_eq!(slow.news(&[finalizing(8, 11)]).len(), 1);
        assert_eq!(slow.news(&[finalizing(8, 2)]).len(), 1);
    }

    #[test]
    fn a_lost_connection_is_an_error_and_an_end_without_patience_is_none() {
        let closed = || {
            let error = AppError {
                call: CallName::FinalizeBlock,
                height: Some(Height::new(7)),
                reason: AppFault::Closed("the application closed it".to_owned()),
            };
            anyhow::Error::from(StartError::Application(error))
        };
        let watch = Watch {
            lost: Arc::default(),
            gave_up: Arc::default(),
        };
        watch.judge(Ok(())).unwrap();
        let remedy = "the connection is closed: the application closed it: start the application \
                      again, then this node";
        let told = watch.judge(Err(closed())).unwrap_err().to_string();
        assert!(told.ends_with(remedy), "{told}");
        *watch.lost.lock().unwrap() = Some(LostConnection {
            connection: ConnectionName::Query,
            running: None,
            reason: "the application closed it".to_owned(),
        });
        let told = watch.judge(Ok(())).unwrap_err().to_string();
        assert_eq!(
            told,
            "the query connection to the application is lost: the application closed it: start \
             the application again, then this node"
        );
        for reason in [
            "a message cannot be decoded: invalid tag",
            "a response came that nobody asked for",
        ] {
            *watch.lost.lock().unwrap() = Some(LostConnection {
                connection: ConnectionName::Query,
                running: None,
                reason: reason.to_owned(),
            });
            let told = watch.judge(Ok(())).unwrap_err().to_string();
            assert!(told.contains("proxy_app and abci"), "{told}");
            assert!(!told.contains("again"), "{told}");
        }
        let unread = StartError::Application(AppError {
            call: CallName::Info,
            height: None,
            reason: AppFault::Store(perihelion_abci::AppStoreError(
                "no such file: restore the folder from a copy, or remove it and sync again"
                    .to_owned(),
            )),
        });
        let lost = StartError::Storage(StoreError::LostFile {
            path: "/d/000007.blob".into(),
            column: "blocks".to_owned(),
            found: None,
            expected: 9,
        });
        for error in [unread, lost] {
            let told = watch.judge(Err(error.into())).unwrap_err().to_string();
            assert!(told.contains("restore the folder"), "{told}");
            assert!(told.contains("perihelion reset-state"), "{told}");
        }
        let full = StartError::Storage(StoreError::DiskFull {
            path: "/d".into(),
            height: Height::ZERO,
            reason: "No space left on device".to_owned(),
        });
        let told = watch.judge(Err(full.into())).unwrap_err().to_string();
        assert!(!told.contains("reset-state"), "{told}");
        watch.gave_up.store(true, Ordering::Release);
        watch.judge(Err(closed())).unwrap();
        watch.judge(Err(anyhow::anyhow!("disk full"))).unwrap_err();
    }
}
