use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use perihelion_crypto::NodeId;
use thiserror::Error;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Arrival, ChannelDescriptor, DisconnectReason, FlowStatus, NodeInfo, Permit, flow::Meter,
    switch::site_of,
};

/// What a reactor hears of its peers. For one connection: `Added`, then messages, then `Removed`;
/// a peer that comes again is added only after it was removed.
#[derive(Debug)]
pub enum PeerEvent {
    /// A peer has connected.
    Added(PeerHandle),
    /// A peer is gone.
    Removed {
        /// Its id.
        id: NodeId,
        /// Why.
        reason: DisconnectReason,
    },
    /// A message on one of the reactor's channels.
    Message {
        /// Who sent it.
        from: PeerHandle,
        /// The channel's id.
        channel: u8,
        /// The message as it came.
        bytes: Bytes,
        /// The room that the message takes of its channel's budget, if it was large enough to need
        /// any, and of what the reactor may have in hand of this peer. Keep it as long as the
        /// message.
        permit: Option<Permit>,
    },
}

/// A message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The channel's queue is full.
    #[error("the send queue of channel {0:#04x} is full")]
    Full(u8),
    /// The peer does not speak this channel, or this node does not.
    #[error("channel {0:#04x} is not shared with the peer")]
    NoChannel(u8),
    /// The peer is gone.
    #[error("the peer is disconnected")]
    Disconnected,
}

/// How a peer stands among others whose large messages wait, where only one of them [takes what it
/// needs](crate::ByteBudget).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// What it sent was of use: it goes first.
    Proven,
    /// Nothing is known of it.
    Unknown,
    /// It was slow when others waited: it goes last.
    Behind,
}

/// A connected peer, or one that was: it goes on telling who it was. Cheap to clone.
#[derive(Clone)]
pub struct PeerHandle {
    pub(crate) shared: Arc<PeerShared>,
}

/// What a connection's task and the peer's handles share.
pub(crate) struct PeerShared {
    pub(crate) id: NodeId,
    pub(crate) node_info: NodeInfo,
    pub(crate) remote: SocketAddr,
    pub(crate) outbound: bool,
    pub(crate) persistent: bool,
    since: Instant,
    outboxes: Vec<Outbox>,
    pub(crate) queued_bytes: AtomicUsize,
    /// Something was queued to be sent.
    pub(crate) wake: Notify,
    /// The connection is to be closed, for the reason in `reason`.
    pub(crate) closing: CancellationToken,
    reason: Mutex<Option<DisconnectReason>>,
    pub(crate) sent: Mutex<Meter>,
    pub(crate) received: Mutex<Meter>,
    /// One message may pass its budget.
    pass: AtomicBool,
    pub(crate) pass_granted: Notify,
    pub(crate) held: AtomicBool,
    pub(crate) waits: AtomicBool,
    standing: Mutex<Standing>,
    /// See [`PeerStats::large_bytes`] and [`PeerStats::arrival`].
    pub(crate) large_bytes: AtomicU64,
    pub(crate) arrival: Mutex<Option<Arrival>>,
    /// Answers that the peer has yet to give.
    owed: AtomicU64,
}

struct Outbox {
    id: u8,
    priority: u8,
    capacity: usize,
    queue: mpsc::Sender<Queued>,
    recently_sent: AtomicU64,
}

/// Figures of a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStats {
    /// How long it has been connected.
    pub connected_for: Duration,
    /// Bytes sent, of messages and of what carries them.
    pub sent: FlowStatus,
    /// Bytes received likewise.
    pub received: FlowStatus,
    /// Bytes of messages that wait to be sent.
    pub queued_bytes: usize,
    /// Whether reading is held back, for want of budget or because a reactor is busy.
    pub held: bool,
    /// Bytes received of messages that found room of their channel's budget.
    pub large_bytes: u64,
    /// The message that found room and is arriving.
    pub arrival: Option<Arrival>,
    /// Each channel.
    pub channels: Vec<ChannelStats>,
}

/// Figures of one channel of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelStats {
    /// The channel's id.
    pub id: u8,
    /// Messages that may wait at most.
    pub send_queue_capacity: usize,
    /// Messages that wait.
    pub send_queue_size: usize,
    /// Share of the sending rate.
    pub priority: u8,
    /// Bytes sent of late, fading.
    pub recently_sent: u64,
}

/// What waits in a channel's queue.
#[derive(Debug)]
enum Queued {
    /// A message.
    Whole(Bytes),
    /// A message that comes in parts.
    Parts(mpsc::Receiver<Part>),
}

/// A part of a message.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) bytes: Bytes,
    /// The message ends with it.
    pub(crate) last: bool,
}

/// A channel's queue as the connection's task drains it.
pub(crate) struct Outgoing {
    pub(crate) channel: u8,
    queue: mpsc::Receiver<Queued>,
    /// The rest of the message that has begun.
    parts: Option<mpsc::Receiver<Part>>,
}

impl Outgoing {
    /// What is to be sent next, if it is there. A message that has begun is ended first.
    pub(crate) fn try_next(&mut self) -> Option<Part> {
        loop {
            if let Some(parts) = &mut self.parts {
                // Who lets go of a message that has begun ends the connection.
                let part = parts.try_recv().ok()?;
                if part.last {
                    self.parts = None;
                }
                return Some(part);
            }
            match self.queue.try_recv().ok()? {
                Queued::Whole(bytes) => return Some(Part { bytes, last: true }),
                Queued::Parts(parts) => self.parts = Some(parts),
            }
        }
    }
}

/// A message that is handed over part by part, so that not all of it need be in memory at once. Other
/// messages of its channel wait until it has ended. Dropped before that, it ends the connection: the
/// peer cannot be told otherwise that the rest will not come.
pub struct MessageInParts {
    shared: Arc<PeerShared>,
    channel: u8,
    parts: mpsc::Sender<Part>,
    ended: bool,
}

impl MessageInParts {
    /// Queues the next part, the `last` one or not, once the one before is being sent.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn send(&mut self, bytes: Bytes, last: bool) -> Result<(), SendError> {
        let slot = self.parts.reserve().await;
        let slot = slot.map_err(|_| SendError::Disconnected)?;
        self.shared
            .queued_bytes
            .fetch_add(bytes.len(), Ordering::Relaxed);
        slot.send(Part { bytes, last });
        self.ended = last;
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Drop for MessageInParts {
    fn drop(&mut self) {
        if !self.ended {
            self.shared
                .close(DisconnectReason::Unfinished(self.channel));
        }
    }
}

impl fmt::Debug for MessageInParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a message to {} on {:#04x}",
            self.shared.id, self.channel
        )
    }
}

/// Who a connection leads to.
pub(crate) struct PeerIdentity {
    pub(crate) id: NodeId,
    pub(crate) node_info: NodeInfo,
    pub(crate) remote: SocketAddr,
    pub(crate) outbound: bool,
    pub(crate) persistent: bool,
}

impl PeerShared {
    /// A peer with a queue for each channel that both nodes speak.
    pub(crate) fn new<'a>(
        identity: PeerIdentity,
        channels: impl Iterator<Item = &'a ChannelDescriptor>,
    ) -> (Arc<Self>, Vec<Outgoing>) {
        let now = Instant::now();
        let (mut outboxes, mut outgoing) = (Vec::new(), Vec::new());
        for channel in channels.filter(|channel| identity.node_info.has_channel(channel.id)) {
            let capacity = channel.send_queue.max(1);
            let (queue, receiver) = mpsc::channel(capacity);
            outgoing.push(Outgoing {
                channel: channel.id,
                queue: receiver,
                parts: None,
            });
            outboxes.push(Outbox {
                id: channel.id,
                priority: channel.priority,
                capacity,
                queue,
                recently_sent: AtomicU64::new(0),
            });
        }
        let shared = Self {
            id: identity.id,
            node_info: identity.node_info,
            remote: identity.remote,
            outbound: identity.outbound,
            persistent: identity.persistent,
            since: now,
            outboxes,
            queued_bytes: AtomicUsize::new(0),
            wake: Notify::new(),
            closing: CancellationToken::new(),
            reason: Mutex::new(None),
            sent: Mutex::new(Meter::new(now.into_std())),
            received: Mutex::new(Meter::new(now.into_std())),
            pass: AtomicBool::new(false),
            pass_granted: Notify::new(),
            held: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            standing: Mutex::new(Standing::Unknown),
            large_bytes: AtomicU64::new(0),
            arrival: Mutex::new(None),
            owed: AtomicU64::new(0),
        };
        (Arc::new(shared), outgoing)
    }

    /// Asks the connection's task to end; the first reason counts.
    pub(crate) fn close(&self, reason: DisconnectReason) {
        lock(&self.reason).get_or_insert(reason);
        self.closing.cancel();
    }

    /// Why the task was asked to end.
    pub(crate) fn close_reason(&self) -> DisconnectReason {
        lock(&self.reason)
            .clone()
            .unwrap_or(DisconnectReason::Shutdown)
    }

    /// Uses the pass, if there is one.
    pub(crate) fn take_pass(&self) -> bool {
        self.pass.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    pub(crate) fn set_recently_sent(&self, channel: u8, bytes: u64) {
        if let Some(outbox) = self.outbox(channel) {
            outbox.recently_sent.store(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn connected_for(&self) -> Duration {
        self.since.elapsed()
    }

    fn outbox(&self, channel: u8) -> Option<&Outbox> {
        self.outboxes.iter().find(|outbox| outbox.id == channel)
    }
}

impl PeerHandle {
    /// The id that the peer has proven.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// What the peer says of itself.
    #[must_use]
    pub fn node_info(&self) -> &NodeInfo {
        &self.shared.node_info
    }

    /// The address at the other end of the connection.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.remote
    }

    /// Whether this node dialled.
    #[must_use]
    pub fn is_outbound(&self) -> bool {
        self.shared.outbound
    }

    /// Whether the configuration names it as a persistent peer.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.shared.persistent
    }

    /// Whether the connection is over or about to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.closing.is_cancelled()
    }

    /// Whether both nodes speak a channel.
    #[must_use]
    pub fn has_channel(&self, channel: u8) -> bool {
        self.shared.outbox(channel).is_some()
    }

    /// Queues a message.
    ///
    /// # Errors
    /// When the queue is full, the channel is not shared, or the peer is gone.
    pub fn try_send(&self, channel: u8, message: Bytes) -> Result<(), SendError> {
        let outbox = self.live_outbox(channel)?;
        let slot = outbox.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => SendError::Full(channel),
            mpsc::error::TrySendError::Closed(()) => SendError::Disconnected,
        })?;
        self.queue(slot, message);
        Ok(())
    }

    /// Queues a message, waiting for room in the queue.
    ///
    /// # Errors
    /// When the channel is not shared or the peer is gone.
    pub async fn send(&self, channel: u8, message: Bytes) -> Result<(), SendError> {
        let outbox = self.live_outbox(channel)?;
        let slot = outbox
            .queue
            .reserve()
            .await
            .map_err(|_| SendError::Disconnected)?;
        self.queue(slot, message);
        Ok(())
    }

    /// Queues a message whose parts are to follow, waiting for room in the queue.
    ///
    /// # Errors
    /// When the channel is not shared or the peer is gone.
    pub async fn send_in_parts(&self, channel: u8) -> Result<MessageInParts, SendError> {
        let outbox = self.live_outbox(channel)?;
        let slot = outbox.queue.reserve().await;
        let slot = slot.map_err(|_| SendError::Disconnected)?;
        let (parts, receiver) = mpsc::channel(1);
        slot.send(Queued::Parts(receiver));
        Ok(MessageInParts {
            shared: Arc::clone(&self.shared),
            channel,
            parts,
            ended: false,
        })
    }

    /// Waits until a message can be queued.
    ///
    /// # Errors
    /// When the channel is not shared or the peer is gone.
    pub async fn ready(&self, channel: u8) -> Result<(), SendError> {
        let outbox = self.live_outbox(channel)?;
        match outbox.queue.reserve().await {
            Ok(_) => Ok(()),
            Err(_) => Err(SendError::Disconnected),
        }
    }

    /// Bytes of messages that wait to be sent on all channels: what serving this peer is to be
    /// bounded by.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes.load(Ordering::Relaxed)
    }

    /// Lets one message of this peer go beside its channel's budget where that has no room: the one
    /// that waits now, or else the next one that would. For what must arrive so that others can give
    /// their room back. It does not add up; all messages that pass share [what is kept for
    /// them](crate::ByteBudget).
    pub fn admit_one(&self) {
        self.shared.pass.store(true, Ordering::Release);
        self.shared.pass_granted.notify_one();
    }

    /// Whether reading is held back for want of budget.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        self.shared.waits.load(Ordering::Relaxed)
    }

    /// Takes back what [`admit_one`](Self::admit_one) gave, unless a message has it already.
    pub fn withdraw_pass(&self) {
        self.shared.take_pass();
    }

    /// How its messages stand among others from now on; those that wait stay where they are until they
    /// [pass](Self::admit_one).
    pub fn set_standing(&self, standing: Standing) {
        *lock(&self.shared.standing) = standing;
    }

    /// How its messages stand among others.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.shared.standing()
    }

    /// The site that it comes from: an IPv4 address, or a /64. None where it is a loopback or private
    /// one, which nobody comes from whom the operator does not know.
    #[must_use]
    pub fn site(&self) -> Option<IpAddr> {
        site_of(self.shared.remote)
    }

    /// The peer is about to be asked for something: it may answer once, however late.
    pub fn expect_answer(&self) {
        self.shared.owed.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the peer has yet to answer something, and may.
    #[must_use]
    pub fn owes_answers(&self) -> bool {
        self.shared.owed.load(Ordering::Acquire) > 0
    }

    /// Takes an answer off what the peer owes; `false` when it owes none. On a channel that takes
    /// answers only, the connection does so itself for each message that needs room of the budget.
    #[must_use]
    pub fn take_answer(&self) -> bool {
        self.shared
            .owed
            .try_update(Ordering::AcqRel, Ordering::Acquire, |owed| {
                owed.checked_sub(1)
            })
            .is_ok()
    }

    /// Ends the connection; the first reason given counts.
    pub fn disconnect(&self, reason: DisconnectReason) {
        self.shared.close(reason);
    }

    /// Figures of the connection.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        let now = Instant::now().into_std();
        PeerStats {
            connected_for: self.shared.connected_for(),
            sent: lock(&self.shared.sent).status(now),
            received: lock(&self.shared.received).status(now),
            queued_bytes: self.queued_bytes(),
            held: self.shared.held.load(Ordering::Relaxed),
            large_bytes: self.shared.large_bytes.load(Ordering::Relaxed),
            arrival: *lock(&self.shared.arrival),
            channels: self.shared.outboxes.iter().map(Outbox::stats).collect(),
        }
    }

    fn live_outbox(&self, channel: u8) -> Result<&Outbox, SendError> {
        if self.is_closing() {
            return Err(SendError::Disconnected);
        }
        self.shared
            .outbox(channel)
            .ok_or(SendError::NoChannel(channel))
    }

    fn queue(&self, slot: mpsc::Permit<'_, Queued>, message: Bytes) {
        self.shared
            .queued_bytes
            .fetch_add(message.len(), Ordering::Relaxed);
        slot.send(Queued::Whole(message));
        self.shared.wake.notify_one();
    }
}

impl Outbox {
    fn stats(&self) -> ChannelStats {
        ChannelStats {
            id: self.id,
            send_queue_capacity: self.capacity,
            send_queue_size: self.capacity - self.queue.capacity(),
            priority: self.priority,
            recently_sent: self.recently_sent.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.shared.id, self.shared.remote)
    }
}

/// The content of a mutex whose holders never panic while it is half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
