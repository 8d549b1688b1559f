//! A multiplexed connection: messages of several channels, cut into packets, over one stream.
//! Pure.
//!
//! Feed it with `handle_*`, drain it with `poll_*`; what it holds is bounded by its channels.
//! Between the channels that have something to send, the one that was served least in proportion
//! to its priority goes next. Pings keep the connection alive; every wait is an entry of one table
//! of deadlines.
//!
//! Reading may be held back, for want of room for a message or because a reactor is busy. The peer
//! cannot be blamed for what it then cannot get across: its pongs are not waited for, and it is
//! sent pongs unasked, since its pings are not read.

mod arrival;
mod channel;
mod packet;
mod rate;
mod timer;

use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

pub use arrival::Arrival;

use channel::{Channel, Part, Step};
use packet::Packet;
pub use packet::PacketSink;
use rate::RateLimit;
use timer::{Timer, Timers};

/// Pings and pongs that a peer may send at once, and then one each [`CONTROL_INTERVAL`]. Honest
/// peers send a few a minute; answering them without bound costs a write each.
const CONTROL_BURST: u32 = 100;
const CONTROL_INTERVAL: Duration = Duration::from_secs(1);

/// Settings of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MConnectionConfig {
    /// Payload of a packet at most, both ways, in bytes.
    pub max_packet_payload: usize,
    /// Bytes a second sent at most; 0: no limit.
    pub send_rate: u64,
    /// Bytes a second received at most; 0: no limit.
    pub recv_rate: u64,
    /// Between two pings. CometBFT's 60 s.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered. CometBFT's 45 s.
    pub pong_timeout: Duration,
    /// Between two unsolicited pongs while reading is held back. It must be well below the pong
    /// timeout of the peer, whose pings are not seen then.
    pub held_pong_interval: Duration,
}

impl Default for MConnectionConfig {
    fn default() -> Self {
        Self {
            max_packet_payload: 1024,
            send_rate: 5_120_000,
            recv_rate: 5_120_000,
            ping_interval: Duration::from_secs(60),
            pong_timeout: Duration::from_secs(45),
            held_pong_interval: Duration::from_secs(20),
        }
    }
}

/// Settings of one channel of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The channel's id.
    pub id: u8,
    /// Share of the sending rate, at least 1.
    pub priority: u8,
    /// Largest message accepted, in bytes.
    pub max_message_bytes: usize,
    /// Whether a message of several packets waits for room before it is buffered, in steps of 1 MiB.
    /// Its first field must be length-delimited and tells its size.
    pub budgeted: bool,
}

/// What a connection has for its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message arrived.
    Message {
        /// The channel's id.
        channel: u8,
        /// The message.
        bytes: Bytes,
    },
    /// A message of a budgeted channel begins, or has filled the room that it has. Nothing more is
    /// taken in until [`handle_room`](MConnection::handle_room).
    NeedsRoom {
        /// The channel's id.
        channel: u8,
        /// Bytes of room for what comes next: the rest of the message, by its own account, or a part.
        bytes: usize,
    },
}

/// What a channel has to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelQueue {
    /// The channel's id.
    pub id: u8,
    /// Messages ready to be cut into packets.
    pub ready: usize,
    /// Bytes sent of late: a sum that fades by a fifth every two seconds.
    pub recently_sent: u64,
}

/// The peer broke the protocol, or answers no ping.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MConnectionError {
    /// A packet longer than allowed.
    #[error("a packet of {length} bytes, at most {bound} are allowed")]
    PacketTooLong {
        /// Its length.
        length: u64,
        /// The bound.
        bound: usize,
    },
    /// A packet that cannot be decoded.
    #[error("a malformed packet")]
    MalformedPacket,
    /// A packet of no known kind.
    #[error("a packet of unknown kind")]
    UnknownPacket,
    /// A channel that this node does not have.
    #[error("a packet of the unknown channel {0:#04x}")]
    UnknownChannel(i32),
    /// A message longer than its channel allows.
    #[error("a message of more than {bound} bytes on channel {channel:#04x}")]
    MessageTooLong {
        /// The channel.
        channel: u8,
        /// The bound in bytes.
        bound: usize,
    },
    /// A message that ends before the length that it declared.
    #[error("a message of {actual} bytes that declared {declared} on channel {channel:#04x}")]
    UntruthfulLength {
        /// The channel.
        channel: u8,
        /// What its first field said.
        declared: usize,
        /// What came.
        actual: usize,
    },
    /// A large message that does not begin with its length.
    #[error("a large message that does not tell its length on channel {0:#04x}")]
    UndeclaredLength(u8),
    /// A large message of which nothing more comes.
    #[error("a message that stopped arriving on channel {0:#04x}")]
    Stopped(u8),
    /// Pings or pongs without end.
    #[error("too many pings or pongs")]
    PingFlood,
    /// No answer to a ping in time.
    #[error("no pong in time")]
    PongTimeout,
}

/// The state of a connection; see the module's description.
#[derive(Debug)]
pub struct MConnection {
    config: MConnectionConfig,
    channels: Vec<Channel>,
    timers: Timers,
    send_limit: RateLimit,
    receive_limit: RateLimit,
    ping_due: bool,
    pong_due: bool,
    /// A ping was sent and not answered yet.
    unanswered: bool,
    /// The channel whose message needs room.
    wants_room: Option<u8>,
    /// Since when nothing is read.
    held_since: Option<Instant>,
    control_allowance: u32,
    control_refilled: Instant,
    large_bytes: u64,
}

impl MConnection {
    /// A connection whose first ping is due one ping interval from `now`.
    #[must_use]
    pub fn new(config: MConnectionConfig, channels: &[ChannelConfig], now: Instant) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Ping, now + config.ping_interval);
        Self {
            channels: channels
                .iter()
                .map(|config| Channel::new(*config, now))
                .collect(),
            timers,
            send_limit: RateLimit::new(config.send_rate, now),
            receive_limit: RateLimit::new(config.recv_rate, now),
            config,
            ping_due: false,
            pong_due: false,
            unanswered: false,
            wants_room: None,
            held_since: None,
            control_allowance: CONTROL_BURST,
            control_refilled: now,
            large_bytes: 0,
        }
    }

    /// Takes what the peer sent: whole packets from the front of `input`, up to the first event.
    /// Returns how many bytes were taken; keep the rest and hand it in again with what follows.
    /// Call again while it takes bytes.
    ///
    /// # Errors
    /// When the peer breaks the protocol.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        input: &[u8],
    ) -> Result<(usize, Option<Event>), MConnectionError> {
        let mut taken = 0;
        while self.wants_room.is_none() {
            let rest = &input[taken..];
            let Some((packet, length)) = packet::split(rest, self.config.max_packet_payload)?
            else {
                break;
            };
            taken += length;
            self.receive_limit.take(length);
            if let Some(event) = self.handle_packet(now, packet)? {
                return Ok((taken, Some(event)));
            }
        }
        Ok((taken, None))
    }

    /// There is the room that [`Event::NeedsRoom`] asked for.
    pub fn handle_room(&mut self, now: Instant) {
        if let Some(id) = self.wants_room.take()
            && let Some(channel) = self.channel(id)
        {
            channel.grant(now);
            self.watch_progress();
        }
    }

    /// Nothing is read from the peer for now. Repeating it changes nothing.
    pub fn handle_hold(&mut self, now: Instant) {
        if self.held_since.is_none() {
            self.held_since = Some(now);
            self.timers.stop(Timer::Pong);
            self.timers.stop(Timer::Progress);
            self.timers
                .set(Timer::HeldPong, now + self.config.held_pong_interval);
        }
    }

    /// The peer is read from again. Repeating it changes nothing.
    pub fn handle_release(&mut self, now: Instant) {
        if let Some(since) = self.held_since.take() {
            self.timers.stop(Timer::HeldPong);
            if self.unanswered {
                self.timers.set(Timer::Pong, now + self.config.pong_timeout);
            }
            let pause = now.saturating_duration_since(since);
            for channel in &mut self.channels {
                channel.excuse(pause);
            }
            self.watch_progress();
        }
    }

    /// Takes a message to send.
    ///
    /// # Errors
    /// Gives it back when the channel has enough ready, or there is no such channel.
    pub fn handle_send(&mut self, channel: u8, message: Bytes) -> Result<(), Bytes> {
        self.handle_send_part(channel, message, true)
    }

    /// Takes the next piece of a message to send, which ends with the `last` one. The peer cannot
    /// tell it from a message that was sent as a whole. What is taken next on the channel belongs to
    /// that message until it has ended.
    ///
    /// # Errors
    /// Gives it back when the channel has enough ready, or there is no such channel.
    pub fn handle_send_part(&mut self, channel: u8, bytes: Bytes, last: bool) -> Result<(), Bytes> {
        match self.channel(channel) {
            Some(channel) => channel.push(Part { bytes, last }),
            None => Err(bytes),
        }
    }

    /// Does what is due by `now`.
    ///
    /// # Errors
    /// When the peer did not answer a ping, or a large message does not arrive.
    pub fn handle_deadline(&mut self, now: Instant) -> Result<(), MConnectionError> {
        while let Some(timer) = self.timers.expired(now) {
            match timer {
                Timer::Ping => self.ping(now),
                Timer::Pong => return Err(MConnectionError::PongTimeout),
                Timer::HeldPong => {
                    self.pong_due = true;
                    self.timers
                        .set(Timer::HeldPong, now + self.config.held_pong_interval);
                }
                Timer::Send | Timer::Receive => {}
                Timer::Progress => self.check_progress(now)?,
            }
        }
        Ok(())
    }

    /// Appends packets to `out` until it holds about `limit` bytes, nothing is ready, or the
    /// sending rate is used up. Returns whether anything was appended.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut impl PacketSink, limit: usize) -> bool {
        let before = out.bytes();
        if std::mem::take(&mut self.pong_due) {
            packet::encode_pong(out);
        }
        if std::mem::take(&mut self.ping_due) {
            packet::encode_ping(out);
        }
        for channel in &mut self.channels {
            channel.fade(now);
        }
        let mut open = self.send_limit.is_open(now);
        while out.bytes() < limit {
            let Some(next) = self.next_channel() else {
                break;
            };
            if !open {
                if let Some(at) = self.send_limit.opens_at() {
                    self.timers.set(Timer::Send, at);
                }
                break;
            }
            let written = self.channels[next].write_packet(self.config.max_packet_payload, out);
            self.send_limit.take(written);
            open = self.send_limit.opens_at().is_none();
        }
        out.bytes() > before
    }

    /// Whether the receiving rate allows to read now; if not, a deadline is set for when it does.
    pub fn poll_may_read(&mut self, now: Instant) -> bool {
        let open = self.receive_limit.is_open(now);
        if !open && let Some(at) = self.receive_limit.opens_at() {
            self.timers.set(Timer::Receive, at);
        }
        open
    }

    /// When [`handle_deadline`](Self::handle_deadline) is to be called next.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// How many more messages a channel takes at the moment.
    #[must_use]
    pub fn room_to_send(&self, channel: u8) -> usize {
        self.channels
            .iter()
            .find(|candidate| candidate.config.id == channel)
            .map_or(0, |channel| channel::READY - channel.ready())
    }

    /// Bytes so far of messages that found room: what of all that the peer sends was waited for.
    #[must_use]
    pub const fn large_bytes(&self) -> u64 {
        self.large_bytes
    }

    /// The large message that is arriving, the oldest of them.
    #[must_use]
    pub fn arrival(&self) -> Option<Arrival> {
        let arriving = self.channels.iter().filter_map(Channel::arrival);
        let oldest = arriving.min_by_key(Arrival::since)?;
        Some(oldest.held(self.held_since, self.config.recv_rate))
    }

    /// What each channel has to send.
    pub fn queues(&self) -> impl Iterator<Item = ChannelQueue> {
        self.channels.iter().map(|channel| ChannelQueue {
            id: channel.config.id,
            ready: channel.ready(),
            recently_sent: channel.recently_sent(),
        })
    }

    fn channel(&mut self, id: u8) -> Option<&mut Channel> {
        self.channels
            .iter_mut()
            .find(|channel| channel.config.id == id)
    }

    /// The channel with something to send that was served least for its priority; the first of
    /// equals.
    fn next_channel(&self) -> Option<usize> {
        let mut least: Option<(f64, usize)> = None;
        for (index, channel) in self.channels.iter().enumerate() {
            if let Some(claim) = channel.claim()
                && least.is_none_or(|(other, _)| claim < other)
            {
                least = Some((claim, index));
            }
        }
        least.map(|(_, index)| index)
    }

    fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
    ) -> Result<Option<Event>, MConnectionError> {
        let (id, eof, data) = match packet::decode(packet)? {
            Packet::Ping => {
                self.count_control(now)?;
                self.pong_due = true;
                return Ok(None);
            }
            Packet::Pong => {
                self.count_control(now)?;
                self.unanswered = false;
                self.timers.stop(Timer::Pong);
                return Ok(None);
            }
            Packet::Message { channel, eof, data } => (channel, eof, data),
        };
        // Who sends is alive: the pong may be queued behind what is arriving.
        if self.timers.is_set(Timer::Pong) {
            self.timers.set(Timer::Pong, now + self.config.pong_timeout);
        }
        let channel = self
            .channel(id)
            .ok_or(MConnectionError::UnknownChannel(id.into()))?;
        let large = channel.is_receiving_large();
        let step = channel.receive(&data, eof, now)?;
        let begins = !large && channel.is_receiving_large();
        if large {
            self.large_bytes += data.len() as u64;
        }
        if begins {
            self.watch_progress();
        }
        match step {
            Step::Incomplete => Ok(None),
            Step::NeedsRoom(bytes) => {
                self.wants_room = Some(id);
                Ok(Some(Event::NeedsRoom { channel: id, bytes }))
            }
            Step::Complete(bytes) => Ok(Some(Event::Message { channel: id, bytes })),
        }
    }

    fn ping(&mut self, now: Instant) {
        self.ping_due = true;
        self.timers
            .set(Timer::Ping, now + self.config.ping_interval);
        if !self.unanswered && self.held_since.is_none() {
            self.timers.set(Timer::Pong, now + self.config.pong_timeout);
        }
        self.unanswered = true;
    }

    fn count_control(&mut self, now: Instant) -> Result<(), MConnectionError> {
        let elapsed = now.saturating_duration_since(self.control_refilled);
        let earned =
            u32::try_from(elapsed.as_millis() / CONTROL_INTERVAL.as_millis()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.control_allowance = self
                .control_allowance
                .saturating_add(earned)
                .min(CONTROL_BURST);
            self.control_refilled = now;
        }
        self.control_allowance = self
            .control_allowance
            .checked_sub(1)
            .ok_or(MConnectionError::PingFlood)?;
        Ok(())
    }

    fn check_progress(&mut self, now: Instant) -> Result<(), MConnectionError> {
        for channel in &mut self.channels {
            if channel.has_stopped(now) {
                return Err(MConnectionError::Stopped(channel.config.id));
            }
        }
        self.watch_progress();
        Ok(())
    }

    /// Wakes up when a large message counts as one that has stopped, should nothing come.
    fn watch_progress(&mut self) {
        match self.channels.iter().filter_map(Channel::stops_at).min() {
            Some(at) => self.timers.set(Timer::Progress, at),
            None => self.timers.stop(Timer::Progress),
        }
    }
}
