//! Transactions that were seen lately, by their hash.

use std::collections::{BTreeMap, HashMap};

use crate::TxKey;

/// The keys seen last, so many at most; the one not seen for longest goes first.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    size: usize,
    /// When each was seen last, counted up.
    seen: HashMap<TxKey, u64>,
    by_time: BTreeMap<u64, TxKey>,
    clock: u64,
}

impl Cache {
    /// A cache of `size` keys; with 0 it remembers nothing.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Notes that a key was seen; `false` when it had been already.
    pub(crate) fn push(&mut self, key: TxKey) -> bool {
        if self.size == 0 {
            return true;
        }
        self.clock += 1;
        let before = self.seen.insert(key, self.clock);
        if let Some(before) = before {
            self.by_time.remove(&before);
        } else if self.seen.len() > self.size
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.seen.remove(&oldest);
        }
        self.by_time.insert(self.clock, key);
        before.is_none()
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, key: &TxKey) {
        if let Some(seen) = self.seen.remove(key) {
            self.by_time.remove(&seen);
        }
    }

    /// Whether a key is remembered. Does not count as seeing it.
    pub(crate) fn has(&self, key: &TxKey) -> bool {
        self.seen.contains_key(key)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
        self.by_time.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TxKey {
        [byte; 32]
    }

    #[test]
    fn the_one_not_seen_for_longest_goes_first() {
        let mut cache = Cache::new(3);
        for byte in 1..=3 {
            assert!(cache.push(key(byte)));
        }
        assert!(!cache.push(key(1)));
        assert!(cache.push(key(4)));
        let left: Vec<u8> = (1..=4).filter(|byte| cache.has(&key(*byte))).collect();
        assert_eq!(left, [1, 3, 4]);
        cache.remove(&key(3));
        assert!(cache.push(key(5)) && cache.has(&key(1)) && cache.has(&key(4)));
        assert!(cache.push(key(3)) && !cache.has(&key(1)));
        assert_eq!((cache.seen.len(), cache.by_time.len()), (3, 3));
        cache.clear();
        assert!(cache.push(key(4)));
    }

    #[test]
    fn a_cache_of_no_size_remembers_nothing() {
        let mut cache = Cache::new(0);
        assert!(cache.push(key(1)) && cache.push(key(1)) && !cache.has(&key(1)));
    }
}
