use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::peer::lock;

/// Holds lines of one kind, which peers can bring about, to a number that a log can bear: a few at
/// once, then one each interval that tells how many were left out.
#[derive(Debug)]
pub struct LogLimit {
    burst: u32,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allowance: u32,
    refilled: Option<Instant>,
    left_out: u64,
}

impl LogLimit {
    /// `burst` lines at once, and then one each `interval`.
    #[must_use]
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            state: Mutex::new(State {
                allowance: burst,
                refilled: None,
                left_out: 0,
            }),
        }
    }

    /// Whether the line may be written: then, how many were left out since the last one.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        let since = *state.refilled.get_or_insert(now);
        let earned =
            now.saturating_duration_since(since).as_nanos() / self.interval.as_nanos().max(1);
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            state.allowance = state.allowance.saturating_add(earned).min(self.burst);
            state.refilled = Some(now);
        }
        match state.allowance.checked_sub(1) {
            Some(left) => {
                state.allowance = left;
                Some(std::mem::take(&mut state.left_out))
            }
            None => {
                state.left_out += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_pass_and_then_one_each_interval_with_a_count() {
        let (start, interval) = (Instant::now(), Duration::from_secs(10));
        let limit = LogLimit::new(2, interval);
        let passed: Vec<_> = (0..5).map(|_| limit.pass_at(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        assert_eq!(limit.pass_at(start + interval), Some(3));
        assert_eq!(limit.pass_at(start + interval), None);
        let later = start + interval * 10;
        let passed: Vec<_> = (0..3).map(|_| limit.pass_at(later)).collect();
        assert_eq!(passed, [Some(1), Some(0), None]);
    }
}
