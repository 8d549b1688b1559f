use std::time::Duration;

/// First pause after a failure. Shorter hammers a peer that restarts, longer delays a start where
/// two nodes come up together.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause, unless configured. Longer, and a peer that returns is missed for too long;
/// shorter, and a dead address costs a connection attempt that often for ever.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that held for this long, and was not ended for the peer's fault, starts over.
const STABLE: Duration = Duration::from_secs(10);

/// Pauses between the dials of one peer: doubling, with jitter, without end.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Backoff {
    /// `longest` bounds the pauses; zero: 30 seconds.
    pub(super) const fn new(longest: Duration) -> Self {
        Self {
            failures: 0,
            longest: if longest.is_zero() { LONGEST } else { longest },
        }
    }

    /// A connection has ended after `held`.
    pub(super) fn handle_end(&mut self, held: Duration, peers_fault: bool) {
        if held >= STABLE && !peers_fault {
            self.failures = 0;
        }
    }

    /// The pause before the next dial; `random` is in 0..1.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let pause = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.5f64.mul_add(random, 0.75))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_never_end() {
        let mut backoff = Backoff::new(Duration::ZERO);
        let pauses: Vec<_> = (0..100).map(|_| backoff.next(0.5)).collect();
        assert_eq!(pauses[0], FIRST);
        assert_eq!(pauses[1], FIRST * 2);
        assert_eq!(pauses[99], LONGEST);
    }

    #[test]
    fn only_a_good_connection_starts_over() {
        let mut backoff = Backoff::new(Duration::ZERO);
        backoff.next(0.5);
        for (held, fault, pause) in [
            (STABLE / 2, false, FIRST * 2),
            (STABLE * 10, true, FIRST * 4),
            (STABLE, false, FIRST),
        ] {
            backoff.handle_end(held, fault);
            assert_eq!(backoff.next(0.5), pause);
        }
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for random in [0.0, 0.999] {
            let pause = Backoff::new(Duration::ZERO).next(random);
            assert!(pause >= FIRST.mul_f64(0.75) && pause <= FIRST.mul_f64(1.25));
        }
    }
}
