//! WebSockets: the talks of a real CometBFT, and bad clients.

use std::{io::Write as _, net::TcpStream, sync::Arc, thread};

use perihelion_abci::types::ResponseFinalizeBlock;
use perihelion_events::{AppliedBlock, RoundEvent};
use perihelion_rpc::RpcConfig;
use perihelion_test_support::{each, load};
use perihelion_types::{Address, Height, Round, SignedMsgType, Time, Vote};
use serde::Deserialize;
use serde_json::Value;
use tokio_tungstenite::tungstenite::{
    self, Message, WebSocket, protocol::frame::coding::CloseCode,
};

use crate::{
    chain::{Node, small_node},
    client::{ask, read_reply},
    orders::{block_with, result_of},
    vectors::{full_node, same_form},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "made_by")]
    _made_by: String,
    talks: Vec<Talk>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Talk {
    name: String,
    sent: Vec<String>,
    received: Vec<String>,
}

pub(crate) struct Client(WebSocket<TcpStream>);

impl Client {
    pub(crate) fn new(node: &Node) -> Self {
        let stream = TcpStream::connect(node.address()).unwrap();
        let url = format!("ws://{}/websocket", node.address());
        let (socket, _) = tungstenite::client(url, stream).unwrap();
        Self(socket)
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The next text.
    fn read(&mut self) -> String {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, text: &str) -> String {
        self.send(text);
        self.read()
    }
}

fn subscribe(id: &str, query: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"subscribe\",\
         \"params\":{{\"query\":\"{query}\"}}}}"
    )
}

fn acknowledged(id: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}")
}

/// Every kind of event, each once; the transaction's as recorded.
fn publish(node: &Node, recorded: Option<&Value>) {
    let (height, round, step) = (Height::new(9), Round::ZERO, "RoundStepPrevote");
    // The block that was recorded had no transaction.
    let is_block = recorded.is_some_and(|json| json["type"] == "tendermint/event/NewBlock");
    let txs: &[&[u8]] = if is_block { &[] } else { &[b"socket=1"] };
    let block = block_with(9, txs);
    let mut response = ResponseFinalizeBlock {
        tx_results: vec![Default::default(); txs.len()],
        app_hash: vec![0; 8].into(),
        ..Default::default()
    };
    if let Some(result) = recorded.filter(|json| json["type"] == "tendermint/event/Tx") {
        response.tx_results = vec![result_of(&result["value"]["TxResult"]["result"])];
    }
    let block_id = block.block_id();
    node.events
        .publish_block(Arc::new(AppliedBlock::new(&block, response)));
    let vote = Vote {
        vote_type: SignedMsgType::Prevote,
        height,
        round,
        block_id,
        timestamp: Time::new(1_800_000_000, 0),
        validator_address: vec![1; 20].into(),
        validator_index: 0,
        signature: vec![2; 64].into(),
        extension: Default::default(),
        extension_signature: Default::default(),
    };
    let proposer: Address = block
        .block()
        .header
        .proposer_address
        .as_ref()
        .try_into()
        .unwrap();
    for event in [
        RoundEvent::NewRoundStep {
            height,
            round,
            step,
        },
        RoundEvent::NewRound {
            height,
            round,
            step,
            proposer,
            index: 0,
        },
        RoundEvent::CompleteProposal {
            height,
            round,
            step,
            block_id,
        },
        RoundEvent::Polka {
            height,
            round,
            step,
        },
        RoundEvent::ValidBlock {
            height,
            round,
            step,
        },
        RoundEvent::Lock {
            height,
            round,
            step,
        },
        RoundEvent::Vote(Arc::new(vote)),
    ] {
        node.events.publish_round(event);
    }
}

/// What was received is what CometBFT sent: letter for letter, but for events, of which the form and
/// the attributes' keys are compared.
fn compare(what: &str, ours: &str, theirs: &str) {
    let (ours_json, theirs_json): (Value, Value) = (
        serde_json::from_str(ours).unwrap(),
        serde_json::from_str(theirs).unwrap(),
    );
    let data = &theirs_json["result"]["data"];
    if !data.is_object() {
        assert_eq!(ours, theirs, "{what}");
        return;
    }
    same_form(what, &theirs_json, &ours_json);
    let front = |text: &str| text.split("\"value\"").next().unwrap().to_owned();
    assert_eq!(front(ours), front(theirs), "{what}");
    let keys = |json: &Value| {
        let events = json["result"]["events"].as_object();
        let events = events.unwrap_or_else(|| panic!("{what}: {ours}"));
        events.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(&ours_json), keys(&theirs_json), "{what}");
    if data["type"] == "tendermint/event/Tx" {
        let result = "/result/data/value/TxResult/result";
        assert_eq!(
            ours_json.pointer(result),
            theirs_json.pointer(result),
            "{what}"
        );
        let events = |json: &Value| {
            let mut events = json["result"]["events"].clone();
            events["tx.height"].take();
            events
        };
        assert_eq!(events(&ours_json), events(&theirs_json), "{what}");
    }
}

#[test]
fn vector_rpc_websocket() {
    let node = full_node();
    let file: File = load("rpc/websocket.json");
    each("websocket", &file.talks, |_, talk| {
        let mut client = Client::new(&node);
        let is_event = |text: &String| text.contains("\"data\":{");
        let answers = talk.received.iter().filter(|text| !is_event(text)).count();
        assert!(answers > 0 && !is_event(&talk.received[0]), "{}", talk.name);
        for text in &talk.sent {
            client.send(text);
        }
        for theirs in talk.received.iter().filter(|text| !is_event(text)) {
            compare(&talk.name, &client.read(), theirs);
        }
        for theirs in talk.received.iter().filter(|text| is_event(text)) {
            let recorded: Value = serde_json::from_str(theirs).unwrap();
            publish(&node, Some(&recorded["result"]["data"]));
            compare(&talk.name, &client.read(), theirs);
        }
    });
}

#[test]
fn who_goes_is_no_subscriber_any_more() {
    let node = small_node(&RpcConfig::default());
    let mut client = Client::new(&node);
    assert_eq!(
        client.ask(&subscribe("\"x\"", "tm.event='Tx'")),
        acknowledged("\"x\"")
    );
    assert_eq!(node.events.num_clients(), 1);
    drop(client);
    while node.events.num_clients() > 0 {
        thread::yield_now();
    }
}

/// Two subscriptions under one id, whose events say which query they are for.
#[test]
fn subscriptions_may_share_an_id() {
    let node = small_node(&RpcConfig::default());
    let mut client = Client::new(&node);
    for query in ["tm.event='NewRound'", "tm.event='Polka'"] {
        assert_eq!(client.ask(&subscribe("1", query)), acknowledged("1"));
    }
    publish(&node, None);
    let (mut new_round, mut polka) = (0, 0);
    for _ in 0..2 {
        let event: Value = serde_json::from_str(&client.read()).unwrap();
        assert_eq!(event["id"], 1);
        match event["result"]["query"].as_str().unwrap() {
            "tm.event='NewRound'" => new_round += 1,
            "tm.event='Polka'" => polka += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((new_round, polka), (1, 1));
}

#[test]
fn subscribers_are_bounded() {
    let config = RpcConfig {
        max_subscription_clients: 1,
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let (mut first, mut second) = (Client::new(&node), Client::new(&node));
    assert_eq!(first.ask(&subscribe("1", "a=1")), acknowledged("1"));
    let answer = second.ask(&subscribe("1", "a=1"));
    assert!(
        answer.contains("max_subscription_clients 1 reached"),
        "{answer}"
    );
    let long = format!("a='{}'", "x".repeat(509));
    drop(first);
    while node.events.num_clients() > 0 {
        thread::yield_now();
    }
    let answer = second.ask(&subscribe("1", &long));
    assert!(answer.contains("maximum query length exceeded"), "{answer}");
}

/// A client that does not read holds up nobody, and loses its subscription.
#[test]
fn a_deaf_client_is_cancelled_and_told() {
    let config = RpcConfig {
        subscription_buffer_size: 1,
        websocket_write_buffer_size: 1,
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let mut deaf = Client::new(&node);
    assert_eq!(deaf.ask(&subscribe("1", "tm EXISTS")), acknowledged("1"));
    // Until the buffers of the system are full, it is not even slow.
    while node.events.num_clients() > 0 {
        publish(&node, None);
    }
    let last = loop {
        let answer: Value = serde_json::from_str(&deaf.read()).unwrap();
        if !answer["error"].is_null() {
            break answer;
        }
        if answer["result"]["data"].is_null() {
            panic!("{answer}");
        }
        // The end is told only where there is room for it: ask for something behind it.
        if node.events.num_clients() == 0 {
            deaf.send("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"nothing\"}");
        }
    };
    let told = [
        serde_json::json!({"code": -32000, "message": "Server error", "data":
            "subscription was canceled (reason: internal subscription event buffer is out of capacity)"}),
        serde_json::json!({"code": -32601, "message": "Method not found"}),
    ];
    assert!(told.contains(&last["error"]), "{last}");
}

#[test]
fn a_request_that_is_too_large_ends_the_connection() {
    let config = RpcConfig {
        max_body_bytes: 1_000,
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let mut client = Client::new(&node);
    client.send(&" ".repeat(1_001));
    match client.0.read().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Size),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pings_are_answered_and_requests_are_lenient() {
    let node = small_node(&RpcConfig::default());
    let mut client = Client::new(&node);
    client.0.send(Message::Ping("hello".into())).unwrap();
    assert_eq!(client.0.read().unwrap(), Message::Pong("hello".into()));
    let health = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"health\"}";
    client.0.send(Message::binary(health.to_owned())).unwrap();
    assert_eq!(client.read(), acknowledged("1"));
    // Only the first value of a message counts, and a notification is not answered.
    client.send("{\"method\":\"health\"}");
    assert_eq!(
        client.ask(&format!("{health} {health} x")),
        acknowledged("1")
    );
    let answer = client.ask("{\"id\":");
    assert!(
        answer.contains("error unmarshaling request: unexpected EOF"),
        "{answer}"
    );
    let answer = client.ask(" ");
    assert!(
        answer.contains("error unmarshaling request: EOF"),
        "{answer}"
    );
    let answer = client.ask("{\"id\":1,\"method\":\"block\",\"params\":{\"height\":1}}");
    assert_eq!(
        answer,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32603,\"message\":\"Internal error\",\
         \"data\":\"error converting json params to arguments: invalid 64-bit integer encoding \\\"1\\\", \
         expected string\"}}"
    );
}

#[test]
fn a_plain_request_becomes_no_websocket() {
    let node = small_node(&RpcConfig::default());
    let reply = ask(node.address(), "GET", "/websocket", &[], None);
    assert_eq!((reply.status, reply.text()), (400, "Bad Request\n"));
    assert_eq!(reply.header("sec-websocket-version"), Some("13"));
    let headers = [("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let reply = ask(node.address(), "GET", "/websocket", &headers, None);
    assert_eq!(reply.status, 400);
    let mut stream = TcpStream::connect(node.address()).unwrap();
    let request = "POST /websocket HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\n\
                   upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream).status, 405);
    for path in ["/subscribe?query=%22a=1%22", "/unsubscribe_all"] {
        let reply = ask(node.address(), "GET", path, &[], None);
        assert_eq!(reply.status, 404);
        assert_eq!(
            reply.text(),
            "{\"jsonrpc\":\"2.0\",\"id\":-1,\"error\":{\"code\":-32601,\"message\":\"Method not found\"}}"
        );
    }
}

/// A WebSocket keeps its place among the connections, and is closed when the server stops.
#[test]
fn websockets_are_connections() {
    let config = RpcConfig {
        max_open_connections: 1,
        ..RpcConfig::default()
    };
    let mut node = small_node(&config);
    let mut client = Client::new(&node);
    let health = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"health\"}";
    assert_eq!(client.ask(health), acknowledged("1"));
    let mut second = TcpStream::connect(node.address()).unwrap();
    second
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    // Whoever had a place would be answered meanwhile.
    for _ in 0..50 {
        assert_eq!(client.ask(health), acknowledged("1"));
    }
    second.set_nonblocking(true).unwrap();
    let mut byte = [0];
    assert!(
        std::io::Read::read(&mut second, &mut byte).is_err(),
        "answered without a place"
    );
    second.set_nonblocking(false).unwrap();
    client.0.close(None).unwrap();
    while client.0.read().is_ok() {}
    assert_eq!(read_reply(&mut second).status, 200);
    let mut client = Client::new(&node);
    node.stop.cancel();
    match client.0.read().unwrap() {
        Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    node.server.take().unwrap().join();
}
