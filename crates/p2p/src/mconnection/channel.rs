use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};

use super::{Arrival, ChannelConfig, MConnectionError, PacketSink, packet};

/// Messages that a channel holds ready to be cut into packets. The bound of a channel's queue is
/// kept by whoever feeds it; more than these would only move the wait.
pub(super) const READY: usize = 64;

/// How often what was sent recently fades, and to which share.
const FADE_INTERVAL: Duration = Duration::from_secs(2);
const FADE: f64 = 0.8;

/// First allocation for a message whose size is not known, in bytes.
const FIRST_ALLOCATION: usize = 4096;

/// A message of a budgeted channel may be this much longer than its first field says, in bytes:
/// room for unknown fields behind it.
const UNDECLARED: usize = 1024;

/// Room for a message is asked for in steps of so many bytes. Smaller, and a large message would wait
/// more often; larger, and a peer that sends nothing would hold more of the budget.
pub(super) const STEP: usize = 1 << 20;

/// How long no byte of a message may come that has room. Shorter would blame a short stall of an
/// honest peer's network, longer lets each liar hold a step of the budget for longer.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// How much longer is waited then: where this node was held up itself, bytes wait to be read. Zero would
/// blame the peer for it; longer adds to [`GRACE`].
const LAST_LOOK: Duration = Duration::from_secs(1);

/// One channel of a connection, both ways.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) config: ChannelConfig,
    ready: VecDeque<Part>,
    recently_sent: f64,
    faded: Instant,
    receiving: Vec<u8>,
    /// What a budgeted message says of its size, once enough of it is here to tell.
    declared: Option<usize>,
    /// Bytes of the budgeted message for which room was found.
    room: usize,
    arriving: Option<Arriving>,
}

/// A budgeted message on its way. Times in which nothing was read are left out.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    arrival: Arrival,
    /// When it counts as stopped, should no byte of it come.
    until: Instant,
    /// That moment has come once.
    overdue: bool,
}

impl Arriving {
    fn goes_on(&mut self, now: Instant, bytes: usize) {
        self.arrival.grow(now, bytes);
        self.until = now + GRACE;
        self.overdue = false;
    }
}

/// A piece of a message to send.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: Bytes,
    /// The message ends with it.
    pub(super) last: bool,
}

/// What a packet did to its channel's message.
pub(super) enum Step {
    /// More packets follow.
    Incomplete,
    /// Room for this many bytes more is to be found before more is buffered.
    NeedsRoom(usize),
    /// The message is whole.
    Complete(Bytes),
}

impl Channel {
    pub(super) fn new(config: ChannelConfig, now: Instant) -> Self {
        Self {
            config,
            ready: VecDeque::new(),
            recently_sent: 0.0,
            faded: now,
            receiving: Vec::new(),
            declared: None,
            room: 0,
            arriving: None,
        }
    }

    /// Takes a piece to send; gives it back when enough are ready.
    pub(super) fn push(&mut self, part: Part) -> Result<(), Bytes> {
        if self.ready.len() == READY {
            return Err(part.bytes);
        }
        // An empty message is one packet; an empty piece of one is none.
        if part.last || !part.bytes.is_empty() {
            self.ready.push_back(part);
        }
        Ok(())
    }

    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of bytes, shown to people"
    )]
    pub(super) fn recently_sent(&self) -> u64 {
        self.recently_sent as u64
    }

    /// What was sent recently in proportion to the priority; the least goes next.
    pub(super) fn claim(&self) -> Option<f64> {
        (!self.ready.is_empty())
            .then(|| self.recently_sent / f64::from(self.config.priority.max(1)))
    }

    /// Lets what was sent fade with time.
    pub(super) fn fade(&mut self, now: Instant) {
        while now.saturating_duration_since(self.faded) >= FADE_INTERVAL {
            self.recently_sent *= FADE;
            self.faded += FADE_INTERVAL;
            if self.recently_sent < 1.0 {
                self.recently_sent = 0.0;
                self.faded = now;
            }
        }
    }

    /// Writes the next packet, if there is one. Returns its size in bytes.
    #[allow(
        clippy::cast_precision_loss,
        reason = "a packet is far below 2^53 bytes"
    )]
    pub(super) fn write_packet(&mut self, max_payload: usize, out: &mut impl PacketSink) -> usize {
        let Some(front) = self.ready.front_mut() else {
            return 0;
        };
        let length = front.bytes.len().min(max_payload);
        let all = length == front.bytes.len();
        let eof = all && front.last;
        let written = packet::encode_message(self.config.id, eof, &front.bytes[..length], out);
        if all {
            self.ready.pop_front();
        } else {
            front.bytes.advance(length);
        }
        self.recently_sent += written as f64;
        written
    }

    /// Takes a packet's payload.
    pub(super) fn receive(
        &mut self,
        data: &[u8],
        eof: bool,
        now: Instant,
    ) -> Result<Step, MConnectionError> {
        let length = self.receiving.len() + data.len();
        let bound = self.bound();
        if length > bound {
            return Err(MConnectionError::MessageTooLong {
                channel: self.config.id,
                bound,
            });
        }
        if eof && self.receiving.is_empty() {
            return Ok(Step::Complete(Bytes::copy_from_slice(data)));
        }
        self.make_room(length);
        self.receiving.extend_from_slice(data);
        if eof {
            return self.complete();
        }
        if let Some(arriving) = &mut self.arriving
            && !data.is_empty()
        {
            arriving.goes_on(now, length);
        }
        match self.declared {
            None if self.config.budgeted => self.declare(now),
            Some(declared) if length >= self.room && self.room < declared => {
                Ok(Step::NeedsRoom(self.next_step(declared)))
            }
            _ => Ok(Step::Incomplete),
        }
    }

    /// The room that [`Step::NeedsRoom`] asked for is there.
    pub(super) fn grant(&mut self, now: Instant) {
        let Some(declared) = self.declared else {
            return;
        };
        self.room += self.next_step(declared);
        self.make_room(self.room);
        match &mut self.arriving {
            Some(arriving) => arriving.goes_on(now, self.receiving.len()),
            None => self.begin(now),
        }
    }

    fn begin(&mut self, now: Instant) {
        self.arriving = Some(Arriving {
            arrival: Arrival::new(now, self.receiving.len()),
            until: now + GRACE,
            overdue: false,
        });
    }

    /// Bytes of the next step, or of what is here already.
    fn next_step(&self, declared: usize) -> usize {
        let end = (self.room + STEP).max(self.receiving.len());
        end.min(declared).saturating_sub(self.room)
    }

    /// The large message that is arriving.
    pub(super) fn arrival(&self) -> Option<Arrival> {
        self.arriving.map(|arriving| arriving.arrival)
    }

    /// Whether a large message is arriving.
    pub(super) fn is_receiving_large(&self) -> bool {
        self.arriving.is_some()
    }

    /// A time in which nothing was read does not count.
    pub(super) fn excuse(&mut self, pause: Duration) {
        if let Some(arriving) = &mut self.arriving {
            arriving.arrival.excuse(pause);
            arriving.until += pause;
        }
    }

    /// When the large message that is arriving is to be looked at, should no byte of it come.
    pub(super) fn stops_at(&self) -> Option<Instant> {
        Some(self.arriving?.until)
    }

    /// Whether nothing comes of the large message that was arriving.
    pub(super) fn has_stopped(&mut self, now: Instant) -> bool {
        let Some(arriving) = self.arriving.as_mut().filter(|it| it.until <= now) else {
            return false;
        };
        arriving.until = now + LAST_LOOK;
        std::mem::replace(&mut arriving.overdue, true)
    }

    fn bound(&self) -> usize {
        let max = self.config.max_message_bytes;
        self.declared
            .map_or(max, |declared| max.min(declared + UNDECLARED))
    }

    /// Grows by doubling, but never beyond the message's bound; so little is copied, and what is not
    /// written to is no memory.
    fn make_room(&mut self, length: usize) {
        let capacity = self.receiving.capacity();
        if capacity < length {
            let most = self.declared.unwrap_or(self.config.max_message_bytes);
            let wanted = (capacity * 2).max(FIRST_ALLOCATION).min(most).max(length);
            self.receiving.reserve_exact(wanted - self.receiving.len());
        }
    }

    fn complete(&mut self) -> Result<Step, MConnectionError> {
        let message = std::mem::take(&mut self.receiving);
        self.arriving = None;
        self.room = 0;
        match self.declared.take() {
            Some(declared) if message.len() < declared => Err(MConnectionError::UntruthfulLength {
                channel: self.config.id,
                declared,
                actual: message.len(),
            }),
            _ => Ok(Step::Complete(Bytes::from(message))),
        }
    }

    /// Reads how long the message is to be out of its first field.
    fn declare(&mut self, now: Instant) -> Result<Step, MConnectionError> {
        let malformed = MConnectionError::UndeclaredLength(self.config.id);
        let Some((tag, start)) = packet::read_varint(&self.receiving)? else {
            return Ok(Step::Incomplete);
        };
        // Wire type 2: a length follows.
        if tag & 7 != 2 {
            return Err(malformed);
        }
        let Some((length, width)) = packet::read_varint(&self.receiving[start..])? else {
            return Ok(Step::Incomplete);
        };
        let bound = self.config.max_message_bytes;
        let declared = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(start + width))
            .filter(|&declared| declared <= bound)
            .ok_or(MConnectionError::MessageTooLong {
                channel: self.config.id,
                bound,
            })?;
        self.declared = Some(declared);
        if self.receiving.len() >= declared {
            // All of it is here; only fields behind the first may follow, which are bounded.
            self.begin(now);
            return Ok(Step::Incomplete);
        }
        Ok(Step::NeedsRoom(self.next_step(declared)))
    }
}
