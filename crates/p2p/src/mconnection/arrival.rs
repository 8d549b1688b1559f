use std::time::{Duration, Instant};

/// The rate, in bytes a second, below which a message counts as slow: the least that CometBFT asks of
/// a peer that it syncs from. Higher would let go of peers on ordinary links; lower lets each keep for
/// longer what others wait for.
const LEAST_RATE: u64 = 128 * 1024;

/// Time before the rate counts. Shorter would count a short stall of a peer's network.
const GRACE: Duration = Duration::from_secs(10);

/// What is slow where so many bytes a second are received at most, 0 for any number: the peer cannot
/// be faster.
pub(super) const fn least_rate(recv_rate: u64) -> u64 {
    match recv_rate {
        0 => LEAST_RATE,
        rate if rate / 4 < LEAST_RATE => rate / 4,
        _ => LEAST_RATE,
    }
}

/// A large message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it began, later by what was not read since.
    pub(super) since: Instant,
    /// Since when nothing is read from the peer.
    pub(super) held_since: Option<Instant>,
    /// Bytes of it that are here.
    pub(super) bytes: usize,
    /// In bytes a second.
    pub(super) least_rate: u64,
}

impl Arrival {
    /// Bytes of it that are here.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// For how long it has been arriving, times in which nothing was read left out.
    #[must_use]
    pub fn lasts(&self, now: Instant) -> Duration {
        let until = self.held_since.unwrap_or(now);
        until.saturating_duration_since(self.since)
    }

    /// Whether it has come at less than 128 KiB a second, ten seconds left out.
    #[must_use]
    pub fn is_slow(&self, now: Instant) -> bool {
        let counted = self.lasts(now).saturating_sub(GRACE).as_secs();
        (self.bytes as u64) < counted * self.least_rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_it_was_read_makes_a_message_slow() {
        let since = Instant::now();
        let at = |seconds| since + Duration::from_secs(seconds);
        let mut arrival = Arrival {
            since,
            held_since: None,
            bytes: 1000,
            least_rate: least_rate(0),
        };
        assert!(!arrival.is_slow(at(10)));
        assert!(arrival.is_slow(at(11)));
        arrival.bytes = 128 << 10;
        assert!(!arrival.is_slow(at(11)));
        assert!(arrival.is_slow(at(12)));
        arrival.held_since = Some(at(11));
        assert!(!arrival.is_slow(at(100)));
        assert_eq!(arrival.lasts(at(100)), Duration::from_secs(11));
    }

    #[test]
    fn a_peer_need_not_be_faster_than_it_is_read() {
        assert_eq!(least_rate(5_120_000), LEAST_RATE);
        assert_eq!(least_rate(40_000), 10_000);
    }
}
