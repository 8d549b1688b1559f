//! What one connection carries over loopback: `cargo bench -p perihelion-p2p`.
//!
//! Two switches in one process, no rate limits, messages of three sizes one way. Prints megabytes
//! of messages a second, and for each second of CPU time of both ends together.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints, and fails by panicking"
)]

use std::time::Instant;

use bytes::Bytes;
use perihelion_p2p::{
    ChannelDescriptor, MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, PeerEvent,
    ProtocolVersion, Switch, SwitchHandle, SwitchSetup,
};
use tokio::sync::mpsc;

const CHANNEL: u8 = 0x40;
const TOTAL: usize = 2 << 30;

async fn node() -> (SwitchHandle, mpsc::Receiver<PeerEvent>) {
    let (switch, mut events) = Switch::start(SwitchSetup {
        config: P2pConfig {
            laddr: "tcp://127.0.0.1:0".to_owned(),
            send_rate: 0,
            recv_rate: 0,
            allow_duplicate_ip: true,
            ..P2pConfig::default()
        },
        connection: MConnectionConfig::default(),
        node_key: NodeKey::generate(),
        node_info: NodeInfo {
            protocol_version: ProtocolVersion {
                p2p: 8,
                block: 11,
                app: 0,
            },
            id: String::new(),
            listen_addr: String::new(),
            network: "bench".to_owned(),
            version: "0.38.25".to_owned(),
            channels: Bytes::new(),
            moniker: "bench".to_owned(),
            tx_index: String::new(),
            rpc_address: String::new(),
        },
        reactors: vec![(
            "bench",
            vec![ChannelDescriptor::new(CHANNEL, 5, 1000, 100 << 20)],
        )],
        filter: None,
    })
    .await
    .unwrap();
    (switch, events.pop().unwrap())
}

/// Seconds of CPU time that this process has used.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

#[tokio::main]
async fn main() {
    let (server, mut at_server) = node().await;
    let (client, _at_client) = node().await;
    let address = server.listen_address().unwrap();
    let peer = client
        .dial(&PeerAddress {
            id: server.id(),
            host: address.ip().to_string(),
            port: address.port(),
        })
        .await
        .unwrap();
    at_server.recv().await.unwrap();
    println!("message bytes |   MB/s | MB per CPU second");
    for size in [1_000, 60_000, 1_000_000] {
        let message = Bytes::from(vec![7; size]);
        let count = (TOTAL / size).min(500_000);
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let sender = {
            let peer = peer.clone();
            tokio::spawn(async move {
                for _ in 0..count {
                    peer.send(CHANNEL, message.clone()).await.unwrap();
                }
            })
        };
        for _ in 0..count {
            at_server.recv().await.unwrap();
        }
        sender.await.unwrap();
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        let megabytes = (count * size) as f64 / 1e6;
        println!(
            "{size:>13} | {:>6.0} | {:>6.0}",
            megabytes / start.elapsed().as_secs_f64(),
            megabytes / (cpu_seconds() - cpu)
        );
    }
}
