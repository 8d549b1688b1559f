use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, TryAcquireError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{RpcConfig, RpcContext, connection::Impatient, context::Backend, http};

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
    #[error("rpc.laddr {0:?} is no address to listen on: use tcp://HOST:PORT")]
    Address(String),
    /// The system refuses the address.
    #[error("cannot listen on {address} (rpc.laddr): {source}; is another node running there?")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
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
    address: SocketAddr,
    thread: JoinHandle<()>,
}

impl RpcServer {
    /// Where it listens: with the port that the system chose where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
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

/// Listens on `laddr` (`tcp://HOST:PORT`; port 0: any) and answers until `shutdown` is cancelled,
/// on threads of its own. When this returns, connections are accepted.
///
/// # Errors
/// When the address cannot be used, or the system gives no threads.
pub fn serve(
    laddr: &str,
    context: RpcContext,
    config: &RpcConfig,
    shutdown: CancellationToken,
) -> Result<RpcServer, ServeError> {
    let backend = Arc::new(Backend::new(context)?);
    let listener = listen(laddr)?;
    let address = listener.local_addr().map_err(ServeError::Threads)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .max_blocking_threads(config.workers.max(1))
        .thread_name("rpc")
        .enable_all()
        .build()
        .map_err(ServeError::Threads)?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener).map_err(ServeError::Threads)?
    };
    let config = config.clone();
    let run = move || {
        runtime.block_on(run(listener, backend, config, shutdown));
        runtime.shutdown_timeout(STOP_PATIENCE);
    };
    let thread = std::thread::Builder::new()
        .name("rpc-main".to_owned())
        .spawn(run)
        .map_err(ServeError::Threads)?;
    tracing::info!(%address, "RPC server listens");
    Ok(RpcServer { address, thread })
}

fn listen(laddr: &str) -> Result<StdListener, ServeError> {
    let bare = match laddr.split_once("://") {
        Some(("tcp", bare)) => bare,
        Some(_) => return Err(ServeError::Address(laddr.to_owned())),
        None => laddr,
    };
    let Some((host, port)) = bare.rsplit_once(':') else {
        return Err(ServeError::Address(laddr.to_owned()));
    };
    let port: u16 = port
        .parse()
        .map_err(|_| ServeError::Address(laddr.to_owned()))?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let address = format!("{host}:{port}");
    let bound = StdListener::bind(&address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| ServeError::Listen { address, source })
}

async fn run(
    listener: TcpListener,
    backend: Arc<Backend>,
    config: RpcConfig,
    shutdown: CancellationToken,
) {
    let router = http::router(Arc::clone(&backend), &config);
    let tasks = TaskTracker::new();
    tasks.spawn(follow(backend, shutdown.clone()));
    let most = match config.max_open_connections {
        0 => Semaphore::MAX_PERMITS,
        most => most.min(Semaphore::MAX_PERMITS),
    };
    let places = Arc::new(Semaphore::new(most));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let serving = serve_connection(stream, router.clone(), &config, shutdown.clone());
                tasks.spawn(async move {
                    serving.await;
                    drop(place);
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

/// A place first, then a connection: those without a place wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = match Arc::clone(places).try_acquire_owned() {
        Ok(place) => place,
        Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
            let waiting = Arc::clone(places).acquire_owned();
            waiting.await.map_err(io::Error::other)?
        }
    };
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

/// Answers the requests of one connection; a failure ends it and concerns nobody else.
fn serve_connection(
    stream: TcpStream,
    router: Router,
    config: &RpcConfig,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let stream = TokioIo::new(Impatient::new(stream, config.write_timeout));
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.read_timeout)
        .max_buf_size(config.max_header_bytes.max(LEAST_HEADER_BYTES));
    let connection = builder.serve_connection(stream, service);
    async move {
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
}

/// Counts the time spent on catching up.
async fn follow(backend: Arc<Backend>, shutdown: CancellationToken) {
    let mut progress = backend.context.progress.clone();
    loop {
        let catching_up = progress.borrow_and_update().is_catching_up();
        backend.note_progress(catching_up);
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = progress.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
