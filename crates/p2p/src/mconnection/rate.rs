use std::time::{Duration, Instant};

/// Bytes that may pass at once however low the rate: one write's or read's worth.
const MIN_BURST: f64 = 65_536.0;

/// A token bucket: at most `rate` bytes a second over any longer time, and a tenth of a second's
/// worth at once. What has begun is finished, so that the bucket may fall below zero.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// Bytes a second; 0: no limit.
    rate: u64,
    tokens: f64,
    refilled: Instant,
}

impl RateLimit {
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self {
            rate,
            tokens: Self::burst(rate),
            refilled: now,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
    fn burst(rate: u64) -> f64 {
        (rate as f64 / 10.0).max(MIN_BURST)
    }

    /// Whether bytes may pass now.
    #[allow(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        if self.rate == 0 {
            return true;
        }
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = self.refilled.max(now);
        self.tokens = (self.tokens + elapsed * self.rate as f64).min(Self::burst(self.rate));
        self.tokens > 0.0
    }

    /// Counts bytes that pass.
    #[allow(clippy::cast_precision_loss, reason = "lengths are far below 2^53")]
    pub(super) fn take(&mut self, bytes: usize) {
        if self.rate != 0 {
            self.tokens -= bytes as f64;
        }
    }

    /// When bytes may pass again; `None` when they may now.
    #[allow(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
    pub(super) fn opens_at(&self) -> Option<Instant> {
        if self.rate == 0 || self.tokens > 0.0 {
            return None;
        }
        // A little more than the debt, so that the bucket is open when the moment has come.
        let seconds = (1.0 - self.tokens) / self.rate as f64;
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(3600));
        Some(self.refilled + wait + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000_000, start);
        let (mut now, mut passed) = (start, 0_usize);
        while now < start + Duration::from_secs(10) {
            if limit.is_open(now) {
                limit.take(10_000);
                passed += 10_000;
            } else {
                let opens = limit.opens_at().unwrap();
                assert!(opens > now);
                now = opens;
            }
        }
        assert!((9_900_000..=10_200_000).contains(&passed), "{passed}");
    }

    #[test]
    fn no_rate_is_no_limit() {
        let now = Instant::now();
        let mut limit = RateLimit::new(0, now);
        limit.take(usize::MAX);
        assert!(limit.is_open(now));
        assert_eq!(limit.opens_at(), None);
    }
}
