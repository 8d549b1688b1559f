//! Peers that ask for blocks and do nothing with them: how fast a node serves.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use perihelion_blocksync_reactor::wire;
use perihelion_p2p::{
    ChannelDescriptor, MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, PeerEvent,
    PeerHandle, ProtocolVersion, Switch, SwitchHandle, SwitchSetup,
};
use perihelion_types::{Height, HeightRange};
use tokio::{sync::mpsc, task::JoinSet};

use crate::process::NodeProcess;

/// Bytes a second in each direction, above what loopback carries.
const RATE: u64 = 2_000_000_000;
/// Requests and statuses that may wait to be sent.
const SEND_QUEUE: usize = 1_000;
/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(20);
/// How a message with a block begins: field 3 of the channel's messages, length-delimited.
const BLOCK_RESPONSE: u8 = 3 << 3 | 2;
/// The same of one that says that there is no such block.
const NO_BLOCK_RESPONSE: u8 = 2 << 3 | 2;

/// What a server is asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// `ID@HOST:PORT` of the server.
    pub address: String,
    /// The chain's id.
    pub chain_id: String,
    /// The heights that are asked for, from the lowest to the highest and again; several peers begin
    /// at different ones.
    pub heights: HeightRange,
    /// Requests in flight of each peer.
    pub window: usize,
    /// Peers that ask at once.
    pub peers: usize,
    /// How long new requests are sent.
    pub time: Duration,
}

/// What a server served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Served {
    /// Blocks to all peers.
    pub blocks: u64,
    /// Bytes of the messages with them.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// CPU time of the server meanwhile.
    pub cpu_seconds: f64,
}

impl Served {
    /// Blocks a second to all peers.
    #[must_use]
    pub fn blocks_per_second(&self) -> f64 {
        self.blocks as f64 / self.seconds
    }

    /// CPU seconds of the server for a thousand blocks.
    #[must_use]
    pub fn cpu_per_thousand(&self) -> f64 {
        self.cpu_seconds / self.blocks as f64 * 1_000.0
    }
}

/// Connects, then asks for blocks with a fixed number of requests in flight. Answers are counted and
/// measured, never decoded.
///
/// # Errors
/// When the server cannot be reached, lacks a block, or falls silent.
pub fn request_blocks(server: &NodeProcess, ask: &Ask) -> anyhow::Result<Served> {
    ensure!(ask.peers > 0 && ask.window > 0, "somebody asks");
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(request_all(server, ask))
}

async fn request_all(server: &NodeProcess, ask: &Ask) -> anyhow::Result<Served> {
    let (mut switches, mut connected) = (Vec::new(), Vec::new());
    for _ in 0..ask.peers {
        let (switch, peer, events) = connect(ask).await?;
        switches.push(switch);
        connected.push((peer, events));
    }
    let before = server.usage()?.cpu_seconds;
    let start = Instant::now();
    let mut asking = JoinSet::new();
    for (number, (peer, events)) in connected.into_iter().enumerate() {
        let requester = Requester {
            peer,
            events,
            range: ask.heights,
            // Spread over the chain.
            next: ask.heights.base().get()
                + length(ask.heights) * i64::try_from(number)? / i64::try_from(ask.peers)?,
            window: ask.window,
            until: start + ask.time,
        };
        asking.spawn(requester.run());
    }
    let (mut blocks, mut bytes) = (0, 0);
    while let Some(counted) = asking.join_next().await {
        let (more_blocks, more_bytes) = counted.context("asking does not panic")??;
        blocks += more_blocks;
        bytes += more_bytes;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = server.usage()?.cpu_seconds - before;
    for switch in switches {
        switch.shutdown().await;
    }
    Ok(Served {
        blocks,
        bytes,
        seconds,
        cpu_seconds,
    })
}

/// Heights of a range.
fn length(range: HeightRange) -> i64 {
    range.height().get() - range.base().get() + 1
}

async fn connect(
    ask: &Ask,
) -> anyhow::Result<(SwitchHandle, PeerHandle, mpsc::Receiver<PeerEvent>)> {
    let channel = ChannelDescriptor::new(wire::CHANNEL, 5, SEND_QUEUE, wire::MAX_MESSAGE_BYTES);
    let (switch, mut events) = Switch::start(SwitchSetup {
        config: P2pConfig {
            laddr: "tcp://127.0.0.1:0".to_owned(),
            allow_duplicate_ip: true,
            send_rate: RATE,
            recv_rate: RATE,
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
            network: ask.chain_id.clone(),
            version: "0.38.25".to_owned(),
            channels: Bytes::new(),
            moniker: "requester".to_owned(),
            tx_index: "off".to_owned(),
            rpc_address: String::new(),
        },
        reactors: vec![("requester", vec![channel])],
        filter: None,
    })
    .await?;
    let events = events.pop().context("one reactor")?;
    let address: PeerAddress = ask.address.parse()?;
    let peer = switch.dial(&address).await?;
    Ok((switch, peer, events))
}

/// One peer that asks.
struct Requester {
    peer: PeerHandle,
    events: mpsc::Receiver<PeerEvent>,
    range: HeightRange,
    next: i64,
    window: usize,
    until: Instant,
}

impl Requester {
    /// Blocks and bytes that came.
    async fn run(mut self) -> anyhow::Result<(u64, u64)> {
        let (mut blocks, mut bytes, mut in_flight) = (0, 0, 0);
        loop {
            while in_flight < self.window && Instant::now() < self.until {
                let request = wire::block_request(Height::new(self.next));
                self.peer.send(wire::CHANNEL, request).await?;
                in_flight += 1;
                self.next += 1;
                if self.next > self.range.height().get() {
                    self.next = self.range.base().get();
                }
            }
            if in_flight == 0 {
                return Ok((blocks, bytes));
            }
            let event = tokio::time::timeout(SILENCE, self.events.recv()).await;
            let event = event.context("the server has fallen silent")?;
            match event.context("the switch has ended")? {
                PeerEvent::Message { bytes: message, .. } => match message.first() {
                    Some(&BLOCK_RESPONSE) => {
                        blocks += 1;
                        bytes += message.len() as u64;
                        in_flight -= 1;
                    }
                    Some(&NO_BLOCK_RESPONSE) => bail!("the server lacks a block"),
                    _ => {}
                },
                PeerEvent::Added(_) => {}
                PeerEvent::Removed { reason, .. } => bail!("the server has left: {reason}"),
            }
        }
    }
}
