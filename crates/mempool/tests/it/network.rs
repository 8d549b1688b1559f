//! Nodes with a mempool that are connected over loopback.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use perihelion_abci::{AppError, MempoolConnection};
use perihelion_mempool::{Mempool, MempoolConfig, MempoolReactor, TxLimits, channels, wire};
use perihelion_p2p::{
    ChannelDescriptor, DisconnectReason, MConnectionConfig, NodeInfo, NodeKey, P2pConfig,
    PeerAddress, PeerEvent, PeerHandle, ProtocolVersion, Switch, SwitchHandle, SwitchSetup,
};
use perihelion_types::{Height, PeerId};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::apps::{Picky, connect};

/// Far longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(240);
/// Pause between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never happened"))
}

/// Waits until `check` holds.
pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    soon(what, async {
        while !check() {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
}

/// What a test says of peers' heights.
#[derive(Default)]
pub(crate) struct Heights(pub(crate) Mutex<HashMap<PeerId, i64>>);

impl Heights {
    fn of(&self, peer: &PeerId) -> Option<Height> {
        let heights = self.0.lock().unwrap();
        Some(Height::new(heights.get(peer).copied().unwrap_or(1)))
    }
}

async fn switch(channels: Vec<ChannelDescriptor>) -> (SwitchHandle, mpsc::Receiver<PeerEvent>) {
    let (switch, mut events) = Switch::start(SwitchSetup {
        config: P2pConfig {
            laddr: "tcp://127.0.0.1:0".to_owned(),
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
            listen_addr: "tcp://127.0.0.1:0".to_owned(),
            network: "test-chain".to_owned(),
            version: "0.38.25".to_owned(),
            channels: Bytes::new(),
            moniker: "test".to_owned(),
            tx_index: "on".to_owned(),
            rpc_address: String::new(),
        },
        reactors: vec![("mempool", channels)],
        filter: None,
    })
    .await
    .unwrap();
    (switch, events.pop().unwrap())
}

async fn dial(from: &SwitchHandle, to: &SwitchHandle) -> PeerHandle {
    let address = to.listen_address().unwrap();
    let address = PeerAddress {
        id: to.id(),
        host: address.ip().to_string(),
        port: address.port(),
    };
    soon("a connection", from.dial(&address)).await.unwrap()
}

/// A node with a mempool.
pub(crate) struct Node {
    pub(crate) app: Arc<Picky>,
    pub(crate) mempool: Arc<Mempool>,
    pub(crate) heights: Arc<Heights>,
    pub(crate) switch: SwitchHandle,
    pub(crate) active: watch::Sender<bool>,
    pub(crate) ended: JoinHandle<Result<(), AppError>>,
    stop: CancellationToken,
}

impl Node {
    pub(crate) async fn start(config: MempoolConfig) -> Self {
        let app = Arc::<Picky>::default();
        let connection = connect(app.clone());
        Self {
            app,
            ..Self::start_with(config, connection).await
        }
    }

    /// A node with another application.
    pub(crate) async fn start_with(config: MempoolConfig, app: MempoolConnection) -> Self {
        let (switch, events) = switch(channels(&config)).await;
        let mempool = Arc::new(Mempool::new(config, app, Height::new(1), TxLimits::NONE));
        let heights = Arc::<Heights>::default();
        let (active, is_active) = watch::channel(true);
        let told = Arc::clone(&heights);
        let reactor = MempoolReactor::new(
            Arc::clone(&mempool),
            Arc::new(move |peer: &PeerId| told.of(peer)),
            HashSet::new(),
            is_active,
        );
        let stop = CancellationToken::new();
        let ended = tokio::spawn(reactor.run(events, stop.clone()));
        Self {
            app: Arc::default(),
            mempool,
            heights,
            switch,
            active,
            ended,
            stop,
        }
    }

    pub(crate) async fn connect(&self, to: &Self) {
        dial(&self.switch, &to.switch).await;
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon("the reactor to end", self.ended)
            .await
            .unwrap()
            .unwrap();
        soon("the switch to stop", self.switch.shutdown()).await;
    }
}

/// A peer that does what the test says.
pub(crate) struct Peer {
    pub(crate) switch: SwitchHandle,
    pub(crate) events: mpsc::Receiver<PeerEvent>,
    pub(crate) node: PeerHandle,
}

impl Peer {
    pub(crate) async fn connect(to: &Node) -> Self {
        let channel = ChannelDescriptor::new(wire::CHANNEL, 5, 100, 16 << 20);
        let (switch, events) = switch(vec![channel]).await;
        let node = dial(&switch, &to.switch).await;
        Self {
            switch,
            events,
            node,
        }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.switch.id()
    }

    /// Ends the connection and makes another one, under the same id.
    pub(crate) async fn come_again(&mut self, to: &Node) {
        self.node.disconnect(DisconnectReason::Shutdown);
        removal(to, self.id()).await;
        soon("the end at this side", async {
            while !matches!(self.events.recv().await, Some(PeerEvent::Removed { .. })) {}
        })
        .await;
        self.node = dial(&self.switch, &to.switch).await;
    }

    pub(crate) async fn send(&self, message: Bytes) {
        soon("room to send", self.node.send(wire::CHANNEL, message))
            .await
            .unwrap();
    }

    pub(crate) async fn send_tx(&self, tx: &Bytes) {
        self.send(wire::encode(tx).0).await;
    }

    /// The next transaction of the node.
    pub(crate) async fn receive(&mut self) -> Bytes {
        soon("a transaction", async {
            loop {
                match self.events.recv().await.expect("the switch runs") {
                    PeerEvent::Message { bytes, .. } => {
                        let mut txs = wire::decode(&bytes).unwrap();
                        let tx = txs.next().unwrap();
                        assert!(txs.next().is_none(), "one transaction a message");
                        return tx;
                    }
                    PeerEvent::Added(_) => {}
                    PeerEvent::Removed { reason, .. } => panic!("disconnected: {reason}"),
                }
            }
        })
        .await
    }
}

/// Why a node removed a peer.
pub(crate) async fn removal(node: &Node, peer: PeerId) -> String {
    soon("the disconnect", async {
        loop {
            let recent = node.switch.recent_disconnects();
            if let Some(gone) = recent.into_iter().find(|gone| gone.id == peer) {
                return gone.reason.to_string();
            }
            tokio::time::sleep(LOOK).await;
        }
    })
    .await
}
