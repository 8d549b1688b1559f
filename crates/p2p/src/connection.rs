//! The task of one connection: moves bytes between the socket, the multiplexed connection, and the
//! reactors' and senders' queues.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep},
};

use crate::{
    ChannelDescriptor, DisconnectReason, PeerEvent, PeerHandle, Permit,
    flow::Meter,
    frame::{FrameOpener, FrameSealer, Frames, MAX_DATA, SEALED_FRAME},
    mconnection::{Arrival, ChannelConfig, Event, MConnection, MConnectionConfig},
    peer::{Outgoing, PeerShared, lock},
    secret_connection::Established,
};

/// Bytes read at once: 64 frames, or what comes within 10 ms, up to 256 frames. Both ends wake each
/// other once a batch; more than 256 frames no longer fit into a core's cache, and take memory for
/// each peer.
const READ_BUFFER: usize = 64 * SEALED_FRAME;
const MAX_READ_BUFFER: usize = 256 * SEALED_FRAME;
/// Bytes of packets sealed and written at once, likewise: what is sealed goes before all that is more
/// urgent, for as long as the peer takes for it.
/// With the packet that crosses these bounds they are whole groups of frames, 64 and 256 of them.
const WRITE_BATCH: usize = 64 * MAX_DATA - PACKET;
const MAX_WRITE_BATCH: usize = 256 * MAX_DATA - PACKET;
/// Bytes of a whole packet of the usual payload.
const PACKET: usize = 1034;
/// With nothing due, a task wakes up this often at the latest; its ping is due sooner.
const IDLE: Duration = Duration::from_secs(3600);

/// What a message counts for at least among those that a reactor has in hand: what a small one takes
/// in memory. Smaller, and a peer could have more of them kept; larger, and it is read from less.
pub const MIN_UNHANDLED_BYTES: usize = 1024;

/// Which reactor each channel belongs to, and where it hears of its peers.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) reactors: Vec<(&'static str, mpsc::Sender<PeerEvent>)>,
    pub(crate) channels: Vec<(ChannelDescriptor, usize)>,
}

impl Routes {
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &ChannelDescriptor> {
        self.channels.iter().map(|(channel, _)| channel)
    }

    fn route(&self, id: u8) -> Option<&(ChannelDescriptor, usize)> {
        self.channels.iter().find(|(channel, _)| channel.id == id)
    }

    /// Tells every reactor, waiting for the slow ones. Those that are gone are passed over.
    pub(crate) async fn broadcast(&self, event: impl Fn() -> PeerEvent) {
        for (name, reactor) in &self.reactors {
            if reactor.send(event()).await.is_err() {
                tracing::debug!(reactor = name, "the reactor is gone");
            }
        }
    }
}

/// A message on its way to its reactor.
struct Delivery {
    reactor: usize,
    channel: u8,
    bytes: Bytes,
    permit: Option<Permit>,
    /// The room that it needs of what the reactor may have in hand, until it has it.
    needs: Option<(Arc<Semaphore>, u32)>,
}

/// What a reactor may have in hand of one peer, in units of [`MIN_UNHANDLED_BYTES`].
struct Unhandled {
    units: Arc<Semaphore>,
    total: u32,
}

impl Delivery {
    fn event(self, from: &Arc<PeerShared>, unhandled: Option<OwnedSemaphorePermit>) -> PeerEvent {
        let bytes = self.bytes.len();
        PeerEvent::Message {
            from: PeerHandle {
                shared: Arc::clone(from),
            },
            channel: self.channel,
            bytes: self.bytes,
            permit: match unhandled {
                Some(unhandled) => Some(Permit::with_unhandled(self.permit, bytes, unhandled)),
                None => self.permit,
            },
        }
    }
}

impl Unhandled {
    fn new(bytes: usize) -> Self {
        let total = bytes.div_ceil(MIN_UNHANDLED_BYTES).clamp(1, 1 << 20);
        Self {
            units: Arc::new(Semaphore::new(total)),
            total: u32::try_from(total).expect("at most 2^20"),
        }
    }

    fn units(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(MIN_UNHANDLED_BYTES);
        u32::try_from(units).map_or(self.total, |units| units.clamp(1, self.total))
    }
}

/// One connection's task and all that it owns.
pub(crate) struct Connection {
    stream: TcpStream,
    shared: Arc<PeerShared>,
    routes: Arc<Routes>,
    core: MConnection,
    outgoing: Vec<Outgoing>,
    sealer: FrameSealer,
    opener: FrameOpener,
    /// Sealed bytes that were read: the first `sealed_len` bytes, less than a frame between reads.
    sealed: Vec<u8>,
    sealed_len: usize,
    /// Opened bytes; those before `opened_taken` are done with.
    opened: Vec<u8>,
    opened_taken: usize,
    /// The batch that is being written; those of its bytes before `written` are.
    frames: Frames,
    written: usize,
    /// Bytes of packets that make a batch.
    batch: usize,
    /// The last batch was cut off at its bound, so that more is ready.
    more: bool,
    /// Room of messages that are arriving, by channel.
    permits: Vec<(u8, Permit)>,
    /// The channel whose message waits for room.
    waits: Option<u8>,
    /// A message whose reactor is busy, or has too much of this peer in hand.
    delivery: Option<Delivery>,
    /// What reactors may have in hand of this peer, by channel.
    unhandled: Vec<(u8, Unhandled)>,
    /// What handles were told of the large message that is arriving.
    arrival: Option<Arrival>,
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        established: Established,
        shared: Arc<PeerShared>,
        outgoing: Vec<Outgoing>,
        routes: Arc<Routes>,
        config: MConnectionConfig,
    ) -> Self {
        let channels: Vec<_> = routes
            .descriptors()
            .map(|channel| ChannelConfig {
                id: channel.id,
                priority: channel.priority,
                max_message_bytes: channel.max_message_bytes,
                budgeted: channel.budget.is_some(),
            })
            .collect();
        let unhandled = routes
            .descriptors()
            .filter_map(|channel| Some((channel.id, Unhandled::new(channel.unhandled_bytes?))))
            .collect();
        let mut sealed = established.sealed;
        let sealed_len = sealed.len();
        sealed.resize(READ_BUFFER.max(sealed_len), 0);
        Self {
            stream,
            core: MConnection::new(config, &channels, Instant::now().into_std()),
            shared,
            routes,
            outgoing,
            sealer: established.sealer,
            opener: established.opener,
            sealed,
            sealed_len,
            opened: established.opened,
            opened_taken: 0,
            frames: Frames::default(),
            written: 0,
            batch: WRITE_BATCH,
            more: false,
            permits: Vec::new(),
            waits: None,
            delivery: None,
            unhandled,
            arrival: None,
        }
    }

    /// Runs until the connection ends; tells why.
    pub(crate) async fn run(mut self) -> DisconnectReason {
        let reason = match self.drive().await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        // Whoever still holds the handle learns at its next send.
        self.shared.close(reason);
        self.shared.close_reason()
    }

    async fn drive(&mut self) -> Result<std::convert::Infallible, DisconnectReason> {
        let sleep = tokio::time::sleep(IDLE);
        tokio::pin!(sleep);
        self.open_frames()?;
        loop {
            let now = Instant::now().into_std();
            self.core.handle_deadline(now)?;
            // Before anything is taken in: what comes now did not take the time of the pause.
            if !self.is_held() {
                self.core.handle_release(now);
            }
            self.take_in(now)?;
            let held = self.is_held();
            self.shared.held.store(held, Ordering::Relaxed);
            let waits = self.waits.is_some();
            self.shared.waits.store(waits, Ordering::Relaxed);
            if held {
                self.core.handle_hold(now);
            }
            self.tell_arrival();
            self.fill(now)?;
            let read = !held && self.core.poll_may_read(now);
            let wake = self.core.poll_deadline().map(Instant::from_std);
            set_alarm(
                sleep.as_mut(),
                wake.unwrap_or_else(|| Instant::now() + IDLE),
            );
            self.wait(read, sleep.as_mut()).await?;
        }
    }

    /// Whether nothing is read: a reactor is busy, or there is no room.
    fn is_held(&self) -> bool {
        self.delivery.is_some() || self.waits.is_some()
    }

    /// Waits for whatever comes first, and does it.
    async fn wait(&mut self, read: bool, sleep: Pin<&mut Sleep>) -> Result<(), DisconnectReason> {
        let write = self.more || self.is_writing();
        let (mut readable, mut writable) = (false, false);
        let (mut granted, mut passed) = (false, false);
        tokio::select! {
            biased;
            () = self.shared.closing.cancelled() => return Err(self.shared.close_reason()),
            ready = ready(&self.stream, read, write) => {
                let ready = ready?;
                readable = ready.is_readable() || ready.is_read_closed();
                writable = ready.is_writable() || ready.is_write_closed();
            }
            slot = delivery_slot(&self.routes, self.delivery.as_ref()) => {
                let (slot, unhandled) = slot?;
                if let Some(delivery) = self.delivery.take() {
                    slot.send(delivery.event(&self.shared, unhandled));
                }
            }
            () = wait_room(&mut self.permits, self.waits) => granted = true,
            () = self.shared.pass_granted.notified(), if self.waits.is_some() => passed = true,
            () = self.shared.wake.notified() => {}
            () = sleep => {}
        }
        if granted {
            self.found_room();
        } else if passed {
            self.use_pass();
        }
        if writable && self.is_writing() {
            self.write()?;
        }
        if read && readable {
            self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), DisconnectReason> {
        match self.stream.try_read(&mut self.sealed[self.sealed_len..]) {
            Ok(0) => Err(DisconnectReason::ClosedByPeer),
            Ok(length) => {
                self.sealed_len += length;
                let recent = record(&self.shared.received, length);
                self.open_frames()?;
                if recent > self.sealed.len() && self.sealed.len() < MAX_READ_BUFFER {
                    self.sealed
                        .reserve_exact(MAX_READ_BUFFER - self.sealed.len());
                    self.sealed.resize(MAX_READ_BUFFER, 0);
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the whole frames that were read.
    fn open_frames(&mut self) -> Result<(), DisconnectReason> {
        if self.opened_taken > 0 {
            self.opened.drain(..self.opened_taken);
            self.opened_taken = 0;
        }
        let whole = self.sealed_len - self.sealed_len % SEALED_FRAME;
        self.opener
            .open_all(&mut self.sealed[..whole], &mut self.opened)?;
        self.sealed.copy_within(whole..self.sealed_len, 0);
        self.sealed_len -= whole;
        Ok(())
    }

    /// Handles what is opened until nothing whole is left, or something must be waited for.
    fn take_in(&mut self, now: std::time::Instant) -> Result<(), DisconnectReason> {
        while self.delivery.is_none() && self.waits.is_none() {
            let input = &self.opened[self.opened_taken..];
            let (taken, event) = self.core.handle_bytes(now, input)?;
            self.opened_taken += taken;
            match event {
                None => return Ok(()),
                Some(Event::Message { channel, bytes }) => self.handle_message(channel, bytes)?,
                Some(Event::NeedsRoom { channel, bytes }) => self.find_room(channel, bytes)?,
            }
        }
        Ok(())
    }

    /// Tells the handles how the large message that is arriving gets on.
    fn tell_arrival(&mut self) {
        let bytes = self.core.large_bytes();
        self.shared.large_bytes.store(bytes, Ordering::Relaxed);
        let arrival = self.core.arrival();
        if arrival != self.arrival {
            self.arrival = arrival;
            *lock(&self.shared.arrival) = arrival;
        }
    }

    fn handle_message(&mut self, channel: u8, bytes: Bytes) -> Result<(), DisconnectReason> {
        let permit = self
            .permits
            .iter()
            .position(|(id, _)| *id == channel)
            .map(|index| self.permits.swap_remove(index).1.arrived());
        let reactor = self.routes.route(channel).map(|(_, reactor)| *reactor);
        let reactor = reactor.expect("the connection knows the routed channels only");
        let needs = self
            .unhandled
            .iter()
            .find(|(id, _)| *id == channel)
            .map(|(_, room)| (Arc::clone(&room.units), room.units(bytes.len())));
        self.delivery = Some(Delivery {
            reactor,
            channel,
            bytes,
            permit,
            needs,
        });
        self.deliver()
    }

    /// Hands the message in hand to its reactor if that has room for it.
    fn deliver(&mut self) -> Result<(), DisconnectReason> {
        let Some(delivery) = &self.delivery else {
            return Ok(());
        };
        let unhandled = match &delivery.needs {
            None => None,
            Some((units, count)) => match Arc::clone(units).try_acquire_many_owned(*count) {
                Ok(unhandled) => Some(unhandled),
                Err(_) => return Ok(()),
            },
        };
        let (name, sender) = &self.routes.reactors[delivery.reactor];
        match sender.try_reserve() {
            Ok(slot) => {
                if let Some(delivery) = self.delivery.take() {
                    slot.send(delivery.event(&self.shared, unhandled));
                }
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(())) => {
                Err(DisconnectReason::ReactorStopped(name))
            }
        }
    }

    /// Finds room for a message that begins, or for more of it.
    fn find_room(&mut self, channel: u8, bytes: usize) -> Result<(), DisconnectReason> {
        if let Some(permit) = permit_of(&mut self.permits, channel) {
            permit.ask(bytes);
        } else {
            let descriptor = self.routes.route(channel).map(|(descriptor, _)| descriptor);
            let handle = PeerHandle {
                shared: Arc::clone(&self.shared),
            };
            if descriptor.is_some_and(|known| known.only_asked) && !handle.take_answer() {
                return Err(DisconnectReason::Unasked(channel));
            }
            if let Some(budget) = descriptor.and_then(|known| known.budget.as_ref()) {
                let permit = budget.begin_of(bytes, self.shared.standing());
                self.permits.push((channel, permit));
            }
        }
        let waits = permit_of(&mut self.permits, channel).is_some_and(|permit| permit.waits());
        self.waits = waits.then_some(channel);
        if waits {
            self.use_pass();
        } else {
            self.found_room();
        }
        Ok(())
    }

    fn found_room(&mut self) {
        self.waits = None;
        let now = Instant::now().into_std();
        self.core.handle_release(now);
        self.core.handle_room(now);
    }

    /// Lets the message that waits pass, if there is a pass.
    fn use_pass(&mut self) {
        if let Some(permit) = self.waits.and_then(|id| permit_of(&mut self.permits, id))
            && self.shared.take_pass()
        {
            permit.pass(self.shared.standing());
        }
    }

    /// Cuts, seals and readies what is to be sent, once all before it is written.
    fn fill(&mut self, now: std::time::Instant) -> Result<(), DisconnectReason> {
        if self.is_writing() {
            return Ok(());
        }
        self.more = false;
        self.written = 0;
        self.frames.clear();
        self.frames.reserve(self.batch + PACKET);
        while self.frames.len() < self.batch {
            self.refill();
            if !self.core.poll_transmit(now, &mut self.frames, self.batch) {
                break;
            }
        }
        if self.frames.is_empty() {
            return Ok(());
        }
        self.more = self.frames.len() >= self.batch;
        self.sealer.seal_frames(&mut self.frames)?;
        for queue in self.core.queues() {
            self.shared.set_recently_sent(queue.id, queue.recently_sent);
        }
        // Most often the socket takes it at once.
        self.write()
    }

    /// Moves messages from the senders' queues to where packets are cut, about one batch of bytes
    /// a channel, so that the choice between the channels stays open.
    fn refill(&mut self) {
        for outgoing in &mut self.outgoing {
            let channel = outgoing.channel;
            let mut bytes = 0;
            let mut room = self.core.room_to_send(channel);
            while room > 0 && bytes < self.batch {
                let Some(part) = outgoing.try_next() else {
                    break;
                };
                let length = part.bytes.len();
                bytes += length;
                room -= 1;
                self.shared
                    .queued_bytes
                    .fetch_sub(length, Ordering::Relaxed);
                self.core
                    .handle_send_part(channel, part.bytes, part.last)
                    .expect("there was room on a known channel");
            }
        }
    }

    fn is_writing(&self) -> bool {
        self.written < self.frames.sealed().len()
    }

    fn write(&mut self) -> Result<(), DisconnectReason> {
        let sealed = self.frames.sealed();
        match self.stream.try_write(&sealed[self.written..]) {
            Ok(length) => {
                self.written += length;
                let recent = record(&self.shared.sent, length);
                self.batch = recent.clamp(WRITE_BATCH, MAX_WRITE_BATCH);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Counts bytes; returns how many 10 ms carried lately.
fn record(meter: &Mutex<Meter>, bytes: usize) -> usize {
    let mut meter = lock(meter);
    meter.record(Instant::now().into_std(), bytes);
    meter.hundredth()
}

/// Waits until the socket can be read or written, as far as that is wanted.
async fn ready(stream: &TcpStream, read: bool, write: bool) -> std::io::Result<tokio::io::Ready> {
    let interest = match (read, write) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (true, false) => Interest::READABLE,
        (false, true) => Interest::WRITABLE,
        (false, false) => return std::future::pending().await,
    };
    stream.ready(interest).await
}

/// Waits until the reactor has room for the message in hand.
async fn delivery_slot<'a>(
    routes: &'a Routes,
    delivery: Option<&Delivery>,
) -> Result<(mpsc::Permit<'a, PeerEvent>, Option<OwnedSemaphorePermit>), DisconnectReason> {
    let Some(delivery) = delivery else {
        return std::future::pending().await;
    };
    let (name, sender) = &routes.reactors[delivery.reactor];
    let stopped = || DisconnectReason::ReactorStopped(name);
    let unhandled = match &delivery.needs {
        None => None,
        Some((units, count)) => {
            let units = Arc::clone(units).acquire_many_owned(*count);
            tokio::select! {
                unhandled = units => Some(unhandled.expect("the semaphore is never closed")),
                () = sender.closed() => return Err(stopped()),
            }
        }
    };
    let slot = sender.reserve().await.map_err(|_| stopped())?;
    Ok((slot, unhandled))
}

fn permit_of(permits: &mut [(u8, Permit)], channel: u8) -> Option<&mut Permit> {
    let mut permits = permits.iter_mut();
    permits.find_map(|(id, permit)| (*id == channel).then_some(permit))
}

/// Waits until the message of this channel has the room that it asked for.
async fn wait_room(permits: &mut [(u8, Permit)], channel: Option<u8>) {
    match channel.and_then(|id| permit_of(permits, id)) {
        Some(permit) => permit.room().await,
        None => std::future::pending().await,
    }
}

/// Moves the alarm, if it stands elsewhere.
fn set_alarm(sleep: Pin<&mut Sleep>, at: Instant) {
    if sleep.deadline() != at {
        sleep.reset(at);
    }
}
