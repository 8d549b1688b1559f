//! Rules that a value's type cannot say: CometBFT's, and those of our own keys.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Config,
    problem::{Place, Problem},
};
use crate::logging::LogLevels;

/// Bytes of payload in a packet at most: without any, no message would ever end; and peers, who
/// take 1,024 unless they are told otherwise, refuse larger packets than they expect.
const MOST_PAYLOAD: u64 = 1 << 20;

/// Collects broken rules with the places of the values.
struct Rules<'a> {
    places: &'a BTreeMap<String, Place>,
    broken: Vec<Problem>,
}

impl Rules<'_> {
    fn demand(&mut self, holds: bool, key: &str, rule: &str) {
        if !holds {
            self.broken.push(Problem::Rule {
                place: self.places.get(key).cloned().unwrap_or(Place::Default),
                key: key.to_owned(),
                rule: rule.to_owned(),
            });
        }
    }
}

impl Config {
    /// The rules that do not hold, with the places of the values as far as `places` knows them.
    #[must_use]
    pub fn broken_rules(&self, places: &BTreeMap<String, Place>) -> Vec<Problem> {
        let mut rules = Rules {
            places,
            broken: Vec::new(),
        };
        self.base_rules(&mut rules);
        self.told_rules(&mut rules);
        self.p2p_rules(&mut rules);
        self.rpc_rules(&mut rules);
        self.state_sync_rules(&mut rules);
        self.block_sync_rules(&mut rules);
        self.own_rules(&mut rules);
        rules.demand(
            !self.consensus.block_time_tolerance.is_zero(),
            "consensus.block_time_tolerance",
            "must be positive",
        );
        rules.broken
    }

    /// What peers are told of this node, which they refuse where it is no plain text.
    fn told_rules(&self, rules: &mut Rules<'_>) {
        let moniker = &self.base.moniker;
        rules.demand(
            is_printable(moniker) && !moniker.trim().is_empty(),
            "moniker",
            &format!(
                "{moniker:?} is no name that peers take: write printable ASCII text, such as node-1"
            ),
        );
        let address = &self.rpc.laddr;
        rules.demand(
            is_printable(address),
            "rpc.laddr",
            &format!("{address:?} is told to peers, who take printable ASCII text only"),
        );
    }

    fn p2p_rules(&self, rules: &mut Rules<'_>) {
        rules.demand(
            (1..=MOST_PAYLOAD).contains(&self.p2p.max_packet_msg_payload_size),
            "p2p.max_packet_msg_payload_size",
            "must be 1 to 1048576 (1 MiB)",
        );
    }

    fn base_rules(&self, rules: &mut Rules<'_>) {
        let version = &self.base.version;
        rules.demand(
            version.is_empty() || is_semantic_version(version),
            "version",
            "must be a version such as 0.38.25",
        );
        if let Err(error) = LogLevels::parse(&self.base.log_level) {
            rules.demand(false, "log_level", &error.to_string());
        }
        for (key, address) in [
            ("rpc.laddr", &self.rpc.laddr),
            ("p2p.laddr", &self.p2p.laddr),
            ("priv_validator_laddr", &self.base.priv_validator_laddr),
        ] {
            let for_peers = key == "p2p.laddr";
            let hostless = for_peers && address.trim_start_matches("tcp://").starts_with(':');
            let may_be_empty = !for_peers && address.is_empty();
            rules.demand(
                may_be_empty || (is_listen_address(address) && !hostless),
                key,
                &format!(
                    "{address:?} is no address to listen on: write tcp://HOST:PORT{}",
                    if hostless {
                        ", the host 0.0.0.0 for all interfaces"
                    } else {
                        ""
                    }
                ),
            );
        }
        for (key, peers) in [
            ("p2p.seeds", &self.p2p.seeds),
            ("p2p.persistent_peers", &self.p2p.persistent_peers),
        ] {
            for peer in entries(peers) {
                let fault = peer_fault(peer);
                rules.demand(
                    fault.is_none(),
                    key,
                    &format!(
                        "{peer:?} is no peer, {}: write ID@HOST:PORT, the id being what `show-node-id` prints there",
                        fault.unwrap_or_default()
                    ),
                );
            }
        }
        for (key, ids) in [
            (
                "p2p.unconditional_peer_ids",
                &self.p2p.unconditional_peer_ids,
            ),
            ("p2p.private_peer_ids", &self.p2p.private_peer_ids),
        ] {
            for id in entries(ids) {
                rules.demand(
                    is_node_id(id),
                    key,
                    &format!("{id:?} is no node id: 40 hexadecimal digits"),
                );
            }
        }
    }

    fn rpc_rules(&self, rules: &mut Rules<'_>) {
        let rpc = &self.rpc;
        rules.demand(
            rpc.experimental_subscription_buffer_size >= 100,
            "rpc.experimental_subscription_buffer_size",
            "must be 100 or more",
        );
        rules.demand(
            rpc.experimental_websocket_write_buffer_size
                >= rpc.experimental_subscription_buffer_size,
            "rpc.experimental_websocket_write_buffer_size",
            "must not be below experimental_subscription_buffer_size",
        );
    }

    fn state_sync_rules(&self, rules: &mut Rules<'_>) {
        let sync = &self.state_sync;
        if !sync.enable {
            return;
        }
        let five = Duration::from_secs(5);
        let servers = &sync.rpc_servers.0;
        for (holds, key, rule) in [
            (
                servers.len() >= 2,
                "rpc_servers",
                "needs at least two servers",
            ),
            (
                servers.iter().all(|server| !server.is_empty()),
                "rpc_servers",
                "has an empty entry",
            ),
            (
                sync.discovery_time.is_zero() || sync.discovery_time >= five,
                "discovery_time",
                "must be 0s or at least 5s",
            ),
            (!sync.trust_period.is_zero(), "trust_period", "is needed"),
            (sync.trust_height > 0, "trust_height", "is needed"),
            (!sync.trust_hash.is_empty(), "trust_hash", "is needed"),
            (
                is_hexadecimal(&sync.trust_hash),
                "trust_hash",
                "must be hexadecimal",
            ),
            (
                sync.chunk_request_timeout >= five,
                "chunk_request_timeout",
                "must be at least 5s",
            ),
            (sync.chunk_fetchers.0 > 0, "chunk_fetchers", "is needed"),
            (
                sync.max_snapshot_chunks > 0,
                "max_snapshot_chunks",
                "is needed",
            ),
        ] {
            rules.demand(holds, &format!("statesync.{key}"), rule);
        }
    }

    fn block_sync_rules(&self, rules: &mut Rules<'_>) {
        let sync = &self.block_sync;
        for (holds, key, rule) in [
            (sync.version == "v0", "version", "must be \"v0\""),
            (
                sync.window_bytes >= 16 << 20,
                "window_bytes",
                "must be 16777216 (16 MiB) or more",
            ),
            (
                sync.window_heights >= 2,
                "window_heights",
                "must be 2 or more",
            ),
            (
                (1..=500).contains(&sync.peer_requests),
                "peer_requests",
                "must be 1 to 500",
            ),
            (
                sync.peer_timeout >= Duration::from_secs(1),
                "peer_timeout",
                "must be 1s or more",
            ),
            (
                (1..=1_000).contains(&sync.reenter_behind),
                "reenter_behind",
                "must be 1 to 1000",
            ),
        ] {
            rules.demand(holds, &format!("blocksync.{key}"), rule);
        }
    }

    fn own_rules(&self, rules: &mut Rules<'_>) {
        let list = &self.perihelion.median_time;
        rules.demand(
            list.first().is_some_and(|rule| rule.from_height == 1)
                && list.is_sorted_by(|a, b| a.from_height < b.from_height),
            "perihelion.median_time",
            "must begin with from_height = 1 and ascend",
        );
        rules.demand(
            self.perihelion.store_cache_bytes >= 1 << 20,
            "perihelion.store_cache_bytes",
            "must be 1048576 (1 MiB) or more",
        );
        rules.demand(
            self.perihelion.search_entries >= 1_000,
            "perihelion.search_entries",
            "must be 1000 or more",
        );
        rules.demand(
            self.perihelion.search_timeout >= Duration::from_millis(100),
            "perihelion.search_timeout",
            "must be 100ms or more",
        );
    }
}

/// Whether text has only characters that [`NodeInfo`](perihelion_p2p::NodeInfo) may hold.
pub(super) fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// The entries of a list with commas, empty ones left out.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

fn is_hexadecimal(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_node_id(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

/// What is wrong with the address of a peer.
fn peer_fault(text: &str) -> Option<&'static str> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let Some((id, address)) = text.split_once('@') else {
        return Some("it has no @");
    };
    if !is_node_id(id) {
        return Some("its id is not 40 hexadecimal digits");
    }
    match host_and_port(address) {
        None => Some("behind the @ is no host with a port"),
        Some(_) => None,
    }
}

/// Whether text is an address that peers can be told to dial: `[tcp://]HOST:PORT`.
pub(crate) fn is_dialled(text: &str) -> bool {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    host_and_port(bare).is_some_and(|(host, _)| !host.is_empty())
}

/// Whether text is `[tcp://]HOST:PORT` or `unix://PATH`.
fn is_listen_address(text: &str) -> bool {
    match text.split_once("://") {
        Some(("tcp", address)) => host_and_port(address).is_some(),
        Some(("unix", path)) => !path.is_empty(),
        Some(_) => false,
        None => host_and_port(text).is_some(),
    }
}

/// Cuts `HOST:PORT`, the host being possibly empty or an IPv6 address in brackets.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return None;
    }
    let port = port.parse().ok().filter(|_| !port.starts_with('+'))?;
    Some((bare.unwrap_or(host), port))
}

/// Whether text is `MAJOR.MINOR.PATCH`, with a pre-release and build data allowed behind.
fn is_semantic_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<_> = core.split('.').collect();
    let number = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (*part == "0" || !part.starts_with('0'))
    };
    let tail = &text[core.len()..];
    numbers.len() == 3
        && numbers.iter().all(number)
        && !tail.ends_with(['-', '+', '.'])
        && tail
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-+.".contains(&byte))
}
