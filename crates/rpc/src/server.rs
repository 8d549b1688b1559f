use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, thread::JoinHandle, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use perihelion_schedule::Progress;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    RpcConfig, RpcContext,
    calls::{self, Caller},
    connection::Impatient,
    context::{Backend, SyncClock},
    http::{self, Connection},
    listen::{Bound, Listener, RpcAddress, Stream, acceptor},
};

/// Threads for connections. They only move bytes and text: more would take processors from the
/// sync, one would let a large answer delay the others.
const IO_THREADS: usize = 2;
/// The least that hyper takes for a request's head, in bytes.
const LEAST_HEADER_BYTES: usize = 8192;
/// Pause after a failed accept: the usual cause, too many open files, lasts for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers that are under way may take when the server stops.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// The server cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address is of no kind that can be listened on.
    #[error("rpc.laddr {0:?} is no address to listen on: use tcp://HOST:PORT or unix://PATH")]
    Address(String),
    /// The system refuses the address.
    #[error("cannot listen on {address} (rpc.laddr): {source}; is another node running there?")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("{} (rpc.tls_cert_file, rpc.tls_key_file): {reason}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system gives no threads.
    #[error("cannot start the RPC server: {0}")]
    Threads(io::Error),
    /// The genesis document cannot be written.
    #[error("the genesis document cannot be written as JSON: {0}")]
    Genesis(#[from] serde_json::Error),
}

/// A running server. Dropping this does not stop it: the token given to [`serve`] does.
#[derive(Debug)]
pub struct RpcServer {
    address: RpcAddress,
    thread: JoinHandle<()>,
}

impl RpcServer {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &RpcAddress {
        &self.address
    }

    /// Waits until the server has ended, about half a second after its token was cancelled at
    /// most, unless the application does not return from a call. Then nothing of it holds the
    /// store any more. Blocks.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the RPC server has panicked");
        }
    }
}

/// Listens on `laddr` (`tcp://HOST:PORT`, port 0 for any, or `unix://PATH`) and answers until `shutdown` is cancelled,
/// on threads of its own. When this returns, connections are accepted. Within a tokio runtime that
/// one follows the progress: who tells of it has a thread awake already.
///
/// # Errors
/// When the address cannot be used, or the system gives no threads.
pub fn serve(
    laddr: &str,
    context: RpcContext,
    config: &RpcConfig,
    shutdown: CancellationToken,
) -> Result<RpcServer, ServeError> {
    let progress = context.progress.clone();
    let backend = Arc::new(Backend::new(context, config)?);
    let tls = config.tls.as_ref().map(acceptor).transpose()?;
    let bound = Bound::new(laddr)?;
    let address = bound.address().map_err(ServeError::Threads)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .max_blocking_threads(calls::threads(config))
        .thread_name("rpc")
        .enable_all()
        .build()
        .map_err(ServeError::Threads)?;
    let listener = {
        let _inside = runtime.enter();
        bound.into_listener().map_err(ServeError::Threads)?
    };
    let follower = Handle::try_current().unwrap_or_else(|_| runtime.handle().clone());
    let follow = follow(progress, Arc::clone(&backend.synced), shutdown.clone());
    let config_has_tls = tls.is_some();
    let config = config.clone();
    let run = move || {
        runtime.block_on(run(listener, tls, backend, config, shutdown));
        runtime.shutdown_timeout(STOP_PATIENCE);
    };
    let thread = std::thread::Builder::new()
        .name("rpc-main".to_owned())
        .spawn(run)
        .map_err(ServeError::Threads)?;
    drop(follower.spawn(follow));
    tracing::info!(%address, tls = config_has_tls, "RPC server listens");
    Ok(RpcServer { address, thread })
}

async fn run(
    listener: Listener,
    tls: Option<TlsAcceptor>,
    backend: Arc<Backend>,
    config: RpcConfig,
    shutdown: CancellationToken,
) {
    let router = http::router(backend, &config);
    let config = Arc::new(config);
    let tasks = TaskTracker::new();
    let most = match config.max_open_connections {
        0 => Semaphore::MAX_PERMITS,
        most => most.min(Semaphore::MAX_PERMITS),
    };
    let places = Arc::new(Semaphore::new(most));
    // Connections without an address are told apart by their number.
    let mut number = 0_u64;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, remote, place)) => {
                number += 1;
                let connection = Connection {
                    caller: caller(remote, number),
                    _place: Arc::new(place),
                    tasks: tasks.clone(),
                    stop: shutdown.clone(),
                };
                let router = router.clone().layer(Extension(connection));
                let (tls, config) = (tls.clone(), Arc::clone(&config));
                let stop = shutdown.clone();
                tasks.spawn(async move {
                    welcome(stream, tls, router, &config, stop).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the RPC server cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    // Whoever is not done by then is cut off.
    let _ = tokio::time::timeout(STOP_PATIENCE, tasks.wait()).await;
}

fn caller(remote: Option<SocketAddr>, number: u64) -> Caller {
    let remote = remote.map_or_else(|| format!("unix-{number}"), |remote| remote.to_string());
    Caller {
        remote: remote.into(),
    }
}

/// A place first, then a connection: those without a place wait in the system's queue.
async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> io::Result<(Stream, Option<SocketAddr>, OwnedSemaphorePermit)> {
    let place = match Arc::clone(places).try_acquire_owned() {
        Ok(place) => place,
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
            let waiting = Arc::clone(places).acquire_owned();
            waiting.await.map_err(io::Error::other)?
        }
    };
    let (stream, remote) = listener.accept().await?;
    Ok((stream, remote, place))
}

/// Serves one connection, over TLS where that is configured; the handshake has the time of a
/// request.
async fn welcome(
    stream: Stream,
    tls: Option<TlsAcceptor>,
    router: Router,
    config: &RpcConfig,
    shutdown: CancellationToken,
) {
    let Some(tls) = tls else {
        return serve_connection(stream, router, config, shutdown).await;
    };
    let shaken = tokio::select! {
        () = shutdown.cancelled() => return,
        shaken = tokio::time::timeout(config.read_timeout, tls.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => serve_connection(stream, router, config, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// Answers the requests of one connection; a failure ends it and concerns nobody else.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    config: &RpcConfig,
    shutdown: CancellationToken,
) {
    let stream = TokioIo::new(Impatient::new(stream, config.write_timeout));
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.read_timeout)
        // Otherwise a large answer would be copied, and its space free before it is sent.
        .writev(true)
        .max_buf_size(config.max_header_bytes.max(LEAST_HEADER_BYTES));
    let connection = builder.serve_connection(stream, service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an RPC connection ended");
    }
}

/// Counts the time spent on catching up.
async fn follow(
    mut progress: watch::Receiver<Progress>,
    synced: Arc<SyncClock>,
    shutdown: CancellationToken,
) {
    loop {
        synced.note(progress.borrow_and_update().is_catching_up());
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = progress.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
