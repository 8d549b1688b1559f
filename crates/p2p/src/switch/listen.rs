use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::address::{split_host_port, without_scheme};

use super::SwitchError;

/// Connections that the operating system may hold before they are accepted.
const BACKLOG: i32 = 1024;

/// Binds the listener of `laddr`; none when it is empty. An unspecified IPv6 address takes IPv4
/// too.
pub(super) async fn bind(laddr: &str) -> Result<Option<TcpListener>, SwitchError> {
    if laddr.is_empty() {
        return Ok(None);
    }
    let (host, port) = split_host_port(without_scheme(laddr))?;
    let resolved = tokio::net::lookup_host((host, port)).await;
    let address = resolved
        .and_then(|mut found| {
            found
                .next()
                .ok_or_else(|| std::io::ErrorKind::NotFound.into())
        })
        .map_err(|source| SwitchError::Resolve {
            host: host.to_owned(),
            source,
        })?;
    listener(address)
        .map(Some)
        .map_err(|source| SwitchError::Listen { address, source })
}

fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restarted node may listen while connections of its former run still linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
