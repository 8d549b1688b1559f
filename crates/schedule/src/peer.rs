use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use perihelion_types::{Hash, Height, HeightRange, PeerId};

use crate::meter::{Mean, Meter, seconds};

/// Heights that a peer was asked for in vain and may still answer. Beyond this many it is asked
/// for nothing more until it answers.
pub(crate) const MAX_OVERDUE: usize = 1024;

/// Blocks of a peer that are applied before one of its failures is forgotten.
const REDEMPTION: u64 = 500;

/// Bytes a second at which arriving bytes excuse a late block. Lower, and who sends slowly holds a
/// height up for long; higher, and large blocks are asked of several peers although each delivers at
/// CometBFT's default rate.
const EXCUSING_RATE: f64 = 1_000_000.0;

/// A peer is held back from one notice to the next if they are no further apart. Longer, and it would
/// be excused for time in which it could have sent.
const NOTICED: Duration = Duration::from_millis(1500);

/// Bytes that excuse a late block while no block has come. More, and who comes first and sends slowly holds
/// up the start; fewer, and a first block that is large is asked of several peers.
const UNKNOWN_SIZE: f64 = 4_000_000.0;

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) at: Instant,
    /// Requests are numbered: a peer answers in their order.
    order: u64,
    /// Bytes expected when it was made, held against the window's budget; 0 while nothing was known.
    pub(crate) expected: usize,
    /// Bytes that had come from the peer when it was made.
    bytes_before: u64,
    /// How long the peer had been held back when it was made.
    held_before: Duration,
    /// Whether another request was in flight then, whose answer comes first.
    is_behind: bool,
}

/// What the schedule knows of one peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) joined: Instant,
    /// What it last claimed. Ranks it and nothing more.
    pub(crate) range: Option<HeightRange>,
    /// The lowest height above all it delivered that it claimed and then did not have: its claim
    /// counts to the height below, until it claims more.
    pub(crate) unserved: Option<Height>,
    pub(crate) delivered_to: Height,
    /// Its oldest status request without an answer.
    pub(crate) status_owed: Option<Instant>,
    /// When the status request was made that its last status answered at the latest.
    pub(crate) status_answered: Option<Instant>,
    pub(crate) asks: BTreeMap<Height, Ask>,
    /// The same in the order in which they were made; the first one's deadline is the peer's.
    pub(crate) by_order: BTreeMap<u64, (Instant, Height)>,
    next_order: u64,
    /// Given up, and still to be answered perhaps: how often, and when the last time.
    pub(crate) overdue: BTreeMap<Height, (u32, Instant)>,
    /// Heights from the next one on that it failed to serve: NoBlock, deadline missed, set aside.
    pub(crate) refuted: BTreeSet<Height>,
    pub(crate) allowance: f64,
    pub(crate) slow_start: bool,
    /// The last sign of life while it owes something: an answer, or enough bytes.
    pub(crate) last_progress: Instant,
    bytes_since_progress: u64,
    /// Bytes that came from it in all, as far as they were told.
    bytes_in: u64,
    /// For how long it was held back in all, and when that was noticed last.
    held_back: Duration,
    held_back_at: Option<Instant>,
    /// The number of the latest request that was answered with a block.
    newest_answered: Option<u64>,
    /// Since when the oldest request has been overtaken by an answer to a later one.
    overtaken: Option<Instant>,
    /// It has answered a request that had been overtaken: it does not answer in order.
    reorders: bool,
    /// Until then it is asked only for what nobody else can be asked for: what it sent was of no
    /// use.
    benched: Option<Instant>,
    /// How often it was benched, less what it has made up for.
    benchings: u32,
    /// Blocks of it that were applied since the last of these was made up for.
    applied: u64,
    /// A block of it was applied.
    proven: bool,
    /// How often it was silent up to its deadline, less what it has made up for: each time what it
    /// claims keeps the sync from ending for half as long.
    pub(crate) missed: u32,
    /// Its oldest claim that consensus has not come near since, and when it was noticed.
    pub(crate) ahead: Option<(Height, Instant)>,
    /// Since when its status has been all that keeps the sync from ending.
    waited_since: Option<Instant>,
    /// And how long that was before, in all.
    waited: Duration,
    /// The validators' hash in the first block that it sent, where that is not ours.
    pub(crate) unfitting: Option<Hash>,
    /// Requests that were late, fading with each delivery.
    pub(crate) tardy: f64,
    pub(crate) latency: Mean,
    pub(crate) least_latency: Option<f64>,
    /// Bytes/s while it owes blocks: for comparisons with others, and far off where blocks come in
    /// bursts.
    pub(crate) rate: Mean,
    /// Bytes of its blocks, for show.
    pub(crate) meter: Meter,
    sample: Option<(Instant, u64, u64)>,
    blocks_rate: Mean,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) no_blocks: u64,
    pub(crate) stalls: u64,
    pub(crate) set_aside: u64,
}

impl Peer {
    pub(crate) fn new(now: Instant, first_allowance: usize) -> Self {
        Self {
            joined: now,
            range: None,
            unserved: None,
            delivered_to: Height::ZERO,
            status_owed: None,
            status_answered: None,
            asks: BTreeMap::new(),
            by_order: BTreeMap::new(),
            next_order: 0,
            overdue: BTreeMap::new(),
            refuted: BTreeSet::new(),
            allowance: first_allowance as f64,
            slow_start: true,
            last_progress: now,
            bytes_since_progress: 0,
            bytes_in: 0,
            held_back: Duration::ZERO,
            held_back_at: None,
            newest_answered: None,
            overtaken: None,
            reorders: false,
            benched: None,
            benchings: 0,
            applied: 0,
            proven: false,
            missed: 0,
            ahead: None,
            waited_since: None,
            waited: Duration::ZERO,
            unfitting: None,
            tardy: 0.0,
            latency: Mean::default(),
            least_latency: None,
            rate: Mean::default(),
            meter: Meter::new(now),
            sample: None,
            blocks_rate: Mean::default(),
            blocks: 0,
            bytes: 0,
            no_blocks: 0,
            stalls: 0,
            set_aside: 0,
        }
    }

    /// The heights worth asking it for: its claim, cut at what it proved not to have.
    pub(crate) fn serves(&self) -> Option<(Height, Height)> {
        let range = self.range?;
        let top = match self.unserved {
            Some(unserved) => range.height().min(unserved.prev()),
            None => range.height(),
        };
        (range.base() <= top && top.is_positive()).then_some((range.base(), top))
    }

    /// Since when it has claimed `ahead` or more, though not the same height all the time: a claim that
    /// consensus has come near is replaced by its present one.
    pub(crate) fn note_ahead(&mut self, now: Instant, ahead: Height) -> Option<Instant> {
        let claim = self
            .serves()
            .map(|(_, top)| top)
            .filter(|&top| top >= ahead);
        match (self.ahead, claim) {
            (_, None) => self.ahead = None,
            (Some((unmet, _)), Some(_)) if unmet >= ahead => {}
            (_, Some(top)) => self.ahead = Some((top, now)),
        }
        self.ahead.map(|(_, since)| since)
    }

    /// Whether a claim of it that was noticed by `at` has not been met yet.
    pub(crate) fn is_ahead_since(&self, at: Option<Instant>) -> bool {
        self.ahead
            .is_some_and(|(_, since)| at.is_some_and(|at| since <= at))
    }

    /// Until when the end of a sync waits for its status: one deadline for each, and for all of them
    /// together.
    pub(crate) fn status_due(&mut self, now: Instant, deadline: Duration) -> Instant {
        let since = *self.waited_since.get_or_insert(now);
        let asked = self.status_owed.unwrap_or(now);
        (asked + deadline).min(since + deadline.saturating_sub(self.waited))
    }

    /// Its status came.
    pub(crate) fn status_came(&mut self, now: Instant) {
        self.status_answered = self.status_owed.take().or(self.status_answered);
        if let Some(since) = self.waited_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// It has not kept a sync from ending yet.
    pub(crate) fn forget_patience(&mut self) {
        self.waited_since = None;
        self.waited = Duration::ZERO;
    }

    /// Whether it may be asked for one more block, where it owes fewer than `most`.
    pub(crate) fn has_room(&self, most: usize) -> bool {
        self.asks.len() < most.min(self.allowance as usize) && self.overdue.len() < MAX_OVERDUE
    }

    /// Whether it ever answered a request.
    pub(crate) fn has_answered(&self) -> bool {
        self.latency.get().is_some()
    }

    /// Notes a request. The first one after idleness starts the clock and the rate's sample.
    pub(crate) fn ask(&mut self, now: Instant, height: Height, expected: usize) {
        if self.asks.is_empty() {
            self.last_progress = now;
            self.bytes_since_progress = 0;
            self.sample = Some((now, 0, 0));
        }
        let order = self.next_order;
        self.next_order += 1;
        let ask = Ask {
            at: now,
            order,
            expected,
            bytes_before: self.bytes_in,
            held_before: self.held_back,
            is_behind: !self.asks.is_empty(),
        };
        self.asks.insert(height, ask);
        self.by_order.insert(order, (now, height));
    }

    /// Forgets a request; its expected bytes are free again.
    pub(crate) fn take_ask(&mut self, height: Height) -> Option<Ask> {
        let ask = self.asks.remove(&height)?;
        self.by_order.remove(&ask.order);
        if self.asks.is_empty() {
            self.sample = None;
            self.overtaken = None;
        }
        Some(ask)
    }

    /// An answer came for `ask`: latency, rate and allowance follow. Only blocks tell something of
    /// earlier requests, for all of them come the same way.
    pub(crate) fn answered(&mut self, now: Instant, ask: Ask, is_block: bool, most: usize) {
        self.last_progress = now;
        self.bytes_since_progress = 0;
        self.tardy /= 2.0;
        if is_block {
            self.newest_answered = self.newest_answered.max(Some(ask.order));
        }
        self.note_overtaken(now);
        let latency = now.saturating_duration_since(ask.at).as_secs_f64();
        self.latency.add(latency);
        self.least_latency = Some(
            self.least_latency
                .map_or(latency, |least| least.min(latency)),
        );
        self.grow(latency, most);
    }

    /// A block of `bytes` came.
    pub(crate) fn delivered(&mut self, now: Instant, bytes: usize) {
        self.blocks += 1;
        self.bytes += bytes as u64;
        self.meter.add(now, bytes as u64);
        self.last_progress = now;
        self.bytes_since_progress = 0;
        if let Some((since, sum, count)) = &mut self.sample {
            *sum += bytes as u64;
            *count += 1;
            let elapsed = now.saturating_duration_since(*since).as_secs_f64();
            if elapsed >= 0.1 || (*count >= 8 && elapsed > 0.0) {
                let rate = *sum as f64 / elapsed;
                let blocks = *count as f64 / elapsed;
                (*since, *sum, *count) = (now, 0, 0);
                self.rate.add(rate);
                self.blocks_rate.add(blocks);
            }
        }
    }

    /// Twice bandwidth times delay, the delay being the least latency and a tenth of a second: more
    /// in flight would only lie in queues, where a block that is needed soon waits behind it.
    fn ceiling(&self, most: usize) -> f64 {
        // The rest is for what is late elsewhere and needed soon.
        let most = (most - most / 5) as f64;
        let (Some(blocks), Some(least)) = (self.blocks_rate.get(), self.least_latency) else {
            return most;
        };
        (2.0 * blocks * (least + 0.1)).clamp(most.min(4.0), most)
    }

    /// Doubles a round trip at first; by one a round trip once the queue shows in the latency.
    fn grow(&mut self, latency: f64, most: usize) {
        let least = self.least_latency.unwrap_or(latency);
        if self.slow_start && latency > 4.0 * least + 0.1 {
            self.slow_start = false;
        }
        let busy = self.asks.len() * 2 >= self.allowance as usize;
        if busy {
            self.allowance += if self.slow_start {
                1.0
            } else {
                1.0 / self.allowance.max(1.0)
            };
        }
        self.allowance = self.allowance.min(self.ceiling(most)).max(1.0);
    }

    /// Bytes are flowing in from it, `bytes` more of them: a sign of life at the minimum rate.
    pub(crate) fn received(&mut self, now: Instant, bytes: u64, minimum_rate: u64) {
        self.bytes_since_progress += bytes;
        self.bytes_in += bytes;
        let elapsed = now.saturating_duration_since(self.last_progress);
        if elapsed > Duration::from_millis(500)
            && self.bytes_since_progress as f64 >= elapsed.as_secs_f64() * minimum_rate as f64
        {
            self.last_progress = now;
            self.bytes_since_progress = 0;
        }
    }

    /// How much longer a request may take for the bytes that came since it was made, which may be its
    /// block's or that of the one before: those of as many blocks at most, of whose size nothing need be
    /// known yet.
    pub(crate) fn excuse(&self, ask: &Ask, size: Option<f64>) -> Duration {
        let bytes = self.bytes_in.saturating_sub(ask.bytes_before) as f64;
        let blocks = if ask.is_behind { 2.0 } else { 1.0 };
        seconds(bytes.min(blocks * size.unwrap_or(UNKNOWN_SIZE)) / EXCUSING_RATE)
    }

    /// And for the time that its peer was held back since.
    pub(crate) fn held_back_since(&self, ask: &Ask) -> Duration {
        self.held_back.saturating_sub(ask.held_before)
    }

    /// Whether it is held back now, as far as is known.
    pub(crate) fn waits_for_room(&self, now: Instant) -> bool {
        let since = self
            .held_back_at
            .map(|at| now.saturating_duration_since(at));
        since.is_some_and(|since| since <= NOTICED)
    }

    /// Nothing of it is read for now, for what it sends finds no room here: neither its silence nor
    /// its requests' lateness since this was noticed last is its own. To be told several times a second.
    pub(crate) fn hold_back(&mut self, now: Instant) {
        let before = self.held_back_at.replace(now);
        let since = before.map(|at| now.saturating_duration_since(at));
        let Some(since) = since.filter(|&since| since <= NOTICED) else {
            return;
        };
        self.held_back += since;
        self.last_progress = (self.last_progress + since).min(now);
        if let Some(overtaken) = &mut self.overtaken {
            *overtaken = (*overtaken + since).min(now);
        }
    }

    /// It lost a race or a deadline.
    pub(crate) fn shrink(&mut self, to_one: bool) {
        self.tardy += 1.0;
        self.slow_start = false;
        self.allowance = if to_one {
            1.0
        } else {
            (self.allowance / 2.0).max(1.0)
        };
    }

    /// Peers answer in order: an answer to a later request says something of the oldest one.
    fn note_overtaken(&mut self, now: Instant) {
        let oldest = self.by_order.keys().next().copied();
        match (oldest, self.newest_answered) {
            (Some(oldest), Some(newest)) if oldest < newest => {
                self.overtaken.get_or_insert(now);
            }
            _ => self.overtaken = None,
        }
    }

    /// When its oldest request is overdue: `deadline` after the later of the request and the last
    /// sign of life, or once a later request was answered before it and its own answer has had its
    /// usual time, at least `overtaken`, to follow.
    pub(crate) fn deadline(&self, deadline: Duration, overtaken: Duration) -> Option<Instant> {
        let &(oldest, _) = self.by_order.values().next()?;
        let silent = oldest.max(self.last_progress) + deadline;
        let patience = if self.reorders {
            deadline
        } else {
            let usual = seconds(self.latency.get().unwrap_or(0.0));
            usual.max(overtaken).min(deadline)
        };
        Some(
            self.overtaken
                .map_or(silent, |at| silent.min(at + patience)),
        )
    }

    /// Whether nothing at all came for so long.
    pub(crate) fn is_silent(&self, now: Instant, deadline: Duration) -> bool {
        now.saturating_duration_since(self.last_progress) >= deadline
    }

    /// Requests that are overdue at `now`: all of a peer that is silent, those that were overtaken
    /// of one that delivers others.
    pub(crate) fn late(&self, now: Instant, deadline: Duration) -> Vec<Height> {
        let silent = self.is_silent(now, deadline);
        self.by_order
            .iter()
            .filter(|(order, _)| {
                silent || self.newest_answered.is_some_and(|newest| **order < newest)
            })
            .map(|(_, &(_, height))| height)
            .collect()
    }

    /// It was found to have sent, claimed or promised what is of no use: for a while it is asked
    /// only for what nobody else can be asked for, longer each time. It starts small again then.
    /// Says whether it was not benched before.
    pub(crate) fn bench(&mut self, now: Instant, (least, most): (Duration, Duration)) -> bool {
        if self.is_benched(now) {
            return false;
        }
        let time = least.saturating_mul(1 << self.benchings.min(16)).min(most);
        self.benchings += 1;
        self.applied = 0;
        self.benched = Some(now + time);
        self.allowance = 1.0;
        self.slow_start = true;
        true
    }

    /// What it was benched for was not its fault.
    pub(crate) fn unbench(&mut self) {
        if self.benched.take().is_some() {
            self.benchings = self.benchings.saturating_sub(1);
        }
    }

    pub(crate) fn is_benched(&self, now: Instant) -> bool {
        self.benched.is_some_and(|until| now < until)
    }

    /// Whether a block of it was applied: what others failed to deliver is asked of such a peer.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// How far it is to be relied on, the lowest the most: a block of it was applied, it sent one, it
    /// sent none, it is benched.
    pub(crate) fn standing(&self, now: Instant) -> u8 {
        match () {
            () if self.is_benched(now) => 3,
            () if self.proven => 0,
            () if self.blocks > 0 => 1,
            () => 2,
        }
    }

    /// A block that it sent was applied.
    pub(crate) fn redeem(&mut self) {
        self.proven = true;
        self.applied += 1;
        if self.applied >= REDEMPTION {
            self.applied = 0;
            self.benchings = self.benchings.saturating_sub(1);
            self.missed = self.missed.saturating_sub(1);
        }
    }

    /// An answer to a request that was given up; says whether there was one.
    pub(crate) fn take_overdue(&mut self, height: Height) -> bool {
        match self.overdue.get_mut(&height) {
            Some((times, _)) if *times > 1 => *times -= 1,
            Some(_) => drop(self.overdue.remove(&height)),
            None => return false,
        }
        self.reorders = true;
        true
    }

    /// Gives a request up that was not answered in time.
    pub(crate) fn give_up(
        &mut self,
        now: Instant,
        height: Height,
        forget: Duration,
    ) -> Option<Ask> {
        let ask = self.withdraw(now, height, forget)?;
        self.refuted.insert(height);
        Some(ask)
    }

    /// Waits for a request's answer no more; it may still come. What is too long ago will not be.
    pub(crate) fn withdraw(
        &mut self,
        now: Instant,
        height: Height,
        forget: Duration,
    ) -> Option<Ask> {
        let ask = self.take_ask(height)?;
        if self.overdue.len() >= MAX_OVERDUE / 2 {
            self.overdue
                .retain(|_, (_, at)| now.saturating_duration_since(*at) < forget);
        }
        let entry = self.overdue.entry(height).or_insert((0, now));
        *entry = (entry.0 + 1, now);
        self.note_overtaken(now);
        Some(ask)
    }

    /// How soon a block of `size` bytes asked of it now would be here, in seconds; worse for those
    /// that failed before. Only a rank.
    pub(crate) fn cost(&self, size: f64) -> f64 {
        let rate = self.rate.get().unwrap_or(1e6).max(1.0);
        let queue = (self.asks.len() as f64 + 1.0) * size / rate;
        let distrust =
            1.0 + 8.0 * self.set_aside as f64 + self.stalls.min(8) as f64 + 2.0 * self.tardy;
        (queue + self.least_latency.unwrap_or(0.05)) * distrust
    }
}

/// What a status shows of one peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerProgress {
    /// Which peer.
    pub peer: PeerId,
    /// The range that it claims; `None` before its first status.
    pub range: Option<HeightRange>,
    /// Bytes of blocks a second, over the last ten seconds, or since it joined when that is less.
    pub bytes_per_second: f64,
    /// Usual time from request to answer, queues included.
    pub latency: Duration,
    /// Requests in flight.
    pub in_flight: usize,
    /// How many may be.
    pub allowance: usize,
    /// Blocks delivered.
    pub blocks: u64,
    /// Bytes of blocks delivered.
    pub bytes: u64,
    /// Requests that it answered with NoBlock.
    pub no_blocks: u64,
    /// Deadlines that it missed.
    pub stalls: u64,
    /// Copies that were set aside: last commits that failed, other encodings, broken links.
    pub set_aside: u64,
}
