//! What a made chain looks like.

use perihelion_crypto::PrivateKey;
use perihelion_types::bounds::MAX_BLOCK_BYTES;
use thiserror::Error;

/// What a made chain looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainShape {
    /// The chain's id, 1 to 50 bytes.
    pub chain_id: String,
    /// Validators of the genesis, at least 1.
    pub validators: u32,
    /// Blocks, at least 1.
    pub blocks: u64,
    /// Transactions a block.
    pub txs: u32,
    /// Bytes of each, at least [`MIN_TX_BYTES`].
    pub tx_bytes: u32,
    /// Every so many blocks the validators change; 0 for never.
    pub churn: i64,
    /// Share of validators, below 1/3, that are absent from each commit; no more of them than leave
    /// it more than 2/3 of the power.
    pub absent: f64,
    /// A validator of the genesis by its number, and the height from which on it signs nothing: beside
    /// those that are absent, and whatever power is left. With 1/3 or more of the power gone, or absent,
    /// no node takes the chain.
    pub gone: Option<(u32, i64)>,
    /// Commits are of rounds below this number, at least 1.
    pub rounds: i32,
    /// The first height, at least 1.
    pub initial_height: i64,
    /// Vote extensions from this height on; 0 for never.
    pub extensions_height: i64,
    /// Everything that is drawn follows from it.
    pub seed: u64,
}

/// Shortest transaction: there must be room for a key that names height and index, and a value.
pub const MIN_TX_BYTES: u32 = 40;

/// Room for a header, and what frames a block.
const BLOCK_OVERHEAD_BYTES: i64 = 64 << 10;
/// Room for one place of a commit.
const COMMIT_SIG_BYTES: i64 = 128;

/// A shape has contradictions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} must be {bounds}")]
pub struct BadShape {
    /// The field.
    pub field: &'static str,
    /// Its bounds.
    pub bounds: &'static str,
}

impl ChainShape {
    /// A shape with one transaction of 100 bytes in each block.
    #[must_use]
    pub fn new(chain_id: &str, validators: u32, blocks: u64) -> Self {
        Self {
            chain_id: chain_id.to_owned(),
            validators,
            blocks,
            txs: 1,
            tx_bytes: 100,
            churn: 0,
            absent: 0.0,
            gone: None,
            rounds: 1,
            initial_height: 1,
            extensions_height: 0,
            seed: 1,
        }
    }

    /// One of the chains that benchmarks use, about 1, 20 and 59 KB a block: `a` (4 validators, 1
    /// transaction of 100 bytes), `b` (100; 36 of 250) or `c` (175; 160 of 250).
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let (validators, blocks, txs, tx_bytes) = match name {
            "a" => (4, 20_000, 1, 100),
            "b" => (100, 3_000, 36, 250),
            "c" => (175, 1_500, 160, 250),
            _ => return None,
        };
        Some(Self {
            txs,
            tx_bytes,
            ..Self::new(name, validators, blocks)
        })
    }

    /// Refuses what cannot be made.
    ///
    /// # Errors
    /// Names the first field out of its bounds.
    pub fn check(&self) -> Result<(), BadShape> {
        let rules = [
            (
                "chain-id",
                "of 1 to 50 bytes",
                (1..=50).contains(&self.chain_id.len()),
            ),
            (
                "validators",
                "1 to 10000",
                (1..=10_000).contains(&self.validators),
            ),
            ("blocks", "at least 1", self.blocks >= 1),
            (
                "tx-bytes",
                "at least 40",
                self.txs == 0 || self.tx_bytes >= MIN_TX_BYTES,
            ),
            ("churn", "0 or more", self.churn >= 0),
            (
                "absent",
                "0 or more, below 1/3",
                (0.0..1.0 / 3.0).contains(&self.absent),
            ),
            ("rounds", "at least 1", self.rounds >= 1),
            ("initial-height", "at least 1", self.initial_height >= 1),
            (
                "extensions-height",
                "0 or more",
                self.extensions_height >= 0,
            ),
            (
                "txs times tx-bytes",
                "at most 100 MB with the commit",
                usize::try_from(self.largest_block()).is_ok_and(|bytes| bytes <= MAX_BLOCK_BYTES),
            ),
        ];
        match rules.into_iter().find(|(_, _, holds)| !holds) {
            Some((field, bounds, _)) => Err(BadShape { field, bounds }),
            None => Ok(()),
        }
    }

    /// A bound on the bytes of each block.
    pub(super) fn largest_block(&self) -> i64 {
        i64::from(self.txs) * (i64::from(self.tx_bytes) + 8)
            + (i64::from(self.validators) + 1) * COMMIT_SIG_BYTES
            + BLOCK_OVERHEAD_BYTES
    }
}

/// The key of a made chain's validator: by its seed and number, those that join counted on.
#[must_use]
pub fn validator_key(seed: u64, number: u32) -> PrivateKey {
    PrivateKey::ed25519_from_secret(
        format!("perihelion-testkit/{seed}/validator/{number}").as_bytes(),
    )
}
