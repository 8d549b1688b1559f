//! Peers that lie: real connections, a true chain, and one kind of lie each.

mod equivocator;
mod lie;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use bytes::Bytes;
use perihelion_blocksync_reactor::wire::{self, Message};
use perihelion_p2p::{
    ChannelDescriptor, MConnectionConfig, MessageInParts, NodeId, NodeInfo, NodeKey, P2pConfig,
    PeerEvent, PeerHandle, ProtocolVersion, Switch, SwitchHandle, SwitchSetup,
};
use tokio::sync::mpsc;

pub use self::equivocator::Equivocator;
pub use self::lie::{Encoding, Lie, LyingChain, made_validator_keys};

/// Answers that may wait for one victim. An honest CometBFT has as many.
const SEND_QUEUE: usize = 1000;
/// Bytes a second in each direction: a liar is as fast as it can be.
const RATE: u64 = 5_000_000_000;

/// A lying peer that listens on loopback. It ends with the runtime, or by [`stop`](Self::stop).
#[derive(Debug)]
pub struct EvilPeer {
    switch: SwitchHandle,
    lie: Lie,
    told: Arc<AtomicU64>,
    begun: Arc<AtomicU64>,
}

impl EvilPeer {
    /// Listens on a free port of `address`, which is one of 127.0.0.0/8.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub async fn start(chain: Arc<LyingChain>, address: Ipv4Addr) -> anyhow::Result<Self> {
        let channel = ChannelDescriptor::new(wire::CHANNEL, 5, SEND_QUEUE, wire::MAX_MESSAGE_BYTES);
        let (switch, mut events) = Switch::start(SwitchSetup {
            config: P2pConfig {
                laddr: format!("tcp://{address}:0"),
                allow_duplicate_ip: true,
                send_rate: RATE,
                recv_rate: RATE,
                ..P2pConfig::default()
            },
            connection: MConnectionConfig::default(),
            node_key: NodeKey::generate(),
            node_info: node_info(chain.chain_id()),
            reactors: vec![("evil", vec![channel])],
            filter: None,
        })
        .await?;
        let events = events.pop().context("one reactor")?;
        let (told, begun) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let lie = chain.lie();
        let counts = (Arc::clone(&told), Arc::clone(&begun));
        tokio::spawn(answer(chain, events, counts));
        Ok(Self {
            switch,
            lie,
            told,
            begun,
        })
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.switch.id()
    }

    /// `ID@HOST:PORT`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn address(&self) -> anyhow::Result<String> {
        let address = self.switch.listen_address().context("it listens")?;
        Ok(format!("{}@{address}", self.id()))
    }

    /// What it lies about.
    #[must_use]
    pub const fn lie(&self) -> Lie {
        self.lie
    }

    /// How many lies it has told: answers that an honest peer would not have given.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Connections over which it has begun a block of which nothing more comes.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Leaves.
    pub async fn stop(self) {
        self.switch.shutdown().await;
    }
}

/// What an evil peer tells of itself; the rest is filled in.
fn node_info(chain_id: &str) -> NodeInfo {
    NodeInfo {
        protocol_version: ProtocolVersion {
            p2p: 8,
            block: 11,
            app: 0,
        },
        id: String::new(),
        listen_addr: String::new(),
        network: chain_id.to_owned(),
        version: "0.38.25".to_owned(),
        channels: Bytes::new(),
        moniker: "evil".to_owned(),
        tx_index: "off".to_owned(),
        rpc_address: String::new(),
    }
}

async fn answer(
    chain: Arc<LyingChain>,
    mut events: mpsc::Receiver<PeerEvent>,
    (told, open): (Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let mut begun = HashMap::new();
    while let Some(event) = events.recv().await {
        let (to, answer) = match event {
            PeerEvent::Added(peer) => (peer, Some((chain.status(), false))),
            PeerEvent::Message { from, bytes, .. } => {
                let answer = match Message::decode(&bytes) {
                    // Nothing follows what it has begun.
                    Ok(_) if begun.contains_key(&from.id()) => None,
                    Ok(Message::StatusRequest) => Some((chain.status(), false)),
                    Ok(Message::BlockRequest(height)) => match chain.beginning() {
                        Some(bytes) => {
                            told.fetch_add(1, Ordering::Relaxed);
                            begun.insert(from.id(), begin(&from, bytes).await);
                            open.store(begun.len() as u64, Ordering::Relaxed);
                            None
                        }
                        None => chain.answer(height),
                    },
                    _ => None,
                };
                (from, answer)
            }
            PeerEvent::Removed { id, .. } => {
                begun.remove(&id);
                open.store(begun.len() as u64, Ordering::Relaxed);
                continue;
            }
        };
        if let Some((message, is_lie)) = answer {
            told.fetch_add(u64::from(is_lie), Ordering::Relaxed);
            send(&to, message).await;
        }
    }
}

/// Begins a message, which goes on for as long as this is kept.
async fn begin(to: &PeerHandle, bytes: Bytes) -> Option<MessageInParts> {
    let mut message = to.send_in_parts(wire::CHANNEL).await.ok()?;
    message.send(bytes, false).await.ok()?;
    Some(message)
}

/// A victim that has left hears nothing more.
async fn send(to: &PeerHandle, message: Bytes) {
    if let Err(error) = to.send(wire::CHANNEL, message).await {
        tracing::debug!(peer = %to.id(), %error, "not sent");
    }
}
