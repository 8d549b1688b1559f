use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The parts of a second that are counted apart.
const PARTS: u64 = 4;
/// Whole parts that are kept: a minute.
const KEPT: usize = 60 * PARTS as usize;

/// Counts over the last minute, in quarters of a second.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    /// The part (since `start`) of the last bucket.
    part: u64,
    /// The last bucket is the running part.
    buckets: VecDeque<u64>,
}

impl Meter {
    /// Nothing counted yet.
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            part: 0,
            buckets: VecDeque::from([0]),
        }
    }

    /// Counts `amount` at `now`; nothing, to let time pass.
    pub(crate) fn add(&mut self, now: Instant, amount: u64) {
        let part = self.part_at(now);
        for _ in 0..self.gap(part) {
            self.buckets.push_back(0);
            if self.buckets.len() > KEPT + 1 {
                self.buckets.pop_front();
            }
        }
        self.part = self.part.max(part);
        if let Some(last) = self.buckets.back_mut() {
            *last += amount;
        }
    }

    /// The part of a second that `now` lies in, since the start.
    fn part_at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start);
        elapsed.as_secs() * PARTS + u64::from(elapsed.subsec_millis()) * PARTS / 1000
    }

    /// How many parts `part` is behind the running one, as far as they matter.
    fn gap(&self, part: u64) -> usize {
        usize::try_from(part.saturating_sub(self.part)).map_or(KEPT + 1, |gap| gap.min(KEPT + 1))
    }

    /// Per second, over the ten whole seconds before `now`, or since the start when that is less.
    pub(crate) fn last_ten_seconds(&self, now: Instant) -> f64 {
        self.rate_after(self.gap(self.part_at(now)), 10 * PARTS as usize)
    }

    /// Per second, over the last whole second, or since the start when that is less.
    pub(crate) fn last_second(&self) -> f64 {
        self.rate(PARTS as usize)
    }

    /// Per second, over the last minute, or since the start when that is less.
    pub(crate) fn last_minute(&self) -> f64 {
        self.rate(KEPT)
    }

    /// Per second, over this many whole parts at the most; over the running one while it is the
    /// only one.
    fn rate(&self, parts: usize) -> f64 {
        self.rate_after(0, parts)
    }

    /// The same when nothing has been counted for the last `gap` parts.
    fn rate_after(&self, gap: usize, parts: usize) -> f64 {
        let whole = self.buckets.len() - 1 + gap;
        let parts = whole.min(parts);
        let sum: u64 = if parts == 0 {
            self.buckets.iter().sum()
        } else {
            self.buckets.iter().skip(whole - parts).take(parts).sum()
        };
        sum as f64 * PARTS as f64 / parts.max(1) as f64
    }
}

/// An exponentially weighted mean: a new value counts a quarter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean(Option<f64>);

impl Mean {
    /// Adds a value.
    pub(crate) fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + (value - mean) / 4.0));
    }

    /// The mean, if a value was added.
    pub(crate) fn get(self) -> Option<f64> {
        self.0
    }
}

/// Seconds as a float into a duration; bounded, so that it cannot panic.
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, 3600.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
    fn rates_cover_the_last_second_and_minute() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.add(start, 5);
        assert_eq!(meter.last_second(), 20.0, "the first quarter of a second");
        for quarter in 1..480 {
            meter.add(start + Duration::from_millis(250 * quarter), 5);
        }
        meter.add(start + Duration::from_secs(120), 3);
        assert_eq!(meter.last_second(), 20.0);
        assert_eq!(meter.last_minute(), 20.0);
        meter.add(start + Duration::from_secs(122), 0);
        assert_eq!(meter.last_second(), 0.0, "a second in which nothing came");
        assert!(meter.last_minute() > 19.0);
        meter.add(start + Duration::from_secs(1000), 0);
        assert_eq!(meter.last_minute(), 0.0);
    }

    /// What comes at once is spread over the time since the start, and forgotten after ten seconds,
    /// though nobody lets time pass.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for made-up instants")]
    fn a_rate_over_ten_seconds() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = Meter::new(start);
        for _ in 0..8 {
            meter.add(at(1), 1000);
        }
        assert_eq!(meter.last_ten_seconds(at(1)), 32_000.0, "in a quarter");
        assert_eq!(meter.last_ten_seconds(at(2000)), 4000.0);
        assert_eq!(meter.last_ten_seconds(at(10_000)), 800.0);
        assert_eq!(meter.last_ten_seconds(at(11_000)), 0.0);
        assert_eq!(meter.last_ten_seconds(at(99_000_000)), 0.0);
        meter.add(at(11_000), 500);
        assert_eq!(meter.last_ten_seconds(at(12_000)), 50.0);
    }
}
