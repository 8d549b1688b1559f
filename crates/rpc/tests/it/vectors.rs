//! What a real CometBFT answered, request by request.

use perihelion_rpc::RpcConfig;
use perihelion_test_support::{each, load};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    chain::{FixedNetwork, Node, node_info, recorded_result, small_node},
    client::{Reply, ask},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "made_by")]
    _made_by: String,
    pub(crate) exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Option<String>,
    pub(crate) status: u16,
    content_type: Option<String>,
    cache_control: Option<String>,
    pub(crate) answer: String,
    stable: bool,
}

/// The files whose exchanges can come in any order.
const FILES: [&str; 22] = [
    "abci_info",
    "abci_query",
    "block",
    "block_by_hash",
    "block_results",
    "block_search",
    "blockchain",
    "broadcast_evidence",
    "check_tx",
    "commit",
    "consensus_params",
    "genesis",
    "genesis_chunked",
    "header",
    "header_by_hash",
    "health",
    "malformed",
    "net_info",
    "status",
    "tx",
    "tx_search",
    "validators",
];

/// Fields of `sync_info` that CometBFT does not have.
const EXTRA: [&str; 13] = [
    "max_peer_block_height",
    "total_synced_time",
    "remaining_time",
    "total_snapshots",
    "chunk_process_avg_time",
    "snapshot_height",
    "snapshot_chunks_count",
    "snapshot_chunks_total",
    "backfilled_blocks",
    "backfill_blocks_total",
    "mode",
    "mode_reason",
    "mode_time",
];

pub(crate) fn full_node() -> Node {
    full_node_with(&RpcConfig::default())
}

pub(crate) fn full_node_with(config: &RpcConfig) -> Node {
    let status = recorded_result(&load("rpc/status.json"), "status");
    let net_info = recorded_result(&load("rpc/net_info.json"), "net_info");
    let peers = net_info["peers"].as_array().unwrap();
    let network = FixedNetwork {
        node_info: node_info(&status["node_info"]),
        peers: peers.iter().map(|p| node_info(&p["node_info"])).collect(),
        orders: std::sync::Arc::default(),
    };
    let key = serde_json::from_value(status["validator_info"]["pub_key"].clone()).unwrap();
    Node::start(usize::MAX, config, network, key)
}

pub(crate) fn send(node: &Node, exchange: &Exchange) -> Reply {
    let body = exchange.body.as_deref().map(str::as_bytes);
    let reply = ask(node.address(), &exchange.method, &exchange.path, &[], body);
    if exchange.path.contains('"') {
        // As clients send quotes that escape them.
        let path = exchange.path.replace('"', "%22");
        let escaped = ask(node.address(), &exchange.method, &path, &[], body);
        assert_eq!(reply.body, escaped.body, "{path}");
    }
    reply
}

/// Cuts our own fields out of the text of a status, so that the rest is compared letter for letter.
fn without_extra(text: &str) -> String {
    let mut text = text.to_owned();
    for name in EXTRA {
        let start = text.find(&format!(",\"{name}\":\"")).unwrap();
        let value = start + name.len() + 5;
        let end = value + text[value..].find('"').unwrap() + 1;
        text.replace_range(start..end, "");
    }
    text
}

/// The lines of the page of endpoints by route, with the host left out.
fn endpoints(page: &str) -> (String, Vec<(String, String)>) {
    let mut pieces = page.split("<a href=\"//");
    let head = pieces.next().unwrap().to_owned();
    let lines = pieces.map(|piece| {
        let host = piece.split('/').next().unwrap();
        let piece = piece.replace(host, "HOST");
        let name = piece["HOST/".len()..].split('?').next().unwrap().to_owned();
        (name, piece.replace("</body></html>", ""))
    });
    (head, lines.collect())
}

fn check(node: &Node, file: &str, exchange: &Exchange) {
    judge(file, exchange, &send(node, exchange));
}

/// Whether a reply is the recorded one.
pub(crate) fn judge(file: &str, exchange: &Exchange, reply: &Reply) {
    let what = format!(
        "{file}: {} {} {}",
        exchange.name, exchange.method, exchange.path
    );
    assert_eq!(reply.status, exchange.status, "{what}: {}", reply.text());
    let content_type = reply.header("content-type");
    assert_eq!(content_type, exchange.content_type.as_deref(), "{what}");
    let cache_control = reply.header("cache-control");
    assert_eq!(cache_control, exchange.cache_control.as_deref(), "{what}");
    if content_type == Some("text/html") {
        let (ours, theirs) = (endpoints(reply.text()), endpoints(&exchange.answer));
        assert_eq!(ours.0, theirs.0, "{what}");
        assert!(reply.text().ends_with("</body></html>"), "{what}");
        for line in &ours.1 {
            assert!(
                theirs.1.contains(line) || line.0 == "sync_status",
                "{what}: {line:?}"
            );
        }
        assert!(ours.1.len() >= FILES.len() - 1, "{what}");
    } else if file == "status" {
        assert_eq!(without_extra(reply.text()), exchange.answer, "{what}");
    } else {
        assert_eq!(reply.text(), exchange.answer, "{what}");
    }
}

#[test]
fn vector_rpc_answers() {
    let node = full_node();
    for name in FILES {
        let file: File = load(&format!("rpc/{name}.json"));
        each(name, &file.exchanges, |_, exchange| {
            if exchange.stable {
                check(&node, name, exchange);
            } else {
                let reply = send(&node, exchange);
                assert_eq!(reply.status, exchange.status, "{name}");
                let ours: Value = serde_json::from_slice(&reply.body).unwrap();
                let theirs: Value = serde_json::from_str(&exchange.answer).unwrap();
                same_shape(name, &theirs, &ours);
            }
        });
    }
}

/// Answers of a node that makes blocks: of another chain, so that only their form is compared, but
/// for the network, which is as empty as ours.
const LIVE: [&str; 9] = [
    "live_block",
    "live_block_results",
    "live_commit",
    "live_consensus_state",
    "live_dump_consensus_state",
    "live_net_info",
    "live_status",
    "live_tx_search",
    "live_validators",
];

#[test]
fn vector_rpc_answers_of_a_live_node() {
    let (node, alone) = (full_node(), small_node(&RpcConfig::default()));
    for name in LIVE {
        let file: File = load(&format!("rpc/{name}.json"));
        each(name, &file.exchanges, |_, exchange| {
            if name == "live_net_info" {
                check(&alone, name, exchange);
                return;
            }
            let reply = send(&node, exchange);
            let what = format!("{name}: {}", exchange.path);
            assert_eq!(reply.status, exchange.status, "{what}: {}", reply.text());
            let cache_control = reply.header("cache-control");
            assert_eq!(cache_control, exchange.cache_control.as_deref(), "{what}");
            let ours: Value = serde_json::from_slice(&reply.body).unwrap();
            let theirs: Value = serde_json::from_str(&exchange.answer).unwrap();
            same_form(&what, &theirs, &ours);
        });
    }
}

/// The fields of `theirs` are those of `ours`, as the same kinds of value; lists by their first
/// elements. What is nil or empty on one side has no form to compare.
pub(crate) fn same_form(path: &str, theirs: &Value, ours: &Value) {
    match (theirs, ours) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(theirs), Value::Object(ours)) => {
            for (name, value) in theirs {
                let path = format!("{path}.{name}");
                let found = ours.get(name).unwrap_or_else(|| panic!("no {path}"));
                same_form(&path, value, found);
            }
            for name in ours.keys() {
                let known = theirs.contains_key(name) || EXTRA.contains(&name.as_str());
                assert!(known, "{path}: {name} is ours alone");
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                same_form(path, theirs, ours);
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(theirs),
            std::mem::discriminant(ours),
            "{path}"
        ),
    }
}

/// Everything that `theirs` has is in `ours`, as the same kind of value; lists by their first
/// element.
fn same_shape(path: &str, theirs: &Value, ours: &Value) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (name, value) in theirs {
                let path = format!("{path}.{name}");
                let found = ours.get(name).unwrap_or_else(|| panic!("no {path}"));
                same_shape(&path, value, found);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => {
            assert_eq!(theirs.is_empty(), ours.is_empty(), "{path}");
            if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                same_shape(path, theirs, ours);
            }
        }
        _ => assert_eq!(
            std::mem::discriminant(theirs),
            std::mem::discriminant(ours),
            "{path}"
        ),
    }
}
