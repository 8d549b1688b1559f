//! Addresses of peers as clients write them, and what Go says of wrong ones. Pure.

use perihelion_p2p::{NodeId, PeerAddress};
use thiserror::Error;

use crate::{arguments::decode_hex, go_json};

/// An address that is none, in CometBFT's words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum PeerError {
    #[error("address ({0}) does not contain ID")]
    NoId(String),
    #[error("invalid address ({address}): {reason}")]
    Invalid { address: String, reason: String },
    #[error("wrong ID #{index}: {reason}")]
    Id { index: usize, reason: String },
}

/// Reads addresses of the form `ID@HOST:PORT`.
///
/// # Errors
/// What CometBFT says of the first one that is none. A host that cannot be resolved is no error: it is
/// passed over when it is dialled.
pub(crate) fn addresses(texts: &[String]) -> Result<Vec<PeerAddress>, PeerError> {
    texts.iter().map(|text| address(text)).collect()
}

/// What stands before the `@` of each address.
///
/// # Errors
/// For an address without one, or with several.
pub(crate) fn id_texts(texts: &[String]) -> Result<Vec<&str>, PeerError> {
    texts
        .iter()
        .map(|text| {
            split_id(text).map_or_else(|| Err(PeerError::NoId(text.clone())), |it| Ok(it.0))
        })
        .collect()
}

/// What stands before and behind the only `@`.
fn split_id(text: &str) -> Option<(&str, &str)> {
    text.split_once('@').filter(|(_, rest)| !rest.contains('@'))
}

/// Whether each is an id.
///
/// # Errors
/// What CometBFT says of the first one that is none.
pub(crate) fn check_ids(texts: &[&str]) -> Result<(), PeerError> {
    for (index, text) in texts.iter().enumerate() {
        node_id(text).map_err(|reason| PeerError::Id { index, reason })?;
    }
    Ok(())
}

fn address(text: &str) -> Result<PeerAddress, PeerError> {
    let bare = text.split("://").nth(1).unwrap_or(text);
    let invalid = |address: &str, reason| PeerError::Invalid {
        address: address.to_owned(),
        reason,
    };
    let (id, rest) = split_id(bare).ok_or_else(|| PeerError::NoId(text.to_owned()))?;
    let id = node_id(id).map_err(|reason| invalid(bare, reason))?;
    let (host, port) = split_host_port(rest).map_err(|reason| invalid(rest, reason))?;
    if host.is_empty() {
        return Err(invalid(rest, "host is empty".to_owned()));
    }
    Ok(PeerAddress {
        id,
        host: host.to_owned(),
        port: port_number(port).map_err(|reason| invalid(port, reason))?,
    })
}

fn node_id(text: &str) -> Result<NodeId, String> {
    if text.is_empty() {
        return Err("no ID".to_owned());
    }
    let bytes = decode_hex(text.as_bytes())?;
    NodeId::try_from(bytes.as_slice()).map_err(|_| {
        let (got, expected) = (bytes.len(), NodeId::LENGTH);
        format!("invalid hex length - got {got}, expected {expected}")
    })
}

/// Splits at the last colon, as Go's `net.SplitHostPort` does.
fn split_host_port(text: &str) -> Result<(&str, &str), String> {
    let fail = |why: &str| {
        Err(if text.is_empty() {
            why.to_owned()
        } else {
            format!("address {text}: {why}")
        })
    };
    let (no_port, colons) = ("missing port in address", "too many colons in address");
    let Some((front, port)) = text.rsplit_once(':') else {
        return fail(no_port);
    };
    let (host, outside) = match text.strip_prefix('[') {
        None if front.contains(':') => return fail(colons),
        None => (front, text),
        Some(inside) => {
            let Some((host, behind)) = inside.split_once(']') else {
                return fail("missing ']' in address");
            };
            if behind.is_empty() {
                return fail(no_port);
            }
            if behind.len() != port.len() + 1 {
                return fail(if behind.starts_with(':') {
                    colons
                } else {
                    no_port
                });
            }
            if host.contains('[') {
                return fail("unexpected '[' in address");
            }
            (host, behind)
        }
    };
    if outside.contains('[') {
        return fail("unexpected '[' in address");
    }
    if outside.contains(']') {
        return fail("unexpected ']' in address");
    }
    Ok((host, port))
}

fn port_number(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let why = if digits {
            "value out of range"
        } else {
            "invalid syntax"
        };
        let shown = go_json::quote(text.as_bytes());
        format!("strconv.ParseUint: parsing {shown}: {why}")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "9d526283c6cff319527a30666c72a857a72a5191";

    fn one(text: &str) -> Result<PeerAddress, String> {
        address(text).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_of_every_form() {
        for (text, host, port) in [
            (format!("{ID}@127.0.0.1:1"), "127.0.0.1", 1),
            (
                format!("tcp://{ID}@node.example:26656"),
                "node.example",
                26_656,
            ),
            (format!("{}@[::1]:65535", ID.to_uppercase()), "::1", 65_535),
        ] {
            let address = one(&text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.id.to_string(), ID);
        }
    }

    /// The texts are those of a real CometBFT v0.38.25.
    #[test]
    fn complains_as_cometbft_does() {
        let short = "ab".repeat(19);
        for (text, complaint) in [
            ("".to_owned(), "address () does not contain ID".to_owned()),
            (
                "tcp://1.2.3.4:5".to_owned(),
                "address (tcp://1.2.3.4:5) does not contain ID".to_owned(),
            ),
            (
                format!("{ID}@a@b:1"),
                format!("address ({ID}@a@b:1) does not contain ID"),
            ),
            (
                "tcp://@a:1".to_owned(),
                "invalid address (@a:1): no ID".to_owned(),
            ),
            (
                "xy@a:1".to_owned(),
                "invalid address (xy@a:1): encoding/hex: invalid byte: U+0078 'x'".to_owned(),
            ),
            (
                "abc@a:1".to_owned(),
                "invalid address (abc@a:1): encoding/hex: odd length hex string".to_owned(),
            ),
            (
                format!("{short}@a:1"),
                format!("invalid address ({short}@a:1): invalid hex length - got 19, expected 20"),
            ),
            (
                format!("{ID}@"),
                "invalid address (): missing port in address".to_owned(),
            ),
            (
                format!("{ID}@1.2.3.4"),
                "invalid address (1.2.3.4): address 1.2.3.4: missing port in address".to_owned(),
            ),
            (
                format!("{ID}@::1:1"),
                "invalid address (::1:1): address ::1:1: too many colons in address".to_owned(),
            ),
            (
                format!("{ID}@[::1"),
                "invalid address ([::1): address [::1: missing ']' in address".to_owned(),
            ),
            (
                format!("{ID}@[::1]"),
                "invalid address ([::1]): address [::1]: missing port in address".to_owned(),
            ),
            (
                format!("{ID}@[::1]1:1"),
                "invalid address ([::1]1:1): address [::1]1:1: missing port in address".to_owned(),
            ),
            (
                format!("{ID}@[::1]:1:1"),
                "invalid address ([::1]:1:1): address [::1]:1:1: too many colons in address"
                    .to_owned(),
            ),
            (
                format!("{ID}@[[::1]:1"),
                "invalid address ([[::1]:1): address [[::1]:1: unexpected '[' in address"
                    .to_owned(),
            ),
            (
                format!("{ID}@1[2:1"),
                "invalid address (1[2:1): address 1[2:1: unexpected '[' in address".to_owned(),
            ),
            (
                format!("{ID}@1]2:1"),
                "invalid address (1]2:1): address 1]2:1: unexpected ']' in address".to_owned(),
            ),
            (
                format!("{ID}@:1"),
                "invalid address (:1): host is empty".to_owned(),
            ),
            (
                format!("{ID}@1.2.3.4:"),
                "invalid address (): strconv.ParseUint: parsing \"\": invalid syntax".to_owned(),
            ),
            (
                format!("{ID}@1.2.3.4:+1"),
                "invalid address (+1): strconv.ParseUint: parsing \"+1\": invalid syntax"
                    .to_owned(),
            ),
            (
                format!("{ID}@1.2.3.4:65536"),
                "invalid address (65536): strconv.ParseUint: parsing \"65536\": value out of range"
                    .to_owned(),
            ),
        ] {
            assert_eq!(one(&text).unwrap_err(), complaint, "{text}");
        }
    }

    #[test]
    fn ids_alone_are_taken_as_they_stand() {
        let texts = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let plain = texts(&["ab@x", "tcp://cd@y"]);
        assert_eq!(id_texts(&plain).unwrap(), ["ab", "tcp://cd"]);
        for wrong in ["ab", "a@b@c", ""] {
            let error = id_texts(&texts(&["ab@x", wrong])).unwrap_err();
            let expected = format!("address ({wrong}) does not contain ID");
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(check_ids(&[ID, ID]), Ok(()));
        let error = check_ids(&[ID, "tcp://cd"]).unwrap_err().to_string();
        assert_eq!(error, "wrong ID #1: encoding/hex: invalid byte: U+0074 't'");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-f0-9@:/\\[\\]é]{0,60}", tail in ".{0,20}") {
            let texts = [text.clone(), format!("{ID}@{text}"), format!("{ID}@{text}{tail}"), tail];
            for text in &texts {
                let _ = address(text);
            }
            let _ = id_texts(&texts);
        }

        /// What is no IPv6 address comes back as it was.
        #[test]
        fn what_is_well_formed_is_taken(host in "[a-z0-9.-]{1,30}", port in any::<u16>()) {
            let text = format!("{ID}@{host}:{port}");
            prop_assert_eq!(one(&text).unwrap().to_string(), text);
        }
    }
}
