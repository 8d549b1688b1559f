//! What clients send: transactions, and what consensus says.

use std::{sync::Arc, thread, time::Duration};

use perihelion_abci::types::{Event, EventAttribute, ExecTxResult, ResponseFinalizeBlock};
use perihelion_events::AppliedBlock;
use perihelion_rpc::RpcConfig;
use perihelion_test_support::{each, load};
use perihelion_types::{Block, Data, FetchedBlock, Hash};
use serde_json::{Value, json};

use crate::{
    chain::{Node, recorded_blocks, small_node},
    client::{Reply, ask},
    vectors::{Exchange, File, full_node, full_node_with, judge, send},
};

/// The transaction of an exchange that is described and not given.
fn large_body(exchange: &str) -> String {
    let count: usize = exchange
        .split(' ')
        .find_map(|word| word.parse().ok())
        .unwrap();
    let mut tx = b"k=".to_vec();
    tx.resize(count, 0);
    let tx = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, tx);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"broadcast_tx_sync\",\
         \"params\":{{\"tx\":\"{tx}\"}}}}"
    )
}

/// The exchanges with one mempool, in the order in which they were recorded.
#[test]
fn vector_rpc_orders() {
    // The one that waits for a block waits in vain.
    let node = full_node_with(&RpcConfig {
        timeout_broadcast_tx_commit: Duration::from_millis(1),
        ..RpcConfig::default()
    });
    let run = |name: &str, wanted: &str| {
        let file: File = load(&format!("rpc/{name}.json"));
        each(name, &file.exchanges, |_, exchange| {
            if !exchange.name.starts_with(wanted) {
                return;
            }
            match &exchange.body {
                Some(body) if body.starts_with('(') => {
                    let body = large_body(body);
                    let (method, path) = (&exchange.method, &exchange.path);
                    let reply = ask(node.address(), method, path, &[], Some(body.as_bytes()));
                    assert_eq!(reply.status, exchange.status);
                    assert_eq!(reply.text(), exchange.answer);
                }
                _ => judge(name, exchange, &send_once(&node, exchange)),
            }
        });
    };
    run("unconfirmed_txs", "empty mempool");
    run("num_unconfirmed_txs", "empty mempool");
    for name in [
        "broadcast_tx_async",
        "broadcast_tx_sync",
        "broadcast_tx_commit",
    ] {
        run(name, "");
    }
    run("unconfirmed_txs", "some in the mempool");
    run("num_unconfirmed_txs", "some in the mempool");
}

/// The results of transactions as answers have them.
pub(crate) fn result_of(json: &Value) -> ExecTxResult {
    let attribute = |json: &Value| EventAttribute {
        key: json["key"].as_str().unwrap().to_owned().into(),
        value: json["value"].as_str().unwrap().to_owned().into(),
        index: json["index"].as_bool().unwrap(),
    };
    let event = |json: &Value| Event {
        r#type: json["type"].as_str().unwrap().to_owned(),
        attributes: json["attributes"]
            .as_array()
            .unwrap()
            .iter()
            .map(attribute)
            .collect(),
    };
    ExecTxResult {
        events: json["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(event)
            .collect(),
        ..Default::default()
    }
}

/// A block of the chain, with other transactions.
pub(crate) fn block_with(height: i64, txs: &[&[u8]]) -> FetchedBlock {
    let (block, _) = recorded_blocks()
        .find(|(block, _)| block.height().get() == height)
        .unwrap();
    let mut block = Block::clone(block.block());
    block.data = Data::new(txs);
    block.header.data_hash = block.data.hash();
    FetchedBlock::decode(block.encode(), None).unwrap()
}

/// Has a block with a transaction applied, once it waits in the mempool.
fn commit(node: &Node, tx: &[u8], answer: &Value) {
    while !node.mempool.reap_max_txs(None).iter().any(|it| it == tx) {
        thread::yield_now();
    }
    let height = answer["result"]["height"].as_str().unwrap();
    let block = block_with(height.parse().unwrap(), &[b"before=1", tx]);
    let results = vec![
        ExecTxResult::default(),
        result_of(&answer["result"]["tx_result"]),
    ];
    let response = ResponseFinalizeBlock {
        tx_results: results,
        ..Default::default()
    };
    node.events
        .publish_block(Arc::new(AppliedBlock::new(&block, response)));
}

#[test]
fn vector_rpc_transactions_that_are_committed() {
    let node = full_node();
    let file: File = load("rpc/live_broadcast_tx_commit.json");
    each(
        "live_broadcast_tx_commit",
        &file.exchanges,
        |_, exchange| {
            let answer: Value = serde_json::from_str(&exchange.answer).unwrap();
            let hash = answer["result"]["hash"].as_str();
            thread::scope(|scope| {
                let asking = scope.spawn(|| send_once(&node, exchange));
                if let Some(hash) = hash {
                    let txs = ["live=1", "live=2"].map(str::as_bytes);
                    let tx = txs.into_iter().find(|tx| Hash::of(tx).to_string() == hash);
                    commit(&node, tx.unwrap(), &answer);
                }
                let reply = asking.join().unwrap();
                judge("live_broadcast_tx_commit", exchange, &reply);
            });
        },
    );
    // Nobody is left subscribed.
    assert!(!node.events.has_subscribers());
}

fn send_once(node: &Node, exchange: &Exchange) -> Reply {
    let body = exchange.body.as_deref().map(str::as_bytes);
    ask(node.address(), &exchange.method, &exchange.path, &[], body)
}

#[test]
fn who_waits_for_a_transaction_counts_as_a_subscriber() {
    let node = full_node_with(&RpcConfig {
        max_subscription_clients: 0,
        ..RpcConfig::default()
    });
    let path = "/broadcast_tx_commit?tx=%22a=1%22";
    let reply = ask(node.address(), "GET", path, &[], None);
    assert_eq!(reply.status, 500);
    assert!(
        reply
            .text()
            .contains("\"max_subscription_clients 0 reached\""),
        "{}",
        reply.text()
    );
    assert_eq!(node.mempool.size(), 0);
}

#[test]
fn a_client_that_goes_while_it_waits_is_no_subscriber_any_more() {
    use std::io::Write as _;
    let node = small_node(&RpcConfig::default());
    let mut stream = std::net::TcpStream::connect(node.address()).unwrap();
    let request = "GET /broadcast_tx_commit?tx=%22a=1%22 HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    while node.mempool.size() == 0 {
        thread::yield_now();
    }
    assert_eq!(node.events.num_clients(), 1);
    drop(stream);
    while node.events.num_clients() > 0 {
        thread::yield_now();
    }
}

/// Consensus as a real CometBFT told it at the same height of the same chain, a step further.
#[test]
fn vector_rpc_consensus() {
    let node = full_node();
    let recorded = |name: &str| {
        let file: File = load(&format!("rpc/{name}.json"));
        let exchange = &file.exchanges[0];
        let reply = send(&node, exchange);
        assert_eq!(reply.status, exchange.status);
        let ours: Value = serde_json::from_slice(&reply.body).unwrap();
        let theirs: Value = serde_json::from_str(&exchange.answer).unwrap();
        (ours["result"].clone(), theirs["result"].clone())
    };
    let (ours, theirs) = recorded("consensus_state");
    let (ours, theirs) = (&ours["round_state"], &theirs["round_state"]);
    let place = theirs["height/round/step"].as_str().unwrap();
    let height = place.split('/').next().unwrap();
    assert_eq!(ours["height/round/step"], format!("{height}/0/1"));
    for field in [
        "proposal_block_hash",
        "locked_block_hash",
        "valid_block_hash",
        "proposer",
    ] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    assert_eq!(
        ours["height_vote_set"],
        json!([theirs["height_vote_set"][0]])
    );
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(ours), keys(theirs));

    let (ours, theirs) = recorded("dump_consensus_state");
    let peers = (&ours["peers"], &theirs["peers"]);
    let (ours, theirs) = (&ours["round_state"], &theirs["round_state"]);
    assert_eq!(keys(ours), keys(theirs));
    for field in keys(theirs) {
        match field.as_str() {
            "step" | "start_time" => {}
            "votes" => assert_eq!(ours[&field], json!([theirs[&field][0]])),
            _ => assert_eq!(ours[&field], theirs[&field], "{field}"),
        }
    }
    let (ours, theirs) = (&peers.0[0], &peers.1[0]);
    let address = format!("{}@127.0.0.1:26656", "ab".repeat(20));
    assert_eq!(ours["node_address"], address);
    let (ours, theirs) = (&ours["peer_state"], &theirs["peer_state"]);
    assert_eq!(ours["stats"], json!({"votes": "3", "block_parts": "4"}));
    assert_eq!(keys(ours), keys(theirs));
    assert_eq!(keys(&ours["round_state"]), keys(&theirs["round_state"]));
    assert_eq!(ours["round_state"]["proposal_pol_round"], -1);
}

/// Neither callers who wait for the application nor a commit keep `broadcast_tx_async` waiting.
#[test]
fn transactions_are_taken_while_the_application_answers_nobody() {
    let node = small_node(&RpcConfig::default());
    let get = |path: String| ask(node.address(), "GET", &path, &[], None);
    let lock = node.mempool.lock();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|at| scope.spawn(move || get(format!("/broadcast_tx_sync?tx=%22s{at}=1%22"))))
            .collect();
        for at in 0..8 {
            let reply = get(format!("/broadcast_tx_async?tx=%22a{at}=1%22"));
            let hash = Hash::of(format!("a{at}=1").as_bytes()).to_string();
            assert!(reply.text().contains(&hash), "{}", reply.text());
        }
        assert!(waiting.iter().all(|asking| !asking.is_finished()));
        let again = get("/broadcast_tx_async?tx=%22a0=1%22".to_owned());
        assert!(again.text().contains("tx already exists in cache"));
        drop(lock);
        for asking in waiting {
            let reply = asking.join().unwrap();
            assert!(reply.text().contains("\"code\":0"), "{}", reply.text());
        }
    });
    while node.mempool.size() < 16 {
        thread::yield_now();
    }
}
