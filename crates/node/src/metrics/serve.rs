//! The server for monitoring systems: `/metrics`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::Metrics;

/// What the text is, by its specification.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a client may take to send a question.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last: who asks every few seconds opens another.
const LIFE: Duration = Duration::from_secs(300);
/// Pause after a failed accept: the usual cause, too many open files, lasts for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that runs.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    pub(crate) address: SocketAddr,
    pub(crate) task: JoinHandle<()>,
}

/// Serves metrics at `HOST:PORT`, the host being possibly empty, until `stop`; to so many clients
/// at once (0: no bound).
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn serve(
    address: &str,
    most: u64,
    metrics: Metrics,
    stop: CancellationToken,
) -> anyhow::Result<MetricsServer> {
    let bare = address.strip_prefix("tcp://").unwrap_or(address);
    let bound = if bare.starts_with(':') {
        format!("0.0.0.0{bare}")
    } else {
        bare.to_owned()
    };
    let listener = TcpListener::bind(&bound).await.with_context(|| {
        format!(
            "instrumentation.prometheus_listen_addr = {address:?} cannot be listened on: choose \
             another HOST:PORT, or set instrumentation.prometheus to false"
        )
    })?;
    let address = listener.local_addr()?;
    let metrics = Arc::new(metrics);
    let answer = move || {
        let metrics = Arc::clone(&metrics);
        async move {
            let text = tokio::task::spawn_blocking(move || metrics.text()).await;
            ([(CONTENT_TYPE, TEXT)], text.unwrap_or_default())
        }
    };
    let router = Router::new().route("/metrics", get(answer));
    let places = match usize::try_from(most) {
        Ok(0) | Err(_) => Semaphore::MAX_PERMITS,
        Ok(most) => most.min(Semaphore::MAX_PERMITS),
    };
    let task = tokio::spawn(accept_all(listener, router, places, stop));
    Ok(MetricsServer { address, task })
}

async fn accept_all(listener: TcpListener, router: Router, places: usize, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(places));
    let connections = TaskTracker::new();
    loop {
        // A place first: who finds none waits in the system's queue.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = tokio::time::timeout(LIFE, answer(stream, router)) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "the server of metrics cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn answer(stream: TcpStream, router: Router) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT);
    let service = TowerToHyperService::new(router);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "a connection for metrics ended");
    }
}
