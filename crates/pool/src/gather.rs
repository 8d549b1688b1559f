//! Blocks that came and wait to be decoded, gathered into jobs of the right size.
//!
//! Sixteen of them are decoded in the least time each. While there are certified blocks for the
//! executor to apply they wait, shortly, until they are as many; else they are not held up.

use std::time::{Duration, Instant};

use crate::workers::{DECODE_TOGETHER, DECODE_TOGETHER_BYTES, Encoded};

/// Bytes with which a job of small blocks is worth its hand-over.
const WORTH_A_HAND_OVER: usize = 64 << 10;

/// With so many certified blocks there is time: applying them takes as long as it takes for as many
/// to come, to be decoded and to be certified.
const AHEAD: usize = 2 * DECODE_TOGETHER;

/// How long a block waits for others at most: its peer owes it until it is decoded.
const PATIENCE: Duration = Duration::from_millis(10);

/// The blocks, in the order in which they came. They stay few: whoever adds one takes what is full.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    blocks: Vec<Encoded>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Gathered {
    pub(crate) fn push(&mut self, now: Instant, block: Encoded) {
        self.bytes += block.len();
        self.blocks.push(block);
        self.since.get_or_insert(now);
    }

    /// All of them, if they fill a job. `ahead`: certified blocks that are not applied.
    pub(crate) fn take_full(&mut self, ahead: usize) -> Option<Vec<Encoded>> {
        let enough = if ahead < AHEAD { 1 } else { DECODE_TOGETHER };
        let is_full = self.bytes >= DECODE_TOGETHER_BYTES
            || self.bytes >= WORTH_A_HAND_OVER && self.blocks.len() >= enough;
        is_full.then(|| self.take())
    }

    /// All of them, if they are not to wait any longer for others to come.
    pub(crate) fn take_due(&mut self, now: Instant, ahead: usize) -> Option<Vec<Encoded>> {
        let is_due = ahead < AHEAD || now >= self.deadline()?;
        (is_due && !self.blocks.is_empty()).then(|| self.take())
    }

    /// When the first is to wait no longer.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Some(self.since? + PATIENCE)
    }

    fn take(&mut self) -> Vec<Encoded> {
        std::mem::take(self).blocks
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use perihelion_types::PeerId;

    use super::*;
    use crate::ConnectionId;

    fn block(bytes: usize) -> Encoded {
        Encoded {
            peer: PeerId::new([1; 20]),
            connection: ConnectionId(1),
            block: vec![0; bytes].into(),
            extended_commit: None,
            hold: None,
        }
    }

    /// How many blocks of a size make a job.
    fn job(bytes: usize, ahead: usize) -> usize {
        let mut gathered = Gathered::default();
        loop {
            gathered.push(Instant::now(), block(bytes));
            if let Some(blocks) = gathered.take_full(ahead) {
                return blocks.len();
            }
        }
    }

    #[test]
    fn sixteen_are_decoded_together_where_there_is_time() {
        for (bytes, hasty, unhurried) in [
            (1 << 10, 64, 64),
            (20 << 10, 4, 16),
            (60 << 10, 2, 16),
            (100 << 10, 1, 11),
            (DECODE_TOGETHER_BYTES, 1, 1),
        ] {
            assert_eq!(job(bytes, AHEAD - 1), hasty, "{bytes}");
            assert_eq!(job(bytes, AHEAD), unhurried, "{bytes}");
        }
    }

    #[test]
    fn none_waits_where_the_executor_soon_has_nothing_to_apply() {
        let now = Instant::now();
        let mut gathered = Gathered::default();
        assert!(gathered.take_due(now, 0).is_none(), "there are none");
        gathered.push(now, block(1));
        assert!(gathered.take_due(now, AHEAD).is_none());
        assert_eq!(gathered.take_due(now, AHEAD - 1).unwrap().len(), 1);
    }

    #[test]
    fn none_waits_for_others_without_end() {
        let start = Instant::now();
        let mut gathered = Gathered::default();
        for after in [0, 6] {
            gathered.push(start + Duration::from_millis(after), block(1));
        }
        assert_eq!(gathered.deadline(), Some(start + PATIENCE), "of the first");
        let just_before = start + PATIENCE - Duration::from_nanos(1);
        assert!(gathered.take_due(just_before, AHEAD).is_none());
        let taken = gathered.take_due(start + PATIENCE, AHEAD);
        assert_eq!(taken.unwrap().len(), 2);
        assert_eq!(gathered.deadline(), None);
        let later = start + 3 * PATIENCE;
        gathered.push(later, block(1));
        assert_eq!(
            gathered.deadline(),
            Some(later + PATIENCE),
            "it is counted anew"
        );
        assert_eq!(gathered.bytes, 1);
    }
}
