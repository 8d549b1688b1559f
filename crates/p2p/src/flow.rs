//! How many bytes pass in one direction of a connection. Pure.

use std::time::{Duration, Instant};

/// Samples are taken over this time.
const SAMPLE: Duration = Duration::from_secs(1);
/// Share of the newest sample in the current rate.
const WEIGHT: f64 = 0.5;

/// Counts bytes and estimates their rate.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    bytes: u64,
    samples: u64,
    sample_start: Instant,
    sample_bytes: u64,
    last: Option<Instant>,
    inst_rate: f64,
    cur_rate: f64,
    peak_rate: f64,
}

/// Figures of one direction of a connection, as `/net_info` shows them. Rates are bytes a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowStatus {
    /// Since the connection began.
    pub duration: Duration,
    /// Since the last byte passed.
    pub idle: Duration,
    /// Bytes in all.
    pub bytes: u64,
    /// Samples of a second with bytes in them.
    pub samples: u64,
    /// Rate of the last sample.
    pub inst_rate: u64,
    /// Rate of the last few seconds.
    pub cur_rate: u64,
    /// Rate since the beginning.
    pub avg_rate: u64,
    /// Highest current rate so far.
    pub peak_rate: u64,
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "figures shown to people"
)]
impl Meter {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            start: now,
            bytes: 0,
            samples: 0,
            sample_start: now,
            sample_bytes: 0,
            last: None,
            inst_rate: 0.0,
            cur_rate: 0.0,
            peak_rate: 0.0,
        }
    }

    pub(crate) fn record(&mut self, now: Instant, bytes: usize) {
        self.sample(now);
        self.bytes += bytes as u64;
        self.sample_bytes += bytes as u64;
        self.last = Some(now);
    }

    /// Bytes that one hundredth of a second carried lately: 0 before the first sample is over.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of bytes, not below 0"
    )]
    pub(crate) fn hundredth(&self) -> usize {
        (self.inst_rate / 100.0) as usize
    }

    pub(crate) fn status(&mut self, now: Instant) -> FlowStatus {
        self.sample(now);
        let duration = now.saturating_duration_since(self.start);
        FlowStatus {
            duration,
            idle: now.saturating_duration_since(self.last.unwrap_or(self.start)),
            bytes: self.bytes,
            samples: self.samples,
            inst_rate: self.inst_rate as u64,
            cur_rate: self.cur_rate as u64,
            avg_rate: (self.bytes as f64 / duration.as_secs_f64().max(0.001)) as u64,
            peak_rate: self.peak_rate as u64,
        }
    }

    /// Closes the running sample once its time is over; idle seconds let the rate fall.
    fn sample(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.sample_start);
        if elapsed < SAMPLE {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        self.inst_rate = self.sample_bytes as f64 / seconds;
        let keep = (1.0 - WEIGHT).powf(seconds);
        self.cur_rate = if self.samples == 0 {
            self.inst_rate
        } else {
            self.cur_rate * keep + self.inst_rate * (1.0 - keep)
        };
        self.peak_rate = self.peak_rate.max(self.cur_rate);
        self.samples += u64::from(self.sample_bytes > 0);
        self.sample_bytes = 0;
        self.sample_start = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_passes() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for second in 0..10 {
            meter.record(start + Duration::from_secs(second), 1000);
        }
        let busy = meter.status(start + Duration::from_secs(10));
        assert_eq!(
            (busy.bytes, busy.inst_rate, busy.cur_rate),
            (10_000, 1000, 1000)
        );
        assert_eq!(busy.avg_rate, 1000);
        assert_eq!(meter.hundredth(), 10);
        let idle = meter.status(start + Duration::from_secs(30));
        assert_eq!(
            (idle.idle.as_secs(), idle.inst_rate, idle.cur_rate),
            (21, 0, 0)
        );
        assert_eq!(idle.peak_rate, 1000);
        assert_eq!(meter.hundredth(), 0);
    }
}
