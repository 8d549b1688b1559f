//! Searches: bounds, and pages.

use std::time::Duration;

use perihelion_rpc::RpcConfig;
use perihelion_types::Height;
use serde_json::Value;

use crate::{chain::Node, client::ask, vectors::full_node_with};

fn search(node: &Node, route: &str, query: &str, rest: &str) -> Value {
    let query = query
        .replace(' ', "%20")
        .replace('<', "%3C")
        .replace('>', "%3E");
    let path = format!("/{route}?query=%22{query}%22{rest}");
    let reply = ask(node.address(), "GET", &path, &[], None);
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(reply.status == 200, answer["error"].is_null());
    answer
}

fn complaint(node: &Node, route: &str, query: &str) -> String {
    let answer = search(node, route, query, "");
    answer["error"]["data"].as_str().unwrap().to_owned()
}

#[test]
fn a_long_query_is_refused() {
    let node = full_node_with(&RpcConfig::default());
    let fits = format!("a.b='{}'", "x".repeat(512 - 6));
    let answer = search(&node, "tx_search", &fits, "");
    assert_eq!(answer["result"]["total_count"], "0");
    let long = format!("a.b='{}'", "x".repeat(512 - 5));
    assert_eq!(
        complaint(&node, "tx_search", &long),
        "maximum query length exceeded"
    );
    // Searches for blocks have more room, and not without end: the request has room for 200 times
    // as much.
    let fits = format!("a.b='{}'", "x".repeat(4_096 - 6));
    let answer = search(&node, "block_search", &fits, "");
    assert_eq!(answer["result"]["total_count"], "0");
    let long = format!("a.b='{}'", "x".repeat(4_096 - 5));
    assert_eq!(
        complaint(&node, "block_search", &long),
        "the query has more than 4096 bytes: search for less at once"
    );
}

/// Whole blocks are read for a page, and proofs are made: that takes its time too.
#[test]
fn a_page_is_bounded_in_time() {
    let node = full_node_with(&RpcConfig {
        search_timeout: Duration::ZERO,
        ..RpcConfig::default()
    });
    for (route, query) in [
        ("tx_search", "tx.height<9"),
        ("block_search", "block.height<9"),
    ] {
        // One can always be had.
        let answer = search(&node, route, query, "&per_page=1");
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(
            complaint(&node, route, query),
            "the results take more than 0 ms: ask for fewer on a page"
        );
    }
}

/// Of all transactions of a block, on one page and on pages of their own.
#[test]
fn proofs_of_a_page_are_those_of_each_transaction() {
    let node = full_node_with(&RpcConfig::default());
    let whole = search(
        &node,
        "tx_search",
        "tx.height<9",
        "&prove=true&per_page=100",
    );
    let txs = whole["result"]["txs"].as_array().unwrap();
    assert!(txs.len() > 5);
    for tx in txs {
        let hash = tx["hash"].as_str().unwrap();
        let path = format!("/tx?hash=0x{hash}&prove=true");
        let reply = ask(node.address(), "GET", &path, &[], None);
        let alone: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(&alone["result"], tx);
        // Of its own height, that is.
        let height = tx["height"].as_str().unwrap();
        let path = format!("/block?height={height}");
        let reply = ask(node.address(), "GET", &path, &[], None);
        let block: Value = serde_json::from_slice(&reply.body).unwrap();
        let root = &block["result"]["block"]["header"]["data_hash"];
        assert_eq!(&tx["proof"]["root_hash"], root);
    }
}

#[test]
fn a_search_is_bounded_in_entries_and_bytes() {
    let node = full_node_with(&RpcConfig {
        max_search_entries: 60,
        search_timeout: Duration::from_secs(3_600),
        ..RpcConfig::default()
    });
    let why = complaint(&node, "tx_search", "app.key EXISTS");
    assert_eq!(
        why,
        "the search would look at more than 60 entries of the index; narrow it, for example by heights"
    );
    let answer = search(&node, "tx_search", "tx.height=3", "&per_page=1");
    assert_eq!(answer["result"]["txs"].as_array().unwrap().len(), 1);
    // A range of blocks is not walked through.
    let answer = search(&node, "block_search", "block.height>0", "&per_page=1");
    assert_eq!(answer["result"]["blocks"].as_array().unwrap().len(), 1);
    let node = full_node_with(&RpcConfig {
        max_answer_bytes: 3_000,
        ..RpcConfig::default()
    });
    let why = complaint(&node, "block_search", "block.height>0");
    assert_eq!(
        why,
        "the results take more than 3000 bytes: ask for fewer on a page"
    );
    let why = complaint(&node, "tx_search", "tx.height>0");
    assert_eq!(
        why,
        "the results take more than 3000 bytes: ask for fewer on a page"
    );
}

#[test]
fn hashes_in_queries_are_judged_as_cometbft_does() {
    let node = full_node_with(&RpcConfig::default());
    let why = complaint(&node, "tx_search", "tx.hash='xyz'");
    assert_eq!(
        why,
        "error during searching for a hash in the query: encoding/hex: invalid byte: U+0078 'x'"
    );
    let why = complaint(&node, "tx_search", "tx.hash EXISTS");
    assert_eq!(
        why,
        "error while retrieving the result: transaction hash cannot be empty"
    );
    let answer = search(&node, "tx_search", "tx.hash='AB'", "");
    assert_eq!(answer["result"]["total_count"], "0");
}

/// What is in pruned blocks cannot be shown, and is not counted.
#[test]
fn pruned_blocks_are_on_no_page_and_in_no_count() {
    const BASE: i64 = 5;
    let node = full_node_with(&RpcConfig::default());
    let found = |route: &str, query: &str| {
        let answer = search(&node, route, query, "&per_page=100");
        let total = answer["result"]["total_count"].as_str().unwrap();
        let list = if route == "tx_search" {
            "txs"
        } else {
            "blocks"
        };
        let shown = answer["result"][list].as_array().unwrap().clone();
        assert_eq!(total, shown.len().to_string(), "{route} {query}");
        let heights = shown.iter().map(|it| {
            let own = it.get("height");
            let height = own.unwrap_or_else(|| &it["block"]["header"]["height"]);
            height.as_str().unwrap().parse::<i64>().unwrap()
        });
        heights.collect::<Vec<_>>()
    };
    let queries = [
        ("tx_search", "tx.height<9"),
        ("tx_search", "app.key EXISTS AND tx.height<9"),
        ("block_search", "block.height<9"),
    ];
    let before = queries.map(|(route, query)| found(route, query));
    let state = node.store.load_state().unwrap().unwrap();
    node.store.prune(Height::new(BASE), &state).unwrap();
    for ((route, query), mut before) in queries.into_iter().zip(before) {
        assert!(before.iter().any(|height| *height < BASE), "{query}");
        before.retain(|height| *height >= BASE);
        assert!(!before.is_empty(), "{query}");
        assert_eq!(found(route, query), before, "{route} {query}");
    }
}

/// All pages together are what one page would show, either way round.
#[test]
fn pages_are_parts_of_the_whole() {
    let node = full_node_with(&RpcConfig::default());
    for (route, query, list, field) in [
        ("tx_search", "tx.height<9", "txs", "/hash"),
        ("block_search", "block.height<9", "blocks", "/block_id/hash"),
    ] {
        let items = |rest: &str| -> Vec<Value> {
            let answer = search(&node, route, query, rest);
            let items = answer["result"][list].as_array().unwrap().clone();
            items
                .iter()
                .map(|it| it.pointer(field).unwrap().clone())
                .collect()
        };
        for order in ["asc", "desc"] {
            let whole = items(&format!("&per_page=100&order_by=%22{order}%22"));
            assert!(whole.len() > 5, "{route}");
            let mut parts = Vec::new();
            for page in 1..=whole.len().div_ceil(3) {
                parts.extend(items(&format!(
                    "&per_page=3&page={page}&order_by=%22{order}%22"
                )));
            }
            assert_eq!(parts, whole, "{route} {order}");
        }
        let mut whole = items("&per_page=100&order_by=%22asc%22");
        whole.reverse();
        assert_eq!(whole, items("&per_page=100&order_by=%22desc%22"), "{route}");
    }
}
