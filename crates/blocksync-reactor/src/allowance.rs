use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that starts full.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// When it will have been filled again.
    full_at: Instant,
    burst: u32,
    interval: Duration,
}

impl Allowance {
    /// `burst` at once, and then one each `interval`.
    pub(crate) fn new(burst: u32, interval: Duration) -> Self {
        Self {
            full_at: Instant::now(),
            burst,
            interval,
        }
    }

    /// Takes one, if one is left.
    pub(crate) fn take(&mut self) -> bool {
        let now = Instant::now();
        let full_at = self.full_at.max(now) + self.interval;
        let allowed = full_at <= now + self.interval * self.burst;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_allowed_and_then_one_each_interval() {
        let interval = Duration::from_millis(10);
        let mut allowance = Allowance::new(3, interval);
        let mut take = |count: usize| (0..count).filter(|_| allowance.take()).count();
        assert_eq!(take(5), 3);
        tokio::time::advance(interval).await;
        assert_eq!(take(5), 1);
        tokio::time::advance(interval * 100).await;
        assert_eq!(take(5), 3);
    }
}
