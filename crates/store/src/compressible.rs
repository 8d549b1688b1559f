//! Whether blocks get shorter when they are compressed. Those of many chains do not, where
//! transactions are compressed or encrypted, and trying it for each takes as long as hashing it.

use lz4_flex::block::compress;

/// One byte of so many is tried.
const SHARE: usize = 32;
/// Bytes of one block that are tried at the most.
const SAMPLE: usize = 64 << 10;
/// Bytes that are tried before it is judged again.
const JUDGED: usize = 256 << 10;

/// Judges by samples of what is stored. At first blocks are compressed.
#[derive(Debug)]
pub(crate) struct Compressible {
    verdict: bool,
    /// Bytes that came since the last sample.
    untried: usize,
    /// Bytes that were tried since it was judged, and what was left of them.
    tried: usize,
    left: usize,
}

impl Compressible {
    pub(crate) const fn new() -> Self {
        Self {
            verdict: true,
            untried: 0,
            tried: 0,
            left: 0,
        }
    }

    /// Takes note of a block; tells whether blocks are to be compressed from now on where that is
    /// another verdict than before: they are where it saves an eighth.
    pub(crate) fn note(&mut self, block: &[u8]) -> Option<bool> {
        let sample = &block[..block.len().min(SAMPLE)];
        self.untried = self.untried.saturating_add(block.len());
        if self.untried / SHARE < sample.len() {
            return None;
        }
        self.untried = 0;
        self.tried += sample.len();
        self.left += compress(sample).len();
        if self.tried < JUDGED {
            return None;
        }
        let verdict = self.left <= self.tried / 8 * 7;
        self.tried = 0;
        self.left = 0;
        let is_other = verdict != self.verdict;
        self.verdict = verdict;
        is_other.then_some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of `bytes`, of which so many of a hundred are alike in all of them.
    fn blocks(bytes: usize, alike: usize) -> impl Iterator<Item = Vec<u8>> {
        let mut seed = 7_u64;
        std::iter::repeat_with(move || {
            let other = (0..bytes - bytes * alike / 100).map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as u8
            });
            let mut block: Vec<u8> = other.collect();
            block.resize(bytes, 7);
            block
        })
    }

    #[test]
    fn only_what_gets_shorter_is_compressed() {
        let mut judge = Compressible::new();
        for (bytes, alike, verdict) in [
            (60_000, 0, false),
            (900, 50, true),
            (900, 5, false),
            (60_000, 20, true),
            (1_000_000, 0, false),
        ] {
            let told: Vec<bool> = blocks(bytes, alike)
                .take(20_000_000 / bytes)
                .filter_map(|block| judge.note(&block))
                .collect();
            assert_eq!(told, [verdict], "{bytes} bytes, {alike} % alike");
        }
    }
}
