use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use perihelion_consensus::ConsensusConfig;
use perihelion_events::EventBus;
use perihelion_evidence::EvidencePool;
use perihelion_mempool::{Mempool, PeerHeights};
use perihelion_p2p::{PeerEvent, PeerHandle};
use perihelion_state::Executor;
use perihelion_store::Store;
use perihelion_types::{Height, PeerId, RulesByHeight, State};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    ConsensusError,
    peer::{PeerState, View},
    privval::FilePrivval,
    reactor,
    routine::{Command, Routine, THREAD},
    shared::{CLAIM_QUEUE, CORE_QUEUE, Shared, lock},
};

/// Orders that may wait: they come from one task, one after another.
const COMMANDS: usize = 4;

/// All that consensus is made of, but for the executor, which it gets by
/// [`enter`](ConsensusHandle::enter).
pub struct ConsensusSetup {
    /// Timeouts, and the rules for empty blocks.
    pub config: ConsensusConfig,
    /// Which release's rules judge a block, by its height.
    pub rules: RulesByHeight,
    /// Where blocks are stored: read for peers that lag.
    pub store: Arc<Store>,
    /// Transactions for blocks.
    pub mempool: Arc<Mempool>,
    /// Evidence for blocks, and where contradicting votes are reported.
    pub evidence: Arc<EvidencePool>,
    /// Where rounds are told of.
    pub events: EventBus,
    /// What this node signs with, if it may be a validator.
    pub privval: Option<FilePrivval>,
    /// The head of the write-ahead log (`consensus.wal_file`).
    pub wal_file: PathBuf,
    /// In how many of the last blocks own signatures are looked for before the first vote
    /// (`consensus.double_sign_check_height`); 0 for none.
    pub double_sign_check_height: u64,
    /// This node's id.
    pub own_id: PeerId,
    /// How long a peer that lacks nothing is left alone
    /// (`consensus.peer_gossip_sleep_duration`, 100 ms). News wake its task at once.
    pub gossip_sleep: Duration,
    /// How often peers are told of majorities (`consensus.peer_query_maj23_sleep_duration`, 2 s).
    pub maj23_sleep: Duration,
}

/// A peer as consensus knows it.
#[derive(Debug, Clone)]
pub struct PeerRound {
    /// The connection.
    pub peer: PeerHandle,
    /// What it has.
    pub state: PeerState,
    /// Votes that it has sent while this node was in consensus.
    pub votes: i64,
    /// Block parts likewise.
    pub block_parts: i64,
}

/// Controls consensus. Cheap to clone.
#[derive(Clone)]
pub struct ConsensusHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// Starts the tasks and the thread. Peers' states are kept from now on; nothing is voted and nothing
/// is told before consensus is entered. To be called within a tokio runtime.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(
    setup: ConsensusSetup,
    events: mpsc::Receiver<PeerEvent>,
    stop: CancellationToken,
) -> Result<ConsensusHandle, ConsensusError> {
    let (commands, orders) = mpsc::channel(COMMANDS);
    let (to_core, messages) = mpsc::channel(CORE_QUEUE);
    let (claims, claimed) = mpsc::channel(CLAIM_QUEUE);
    let shared = Arc::new(Shared::new(&setup, to_core, claims));
    let no_thread = |source| ConsensusError::Thread {
        name: THREAD,
        source: Arc::new(source),
    };
    let routine = Routine::new(
        setup,
        Arc::clone(&shared),
        orders,
        messages,
        claimed,
        stop.clone(),
    )
    .map_err(no_thread)?;
    thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn({
            let guard = EndGuard(Arc::clone(&shared));
            move || guard.0.end(routine.run())
        })
        .map_err(no_thread)?;
    tokio::spawn(reactor::run(Arc::clone(&shared), events, stop));
    Ok(ConsensusHandle { shared, commands })
}

/// Says that the thread is gone, however it ends.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end(ConsensusError::ThreadGone(THREAD));
    }
}

impl ConsensusHandle {
    /// Gives the executor to consensus, which begins at the height above its last applied block:
    /// the log is brought to that block, what it has of the next height is replayed, and all peers
    /// are told. Returns when it has begun.
    ///
    /// # Errors
    /// When it cannot begin; the node is to stop.
    pub async fn enter(&self, executor: Executor) -> Result<(), ConsensusError> {
        self.shared.leaving.store(false, Ordering::Release);
        let executor = Box::new(executor);
        self.order(|reply| Command::Enter { executor, reply }).await
    }

    /// Takes the executor back. Nothing is signed from this call on; the job that the application
    /// is at, if any, is waited for.
    ///
    /// # Errors
    /// When consensus does not have it, or has failed.
    pub async fn leave(&self) -> Result<Executor, ConsensusError> {
        self.shared.leaving.store(true, Ordering::Release);
        self.order(|reply| Command::Leave { reply }).await
    }

    async fn order<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ConsensusError>>) -> Command,
    ) -> Result<T, ConsensusError> {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_err() {
            return Err(self.shared.end_reason());
        }
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| Err(self.shared.end_reason())),
            // A command that is sent at the very end may be neither taken nor dropped.
            reason = self.ended() => Err(reason),
        }
    }

    /// A final block of `height` is held that consensus did not decide: nothing is signed at that
    /// height or below it any more. Returns at once.
    pub fn pinned(&self, height: Height) {
        self.shared.pin(height);
    }

    /// The state after each block that consensus has applied; `None` before the first.
    #[must_use]
    pub fn decided(&self) -> watch::Receiver<Option<Arc<State>>> {
        self.shared.decided.subscribe()
    }

    /// Where consensus is; `None` while it does not have the executor.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.shared.view.subscribe()
    }

    /// The peers, ordered by id.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerRound> {
        let mut peers: Vec<_> = self.shared.peers().values().cloned().collect();
        peers.sort_by_key(|peer| peer.handle.id());
        peers
            .into_iter()
            .map(|peer| PeerRound {
                peer: peer.handle.clone(),
                state: lock(&peer.state).clone(),
                votes: peer.votes.load(Ordering::Relaxed),
                block_parts: peer.parts.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Which height each peer works on, for the reactors that send only what a peer can use. A peer
    /// that has not said yet is at none.
    #[must_use]
    pub fn heights(&self) -> PeerHeights {
        let shared = Arc::clone(&self.shared);
        Arc::new(move |id| {
            let peer = shared.peer(id)?;
            let height = lock(&peer.state).height();
            height.is_positive().then_some(height)
        })
    }

    /// Waits until consensus has ended, and tells why: the node is to stop.
    /// [`ConsensusError::Stopped`] when it was told to: then the job that the application is at was
    /// waited for, and the executor is gone.
    pub async fn ended(&self) -> ConsensusError {
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ConsensusError::Stopped),
            Err(_) => ConsensusError::Stopped,
        }
    }
}

impl fmt::Debug for ConsensusHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.shared.view.borrow();
        f.debug_struct("ConsensusHandle")
            .field("at", &view.as_ref().map(|view| *view.round_step()))
            .finish_non_exhaustive()
    }
}
