use std::time::{Duration, Instant};

/// Decides when blocks that were written are to be synced: after so many, but no sooner than `min_age`,
/// or `max_age` after the first of them.
#[derive(Debug)]
pub(crate) struct SyncGroup {
    max_blocks: u32,
    min_age: Duration,
    max_age: Duration,
    is_awaited: bool,
    blocks: u32,
    since: Option<Instant>,
}

impl SyncGroup {
    pub(crate) fn new(max_blocks: u32, max_age: Duration) -> Self {
        Self {
            max_blocks: max_blocks.max(1),
            min_age: Duration::ZERO,
            max_age,
            is_awaited: true,
            blocks: 0,
            since: None,
        }
    }

    /// The same, but not before the first of them is so old, and nobody waits for the disk.
    pub(crate) fn in_background(self, min_age: Duration) -> Self {
        Self {
            min_age,
            is_awaited: false,
            ..self
        }
    }

    /// Whether the disk is waited for.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// One more block will be written at `now`: whether it must be synced.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        let is_full = self.blocks + 1 >= self.max_blocks;
        is_full && age.unwrap_or_default() >= self.min_age
            || age.is_some_and(|age| age >= self.max_age)
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
    fn a_full_group_may_have_to_wait() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let group = SyncGroup::new(2, Duration::from_secs(2));
        let mut group = group.in_background(Duration::from_millis(250));
        group.written(start);
        group.written(start);
        assert!(!group.is_due(at(249)));
        assert!(group.is_due(at(250)));
        group.synced();
        assert!(!group.is_due(at(251)), "nothing is written");
        group.written(at(251));
        assert!(!group.is_due(at(400)));
        assert!(group.is_due(at(501)));
    }

    #[test]
    fn one_block_a_group_syncs_each() {
        let group = SyncGroup::new(1, Duration::from_secs(1));
        assert!(group.is_due(Instant::now()));
        let group = SyncGroup::new(0, Duration::from_secs(1));
        assert!(group.is_due(Instant::now()));
    }
}
