use std::fmt;

/// A set of indexes below a fixed size: which votes or parts are here (`tendermint.libs.bits`).
/// Bits beyond the size are never set.
#[derive(Clone, PartialEq, Eq)]
pub struct BitArray {
    size: usize,
    words: Vec<u64>,
}

impl BitArray {
    /// An empty set of indexes below `size`.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size,
            words: vec![0; size.div_ceil(64)],
        }
    }

    /// The set with these words, lowest index first; bits beyond `size` are dropped. `None` unless
    /// there are just as many words as the size needs. Check `size` against a bound before.
    #[must_use]
    pub fn from_words(size: usize, mut words: Vec<u64>) -> Option<Self> {
        if words.len() != size.div_ceil(64) {
            return None;
        }
        if let (Some(last), rest @ 1..) = (words.last_mut(), size % 64) {
            *last &= (1 << rest) - 1;
        }
        Some(Self { size, words })
    }

    /// The words, lowest index first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Below which number its indexes are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether `index` is in it.
    #[must_use]
    pub fn get(&self, index: usize) -> bool {
        index < self.size && self.words[index / 64] & (1 << (index % 64)) != 0
    }

    /// Puts `index` in or takes it out; indexes at or beyond the size are ignored.
    pub fn set(&mut self, index: usize, is_in: bool) {
        if index < self.size {
            let bit = 1 << (index % 64);
            if is_in {
                self.words[index / 64] |= bit;
            } else {
                self.words[index / 64] &= !bit;
            }
        }
    }

    /// How many indexes are in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether all are.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count() == self.size
    }

    /// The indexes in it, rising.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.checked_sub(1)?;
                Some(at * 64 + bit as usize)
            })
        })
    }

    /// Those that are here and not in `other`, whatever its size.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = self.clone();
        for (word, other) in left.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
        left
    }

    /// Adds those of `other` that are below this set's size.
    pub fn add_all(&mut self, other: &Self) {
        for index in other.iter() {
            self.set(index, true);
        }
    }
}

impl fmt::Debug for BitArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for index in 0..self.size {
            f.write_str(if self.get(index) { "x" } else { "_" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_kept_below_the_size() {
        let mut bits = BitArray::new(70);
        for index in [0, 63, 64, 69, 70, 500] {
            bits.set(index, true);
        }
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 69]);
        assert_eq!(bits.count(), 4);
        assert!(!bits.get(70));
        bits.set(63, false);
        assert!(!bits.get(63));
    }

    #[test]
    fn words_from_elsewhere_cannot_hold_more_than_the_size() {
        let bits = BitArray::from_words(66, vec![u64::MAX, u64::MAX]).unwrap();
        assert!(bits.is_full());
        assert_eq!(bits.count(), 66);
        assert_eq!(BitArray::from_words(66, vec![0]), None);
        assert_eq!(BitArray::from_words(64, vec![1]).unwrap().count(), 1);
        assert!(BitArray::from_words(0, vec![]).unwrap().is_full());
    }

    #[test]
    fn sets_of_other_sizes_are_subtracted_and_added() {
        let mut a = BitArray::from_words(3, vec![0b111]).unwrap();
        let b = BitArray::from_words(100, vec![0b101, u64::MAX]).unwrap();
        assert_eq!(a.minus(&b).iter().collect::<Vec<_>>(), [1]);
        assert_eq!(b.minus(&a).count(), 36);
        a.set(0, false);
        a.add_all(&b);
        assert!(a.is_full());
        assert_eq!(
            format!("{:?}", BitArray::from_words(2, vec![2]).unwrap()),
            "_x"
        );
    }
}
