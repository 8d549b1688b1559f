//! A reactor between a switch and a pool that the test plays.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use perihelion_blocksync_reactor::{BlocksyncReactor, ServeLimits, channel};
use perihelion_p2p::{
    ByteBudget, ChannelDescriptor, DisconnectReason, MConnectionConfig, NodeId, NodeInfo, NodeKey,
    P2pConfig, PeerAddress, PeerEvent, PeerHandle, ProtocolVersion, Switch, SwitchHandle,
    SwitchSetup,
};
use perihelion_pool::{Command, ConnectionId, PoolInput};
use perihelion_store::{BlockSave, Store, StoreOptions, Sync};
use perihelion_test_support::{Hex, load_lines};
use perihelion_types::{FetchedBlock, Height};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const BLOCKSYNC: u8 = 0x40;

/// Far longer than anything here takes, where the clock is paused as well: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(180);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never happened"))
}

async fn switch(
    channel: ChannelDescriptor,
    send_rate: u64,
) -> (SwitchHandle, mpsc::Receiver<PeerEvent>) {
    let (switch, mut events) = Switch::start(SwitchSetup {
        config: P2pConfig {
            laddr: "tcp://127.0.0.1:0".to_owned(),
            allow_duplicate_ip: true,
            send_rate,
            ..P2pConfig::default()
        },
        connection: MConnectionConfig {
            send_rate,
            ..MConnectionConfig::default()
        },
        node_key: NodeKey::generate(),
        node_info: NodeInfo {
            protocol_version: ProtocolVersion {
                p2p: 8,
                block: 11,
                app: 0,
            },
            id: String::new(),
            listen_addr: "tcp://127.0.0.1:0".to_owned(),
            network: "test-chain".to_owned(),
            version: "0.38.25".to_owned(),
            channels: Bytes::new(),
            moniker: "test".to_owned(),
            tx_index: "on".to_owned(),
            rpc_address: String::new(),
        },
        reactors: vec![("blocksync", vec![channel])],
        filter: None,
    })
    .await
    .unwrap();
    (switch, events.pop().unwrap())
}

/// Stores the next block.
pub(crate) fn save(store: &Store, block: Bytes) {
    let save = BlockSave {
        block: &FetchedBlock::decode(block, None).unwrap(),
        commit: None,
        extended_commit: None,
        results: None,
    };
    store.save_block(&save, Sync::No).unwrap();
}

/// The node under attack.
pub(crate) struct Node {
    pub(crate) switch: SwitchHandle,
    pub(crate) inputs: mpsc::Receiver<PoolInput>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) budget: ByteBudget,
    pub(crate) store: Arc<Store>,
    stop: CancellationToken,
    _home: tempfile::TempDir,
}

impl Node {
    /// A node that serves a large block 1 and a small block 2, and sends `send_rate` bytes a second
    /// to each peer.
    pub(crate) async fn start(send_rate: u64) -> Self {
        Self::start_within(ServeLimits::default(), send_rate).await
    }

    /// The same with other bounds on serving.
    pub(crate) async fn start_within(limits: ServeLimits, send_rate: u64) -> Self {
        Self::start_as(limits, send_rate, 1 << 20).await
    }

    /// A node with room for so many bytes of blocks.
    pub(crate) async fn with_budget(bytes: usize) -> Self {
        Self::start_as(ServeLimits::default(), 0, bytes).await
    }

    async fn start_as(limits: ServeLimits, send_rate: u64, budget: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(home.path(), &StoreOptions::default()).unwrap());
        for (block, padding) in blocks().iter().zip([512 << 10, 0]) {
            save(&store, padded(block, padding));
        }
        let budget = ByteBudget::new(budget);
        let (switch, events) = switch(channel(budget.clone()), send_rate).await;
        let (input_sender, inputs) = mpsc::channel(1024);
        let (commands, command_receiver) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let reactor = BlocksyncReactor::new(
            Arc::clone(&store),
            switch.clone(),
            budget.clone(),
            limits,
            input_sender,
        );
        tokio::spawn(reactor.run(events, command_receiver, stop.clone()));
        Self {
            switch,
            inputs,
            commands,
            budget,
            store,
            stop,
            _home: home,
        }
    }

    /// The next input that `pick` takes something out of.
    pub(crate) async fn input<T>(&mut self, pick: impl Fn(PoolInput) -> Option<T>) -> T {
        soon("an input of the pool", async {
            loop {
                let input = self.inputs.recv().await.expect("the reactor runs");
                if let Some(picked) = pick(input) {
                    return picked;
                }
            }
        })
        .await
    }

    /// Waits until a peer is gone; tells why.
    pub(crate) async fn removal(&mut self, id: NodeId) -> DisconnectReason {
        self.input(|input| match input {
            PoolInput::PeerRemoved { peer } => (peer == id).then_some(()),
            _ => None,
        })
        .await;
        soon("the disconnect's reason", async {
            loop {
                let recent = self.switch.recent_disconnects();
                if let Some(found) = recent.into_iter().find(|gone| gone.id == id) {
                    return found.reason;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        drop(self.inputs);
        soon("the switch to stop", self.switch.shutdown()).await;
    }
}

async fn dial(switch: &SwitchHandle, to: &mut Node) -> (PeerHandle, ConnectionId) {
    let address = to.switch.listen_address().unwrap();
    let address = PeerAddress {
        id: to.switch.id(),
        host: address.ip().to_string(),
        port: address.port(),
    };
    let node = soon("a connection", switch.dial(&address)).await.unwrap();
    let id = switch.id();
    let connection = to
        .input(|input| match input {
            PoolInput::PeerAdded { peer, connection } if peer == id => Some(connection),
            _ => None,
        })
        .await;
    (node, connection)
}

/// A peer of the node that does what the test says; it reads only what the test takes.
pub(crate) struct Peer {
    pub(crate) switch: SwitchHandle,
    pub(crate) events: mpsc::Receiver<PeerEvent>,
    pub(crate) node: PeerHandle,
    /// As the node numbers it.
    pub(crate) connection: ConnectionId,
    /// The pool relies on it.
    pub(crate) proven: bool,
}

impl Peer {
    pub(crate) async fn connect(to: &mut Node) -> Self {
        Self::connect_at(to, 0).await
    }

    /// A peer that sends so many bytes a second; 0 for as many as it can.
    pub(crate) async fn connect_at(to: &mut Node, send_rate: u64) -> Self {
        let descriptor = ChannelDescriptor::new(BLOCKSYNC, 5, 2000, 100 << 20);
        let (switch, events) = switch(descriptor, send_rate).await;
        let (node, connection) = dial(&switch, to).await;
        Self {
            switch,
            events,
            node,
            connection,
            proven: false,
        }
    }

    /// Ends the connection and makes another one, under the same id.
    pub(crate) async fn reconnect(&mut self, to: &mut Node) {
        let id = self.id();
        self.node.disconnect(DisconnectReason::Shutdown);
        to.removal(id).await;
        self.come_again(to).await;
    }

    /// Makes another connection, under the same id, once the node has ended the first one.
    pub(crate) async fn come_again(&mut self, to: &mut Node) {
        soon("the connection to end", async {
            while self.switch.peer(&to.switch.id()).is_some() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        (self.node, self.connection) = dial(&self.switch, to).await;
    }

    /// The command to ask it for a block.
    pub(crate) fn request(&self, height: Height) -> Command {
        Command::Request {
            peer: self.id(),
            connection: self.connection,
            height,
            proven: self.proven,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.switch.id()
    }

    pub(crate) async fn send(&self, message: Bytes) {
        let sent = soon("room to send", self.node.send(BLOCKSYNC, message)).await;
        // The node may have disconnected meanwhile; the test looks for that elsewhere.
        let _ = sent;
    }

    /// The next message of the node that is `wanted`.
    pub(crate) async fn receive(&mut self, wanted: impl Fn(&Bytes) -> bool) -> Bytes {
        soon("a message of the node", async {
            loop {
                match self.events.recv().await.expect("the switch runs") {
                    PeerEvent::Message { bytes, .. } if wanted(&bytes) => return bytes,
                    _ => {}
                }
            }
        })
        .await
    }
}

#[derive(Deserialize)]
struct Row {
    block: Hex,
}

/// The first blocks of a chain.
pub(crate) fn blocks() -> Vec<Bytes> {
    load_lines::<Row>("chain_basic/blocks.jsonl")
        .into_iter()
        .take(3)
        .map(|row| Bytes::from(row.block.0))
        .collect()
}

/// The block with a field of no meaning behind it.
pub(crate) fn padded(block: &[u8], padding: usize) -> Bytes {
    let mut raw = BytesMut::from(block);
    if padding > 0 {
        raw.extend_from_slice(&[0x7a]);
        prost::encoding::encode_varint(padding as u64, &mut raw);
        raw.resize(raw.len() + padding, 0);
    }
    raw.freeze()
}
