use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use perihelion_crypto::NodeId;
use thiserror::Error;

/// Where a peer is dialled: `id@host:port`, the host a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddress {
    /// The identity that must answer.
    pub id: NodeId,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A text is no address of a peer or listener.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No `id@` before the host.
    #[error("address {0:?} has no node id: expected id@host:port")]
    NoId(String),
    /// What stands before `@` is not 40 hexadecimal digits.
    #[error("address {0:?} has a malformed node id: expected 40 hexadecimal digits")]
    Id(String),
    /// No host, no port, or a port that is not 0 to 65535.
    #[error("address {0:?} has no valid host and port: expected host:port or [ipv6]:port")]
    HostPort(String),
}

impl PeerAddress {
    /// Parses a comma-separated list as `persistent_peers` holds it; empty entries are skipped.
    ///
    /// # Errors
    /// Names the first entry that is no address.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, AddressError> {
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::parse)
            .collect()
    }
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (id, host_port) = without_scheme(text)
            .split_once('@')
            .ok_or_else(|| AddressError::NoId(text.to_owned()))?;
        let id = id.parse().map_err(|_| AddressError::Id(text.to_owned()))?;
        let (host, port) = split_host_port(host_port)?;
        Ok(Self {
            id,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, join_host_port(&self.host, self.port))
    }
}

/// `host:port`, with brackets where the host is an IPv6 address.
pub(crate) fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Cuts a leading `tcp://` or any other scheme.
pub(crate) fn without_scheme(text: &str) -> &str {
    text.split_once("://").map_or(text, |(_, rest)| rest)
}

/// Splits `host:port` or `[ipv6]:port`; the host must not be empty.
///
/// # Errors
/// When either is missing or the port is not 0 to 65535.
pub(crate) fn split_host_port(text: &str) -> Result<(&str, u16), AddressError> {
    let fail = || AddressError::HostPort(text.to_owned());
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(fail)?;
        (host, rest.strip_prefix(':').ok_or_else(fail)?)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or_else(fail)?;
        if host.contains(':') {
            return Err(fail());
        }
        (host, port)
    };
    if host.is_empty() || port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fail());
    }
    Ok((host, port.parse().map_err(|_| fail())?))
}

/// An IPv4-mapped IPv6 address as the IPv4 address that it is, so that one host has one address
/// whatever socket it came through.
#[must_use]
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(address.ip()), address.port())
}

/// See [`canonical`].
#[must_use]
pub(crate) fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "9d526283c6cff319527a30666c72a857a72a5191";

    #[test]
    fn addresses_of_every_form() {
        for (text, host, port) in [
            (format!("{ID}@127.0.0.1:1"), "127.0.0.1", 1),
            (
                format!("tcp://{ID}@node.example:26656"),
                "node.example",
                26656,
            ),
            (format!("{ID}@[::1]:65535"), "::1", 65535),
        ] {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), without_scheme(&text));
        }
    }

    #[test]
    fn malformed_addresses() {
        for text in [
            "127.0.0.1:1".to_owned(),
            "abcdef@127.0.0.1:1".to_owned(),
            format!("{ID}@127.0.0.1"),
            format!("{ID}@:1"),
            format!("{ID}@127.0.0.1:65536"),
            format!("{ID}@127.0.0.1:+1"),
            format!("{ID}@::1:1"),
            format!("{ID}@[::1]"),
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn lists_skip_empty_entries() {
        let list = PeerAddress::parse_list(&format!(" {ID}@a:1 ,, {ID}@b:2,")).unwrap();
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn mapped_addresses_are_one_host() {
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:5".parse().unwrap();
        assert_eq!(canonical(mapped), "127.0.0.1:5".parse().unwrap());
    }
}
