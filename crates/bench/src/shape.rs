//! What the blocks look like.

use serde::Serialize;
use thiserror::Error;

/// The most bytes of transactions in a block: larger ones take more time than there is.
const MAX_DATA_BYTES: u64 = 20_000_000;
/// The shortest transaction: there must be room for a key with height and number, and a value.
const MIN_TX_BYTES: u32 = 40;
/// The most validators: each of them signs each block.
const MAX_VALIDATORS: u32 = 1_000;
/// The most transactions in a block.
const MAX_TXS: u32 = 100_000;

/// A chain's shape: every block is alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// What tables call it.
    pub name: String,
    /// Validators, 1 to 1,000; all of them sign each block.
    pub validators: u32,
    /// Transactions a block, at most 100,000.
    pub txs: u32,
    /// Bytes of each, at least 40; of all in a block at most 20,000,000.
    pub tx_bytes: u32,
}

/// How blocks are verified: `blocksync.verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// One commit for a run of blocks.
    Pinned,
    /// The commit of each block.
    Every,
}

/// A shape has contradictions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} must be {bounds}")]
pub struct BadShape {
    /// The field, as flags name it.
    pub field: &'static str,
    /// Its bounds.
    pub bounds: &'static str,
}

impl Shape {
    /// The chains of `make bench`, about 1, 20 and 59 KB a block: `a` (4 validators, 1 transaction of
    /// 100 bytes), `b` (100; 36 of 250) and `c` (175; 160 of 250).
    #[must_use]
    pub fn presets() -> [Self; 3] {
        [("a", 4, 1, 100), ("b", 100, 36, 250), ("c", 175, 160, 250)].map(
            |(name, validators, txs, tx_bytes)| Self {
                name: name.to_owned(),
                validators,
                txs,
                tx_bytes,
            },
        )
    }

    /// Refuses what takes too long or cannot be made.
    ///
    /// # Errors
    /// Names the first field out of its bounds.
    pub fn check(&self) -> Result<(), BadShape> {
        let bytes = u64::from(self.txs) * u64::from(self.tx_bytes);
        let rules = [
            (
                "--validators",
                "1 to 1000",
                (1..=MAX_VALIDATORS).contains(&self.validators),
            ),
            ("--txs", "at most 100000", self.txs <= MAX_TXS),
            ("--tx-bytes", "at least 40", self.tx_bytes >= MIN_TX_BYTES),
            (
                "--txs times --tx-bytes",
                "at most 20000000",
                bytes <= MAX_DATA_BYTES,
            ),
        ];
        match rules.into_iter().find(|(_, _, holds)| !holds) {
            Some((field, bounds, _)) => Err(BadShape { field, bounds }),
            None => Ok(()),
        }
    }

    /// How many blocks are made: enough for tables to be written out, few enough to be signed soon.
    pub(crate) fn blocks(&self) -> u64 {
        const BYTES: u64 = 24 << 20;
        const SIGNATURES: u64 = 60_000;
        let block =
            800 + u64::from(self.validators) * 110 + u64::from(self.txs) * u64::from(self.tx_bytes);
        (BYTES / block)
            .min(SIGNATURES / u64::from(self.validators))
            .clamp(8, 3_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(validators: u32, txs: u32, tx_bytes: u32) -> Shape {
        Shape {
            name: String::new(),
            validators,
            txs,
            tx_bytes,
        }
    }

    #[test]
    fn presets_can_be_made() {
        for shape in Shape::presets() {
            shape.check().unwrap();
            assert!((300..=3_000).contains(&shape.blocks()), "{shape:?}");
        }
        assert_eq!(shape(1_000, 1, 19_000_000).blocks(), 8);
    }

    #[test]
    fn what_cannot_be_made_is_named() {
        for (shape, field) in [
            (shape(0, 1, 100), "--validators"),
            (shape(1_001, 1, 100), "--validators"),
            (shape(1, 100_001, 100), "--txs"),
            (shape(1, 1, 39), "--tx-bytes"),
            (shape(1, 1_001, 20_000), "--txs times --tx-bytes"),
        ] {
            assert_eq!(shape.check().unwrap_err().field, field);
        }
    }
}
