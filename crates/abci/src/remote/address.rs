use std::{
    fmt, io,
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;

use super::stream::Stream;

/// How long one attempt to reach one address may take. Shorter: applications on slow networks are
/// not reached. Longer: a node that is stopped while it dials waits so long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// After so long without a byte the machine of the application is asked whether it is still there,
/// and so often until it answers: Go's default, which CometBFT's connections have.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where an application listens: `tcp://HOST:PORT`, the same without `tcp://`, or `unix://PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppAddress {
    /// A port of a host; an empty host is this machine.
    Tcp {
        /// Name or IP, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// How requests and responses are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppTransport {
    /// CometBFT's socket protocol: length-delimited messages, in order.
    #[default]
    Socket,
    /// gRPC, without TLS.
    Grpc,
}

/// A text is no address of an application.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no address of an application: expected tcp://HOST:PORT or unix://PATH")]
pub struct AddressError(pub String);

impl FromStr for AppAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        match text.split_once("://").unwrap_or(("tcp", text)) {
            ("unix", path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            ("tcp", rest) => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
                let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
                let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
                let host = match bare {
                    Some(inside) if inside.contains(':') => inside,
                    None if !host.contains(':') => host,
                    _ => return Err(wrong()),
                };
                if !host.chars().all(is_host) || !port.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(wrong());
                }
                Ok(Self::Tcp {
                    host: host.to_owned(),
                    port: port.parse().map_err(|_| wrong())?,
                })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for AppAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl fmt::Display for AppTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "socket",
            Self::Grpc => "grpc",
        })
    }
}

impl AppAddress {
    /// One attempt at every IP that the host has.
    pub(super) fn dial(&self) -> io::Result<Stream> {
        let (host, port) = match self {
            Self::Unix(path) => return UnixStream::connect(path).map(Stream::Unix),
            Self::Tcp { host, port } if host.is_empty() => ("127.0.0.1", *port),
            Self::Tcp { host, port } => (host.as_str(), *port),
        };
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, DIAL_TIMEOUT).and_then(prepared) {
                Ok(stream) => return Ok(Stream::Tcp(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    // A dial of a free port above 32767 on this machine can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("tcp://127.0.0.1:26658", "tcp://127.0.0.1:26658"),
            ("localhost:26658", "tcp://localhost:26658"),
            (":26658", "tcp://:26658"),
            ("tcp://[::1]:0", "tcp://[::1]:0"),
            ("unix:///run/app.sock", "unix:///run/app.sock"),
            ("unix://app.sock", "unix://app.sock"),
        ] {
            let address: AppAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        for text in [
            "",
            "kvstor",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:",
            "tcp://127.0.0.1:+1",
            "tcp://127.0.0.1:65536",
            "tcp://::1:26658",
            "tcp://[localhost]:1",
            "tcp://a b:1",
            "tcp://user@host/x:1",
            "unix://",
            "http://127.0.0.1:26658",
        ] {
            let refused = text.parse::<AppAddress>().unwrap_err();
            assert!(refused.to_string().contains("tcp://HOST:PORT"), "{text}");
        }
    }
}
