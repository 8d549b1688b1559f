//! Switches and hand-driven peers for the tests.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use perihelion_p2p::{
    ByteBudget, ChannelDescriptor, DisconnectReason, MConnectionConfig, NodeId, NodeInfo, NodeKey,
    P2pConfig, PeerAddress, PeerEvent, PeerFilter, PeerHandle, Permit, ProtocolVersion, Switch,
    SwitchHandle, SwitchSetup,
    frame::{FrameOpener, FrameSealer, LENGTH_BYTES, SEALED_FRAME},
    secret_connection::Handshake,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

/// Far longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) const BLOCKSYNC: u8 = 0x40;
pub(crate) const OTHER: u8 = 0x30;
pub(crate) const NETWORK: &str = "test-chain";

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never happened"))
}

/// A port that is free now, and is given to nobody who asks the system for any: those are higher.
/// Who asks again gets another one.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 10_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let mut candidates = (0..COUNT).map(|_| {
        let next = GIVEN.fetch_add(1, Ordering::Relaxed);
        let next = std::process::id().wrapping_mul(37).wrapping_add(next) % COUNT;
        u16::try_from(FIRST + next).unwrap()
    });
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    candidates.find(is_free).unwrap()
}

pub(crate) fn node_info(moniker: &str, network: &str) -> NodeInfo {
    NodeInfo {
        protocol_version: ProtocolVersion {
            p2p: 8,
            block: 11,
            app: 0,
        },
        id: String::new(),
        listen_addr: "tcp://127.0.0.1:0".to_owned(),
        network: network.to_owned(),
        version: "0.38.25".to_owned(),
        channels: Bytes::from_static(&[BLOCKSYNC, OTHER]),
        moniker: moniker.to_owned(),
        tx_index: "on".to_owned(),
        rpc_address: String::new(),
    }
}

/// A switch on loopback with one reactor on both channels.
pub(crate) struct Node {
    pub(crate) switch: SwitchHandle,
    pub(crate) events: mpsc::Receiver<PeerEvent>,
}

pub(crate) struct Options {
    pub(crate) config: P2pConfig,
    pub(crate) connection: MConnectionConfig,
    pub(crate) key: NodeKey,
    pub(crate) network: String,
    pub(crate) budget: Option<ByteBudget>,
    pub(crate) filter: Option<Arc<dyn PeerFilter>>,
    /// Of the other channel.
    pub(crate) unhandled: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: P2pConfig {
                laddr: "tcp://127.0.0.1:0".to_owned(),
                allow_duplicate_ip: true,
                ..P2pConfig::default()
            },
            connection: MConnectionConfig::default(),
            key: NodeKey::generate(),
            network: NETWORK.to_owned(),
            budget: None,
            filter: None,
            unhandled: None,
        }
    }
}

impl Node {
    pub(crate) async fn start(options: Options) -> Self {
        let mut blocks = ChannelDescriptor::new(BLOCKSYNC, 5, 1000, 100 << 20);
        blocks.budget = options.budget;
        let mut other = ChannelDescriptor::new(OTHER, 1, 10, 1 << 20);
        other.unhandled_bytes = options.unhandled;
        let channels = vec![blocks, other];
        let (switch, mut events) = Switch::start(SwitchSetup {
            config: options.config,
            connection: options.connection,
            node_key: options.key,
            node_info: node_info("node", &options.network),
            reactors: vec![("test", channels)],
            filter: options.filter,
        })
        .await
        .unwrap();
        let events = events.pop().unwrap();
        Self { switch, events }
    }

    pub(crate) fn address(&self) -> PeerAddress {
        let address = self.switch.listen_address().unwrap();
        PeerAddress {
            id: self.switch.id(),
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        self.switch.listen_address().unwrap()
    }

    pub(crate) async fn next(&mut self) -> PeerEvent {
        soon("an event", self.events.recv())
            .await
            .expect("the switch runs")
    }

    pub(crate) async fn added(&mut self) -> PeerHandle {
        match self.next().await {
            PeerEvent::Added(peer) => peer,
            event => panic!("expected a new peer: {event:?}"),
        }
    }

    pub(crate) async fn removed(&mut self) -> (NodeId, DisconnectReason) {
        match self.next().await {
            PeerEvent::Removed { id, reason } => (id, reason),
            event => panic!("expected a peer to be removed: {event:?}"),
        }
    }

    pub(crate) async fn message(&mut self) -> (u8, Bytes, Option<Permit>) {
        match self.next().await {
            PeerEvent::Message {
                channel,
                bytes,
                permit,
                ..
            } => (channel, bytes, permit),
            event => panic!("expected a message: {event:?}"),
        }
    }

    /// Stops the node; its reactor is gone at once.
    pub(crate) async fn stop(self) {
        drop(self.events);
        soon("the switch to stop", self.switch.shutdown()).await;
    }
}

/// A peer that does exactly what the test says, over a real socket.
pub(crate) struct RawPeer {
    pub(crate) stream: TcpStream,
    pub(crate) sealer: FrameSealer,
    pub(crate) opener: FrameOpener,
}

impl RawPeer {
    /// Connects and shakes hands as an honest node would.
    pub(crate) async fn connect(to: SocketAddr, key: &NodeKey, info: &NodeInfo) -> Self {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let mut info = info.clone();
        info.id = key.id().to_string();
        let ephemeral = rand::random();
        let mut handshake = Handshake::new(key.private_key(), &info, ephemeral);
        let mut buffer = [0; 2048];
        loop {
            if let Some(bytes) = handshake.poll_transmit() {
                stream.write_all(&bytes).await.unwrap();
            }
            if let Some(established) = handshake.poll_established() {
                return Self {
                    stream,
                    sealer: established.sealer,
                    opener: established.opener,
                };
            }
            let length = soon("the handshake", stream.read(&mut buffer))
                .await
                .unwrap();
            assert!(length > 0, "refused during the handshake");
            handshake.handle_bytes(&buffer[..length]).unwrap();
        }
    }

    /// Sends bytes in frames, whatever they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut wire = Vec::new();
        self.sealer.seal_all(bytes, &mut wire).unwrap();
        self.stream.write_all(&wire).await
    }

    /// The data of the next frame; `None` once the connection is closed.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = [0; SEALED_FRAME];
        let read = soon("a frame", self.stream.read_exact(&mut frame)).await;
        read.ok()?;
        let length = self.opener.open(&mut frame).unwrap();
        Some(frame[LENGTH_BYTES..LENGTH_BYTES + length].to_vec())
    }
}

/// A packet behind its length.
pub(crate) fn packet(channel: u8, eof: bool, data: &[u8]) -> Vec<u8> {
    use perihelion_proto::tendermint::p2p as pb;
    use prost::Message as _;
    pb::Packet {
        sum: Some(pb::packet::Sum::PacketMsg(pb::PacketMsg {
            channel_id: channel.into(),
            eof,
            data: Bytes::copy_from_slice(data),
        })),
    }
    .encode_length_delimited_to_vec()
}

/// A message of one length-delimited field, as those of the blocksync channel are.
pub(crate) fn large_message(size: usize) -> Bytes {
    let mut message = vec![0x1a];
    prost::encoding::encode_varint(size as u64, &mut message);
    let start = message.len();
    message.extend((0..size).map(|index| u8::try_from(index % 251).unwrap()));
    assert_eq!(message.len(), start + size);
    message.into()
}
