use std::time::{Duration, Instant};

/// The rate, in bytes a second, below which a message counts as slow: the least that CometBFT asks of
/// a peer that it syncs from. Higher would let go of peers on ordinary links; lower lets each keep for
/// longer what others wait for.
const LEAST_RATE: u64 = 128 * 1024;

/// The rate, in bytes a second, at which a message counts as quick: one of 100 MB takes 100 seconds.
/// Higher, and honest peers that are slower would let go of one another's large blocks; lower lets each
/// keep for longer what others wait for.
const GOOD_RATE: u64 = 8 * LEAST_RATE;

/// Seconds over which the rate is judged. Fewer would count a short stall of a peer's network; more, and
/// a quick start excuses dripping for longer.
const JUDGED: u64 = 10;

/// Seconds that a message has lasted before it can lag. Fewer would count a connection's slow start.
const LAG: u64 = 3;

/// Moments that are remembered: the beginnings of the present second and of those before it that are
/// judged.
const MARKS: usize = JUDGED as usize + 1;

/// What is slow and what is quick where so many bytes a second are received at most, 0 for any number:
/// the peer cannot be faster.
const fn rates(recv_rate: u64) -> (u64, u64) {
    let least = match recv_rate {
        0 => LEAST_RATE,
        rate if rate / 4 < LEAST_RATE => rate / 4,
        _ => LEAST_RATE,
    };
    let good = match recv_rate {
        0 => GOOD_RATE,
        rate if rate / 2 < GOOD_RATE => rate / 2,
        _ => GOOD_RATE,
    };
    (least, good)
}

/// A large message on its way. Times in which nothing was read from the peer do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it began, later by what was not read since.
    since: Instant,
    /// Since when nothing is read from the peer.
    held_since: Option<Instant>,
    /// Bytes of it that are here.
    bytes: usize,
    /// Bytes that were here when a second began, by the number of that second; those after `marked`
    /// began with all that is here.
    marks: [usize; MARKS],
    /// The second in which the latest bytes came.
    marked: u64,
    /// What is slow and what is quick, in bytes a second.
    rates: (u64, u64),
}

impl Arrival {
    /// It begins, with its first bytes.
    pub(super) const fn new(now: Instant, bytes: usize) -> Self {
        Self {
            since: now,
            held_since: None,
            bytes,
            marks: [0; MARKS],
            marked: 0,
            rates: rates(0),
        }
    }

    /// So much of it is here now.
    pub(super) fn grow(&mut self, now: Instant, bytes: usize) {
        let second = self.lasts(now).as_secs();
        let begun = self.marked + 1..=second;
        // Of more seconds than are remembered, the last ones.
        for begun in begun.rev().take(MARKS) {
            self.marks[place(begun)] = self.bytes;
        }
        self.marked = second;
        self.bytes = bytes;
    }

    /// Nothing was read for so long.
    pub(super) fn excuse(&mut self, pause: Duration) {
        self.since += pause;
    }

    /// The same from a peer of which nothing is read since then, and so many bytes a second at most.
    pub(super) const fn held(self, since: Option<Instant>, recv_rate: u64) -> Self {
        Self {
            held_since: since,
            rates: rates(recv_rate),
            ..self
        }
    }

    /// When it began, times in which nothing was read left out.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Bytes of it that are here.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// For how long it has been arriving.
    #[must_use]
    pub fn lasts(&self, now: Instant) -> Duration {
        let until = self.held_since.unwrap_or(now);
        until.saturating_duration_since(self.since)
    }

    /// For how long nothing has been read from the peer.
    #[must_use]
    pub fn waits(&self, now: Instant) -> Duration {
        let since = self.held_since.unwrap_or(now);
        now.saturating_duration_since(since)
    }

    /// Bytes of it that came within the last ten seconds, and the present one.
    #[must_use]
    pub fn recent(&self, now: Instant) -> usize {
        let first = self.lasts(now).as_secs().saturating_sub(JUDGED);
        if first > self.marked {
            return 0;
        }
        self.bytes - self.marks[place(first)]
    }

    /// Whether it has come at less than 128 KiB a second for ten seconds.
    #[must_use]
    pub fn is_slow(&self, now: Instant) -> bool {
        self.lasts(now).as_secs() >= JUDGED && !self.came_at(self.rates.0, now)
    }

    /// Whether it has come at 1 MiB a second or more for ten seconds, or half of what is read at most.
    #[must_use]
    pub fn is_quick(&self, now: Instant) -> bool {
        self.came_at(self.rates.1, now)
    }

    /// Whether it has lasted for seconds, and come at less than 1 MiB a second, or half of what is read at
    /// most, since it began.
    #[must_use]
    pub fn lags(&self, now: Instant) -> bool {
        let seconds = self.lasts(now).as_secs();
        seconds >= LAG && (self.bytes as u64) < seconds * self.rates.1
    }

    fn came_at(&self, rate: u64, now: Instant) -> bool {
        self.recent(now) as u64 >= JUDGED * rate
    }
}

/// Where the mark of a second stands.
const fn place(second: u64) -> usize {
    (second % MARKS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    /// A message that comes in as told: for so many seconds, so many bytes in the middle of each.
    struct Run {
        start: Instant,
        arrival: Arrival,
        /// By the clock.
        seconds: u64,
    }

    impl Run {
        fn new(recv_rate: u64) -> Self {
            let start = Instant::now();
            Self {
                start,
                arrival: Arrival::new(start, 0).held(None, recv_rate),
                seconds: 0,
            }
        }

        fn comes(&mut self, seconds: u64, bytes: usize) -> &mut Self {
            for _ in 0..seconds {
                let middle = self.now() + Duration::from_millis(500);
                self.arrival.grow(middle, self.arrival.bytes + bytes);
                self.seconds += 1;
            }
            self
        }

        fn pauses(&mut self, seconds: u64) -> &mut Self {
            self.seconds += seconds;
            self
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_secs(self.seconds)
        }

        fn is_slow(&self) -> bool {
            self.arrival.is_slow(self.now())
        }

        fn is_quick(&self) -> bool {
            self.arrival.is_quick(self.now())
        }
    }

    #[test]
    fn the_last_ten_seconds_are_judged_and_nothing_before() {
        let mut run = Run::new(0);
        assert!(!run.comes(9, KIB).is_slow());
        assert!(run.comes(1, KIB).is_slow() && !run.is_quick());
        // What makes up for it comes at once, and counts for as long.
        assert!(!run.comes(1, 2 * MIB).is_slow());
        assert!(!run.comes(9, KIB).is_slow());
        assert!(run.comes(2, KIB).is_slow());
        assert_eq!(run.arrival.bytes(), 2 * MIB + 21 * KIB);
    }

    #[test]
    fn a_quick_start_buys_ten_seconds_of_dripping() {
        let mut run = Run::new(0);
        assert!(run.comes(13, 5 * MIB).is_quick());
        assert!(!run.comes(9, 1).is_slow());
        assert!(run.comes(2, 1).is_slow());
        assert_eq!(run.arrival.recent(run.now()), 10);
    }

    #[test]
    fn of_long_pauses_too_nothing_older_counts() {
        for seconds in 8..40 {
            let mut run = Run::new(0);
            run.comes(3, 5 * MIB).pauses(seconds);
            assert_eq!(run.is_slow(), seconds >= 10, "{seconds}");
            run.comes(1, KIB);
            let first = if seconds >= 9 { 0 } else { 5 * MIB };
            assert_eq!(run.arrival.recent(run.now()), first + KIB, "{seconds}");
        }
    }

    #[test]
    fn quick_is_eight_times_what_is_slow() {
        let mut run = Run::new(0);
        assert!(!run.comes(60, 1020 * KIB).is_quick());
        assert!(run.comes(20, 1024 * KIB).is_quick());
        assert!(!run.comes(12, 130 * KIB).is_quick() && !run.is_slow());
    }

    #[test]
    fn time_in_which_it_was_not_read_counts_for_nothing() {
        let mut run = Run::new(0);
        run.comes(8, KIB);
        let held = run.arrival.held(Some(run.now()), 0);
        run.pauses(100);
        assert!(!held.is_slow(run.now()));
        assert_eq!(held.lasts(run.now()), Duration::from_secs(8));
        run.arrival.excuse(Duration::from_secs(100));
        assert!(!run.comes(1, KIB).is_slow());
        assert!(run.comes(1, KIB).is_slow());
    }

    #[test]
    fn a_peer_need_not_be_faster_than_it_is_read() {
        assert_eq!(rates(5_120_000), (LEAST_RATE, GOOD_RATE));
        assert_eq!(rates(1_000_000), (LEAST_RATE, 500_000));
        assert_eq!(rates(40_000), (10_000, 20_000));
        let mut run = Run::new(40_000);
        assert!(run.comes(20, 39_000).is_quick());
    }

    #[test]
    fn who_sends_less_than_is_good_lags_after_some_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut arrival = Arrival::new(start, 10);
        assert!(!arrival.lags(at(2)));
        assert!(arrival.lags(at(3)));
        arrival.grow(at(3), 3 << 20);
        assert!(!arrival.lags(at(3)));
        assert!(arrival.lags(at(4)));
        assert!(!arrival.held(Some(at(3)), 0).lags(at(60)));
    }
}
