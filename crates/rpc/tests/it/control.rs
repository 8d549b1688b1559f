//! Routes that exist only where they are configured.

use bytes::Bytes;
use perihelion_p2p::DialOrder;
use perihelion_rpc::RpcConfig;
use serde_json::{Value, json};

use crate::{
    chain::{Node, small_node},
    client::ask,
    websocket::Client,
};

const ONE: &str = "9d526283c6cff319527a30666c72a857a72a5191@127.0.0.1:26656";
const OTHER: &str = "tcp://0000000000000000000000000000000000000001@node.example:7";

fn node(unsafe_routes: bool) -> Node {
    small_node(&RpcConfig {
        unsafe_routes,
        ..RpcConfig::default()
    })
}

/// The answers to a call by GET, JSON-RPC and WebSocket, without what differs by the way: the id.
fn call(node: &Node, method: &str, params: &Value) -> [(u16, Value); 3] {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let query: Vec<String> = params
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_string().replace('"', "%22")))
        .collect();
    let path = format!("/{method}?{}", query.join("&"));
    let get = ask(node.address(), "GET", &path, &[], None);
    let post = ask(node.address(), "POST", "/", &[], Some(body.as_bytes()));
    let socket = Client::new(node).ask(&body);
    [
        (get.status, get.text().to_owned()),
        (post.status, post.text().to_owned()),
        (200, socket),
    ]
    .map(|(status, text)| {
        let mut answer: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if let Some(fields) = answer.as_object_mut() {
            fields.remove("id");
        }
        (status, answer)
    })
}

fn assert_result(node: &Node, method: &str, params: &Value, result: &Value) {
    for (status, answer) in call(node, method, params) {
        let expected = json!({"jsonrpc": "2.0", "result": result});
        assert_eq!((status, &answer), (200, &expected), "{method} {params}");
    }
}

/// Of the order in which the arguments are looked at, and of all ways to call.
fn assert_error(node: &Node, method: &str, params: &Value, data: &str) {
    let error = json!({"code": -32603, "message": "Internal error", "data": data});
    let expected = json!({"jsonrpc": "2.0", "error": error});
    let statuses = [500, 200, 200];
    for ((status, answer), wanted) in call(node, method, params).into_iter().zip(statuses) {
        assert_eq!((status, &answer), (wanted, &expected), "{method} {params}");
    }
}

fn orders(node: &Node) -> Vec<DialOrder> {
    std::mem::take(&mut *node.orders.lock().unwrap())
}

#[test]
fn without_the_setting_they_are_unknown() {
    let node = node(false);
    for (method, params) in [
        ("dial_seeds", json!({"seeds": [ONE]})),
        ("dial_peers", json!({"peers": [ONE]})),
        ("unsafe_flush_mempool", json!({})),
    ] {
        let [get, post, socket] = call(&node, method, &params);
        assert_eq!(get, (404, Value::from("404 page not found\n")));
        let error = json!({"code": -32601, "message": "Method not found"});
        let unknown = json!({"jsonrpc": "2.0", "error": error});
        assert_eq!((post.1, socket.1), (unknown.clone(), unknown), "{method}");
        let page = ask(node.address(), "GET", "/", &[], None);
        assert!(!page.text().contains(method), "{method}");
    }
    assert_eq!(orders(&node), []);
}

#[test]
fn seeds_and_peers_are_dialled() {
    let node = node(true);
    let peers = vec![
        ONE.parse().unwrap(),
        OTHER.trim_start_matches("tcp://").parse().unwrap(),
    ];
    let order = |persistent, unconditional| DialOrder {
        peers: peers.clone(),
        persistent,
        unconditional,
    };
    let log =
        |what| json!({"log": format!("Dialing {what} in progress. See /net_info for details")});
    assert_result(
        &node,
        "dial_seeds",
        &json!({"seeds": [ONE, OTHER]}),
        &log("seeds"),
    );
    assert_eq!(orders(&node), vec![order(false, false); 3]);
    for (persistent, unconditional, private) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (true, true, true),
    ] {
        let params = json!({
            "peers": [ONE, OTHER.trim_start_matches("tcp://")],
            "persistent": persistent, "unconditional": unconditional, "private": private,
        });
        assert_result(&node, "dial_peers", &params, &log("peers"));
        assert_eq!(orders(&node), vec![order(persistent, unconditional); 3]);
    }
    // What is left out is false.
    assert_result(&node, "dial_peers", &json!({"peers": [ONE]}), &log("peers"));
    assert_eq!(orders(&node).len(), 3);
    let page = ask(node.address(), "GET", "/", &[], None);
    let link = "/dial_peers?peers=_&persistent=_&unconditional=_&private=_\"";
    assert!(page.text().contains(link), "{}", page.text());
}

#[test]
fn what_is_wrong_is_told_in_cometbfts_words() {
    let node = node(true);
    assert_error(&node, "dial_seeds", &json!({}), "no seeds provided");
    assert_error(
        &node,
        "dial_seeds",
        &json!({"seeds": []}),
        "no seeds provided",
    );
    assert_error(&node, "dial_peers", &json!({}), "no peers provided");
    assert_error(
        &node,
        "dial_seeds",
        &json!({"seeds": [ONE, "127.0.0.1:1"]}),
        "address (127.0.0.1:1) does not contain ID",
    );
    assert_error(
        &node,
        "dial_seeds",
        &json!({"seeds": ["xy@127.0.0.1:1"]}),
        "invalid address (xy@127.0.0.1:1): encoding/hex: invalid byte: U+0078 'x'",
    );
    // Of several mistakes the first one that CometBFT finds is told: an address without an id, an
    // address that is to be persistent, an id, any other address.
    let peers = ["tcp://ab@127.0.0.1:1", "ab"];
    let no_id = "address (ab) does not contain ID";
    assert_error(
        &node,
        "dial_peers",
        &json!({"peers": peers, "persistent": true}),
        no_id,
    );
    let peers = [ONE, "tcp://ab@127.0.0.1:1"];
    let address = "invalid address (ab@127.0.0.1:1): invalid hex length - got 1, expected 20";
    let id = "wrong ID #1: encoding/hex: invalid byte: U+0074 't'";
    for (persistent, unconditional, private, data) in [
        (true, true, true, address),
        (false, true, false, id),
        (false, false, true, id),
        (false, false, false, address),
    ] {
        let params = json!({
            "peers": peers,
            "persistent": persistent, "unconditional": unconditional, "private": private,
        });
        assert_error(&node, "dial_peers", &params, data);
    }
    // Ids are taken as they stand, whose addresses are good.
    let params = json!({"peers": [OTHER], "private": true});
    assert_error(
        &node,
        "dial_peers",
        &params,
        "wrong ID #0: encoding/hex: invalid byte: U+0074 't'",
    );
    assert_eq!(orders(&node), []);
    let reply = ask(
        node.address(),
        "GET",
        "/dial_seeds?seeds=%22a%22",
        &[],
        None,
    );
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let error = json!({
        "code": -32602, "message": "Invalid params",
        "data": "error converting http params to arguments: json: cannot unmarshal string into \
                 Go value of type []json.RawMessage",
    });
    assert_eq!((reply.status, &answer["error"]), (500, &error));
}

#[test]
fn the_mempool_is_emptied() {
    let node = node(true);
    let tx = Bytes::from_static(b"a=1");
    for _ in 0..3 {
        // What was seen is forgotten as well.
        node.mempool.check_tx(&tx, None).unwrap();
        assert_eq!(node.mempool.size(), 1);
        let reply = ask(node.address(), "GET", "/unsafe_flush_mempool", &[], None);
        assert_eq!(reply.text(), r#"{"jsonrpc":"2.0","id":-1,"result":{}}"#);
        assert_eq!((node.mempool.size(), node.mempool.size_bytes()), (0, 0));
    }
    assert_result(&node, "unsafe_flush_mempool", &json!({}), &json!({}));
}
