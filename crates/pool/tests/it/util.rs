//! A running pool whose reactor is the test.

use std::{future::Future, num::NonZero, sync::Arc, time::Duration};

use bytes::Bytes;
use perihelion_abci::{AppConnections, KvStore, KvStoreOptions};
use perihelion_pool::{
    Command, ConnectionId, Handover, LastCommitKnown, PoolConfig, PoolExit, PoolHandle, PoolInput,
};
use perihelion_schedule::{Mode, Progress};
use perihelion_state::{AppColumn, Executor, ExecutorConfig};
use perihelion_store::{Store, StoreOptions};
use perihelion_test_support::{Hex, load_lines, read};
use perihelion_types::{
    Address, ConsensusParams, Genesis, Height, HeightRange, PeerId, Time, genesis::GenesisDefaults,
};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes: a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(240);

const HOUR: Duration = Duration::from_secs(3600);

/// Waits for what must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: it never happened"))
}

#[derive(Deserialize)]
pub(crate) struct Line {
    block: Hex,
}

/// The blocks of the chain, the first one at height 1.
pub(crate) fn chain() -> Vec<Line> {
    load_lines("chain_basic/blocks.jsonl")
}

/// The bytes of the block of a height.
pub(crate) fn block(chain: &[Line], height: Height) -> Bytes {
    let index = usize::try_from(height.get()).unwrap() - 1;
    chain[index].block.0.clone().into()
}

/// A peer's id.
pub(crate) fn peer(byte: u8) -> PeerId {
    PeerId::new([byte; 20])
}

/// A pool over a store.
pub(crate) struct Pool {
    pub(crate) handle: PoolHandle,
    pub(crate) store: Arc<Store>,
    stop: CancellationToken,
}

impl Pool {
    /// A pool over what `home` holds, with one worker. Consensus is played by the test.
    pub(crate) fn start(home: &std::path::Path, last_commit: LastCommitKnown) -> Self {
        Self::start_changed(home, last_commit, |_| {})
    }

    /// The same with an executor that was changed before.
    pub(crate) fn start_changed(
        home: &std::path::Path,
        last_commit: LastCommitKnown,
        change: impl FnOnce(&mut Executor),
    ) -> Self {
        let store = Arc::new(Store::open(home, &StoreOptions::default()).unwrap());
        let defaults = GenesisDefaults {
            time: Time::ZERO,
            consensus_params: ConsensusParams::default_v038(),
        };
        let genesis = read("chain_basic/genesis.json");
        let genesis = Genesis::from_json(genesis.as_bytes(), &defaults).unwrap();
        let column = Arc::new(AppColumn::new(Arc::clone(&store)));
        let app = KvStore::persistent(column, KvStoreOptions::default()).unwrap();
        let app = AppConnections::in_process(Arc::new(app));
        let mut executor = Executor::start(
            Arc::clone(&store),
            &genesis,
            app.consensus,
            &app.query,
            ExecutorConfig {
                // Tables are written out by rule alone, however slow the machine is.
                sync_interval: Duration::from_secs(3600),
                catch_up_interval: Duration::from_secs(3600),
                ..ExecutorConfig::default()
            },
        )
        .unwrap();
        change(&mut executor);
        let config = PoolConfig {
            workers: NonZero::<usize>::MIN,
            own_address: None::<Address>,
            schedule: perihelion_schedule::Config {
                // Consensus is the test, which is quick.
                lookout_after: Duration::ZERO,
                // What a busy machine makes late is no reason to ask somebody else.
                peer_deadline: HOUR,
                hedge_after: (HOUR, HOUR),
                ..perihelion_schedule::Config::default()
            },
            ..PoolConfig::default()
        };
        let stop = CancellationToken::new();
        let handle = perihelion_pool::start(&config, executor, last_commit, stop.clone()).unwrap();
        Self {
            handle,
            store,
            stop,
        }
    }

    /// Tells the pool something; there is always room in these tests.
    pub(crate) fn tell(&self, input: PoolInput) {
        self.handle.inputs.try_send(input).unwrap();
    }

    /// A peer connects and claims heights up to `height`.
    pub(crate) fn add(&self, peer: PeerId, connection: ConnectionId, height: i64) {
        self.tell(PoolInput::PeerAdded { peer, connection });
        self.claim(peer, height);
    }

    /// A connected peer claims heights up to `height`.
    pub(crate) fn claim(&self, peer: PeerId, height: i64) {
        let range = HeightRange::new(Height::new(1), Height::new(height)).unwrap();
        self.tell(PoolInput::Status { peer, range });
    }

    /// The next command.
    pub(crate) async fn command(&mut self) -> Command {
        soon("a command", self.handle.commands.recv())
            .await
            .expect("the pool runs")
    }

    /// The next command, unless progress is told before.
    pub(crate) async fn command_or(
        &mut self,
        progress: &mut watch::Receiver<Progress>,
    ) -> Option<Command> {
        tokio::select! {
            command = self.handle.commands.recv() => Some(command.expect("the pool runs")),
            changed = soon("progress", progress.changed()) => {
                changed.unwrap();
                None
            }
        }
    }

    /// Answers every request over `connection` from the chain until `height` is stored. Fails when
    /// a peer is punished.
    pub(crate) async fn serve(&mut self, chain: &[Line], connection: ConnectionId, height: Height) {
        while self.store.height() < height {
            self.serve_one(chain, connection).await;
        }
    }

    /// Answers the next request over `connection`, or waits for progress to be told.
    pub(crate) async fn serve_one(&mut self, chain: &[Line], connection: ConnectionId) {
        let mut progress = self.handle.progress.clone();
        tokio::select! {
            command = self.handle.commands.recv() => match command.expect("the pool runs") {
                Command::Request { peer, connection: over, height, .. } if over == connection => {
                    self.tell(PoolInput::Block {
                        peer,
                        block: block(chain, height),
                        extended_commit: None,
                        hold: None,
                    });
                }
                Command::Request { .. } | Command::AskStatus { .. } | Command::Admit { .. } => {}
                punished @ Command::Punish { .. } => panic!("{punished:?}"),
            },
            changed = soon("progress", progress.changed()) => changed.unwrap(),
        }
    }

    /// Answers a command as a peer that has the chain up to `top`. Fails when a peer is punished.
    pub(crate) fn answer(&self, chain: &[Line], top: i64, command: Command) {
        match command {
            Command::Request { peer, height, .. } if height.get() > top => {
                self.tell(PoolInput::NoBlock { peer, height });
            }
            Command::Request { peer, height, .. } => self.tell(PoolInput::Block {
                peer,
                block: block(chain, height),
                extended_commit: None,
                hold: None,
            }),
            Command::AskStatus { peer, .. } => self.claim(peer, top),
            Command::Admit { .. } => {}
            punished @ Command::Punish { .. } => panic!("{punished:?}"),
        }
    }

    /// Progress, once the node is at `mode`.
    pub(crate) async fn progress_in(&mut self, mode: Mode) -> Progress {
        let progress = &mut self.handle.progress;
        let reached = progress.wait_for(|progress| progress.mode == mode);
        soon("the mode", reached).await.unwrap().clone()
    }

    /// Stops it; and what it had handed over that nobody took.
    pub(crate) async fn stop_and_drain(self) -> (PoolExit, Vec<Handover>) {
        self.stop.cancel();
        let PoolHandle {
            task, mut handover, ..
        } = self.handle;
        let exit = soon("the pool to stop", task).await.unwrap();
        let mut left = Vec::new();
        while let Ok(handover) = handover.try_recv() {
            left.push(handover);
        }
        (exit, left)
    }

    /// Stops it.
    pub(crate) async fn stop(self) -> PoolExit {
        self.stop.cancel();
        soon("the pool to stop", self.handle.task).await.unwrap()
    }
}
