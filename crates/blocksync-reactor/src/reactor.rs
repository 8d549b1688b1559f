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
    SwitchHandle,
};
use perihelion_pool::{Command, ConnectionId, PoolInput};
use perihelion_store::Store;
use perihelion_types::{Height, Hold, PeerId};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    allowance::Allowance,
    ask::{self, Ask},
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
    /// Bytes of large blocks received from it when last looked at.
    received: u64,
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
        }
    }

    /// Runs both tasks until `stop`, or until the switch or the pool is gone.
    pub async fn run(
        self,
        events: mpsc::Receiver<PeerEvent>,
        commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        let outbound = carry_out(Arc::clone(&self.peers), self.switch.clone(), commands);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.take_events(events) => {}
            () = outbound => {}
        }
    }

    async fn take_events(&self, mut events: mpsc::Receiver<PeerEvent>) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standstill = Standstill::default();
        loop {
            let told = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take_event(event).await,
                    None => return,
                },
                _ = look.tick() => self.look(&mut standstill).await,
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn take_event(&self, event: PeerEvent) -> Result<(), PoolGone> {
        match event {
            PeerEvent::Added(handle) => self.add_peer(handle).await,
            PeerEvent::Removed { id, reason } => {
                debug!(peer = %id, %reason, "peer removed");
                self.peers.remove(&id);
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

    async fn add_peer(&self, handle: PeerHandle) -> Result<(), PoolGone> {
        let peer = handle.id();
        let connection = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        self.send_status(&handle);
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
            received: 0,
        };
        self.peers.insert(peer, entry);
        self.tell(PoolInput::PeerAdded { peer, connection }).await
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
    /// Lets go of peers that hold the room which others wait for.
    async fn look(&self, standstill: &mut Standstill) -> Result<(), PoolGone> {
        let now = Instant::now();
        let waiting = self.budget.waiting() > 0;
        let mut alive = Vec::new();
        let mut slowest: Option<(Duration, PeerHandle)> = None;
        for mut entry in self.peers.iter_mut() {
            let stats = entry.handle.stats();
            let bytes = stats.large_bytes.saturating_sub(entry.received);
            entry.received = stats.large_bytes;
            if bytes > 0 {
                alive.push((*entry.key(), bytes));
            }
            if waiting && let Some(arrival) = stats.arrival {
                let lasts = arrival.lasts(now.into_std());
                let is_slow = lasts >= ARRIVAL || arrival.is_slow(now.into_std());
                if is_slow && slowest.as_ref().is_none_or(|(other, _)| lasts > *other) {
                    slowest = Some((lasts, entry.handle.clone()));
                }
            }
            let unsent = entry.room.is_taken();
            if entry.reluctance.check(now, unsent, stats.sent.bytes) {
                entry
                    .handle
                    .disconnect(misbehaviour("asks for blocks and takes none"));
            }
        }
        if let Some((_, peer)) = slowest {
            peer.disconnect(DisconnectReason::Replaced {
                reactor: NAME,
                why: "a block arrives slowly, and others wait for its room".to_owned(),
            });
        }
        for (peer, bytes) in alive {
            self.tell(PoolInput::Bytes { peer, bytes }).await?;
        }
        if self.budget.is_spent() {
            self.tell(PoolInput::Starved).await?;
        }
        if standstill.check(now, waiting, self.store.height()) {
            self.tell(PoolInput::Standstill).await?;
        }
        Ok(())
    }

    async fn tell(&self, input: PoolInput) -> Result<(), PoolGone> {
        self.pool.send(input).await.map_err(|_| PoolGone)
    }
}

/// How long one block may be arriving while others wait for room in the byte budget, at a rate that is
/// [not slow](perihelion_p2p::Arrival::is_slow); then the one that lasts longest is let go, without blame. Shorter,
/// and a large block on an ordinary link would not get through; longer, and a few that send as slowly
/// as is allowed would hold everybody up for that long.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The pool has stopped; so does the reactor.
struct PoolGone;

/// How long no block may be stored while peers wait for the byte budget, before those that owe the next
/// blocks get one message through each. Shorter, and a slow application would stretch the budget;
/// longer, and a node whose budget is held by blocks that wait for another one would stand still for
/// that long.
const STANDSTILL: Duration = Duration::from_secs(2);

/// Notices that blocks hold the budget which the block that they wait for needs.
#[derive(Debug, Default)]
struct Standstill {
    /// The stored height and since when it has not moved while somebody waited.
    since: Option<(Height, Instant)>,
}

impl Standstill {
    /// Whether it is time to let peers that wait get one message through.
    fn check(&mut self, now: Instant, waiting: bool, stored: Height) -> bool {
        match self.since {
            Some((height, since)) if waiting && height == stored => {
                let due = now.duration_since(since) >= STANDSTILL;
                if due {
                    self.since = Some((stored, now));
                }
                due
            }
            _ => {
                self.since = waiting.then_some((stored, now));
                false
            }
        }
    }
}

/// Carries out what the pool asks for.
async fn carry_out(peers: Arc<Peers>, switch: SwitchHandle, commands: mpsc::Receiver<Command>) {
    let lines = LogLimit::new(PUNISHMENTS, PUNISHMENT_INTERVAL);
    let mut commands = ReceiverStream::new(commands);
    while let Some(command) = commands.next().await {
        match command {
            Command::Request {
                peer,
                connection,
                height,
            } => ask(&peers, peer, connection, Ask::Block(height)),
            Command::AskStatus { peer, connection } => {
                ask(&peers, peer, connection, Ask::Status);
            }
            Command::Admit { peer, connection } => {
                if let Some(entry) = connected(&peers, peer, connection)
                    && entry.handle.stats().held
                {
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

/// Hands a request to the task that asks the peer; never waits.
fn ask(peers: &Peers, peer: PeerId, connection: ConnectionId, ask: Ask) {
    let Some(entry) = connected(peers, peer, connection) else {
        return;
    };
    if entry.asks.try_send(ask).is_err() {
        debug!(%peer, ?ask, "request dropped: the peer reads nothing");
    }
}

fn misbehaviour(fault: impl Into<String>) -> DisconnectReason {
    DisconnectReason::Misbehaviour {
        reactor: NAME,
        fault: fault.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_noticed_only_while_somebody_waits_and_nothing_is_stored() {
        let (start, height) = (Instant::now(), Height::new(5));
        let at = |millis| start + Duration::from_millis(millis);
        let mut standstill = Standstill::default();
        assert!(!standstill.check(at(0), true, height));
        assert!(!standstill.check(at(1900), true, height));
        assert!(standstill.check(at(2000), true, height));
        // Once each interval, not each look.
        assert!(!standstill.check(at(2100), true, height));
        assert!(standstill.check(at(4000), true, height));
        // A stored block, or nobody waiting, begins anew.
        assert!(!standstill.check(at(6100), true, height.next()));
        assert!(!standstill.check(at(8000), false, height.next()));
        assert!(!standstill.check(at(8100), true, height.next()));
        assert!(standstill.check(at(10_100), true, height.next()));
    }
}
