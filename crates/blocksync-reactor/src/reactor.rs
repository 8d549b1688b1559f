use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, mapref::one::Ref};
use perihelion_p2p::{
    ByteBudget, ChannelDescriptor, DisconnectReason, LogLimit, PeerEvent, PeerHandle, Permit,
    Standing, SwitchHandle,
};
use perihelion_pool::{Command, ConnectionId, PoolInput};
use perihelion_store::Store;
use perihelion_types::{Height, Hold, PeerId};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    allowance::Allowance,
    ask::{self, Ask},
    look::{Calm, Looks, Slowest, Waiting},
    room::{PeerRoom, Reluctance, ServeLimits},
    serve,
    wire::{self, EncodedBlock, Message, WireError},
};

/// The reactor's name in logs and in reasons for a disconnect.
const NAME: &str = "blocksync";

/// How long a peer that lied is refused. Shorter, and it could lie again at once; longer, and an
/// operator who mended a node would wait for nothing. CometBFT bans for 60 s.
const BAN: Duration = Duration::from_secs(600);

/// How often the bytes that peers sent are looked at, and whether anyone waits for the byte budget.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The same while no block is asked for, on its way or waiting to be sent. Longer, and a peer that takes
/// nothing of what it asks for would be let go of later; shorter wakes an idle node for nothing.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// Statuses that a peer may ask for or tell at once, and how often after that. Our own nodes ask
/// once a second at the tip; who asks more often is not answered more often, nor listened to.
const STATUS_BURST: u32 = 16;
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// Messages of no use that a peer may send at once, and how often after that: statuses, and what was
/// never asked for. An honest peer sends a few a second, and at once those of minutes in which its
/// connection was held back; beyond it the peer is disconnected.
const IDLE_BURST: u32 = 4096;
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// Lines about punished peers at once, and how often after that: ids cost nothing.
const PUNISHMENTS: u32 = 20;
const PUNISHMENT_INTERVAL: Duration = Duration::from_secs(10);

/// Messages that may wait to be sent to one peer. Their bytes are bounded by [`ServeLimits`].
const SEND_QUEUE: usize = 64;

/// CometBFT's priority of the channel among others.
const PRIORITY: u8 = 5;

/// The channel as the switch needs to know it. Blocks take room of `budget` before they are
/// received, and only those that were asked for.
#[must_use]
pub fn channel(budget: ByteBudget) -> ChannelDescriptor {
    ChannelDescriptor::new(wire::CHANNEL, PRIORITY, SEND_QUEUE, wire::MAX_MESSAGE_BYTES)
        .with_budget(budget)
        .only_asked()
}

/// The connected peers, shared by the two tasks. No guard is kept across an await.
pub type Peers = DashMap<PeerId, Peer>;

/// What the reactor keeps of a peer.
pub struct Peer {
    connection: ConnectionId,
    handle: PeerHandle,
    requests: mpsc::Sender<Height>,
    room: PeerRoom,
    reluctance: Reluctance,
    asks: mpsc::Sender<Ask>,
    status_requests: Allowance,
    statuses: Allowance,
    idle: Allowance,
    /// Until then it comes behind others.
    behind: Option<Instant>,
    /// Bytes of large blocks received from it when last looked at.
    received: u64,
}

impl Peer {
    /// It goes before others, or not. Who was let go of as slow comes last all the same.
    fn rely(&self, proven: bool) {
        let standing = match proven {
            _ if self.behind.is_some() => return,
            true => Standing::Proven,
            false => Standing::Unknown,
        };
        if self.handle.standing() != standing {
            self.handle.set_standing(standing);
        }
    }

    /// Hands a request to the task that asks the peer; never waits.
    fn ask(&self, ask: Ask) {
        let is_block = matches!(ask, Ask::Block(_));
        if is_block {
            // Before it is sent: the answer must not come first.
            self.handle.expect_answer();
        }
        if self.asks.try_send(ask).is_err() {
            let _ = is_block && self.handle.take_answer();
            debug!(peer = %self.handle.id(), ?ask, "request dropped: the peer reads nothing");
        }
    }
}

/// The bridge between peers and the pool.
pub struct BlocksyncReactor {
    store: Arc<Store>,
    switch: SwitchHandle,
    budget: ByteBudget,
    limits: ServeLimits,
    peers: Arc<Peers>,
    pool: mpsc::Sender<PoolInput>,
    /// Connections so far.
    connections: AtomicU64,
    calm: Arc<Calm>,
}

impl BlocksyncReactor {
    /// A reactor that serves from `store` and tells `pool` what peers say.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        switch: SwitchHandle,
        budget: ByteBudget,
        limits: ServeLimits,
        pool: mpsc::Sender<PoolInput>,
    ) -> Self {
        Self {
            store,
            switch,
            budget,
            limits,
            peers: Arc::new(Peers::new()),
            pool,
            connections: AtomicU64::new(0),
            calm: Arc::default(),
        }
    }

    /// Runs both tasks until `stop`, or until the switch or the pool is gone.
    pub async fn run(
        self,
        events: mpsc::Receiver<PeerEvent>,
        commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        let outbound = carry_out(
            Arc::clone(&self.peers),
            self.switch.clone(),
            Arc::clone(&self.calm),
            commands,
        );
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.take_events(events) => {}
            () = outbound => {}
        }
    }

    async fn take_events(&self, mut events: mpsc::Receiver<PeerEvent>) {
        let look = sleep(LOOK_INTERVAL);
        tokio::pin!(look);
        let mut looks = Looks::default();
        loop {
            let told = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take_event(event, &mut looks).await,
                    None => return,
                },
                () = self.calm.ended() => {
                    look.as_mut().reset(Instant::now() + LOOK_INTERVAL);
                    Ok(())
                }
                () = &mut look => {
                    let told = self.look(&mut looks).await;
                    let pause = if self.is_calm() { CALM_INTERVAL } else { LOOK_INTERVAL };
                    look.as_mut().reset(Instant::now() + pause);
                    told
                }
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn take_event(&self, event: PeerEvent, looks: &mut Looks) -> Result<(), PoolGone> {
        match event {
            PeerEvent::Added(handle) => self.add_peer(handle, looks).await,
            PeerEvent::Removed { id, reason } => {
                debug!(peer = %id, %reason, "peer removed");
                if let Some((_, peer)) = self.peers.remove(&id) {
                    let now = Instant::now();
                    let arrival = peer.handle.stats().arrival;
                    // Who goes in time is not let go of, and would come again as if nothing was.
                    if arrival.is_some_and(|it| it.lags(now.into_std()))
                        && self.budget.waiting() > 0
                    {
                        looks.slow.note(now, &peer.handle);
                    }
                }
                self.tell(PoolInput::PeerRemoved { peer: id }).await
            }
            PeerEvent::Message {
                from,
                bytes,
                permit,
                ..
            } => match Message::decode(&bytes) {
                Ok(message) => self.take_message(&from, message, permit).await,
                Err(fault) => self.take_fault(&from, &fault).await,
            },
        }
    }

    async fn add_peer(&self, handle: PeerHandle, looks: &Looks) -> Result<(), PoolGone> {
        let peer = handle.id();
        let connection = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        self.send_status(&handle);
        let behind = looks.slow.until(Instant::now(), &handle);
        if behind.is_some() {
            handle.set_standing(Standing::Behind);
        }
        let room = PeerRoom::new(self.limits.clone());
        let requests = serve::start(handle.clone(), Arc::clone(&self.store), room.clone());
        let entry = Peer {
            connection,
            asks: ask::start(handle.clone()),
            handle,
            requests,
            room,
            reluctance: Reluctance::default(),
            status_requests: Allowance::new(STATUS_BURST, STATUS_INTERVAL),
            statuses: Allowance::new(STATUS_BURST, STATUS_INTERVAL),
            idle: Allowance::new(IDLE_BURST, IDLE_INTERVAL),
            behind,
            received: 0,
        };
        self.peers.insert(peer, entry);
        self.tell(PoolInput::PeerAdded { peer, connection }).await?;
        if behind.is_some() {
            self.tell(PoolInput::Slow { peer }).await?;
        }
        Ok(())
    }

    async fn take_message(
        &self,
        from: &PeerHandle,
        message: Message,
        permit: Option<Permit>,
    ) -> Result<(), PoolGone> {
        let peer = from.id();
        let useful = match message {
            Message::BlockRequest(height) => self.respond_to_peer(peer, height),
            // With a permit, the connection has taken the answer off what is owed.
            Message::BlockResponse(_) if permit.is_none() && !from.take_answer() => {
                from.disconnect(misbehaviour("a block that was not asked for"));
                return Ok(());
            }
            Message::BlockResponse(block) => return self.add_block(peer, block, permit).await,
            Message::NoBlockResponse(height) if from.take_answer() => {
                return self.tell(PoolInput::NoBlock { peer, height }).await;
            }
            Message::StatusRequest => {
                if self.take(peer, |entry| &mut entry.status_requests) {
                    self.send_status(from);
                }
                false
            }
            Message::StatusResponse(range) => {
                if self.take(peer, |entry| &mut entry.statuses) {
                    self.tell(PoolInput::Status { peer, range }).await?;
                }
                false
            }
            Message::NoBlockResponse(_) | Message::Unknown => false,
        };
        if !useful && !self.take(peer, |entry| &mut entry.idle) {
            from.disconnect(misbehaviour("a flood of messages"));
        }
        Ok(())
    }

    /// A peer wants a block: its server answers. Requests beyond its queue are dropped; tells
    /// whether this one was taken.
    fn respond_to_peer(&self, peer: PeerId, height: Height) -> bool {
        let taken = self
            .peers
            .get(&peer)
            .is_some_and(|entry| entry.requests.try_send(height).is_ok());
        if !taken {
            debug!(%peer, %height, "request dropped: too many wait");
        }
        taken
    }

    /// A peer sent a block: the pool decides what it is. Its share of the byte budget is kept with
    /// it.
    async fn add_block(
        &self,
        peer: PeerId,
        block: EncodedBlock,
        permit: Option<Permit>,
    ) -> Result<(), PoolGone> {
        let EncodedBlock {
            block,
            extended_commit,
        } = block;
        let hold = permit.map(Hold::new);
        self.tell(PoolInput::Block {
            peer,
            block,
            extended_commit,
            hold,
        })
        .await
    }

    /// What CometBFT would disconnect a peer for disconnects it.
    async fn take_fault(&self, from: &PeerHandle, fault: &WireError) -> Result<(), PoolGone> {
        let peer = from.id();
        if let WireError::Range { base, height } = *fault {
            let (base, height) = (Height::new(base), Height::new(height));
            return self
                .tell(PoolInput::ImpossibleStatus { peer, base, height })
                .await;
        }
        from.disconnect(misbehaviour(fault.to_string()));
        Ok(())
    }

    fn send_status(&self, to: &PeerHandle) {
        let status = wire::status_response(self.store.base(), self.store.height());
        if let Err(error) = to.try_send(wire::CHANNEL, status) {
            debug!(peer = %to.id(), %error, "status not sent");
        }
    }

    /// Takes one of an allowance of a peer, if the peer is connected and one is left.
    fn take(&self, peer: PeerId, which: impl Fn(&mut Peer) -> &mut Allowance) -> bool {
        self.peers
            .get_mut(&peer)
            .is_some_and(|mut entry| which(&mut entry).take())
    }

    /// Tells the pool from whom blocks are coming in, and whether the byte budget holds peers back.
    /// Lets go of the slowest peer whose block gives way to those that wait for its room, without blame.
    async fn look(&self, looks: &mut Looks) -> Result<(), PoolGone> {
        let now = Instant::now();
        let stored = self.store.height();
        let has_stored = looks.stored.replace(stored) != Some(stored);
        let waiting = self.waiting();
        let (mut alive, mut held_back) = (Vec::new(), Vec::new());
        let mut slowest = Slowest::new(now);
        for mut entry in self.peers.iter_mut() {
            let stats = entry.handle.stats();
            let bytes = stats.large_bytes.saturating_sub(entry.received);
            entry.received = stats.large_bytes;
            if bytes > 0 {
                alive.push((*entry.key(), bytes));
            }
            if let Some(arrival) = &stats.arrival {
                slowest.look(&entry.handle, arrival, waiting);
            }
            if has_stored {
                // It was for what everything waited for.
                entry.handle.withdraw_pass();
            }
            // Not while it waits: its turn may be near, and others would give way to it.
            let waits = entry.handle.waits_for_room();
            if waits {
                held_back.push(*entry.key());
            }
            if entry.behind.is_some_and(|until| until <= now) && !waits {
                entry.behind = None;
                entry.handle.set_standing(Standing::Unknown);
            }
            let unsent = entry.room.is_taken();
            if entry.reluctance.check(now, unsent, stats.sent.bytes) {
                entry
                    .handle
                    .disconnect(misbehaviour("asks for blocks and takes none"));
            }
        }
        if self.budget.waiting() > 0
            && let Some(peer) = slowest.found()
        {
            looks.slow.note(now, &peer);
            peer.disconnect(DisconnectReason::Replaced {
                reactor: NAME,
                why: "a block arrives slowly, and others wait for its room".to_owned(),
            });
        }
        for (peer, bytes) in alive {
            self.tell(PoolInput::Bytes { peer, bytes }).await?;
        }
        for peer in held_back {
            self.tell(PoolInput::HeldBack { peer }).await?;
        }
        let waits = self.budget.waiting() > 0;
        if looks.standstill.check(now, waits, stored) {
            self.tell(PoolInput::Standstill).await?;
            if self.budget.is_spent() {
                self.tell(PoolInput::Starved).await?;
            }
        }
        Ok(())
    }

    /// Whether no block is asked for, on its way or waiting to be sent. The next request ends that.
    fn is_calm(&self) -> bool {
        // Before looking: a request that comes now is not overlooked.
        self.calm.begin();
        let is_calm = self.budget.waiting() == 0
            && self.peers.iter().all(|entry| {
                !entry.handle.owes_answers()
                    && !entry.room.is_taken()
                    && entry.behind.is_none()
                    && !entry.handle.waits_for_room()
                    && entry.handle.stats().arrival.is_none()
            });
        if !is_calm {
            self.calm.forget();
        }
        is_calm
    }

    /// Who waits for room in the byte budget.
    fn waiting(&self) -> Waiting {
        let mut waiting = Waiting::default();
        for entry in self.peers.iter().filter(|it| it.handle.waits_for_room()) {
            waiting.count(entry.handle.standing());
        }
        waiting
    }

    async fn tell(&self, input: PoolInput) -> Result<(), PoolGone> {
        self.pool.send(input).await.map_err(|_| PoolGone)
    }
}

/// The pool has stopped; so does the reactor.
struct PoolGone;

/// Carries out what the pool asks for.
async fn carry_out(
    peers: Arc<Peers>,
    switch: SwitchHandle,
    calm: Arc<Calm>,
    commands: mpsc::Receiver<Command>,
) {
    let lines = LogLimit::new(PUNISHMENTS, PUNISHMENT_INTERVAL);
    let mut commands = ReceiverStream::new(commands);
    while let Some(command) = commands.next().await {
        match command {
            Command::Request {
                peer,
                connection,
                height,
                proven,
            } => {
                if let Some(entry) = connected(&peers, peer, connection) {
                    entry.rely(proven);
                    entry.ask(Ask::Block(height));
                    calm.end();
                }
            }
            Command::AskStatus { peer, connection } => {
                if let Some(entry) = connected(&peers, peer, connection) {
                    entry.ask(Ask::Status);
                }
            }
            Command::Admit {
                peer,
                connection,
                proven,
            } => {
                if let Some(entry) = connected(&peers, peer, connection)
                    && entry.handle.waits_for_room()
                {
                    entry.rely(proven);
                    entry.handle.admit_one();
                }
            }
            Command::Punish {
                peer,
                connection,
                fault,
                ban,
            } => {
                if let Some(left_out) = lines.pass() {
                    info!(%peer, %fault, ban, left_out, "peer punished");
                }
                let fault = fault.to_string();
                if ban {
                    switch.ban(peer, BAN, fault);
                } else if let Some(entry) = connected(&peers, peer, connection) {
                    entry.handle.disconnect(misbehaviour(fault));
                }
            }
        }
    }
}

/// The peer, if that connection of it still stands: a request for an earlier one would be answered
/// with a block that nobody waits for.
fn connected(
    peers: &Peers,
    peer: PeerId,
    connection: ConnectionId,
) -> Option<Ref<'_, PeerId, Peer>> {
    peers
        .get(&peer)
        .filter(|entry| entry.connection == connection)
}

fn misbehaviour(fault: impl Into<String>) -> DisconnectReason {
    DisconnectReason::Misbehaviour {
        reactor: NAME,
        fault: fault.into(),
    }
}
