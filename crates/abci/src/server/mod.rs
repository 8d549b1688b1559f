//! Serves an application to nodes in other processes, ours and CometBFT's.

mod dispatch;
mod grpc;
mod socket;

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use self::dispatch::Served;
use crate::{AppAddress, AppError, AppTransport, Application, remote::Stream, threads::Threads};

/// Connections at once; a node has four. More are closed as they come.
const MAX_CONNECTIONS: usize = 256;

/// After a connection that cannot be served, for want of descriptors, say: without it the same would
/// fail in a loop.
const PAUSE: Duration = Duration::from_millis(100);

/// An address cannot be served on.
#[derive(Debug, Error)]
#[error("{address} cannot be listened on: {source}")]
pub struct ServeError {
    /// The address.
    pub address: AppAddress,
    /// Why.
    pub source: io::Error,
}

/// A served application. Dropped, it listens no more and its connections are closed; a call that
/// runs is run to its end.
pub struct AppServer {
    address: AppAddress,
    stop: CancellationToken,
    /// Streams of the socket protocol, whose threads end with them.
    streams: Arc<Mutex<Vec<Weak<Stream>>>>,
    /// Fails once nobody accepts any longer.
    accepting: mpsc::Receiver<()>,
    _threads: Threads,
}

impl AppServer {
    /// Listens on `address` (port 0: any) and serves `app` from now on. Calls of one connection
    /// come one after another over the socket protocol, those of several connections at the same
    /// time.
    ///
    /// `failed` is called when the application panics, or fails in a call that changes its state:
    /// it is not called again, and every further request is refused. Whoever serves it should end
    /// and begin anew with the state that is stored.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start(
        address: &AppAddress,
        transport: AppTransport,
        app: Arc<dyn Application>,
        failed: impl FnOnce(AppError) + Send + 'static,
    ) -> Result<Self, ServeError> {
        let refused = |source| ServeError {
            address: address.clone(),
            source,
        };
        let threads = Threads::start("abci-server").map_err(refused)?;
        let handle = threads.handle().map_err(refused)?;
        let in_runtime = handle.enter();
        let (listener, address) = listen(address).map_err(refused)?;
        drop(in_runtime);
        let server = Server {
            transport,
            app: Arc::new(Served::new(app, failed)),
            stop: CancellationToken::new(),
            streams: Arc::default(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        };
        let (stop, streams) = (server.stop.clone(), Arc::clone(&server.streams));
        let (accepts, accepting) = mpsc::channel();
        handle.spawn(async move {
            server.accept(&listener).await;
            drop(listener);
            drop(accepts);
        });
        Ok(Self {
            address,
            stop,
            streams,
            accepting,
            _threads: threads,
        })
    }

    /// Where it listens, with the port that it got.
    #[must_use]
    pub fn address(&self) -> &AppAddress {
        &self.address
    }
}

impl Drop for AppServer {
    fn drop(&mut self) {
        self.stop.cancel();
        // At once: that task waits for nothing else.
        let _ended = self.accepting.recv();
        let streams = std::mem::take(&mut *lock(&self.streams));
        for stream in streams.iter().filter_map(Weak::upgrade) {
            stream.shutdown();
        }
        if let AppAddress::Unix(path) = &self.address {
            // What is left of it is removed at the next start.
            let _removed = fs::remove_file(path);
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => Accepted::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Accepted::Unix(listener.accept().await?.0),
        })
    }
}

/// What accepts connections.
struct Server {
    transport: AppTransport,
    app: Arc<Served>,
    stop: CancellationToken,
    streams: Arc<Mutex<Vec<Weak<Stream>>>>,
    room: Arc<Semaphore>,
}

impl Server {
    async fn accept(self, listener: &Listener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted.and_then(|stream| self.begin(stream)) {
                Ok(()) => tracing::info!("a node connected"),
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be served");
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        }
    }

    fn begin(&self, stream: Accepted) -> io::Result<()> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            return Err(io::Error::other("too many connections"));
        };
        if let Accepted::Tcp(stream) = &stream {
            stream.set_nodelay(true)?;
        }
        let app = Arc::clone(&self.app);
        match (self.transport, stream) {
            (AppTransport::Socket, stream) => {
                let stream = Arc::new(blocking(stream)?);
                let mut streams = lock(&self.streams);
                streams.retain(|stream| stream.strong_count() > 0);
                streams.push(Arc::downgrade(&stream));
                drop(streams);
                let serve = move || {
                    let _room = room;
                    ended(socket::serve(&stream, &app));
                    stream.shutdown();
                };
                let thread = std::thread::Builder::new().name("abci-socket".to_owned());
                thread.spawn(serve).map(drop)
            }
            (AppTransport::Grpc, stream) => {
                tokio::spawn(async move {
                    let _room = room;
                    ended(match stream {
                        Accepted::Tcp(stream) => grpc::serve(stream, app).await,
                        Accepted::Unix(stream) => grpc::serve(stream, app).await,
                    });
                });
                Ok(())
            }
        }
    }
}

fn ended(outcome: Result<(), impl std::fmt::Display>) {
    match outcome {
        Ok(()) => tracing::info!("a node disconnected"),
        Err(error) => tracing::warn!(%error, "a connection of a node ended"),
    }
}

fn lock(streams: &Mutex<Vec<Weak<Stream>>>) -> MutexGuard<'_, Vec<Weak<Stream>>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

fn blocking(stream: Accepted) -> io::Result<Stream> {
    Ok(match stream {
        Accepted::Tcp(stream) => {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            Stream::Tcp(stream)
        }
        Accepted::Unix(stream) => {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            Stream::Unix(stream)
        }
    })
}

/// Listens; returns the address with the port that was given.
fn listen(address: &AppAddress) -> io::Result<(Listener, AppAddress)> {
    match address {
        AppAddress::Tcp { host, port } => {
            let bind_host = if host.is_empty() { "0.0.0.0" } else { host };
            let listener = std::net::TcpListener::bind((bind_host, *port))?;
            listener.set_nonblocking(true)?;
            let address = AppAddress::Tcp {
                host: host.clone(),
                port: listener.local_addr()?.port(),
            };
            Ok((Listener::Tcp(TcpListener::from_std(listener)?), address))
        }
        AppAddress::Unix(path) => {
            remove_left(path)?;
            let listener = UnixListener::bind(path)?;
            Ok((Listener::Unix(listener), address.clone()))
        }
    }
}

/// Removes the socket that a server left when it was killed. One that somebody listens on stays.
fn remove_left(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    let nobody = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(nobody) {
        fs::remove_file(path)?;
    }
    Ok(())
}
