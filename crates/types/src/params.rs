use crate::{Hash, Height, InvalidError};

/// Parameters of the chain that the application can change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ConsensusParams {
    pub block: BlockParams,
    pub evidence: EvidenceParams,
    pub validator: ValidatorParams,
    pub version: VersionParams,
    pub abci: AbciParams,
    /// v0.40 only; `None` as v0.38 encodes it.
    pub authority: Option<String>,
}

/// Bounds on blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BlockParams {
    /// Bytes; -1 for the largest allowed.
    pub max_bytes: i64,
    /// Gas; -1 for no bound.
    pub max_gas: i64,
}

/// How long evidence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct EvidenceParams {
    pub max_age_num_blocks: i64,
    /// Nanoseconds.
    pub max_age_duration: i64,
    pub max_bytes: i64,
}

/// Key types that validators may have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ValidatorParams {
    pub pub_key_types: Vec<String>,
}

/// The application's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct VersionParams {
    pub app: u64,
}

/// What the application interface may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct AbciParams {
    /// 0 for never.
    pub vote_extensions_enable_height: i64,
}

impl ConsensusParams {
    /// What headers commit to: maximal bytes and gas.
    #[must_use]
    pub fn hash(&self) -> Hash {
        todo!()
    }

    /// Whether precommits at `height` carry extensions.
    #[must_use]
    pub fn vote_extensions_enabled(&self, height: Height) -> bool {
        let enable = self.abci.vote_extensions_enable_height;
        enable != 0 && height.get() >= enable
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        todo!()
    }
}
