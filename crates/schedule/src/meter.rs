use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Counts per second over the last minute, in sixty buckets.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    /// The second (since `start`) of the last bucket.
    second: u64,
    /// The last bucket is the running second.
    buckets: VecDeque<u64>,
}

impl Meter {
    /// Nothing counted yet.
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            second: 0,
            buckets: VecDeque::from([0]),
        }
    }

    /// Counts `amount` at `now`.
    pub(crate) fn add(&mut self, now: Instant, amount: u64) {
        let second = now.saturating_duration_since(self.start).as_secs();
        let gap = second.saturating_sub(self.second).min(61);
        for _ in 0..gap {
            self.buckets.push_back(0);
            if self.buckets.len() > 61 {
                self.buckets.pop_front();
            }
        }
        self.second = self.second.max(second);
        if let Some(last) = self.buckets.back_mut() {
            *last += amount;
        }
    }

    /// Per second, over the last whole second (the running one, while there is no other).
    pub(crate) fn last_second(&self) -> f64 {
        let index = self.buckets.len().saturating_sub(2);
        self.buckets.get(index).copied().unwrap_or(0) as f64
    }

    /// Per second, over the last minute or since the start.
    pub(crate) fn last_minute(&self) -> f64 {
        let whole = self.buckets.len().saturating_sub(1).clamp(1, 60);
        let sum: u64 = self.buckets.iter().take(whole).sum();
        sum as f64 / whole as f64
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
        for second in 0..120 {
            meter.add(start + Duration::from_secs(second), 10);
        }
        meter.add(start + Duration::from_secs(120), 3);
        assert_eq!(meter.last_second(), 10.0);
        assert_eq!(meter.last_minute(), 10.0);
        meter.add(start + Duration::from_secs(1000), 0);
        assert_eq!(meter.last_minute(), 0.0);
    }
}
