use std::time::{Duration, Instant};

/// Decides when blocks that were written are to be synced: after so many, or so long after the
/// first of them.
#[derive(Debug)]
pub(crate) struct SyncGroup {
    max_blocks: u32,
    max_age: Duration,
    blocks: u32,
    since: Option<Instant>,
}

impl SyncGroup {
    pub(crate) fn new(max_blocks: u32, max_age: Duration) -> Self {
        Self {
            max_blocks: max_blocks.max(1),
            max_age,
            blocks: 0,
            since: None,
        }
    }

    /// One more block will be written at `now`: whether it must be synced.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.blocks + 1 >= self.max_blocks
            || self
                .since
                .is_some_and(|since| now.saturating_duration_since(since) >= self.max_age)
    }

    /// A block was written, unsynced.
    pub(crate) fn written(&mut self, now: Instant) {
        self.blocks += 1;
        self.since.get_or_insert(now);
    }

    /// Everything written so far is synced.
    pub(crate) fn synced(&mut self) {
        self.blocks = 0;
        self.since = None;
    }

    /// When what is written must be synced, if nothing more comes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.since.and_then(|since| since.checked_add(self.max_age))
    }

    /// Whether anything is written and not synced.
    pub(crate) fn is_open(&self) -> bool {
        self.blocks > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_by_count_or_by_age() {
        let start = Instant::now();
        let mut group = SyncGroup::new(3, Duration::from_secs(1));
        assert!(!group.is_due(start));
        group.written(start);
        assert!(group.is_open() && !group.is_due(start));
        group.written(start);
        assert!(group.is_due(start), "the third block");
        assert_eq!(group.deadline(), Some(start + Duration::from_secs(1)));
        group.synced();
        assert_eq!(group.deadline(), None);
        assert!(!group.is_open() && !group.is_due(start));
        group.written(start);
        assert!(!group.is_due(start + Duration::from_millis(999)));
        assert!(group.is_due(start + Duration::from_secs(1)));
    }

    #[test]
    fn one_block_a_group_syncs_each() {
        let group = SyncGroup::new(1, Duration::from_secs(1));
        assert!(group.is_due(Instant::now()));
        let group = SyncGroup::new(0, Duration::from_secs(1));
        assert!(group.is_due(Instant::now()));
    }
}
