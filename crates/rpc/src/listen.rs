//! Where the server listens, and the streams that come from there: TCP, Unix sockets, TLS.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener as StdTcp},
    os::unix::{
        fs::FileTypeExt as _,
        net::{UnixListener as StdUnix, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::{ServeError, TlsFiles};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcAddress {
    /// At a TCP address, with the port that the system chose where 0 was asked for.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Whether a server could listen on `laddr` now.
///
/// # Errors
/// As [`serve`](crate::serve) would.
pub fn check_address(laddr: &str) -> Result<(), ServeError> {
    match Bound::new(laddr)? {
        Bound::Tcp(_) => {}
        Bound::Unix(_, path) => drop(SocketFile(path)),
    }
    Ok(())
}

/// Whether a server could speak TLS with these files.
///
/// # Errors
/// As [`serve`](crate::serve) would.
pub fn check_tls(files: &TlsFiles) -> Result<(), ServeError> {
    acceptor(files).map(drop)
}

/// A listener that is bound, before its runtime is there.
pub(crate) enum Bound {
    Tcp(StdTcp),
    Unix(StdUnix, PathBuf),
}

impl Bound {
    /// Binds `tcp://HOST:PORT`, `HOST:PORT` or `unix://PATH`.
    pub(crate) fn new(laddr: &str) -> Result<Self, ServeError> {
        match laddr.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => bind_unix(Path::new(path)),
            Some(("tcp", bare)) => bind_tcp(laddr, bare),
            Some(_) => Err(ServeError::Address(laddr.to_owned())),
            None => bind_tcp(laddr, laddr),
        }
    }

    pub(crate) fn address(&self) -> io::Result<RpcAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(RpcAddress::Tcp),
            Self::Unix(_, path) => Ok(RpcAddress::Unix(path.clone())),
        }
    }

    /// The listener inside of a runtime.
    pub(crate) fn into_listener(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener, path) => {
                Listener::Unix(UnixListener::from_std(listener)?, SocketFile(path))
            }
        })
    }
}

fn bind_tcp(laddr: &str, bare: &str) -> Result<Bound, ServeError> {
    let malformed = || ServeError::Address(laddr.to_owned());
    let (host, port) = bare.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed())?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let address = format!("{host}:{port}");
    let bound = StdTcp::bind(&address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(Bound::Tcp(listener))
    });
    bound.map_err(|source| ServeError::Listen { address, source })
}

fn bind_unix(path: &Path) -> Result<Bound, ServeError> {
    remove_abandoned(path);
    let bound = StdUnix::bind(path).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(Bound::Unix(listener, path.to_owned()))
    });
    bound.map_err(|source| ServeError::Listen {
        address: format!("unix://{}", path.display()),
        source,
    })
}

/// Removes the socket that a server left behind which was killed: nobody accepts there any more.
fn remove_abandoned(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && StdUnixStream::connect(path).is_err_and(refused) {
        // If it cannot be removed, binding tells of it.
        let _ = std::fs::remove_file(path);
    }
}

/// Accepts connections.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[allow(dead_code, reason = "dropped with the listener")] SocketFile,
    ),
}

impl Listener {
    /// The next connection, and the address where it comes from; `None` for a Unix socket's.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(remote)))
            }
            Self::Unix(listener, _) => listener
                .accept()
                .await
                .map(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }
}

/// A socket's file, which goes with its listener.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever removed it before has done this.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection, before TLS.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What makes TLS of a connection, with the certificate and the key of `files`.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let unreadable = |path: &Path, reason: String| ServeError::Tls {
        path: path.to_owned(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&files.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unreadable(&files.key, error.to_string()))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unreadable(&files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
