//! Two nodes over loopback, as far as blocksync's reactors: one serves all blocks, the other asks
//! for them and lets them go again.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use perihelion_blocksync_reactor::{BlocksyncReactor, ServeLimits, channel};
use perihelion_p2p::{
    ByteBudget, MConnectionConfig, NodeInfo, NodeKey, P2pConfig, PeerAddress, ProtocolVersion,
    Switch, SwitchHandle, SwitchSetup,
};
use perihelion_pool::{Command, ConnectionId, PoolInput};
use perihelion_store::Store;
use perihelion_types::{Height, PeerId};
use tokio::{
    runtime::Runtime,
    sync::mpsc,
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{each_raw, go_on, median};
use crate::{
    BenchError,
    chain::{Chain, open_store},
    clock,
};

/// `blocksync.window_bytes` by default: blocks that are expected or held.
pub(super) const WINDOW: usize = 64 << 20;
/// Requests to one peer at most.
const REQUESTS: usize = 500;
/// The pool's queues.
const QUEUE: usize = 1024;
/// Blocks are asked for again until so many bytes have come, or so many blocks: what a connection
/// takes to begin is little beside it then.
const PASS_BYTES: usize = 64 << 20;
const PASS_BLOCKS: usize = 20_000;
/// Passes; each has connections and threads of its own.
const PASSES: usize = 3;
/// How long no block may come. Connections that stand still would be a fault of this program.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is asked whether to end.
const LOOK: Duration = Duration::from_millis(50);

/// Processor time of all blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    pub(super) server: Duration,
    pub(super) client: Duration,
}

/// The median of what each side's threads used: those of its connection, of its reactor and those
/// that read its store.
pub(super) fn measure(
    chain: &Chain,
    served: &Path,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Network, BenchError> {
    let served = open_store(served)?;
    served.flush()?;
    let asking = open_store(&folder.join("asking"))?;
    let rounds = (PASS_BYTES / chain.bytes())
        .min(PASS_BLOCKS / chain.blocks.len())
        .max(1);
    let mut passes = Vec::new();
    for _ in 0..PASSES {
        let [served, asking] = [&served, &asking].map(Arc::clone);
        passes.push(pass(chain, served, asking, rounds, stop)?);
    }
    let of_one = |side: fn(&Network) -> Duration| {
        median(passes.iter().map(side).collect()) / u32::try_from(rounds).unwrap_or(u32::MAX)
    };
    Ok(Network {
        server: of_one(|pass| pass.server),
        client: of_one(|pass| pass.client),
    })
}

/// All blocks, so many times.
fn pass(
    chain: &Chain,
    served: Arc<Store>,
    asking: Arc<Store>,
    rounds: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Network, BenchError> {
    let (server, client) = (Side::start()?, Side::start()?);
    let lengths: Vec<usize> = each_raw(chain).map(Bytes::len).collect();
    let address = server.run(stop, serve(served))?;
    client.run(stop, fetch(asking, address, lengths, rounds))?;
    Ok(Network {
        client: client.end(),
        server: server.end(),
    })
}

/// A node's threads.
struct Side {
    runtime: Runtime,
    /// Nanoseconds of processor time of those that have ended.
    used: Arc<AtomicU64>,
}

impl Side {
    fn start() -> Result<Self, BenchError> {
        let used = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&used);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .on_thread_stop(move || {
                let nanos = u64::try_from(clock::thread().as_nanos()).unwrap_or(u64::MAX);
                counted.fetch_add(nanos, Ordering::Relaxed);
            })
            .build()
            .map_err(BenchError::system("a runtime"))?;
        Ok(Self { runtime, used })
    }

    /// Runs something on these threads until it is done, or to be stopped.
    fn run<T: Send + 'static>(
        &self,
        stop: &dyn Fn() -> bool,
        work: impl Future<Output = Result<T, BenchError>> + Send + 'static,
    ) -> Result<T, BenchError> {
        self.runtime.block_on(async {
            let mut work: JoinHandle<_> = self.runtime.spawn(work);
            let mut look = interval(LOOK);
            loop {
                tokio::select! {
                    biased;
                    _ = look.tick() => go_on(stop)?,
                    done = &mut work => return done.map_err(BenchError::chain)?,
                }
            }
        })
    }

    /// Ends all threads: what they used.
    fn end(self) -> Duration {
        self.runtime.shutdown_timeout(PATIENCE);
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }
}

/// A node as far as its reactor; the pool is who has this.
struct Node {
    switch: SwitchHandle,
    inputs: mpsc::Receiver<PoolInput>,
    commands: mpsc::Sender<Command>,
}

impl Node {
    /// Starts its tasks, which end with the runtime.
    async fn start(store: Arc<Store>) -> Result<Self, BenchError> {
        let budget = ByteBudget::new(WINDOW);
        let (switch, mut events) = Switch::start(SwitchSetup {
            config: P2pConfig {
                laddr: "tcp://127.0.0.1:0".to_owned(),
                allow_duplicate_ip: true,
                send_rate: 0,
                recv_rate: 0,
                ..P2pConfig::default()
            },
            connection: MConnectionConfig::default(),
            node_key: NodeKey::generate(),
            node_info: node_info(),
            reactors: vec![("blocksync", vec![channel(budget.clone())])],
            filter: None,
        })
        .await
        .map_err(BenchError::chain)?;
        let events = events.pop();
        let events = events.ok_or_else(|| BenchError::chain("no reactor"))?;
        let (told, inputs) = mpsc::channel(QUEUE);
        let (commands, asked) = mpsc::channel(QUEUE);
        let limits = ServeLimits::default();
        let reactor = BlocksyncReactor::new(store, switch.clone(), budget, limits, told);
        tokio::spawn(reactor.run(events, asked, CancellationToken::new()));
        Ok(Self {
            switch,
            inputs,
            commands,
        })
    }

    async fn input(&mut self) -> Result<PoolInput, BenchError> {
        let input = timeout(PATIENCE, self.inputs.recv()).await;
        let input = input.map_err(|_| BenchError::chain("the connection stands still"))?;
        input.ok_or_else(|| BenchError::chain("the reactor ended"))
    }

    async fn ask(
        &self,
        (peer, connection): (PeerId, ConnectionId),
        height: usize,
    ) -> Result<(), BenchError> {
        let height = Height::new(i64::try_from(height).unwrap_or(i64::MAX));
        let request = Command::Request {
            peer,
            connection,
            height,
            proven: true,
        };
        let asked = self.commands.send(request).await;
        asked.map_err(|_| BenchError::chain("the reactor ended"))
    }
}

fn node_info() -> NodeInfo {
    NodeInfo {
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
    }
}

/// Serves from the store until the runtime ends.
async fn serve(store: Arc<Store>) -> Result<PeerAddress, BenchError> {
    let node = Node::start(store).await?;
    let address = node.switch.listen_address();
    let address = address.ok_or_else(|| BenchError::chain("it does not listen"))?;
    let address = PeerAddress {
        id: node.switch.id(),
        host: address.ip().to_string(),
        port: address.port(),
    };
    tokio::spawn(async move {
        // All of the node is kept: the reactor ends when nobody can command it.
        let mut kept = node;
        while kept.inputs.recv().await.is_some() {}
    });
    Ok(address)
}

/// Asks for the blocks of the lengths from height 1 on, so many times; for as many at once as a pool
/// does.
async fn fetch(
    store: Arc<Store>,
    address: PeerAddress,
    lengths: Vec<usize>,
    rounds: usize,
) -> Result<(), BenchError> {
    let mut node = Node::start(store).await?;
    node.switch
        .dial(&address)
        .await
        .map_err(BenchError::chain)?;
    let to = loop {
        if let PoolInput::PeerAdded { peer, connection } = node.input().await? {
            break (peer, connection);
        }
    };
    let largest = lengths.iter().copied().max().unwrap_or(1);
    let at_once = (WINDOW / largest).clamp(1, REQUESTS);
    let heights = || (1..=lengths.len()).cycle().take(lengths.len() * rounds);
    let mut to_ask = heights();
    for height in to_ask.by_ref().take(at_once) {
        node.ask(to, height).await?;
    }
    for height in heights() {
        let length = loop {
            match node.input().await? {
                PoolInput::Block { block, .. } => break block.len(),
                failed @ (PoolInput::NoBlock { .. } | PoolInput::PeerRemoved { .. }) => {
                    return Err(BenchError::chain(format_args!("{failed:?}")));
                }
                _ => {}
            }
        };
        // Answers come in the order of requests.
        if length != lengths[height - 1] {
            return Err(BenchError::chain("another block came than was asked for"));
        }
        if let Some(height) = to_ask.next() {
            node.ask(to, height).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    fn chain(folder: &Path) -> Chain {
        let shape = Shape {
            name: "test".to_owned(),
            validators: 1_000,
            txs: 2,
            tx_bytes: 64,
        };
        Chain::make(&shape, folder, &|| false).unwrap()
    }

    #[test]
    fn all_blocks_come_and_both_sides_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let [served, asking] = ["served", "asking"].map(|name| folder.path().join(name));
        let chain = chain(&served);
        let [served, asking] = [served, asking].map(|folder| open_store(&folder).unwrap());
        let stores = || (Arc::clone(&served), Arc::clone(&asking));
        let (server, client) = stores();
        let taken = pass(&chain, server, client, 2, &|| false).unwrap();
        assert!(taken.server > Duration::ZERO && taken.client > Duration::ZERO);
        let (server, client) = stores();
        let stopped = pass(&chain, server, client, 1, &|| true);
        assert!(matches!(stopped, Err(BenchError::Stopped)));
    }

    #[test]
    fn blocks_other_than_those_asked_for_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let [served, asking] = ["served", "asking"].map(|name| folder.path().join(name));
        let chain = chain(&served);
        let [served, asking] = [served, asking].map(|folder| open_store(&folder).unwrap());
        let (server, client) = (Side::start().unwrap(), Side::start().unwrap());
        let address = server.run(&|| false, serve(served)).unwrap();
        let fetched = |lengths| {
            let fetched = fetch(Arc::clone(&asking), address.clone(), lengths, 1);
            client.run(&|| false, fetched)
        };
        let lengths: Vec<usize> = each_raw(&chain).map(Bytes::len).collect();
        fetched(lengths.clone()).unwrap();
        let mut other = lengths.clone();
        other[7] += 1;
        let error = fetched(other).unwrap_err().to_string();
        assert!(error.contains("another block"), "{error}");
        let error = fetched([&lengths[..], &[1]].concat()).unwrap_err();
        assert!(error.to_string().contains("NoBlock"), "{error}");
    }
}
