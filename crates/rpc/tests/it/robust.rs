//! Clients that are slow, greedy or malformed; and what is ours alone.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use perihelion_rpc::{RpcAddress, RpcConfig};
use perihelion_schedule::{Mode, ModeReason};
use perihelion_types::Height;
use serde_json::Value;

use crate::{
    chain::{Node, progress, small_node},
    client::{ask, read_reply},
};

/// Far longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

const HEALTHY: &str = "{\"jsonrpc\":\"2.0\",\"id\":-1,\"result\":{}}";

#[test]
fn a_large_body_is_refused() {
    let config = RpcConfig {
        max_body_bytes: 1000,
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let fits = format!(
        "{{\"id\":1,\"method\":\"health\",\"x\":\"{}\"}}",
        "y".repeat(900)
    );
    let reply = ask(node.address(), "POST", "/", &[], Some(fits.as_bytes()));
    assert_eq!(reply.status, 200);
    let reply = ask(node.address(), "POST", "/", &[], Some(&[b' '; 1001]));
    assert_eq!(reply.status, 400);
    assert_eq!(
        reply.text(),
        "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32600,\"message\":\"Invalid Request\",\"data\":\
         \"error reading request body: http: request body too large\"}}"
    );
}

#[test]
fn a_large_batch_is_refused() {
    let node = small_node(&RpcConfig::default());
    let batch = format!("[{}]", ["{\"id\":1,\"method\":\"health\"}"; 11].join(","));
    let reply = ask(node.address(), "POST", "/", &[], Some(batch.as_bytes()));
    assert_eq!(reply.status, 200);
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        answer["error"]["data"],
        "batch request exceeds maximum (10) allowed number of requests"
    );
}

/// A batch of calls that each are answered with the whole genesis document.
fn genesis_batch(calls: usize) -> String {
    let call = "{\"id\":1,\"method\":\"genesis\"}";
    format!("[{}]", vec![call; calls].join(","))
}

#[test]
fn a_batch_is_answered_up_to_a_bound_of_bytes() {
    let config = RpcConfig {
        small_answer_bytes: 1,
        max_batch_answer_bytes: 5000,
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let batch = genesis_batch(10);
    let reply = ask(node.address(), "POST", "/", &[], Some(batch.as_bytes()));
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() < 7000, "{} bytes", reply.body.len());
    let answers: Vec<Value> = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(answers.len(), 10);
    assert!(answers[0]["result"]["genesis"].is_object());
    assert_eq!(
        answers[9]["error"]["data"],
        "the batch's answers take more than 5000 bytes"
    );
}

/// Answers that are not read hold memory: of large ones only so much at once, and small ones do not
/// wait for them.
#[test]
fn large_answers_wait_for_those_that_are_not_read() {
    let config = RpcConfig {
        max_request_batch_size: 0,
        small_answer_bytes: 1000,
        max_answer_bytes: 1,
        max_batch_answer_bytes: 1 << 30,
        write_timeout: Duration::from_secs(3600),
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let one = ask(node.address(), "GET", "/genesis", &[], None).body.len();
    // More than the system's buffers take.
    let batch = genesis_batch((32 << 20) / one);
    let mut deaf = TcpStream::connect(node.address()).unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        batch.len()
    );
    deaf.write_all(head.as_bytes()).unwrap();
    deaf.write_all(batch.as_bytes()).unwrap();
    let mut byte = [0];
    deaf.read_exact(&mut byte).unwrap();
    let mut waiting = TcpStream::connect(node.address()).unwrap();
    waiting
        .write_all(b"GET /genesis HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    for _ in 0..50 {
        let reply = ask(node.address(), "GET", "/health", &[], None);
        assert_eq!(reply.text(), HEALTHY);
    }
    waiting.set_nonblocking(true).unwrap();
    assert!(waiting.read(&mut byte).is_err(), "answered without space");
    drop(deaf);
    waiting.set_nonblocking(false).unwrap();
    assert_eq!(read_reply(&mut waiting).body.len(), one);
}

#[test]
fn browsers_may_call_from_allowed_origins_only() {
    let config = RpcConfig {
        cors_allowed_origins: vec!["https://*.example.com".to_owned()],
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let allowed = |origin: &str| {
        let reply = ask(
            node.address(),
            "GET",
            "/health",
            &[("origin", origin)],
            None,
        );
        assert_eq!(reply.text(), HEALTHY);
        reply
            .header("access-control-allow-origin")
            .map(str::to_owned)
    };
    let origin = "https://app.example.com";
    assert_eq!(allowed(origin).as_deref(), Some(origin));
    assert_eq!(allowed("https://evil.org"), None);
    let preflight = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
    ];
    let reply = ask(node.address(), "OPTIONS", "/", &preflight, None);
    assert_eq!(reply.status, 200);
    let methods = reply.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("POST"), "{methods}");
}

#[test]
fn without_allowed_origins_no_browser_may_call() {
    let node = small_node(&RpcConfig::default());
    let origin = [("origin", "https://example.com")];
    let reply = ask(node.address(), "GET", "/health", &origin, None);
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

/// One client that never reads, and one that never ends its request, hold their places; a third
/// is answered, and both are dropped in the end.
#[test]
fn slow_clients_hold_nobody_up_and_are_dropped() {
    let config = RpcConfig {
        max_open_connections: 3,
        // From the connection to the end of the request, of those who are not slow, too.
        read_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(1),
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let mut deaf = TcpStream::connect(node.address()).unwrap();
    let request = "GET /genesis HTTP/1.1\r\nhost: x\r\n\r\n".repeat(4000);
    deaf.set_nonblocking(true).unwrap();
    let _ = deaf.write(request.as_bytes());
    let mut mute = TcpStream::connect(node.address()).unwrap();
    mute.write_all(b"GET /health HT").unwrap();
    let reply = ask(node.address(), "GET", "/health", &[], None);
    assert_eq!(reply.text(), HEALTHY);
    // The end of the stream comes from the server: nothing more is sent here.
    let mut rest = Vec::new();
    let _ = mute.read_to_end(&mut rest);
    // All places are free again only when both are gone.
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(node.address()).unwrap();
            let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            assert_eq!(read_reply(&mut stream).text(), HEALTHY);
            stream
        })
        .collect();
    assert_eq!(held.len(), 3);
    deaf.set_nonblocking(false).unwrap();
    let _ = deaf.read_to_end(&mut rest);
}

#[test]
fn connections_beyond_the_bound_wait_for_a_place() {
    let config = RpcConfig {
        max_open_connections: 1,
        ..RpcConfig::default()
    };
    let node = small_node(&config);
    let mut first = TcpStream::connect(node.address()).unwrap();
    let mut byte = [0];
    let mut ask_again = || {
        let request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
        first.write_all(request).unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(HEALTHY.as_bytes()) {
            first.read_exact(&mut byte).unwrap();
            reply.extend(byte);
        }
    };
    ask_again();
    let mut second = TcpStream::connect(node.address()).unwrap();
    second
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    // Whoever had a place would be answered meanwhile.
    (0..50).for_each(|_| ask_again());
    second.set_nonblocking(true).unwrap();
    assert!(second.read(&mut byte).is_err(), "answered without a place");
    drop(first);
    second.set_nonblocking(false).unwrap();
    assert_eq!(read_reply(&mut second).text(), HEALTHY);
}

#[test]
fn the_state_of_the_sync_is_told() {
    let node = small_node(&RpcConfig::default());
    let mut now = progress(Mode::BlockSync, Height::new(3));
    now.target = Height::new(50);
    now.eta = Some(Duration::from_secs(2));
    now.blocks_per_second = 12.5;
    node.progress.send_replace(now);
    let reply = ask(node.address(), "GET", "/sync_status", &[], None);
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let result = &answer["result"];
    assert_eq!(result["mode"], "block_sync");
    assert_eq!(result["base"], "1");
    assert_eq!(result["height"], "3");
    assert_eq!(result["height/round/step"], Value::Null);
    assert_eq!(result["target_height"], "50");
    assert_eq!(result["remaining_time"], "2000000000");
    assert_eq!(result["blocks_per_second"], 12.5);
    assert_eq!(result["software"], "perihelion");
    assert_eq!(result["peers"], serde_json::json!([]));
    let reply = ask(node.address(), "GET", "/status", &[], None);
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let sync = &answer["result"]["sync_info"];
    assert_eq!(sync["catching_up"], true);
    assert_eq!(sync["latest_block_height"], "3");
    assert_eq!(sync["remaining_time"], "2000000000");
    // While it catches up, the validators above the last block are not told.
    let reply = ask(node.address(), "GET", "/validators?height=4", &[], None);
    assert!(reply.text().contains("current blockchain height 3"));
}

/// Rule: both routes tell what the node is at, why and since when.
#[test]
fn the_mode_is_told_with_its_reason_and_its_time() {
    let node = small_node(&RpcConfig::default());
    let caught_up = ModeReason::CaughtUp {
        height: Height::new(3),
    };
    let fell_behind = ModeReason::FellBehind {
        applied: Height::new(3),
        pinned: Height::new(9),
    };
    for (mode, why, name, reason) in [
        (
            Mode::Consensus,
            caught_up,
            "consensus",
            "caught up at height 3",
        ),
        (
            Mode::BlockSync,
            fell_behind,
            "block_sync",
            "consensus was 6 blocks behind final block 9",
        ),
    ] {
        let mut now = progress(mode, Height::new(3));
        now.why = why;
        now.in_mode = Duration::from_secs(5);
        node.progress.send_replace(now);
        for (path, part) in [
            ("/status", "/result/sync_info"),
            ("/sync_status", "/result"),
        ] {
            let reply = ask(node.address(), "GET", path, &[], None);
            let answer: Value = serde_json::from_slice(&reply.body).unwrap();
            let told = answer.pointer(part).unwrap();
            assert_eq!(told["mode"], name, "{path}");
            assert_eq!(told["mode_reason"], reason, "{path}");
            assert_eq!(told["mode_time"], "5000000000", "{path}");
        }
    }
}

/// How long the node says that it has been catching up, in ns.
fn synced_time(node: &Node) -> u64 {
    let reply = ask(node.address(), "GET", "/status", &[], None);
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let time = &answer["result"]["sync_info"]["total_synced_time"];
    time.as_str().unwrap().parse().unwrap()
}

/// Rule: the time that the node catches up is counted, and no other; whether the server is started
/// within a runtime or not.
#[test]
fn the_time_of_catching_up_is_counted() {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    for entered in [Some(runtime.enter()), None] {
        let node = small_node(&RpcConfig::default());
        drop(entered);
        assert_eq!(synced_time(&node), 0);
        let soon = |what: &str, is_so: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !is_so() {
                assert!(start.elapsed() < PATIENCE, "{what}: it never happened");
            }
        };
        let at = |mode| node.progress.send_replace(progress(mode, Height::new(3)));
        at(Mode::BlockSync);
        soon("time passes", &|| synced_time(&node) > 0);
        at(Mode::Consensus);
        soon("time stands still", &|| {
            synced_time(&node) == synced_time(&node)
        });
    }
}

/// Rule: height and round are of one moment, though the rest is told of a block a little later.
#[test]
fn in_consensus_the_height_is_the_one_below_what_is_decided() {
    let node = small_node(&RpcConfig::default());
    node.progress
        .send_replace(progress(Mode::Consensus, Height::new(1)));
    let reply = ask(node.address(), "GET", "/sync_status", &[], None);
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let result = &answer["result"];
    assert_eq!(result["mode"], "consensus");
    assert_eq!(result["height/round/step"], "4/0/1");
    // Blocksync has applied none here.
    assert!(result["block_age"].is_string(), "{result}");
    for name in ["height", "certified_height", "target_height"] {
        assert_eq!(result[name], "3", "{name}");
    }
}

#[test]
fn the_port_is_free_and_the_store_released_when_the_server_has_ended() {
    let mut node = small_node(&RpcConfig::default());
    let server = node.server.take().unwrap();
    let RpcAddress::Tcp(address) = *server.address() else {
        panic!("listens at a TCP address")
    };
    let idle = TcpStream::connect(address).unwrap();
    node.stop.cancel();
    server.join();
    drop(idle);
    // The test's own, and that of the application behind its mempool.
    assert_eq!(std::sync::Arc::strong_count(&node.store), 2);
    assert!(TcpStream::connect(address).is_err());
}

/// What an operator is to do stands where the damage is met.
#[test]
fn a_block_that_cannot_be_read_is_answered_with_the_file_and_the_remedy() {
    let node = small_node(&RpcConfig::default());
    node.store.flush().unwrap();
    for entry in std::fs::read_dir(node.store.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "blob") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let reply = ask(node.address(), "GET", "/block?height=2", &[], None);
    assert_eq!(reply.status, 500);
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let data = answer["error"]["data"].as_str().unwrap();
    for part in ["height 2", ".blob", "restore the folder from a copy"] {
        assert!(data.contains(part), "{data}");
    }
}
