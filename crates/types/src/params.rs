//! Consensus parameters.

use perihelion_proto::tendermint::types as pb;
use prost::Message;

use crate::{DecodeError, Hash, Height, InvalidError, bounds::MAX_BLOCK_BYTES};

/// Parameters of the chain that the application can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsensusParams {
    /// Bounds on blocks.
    pub block: BlockParams,
    /// How long evidence counts.
    pub evidence: EvidenceParams,
    /// Key types that validators may have.
    pub validator: ValidatorParams,
    /// The application's version.
    pub version: VersionParams,
    /// What the application interface may do.
    pub abci: AbciParams,
    /// Whom the application lets change parameters; opaque here, at most
    /// [`MAX_AUTHORITY_BYTES`]. v0.40 only, where it is always there; `None` makes all of this
    /// follow v0.38: how it is encoded, updated and checked.
    pub authority: Option<String>,
}

/// Largest authority in bytes.
pub const MAX_AUTHORITY_BYTES: usize = 256;

/// Bounds on blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockParams {
    /// Bytes; -1 for the largest allowed.
    pub max_bytes: i64,
    /// Gas; -1 for no bound.
    pub max_gas: i64,
}

/// How long evidence counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceParams {
    /// Evidence counts for so many blocks, and longer while `max_age_duration` has not passed.
    pub max_age_num_blocks: i64,
    /// Nanoseconds.
    pub max_age_duration: i64,
    /// Bytes of all evidence in one block.
    pub max_bytes: i64,
}

/// Key types that validators may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorParams {
    /// CometBFT's names of the types, such as `ed25519`; at least one.
    pub pub_key_types: Vec<String>,
}

/// The application's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionParams {
    /// The version that block headers carry from the next height on.
    pub app: u64,
}

/// What the application interface may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbciParams {
    /// The first height at which precommits carry extensions; 0 for never.
    pub vote_extensions_enable_height: i64,
}

/// What an application asks to change; a group that is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParamsUpdate {
    /// New bounds on blocks.
    pub block: Option<BlockParams>,
    /// For how long evidence counts from now on.
    pub evidence: Option<EvidenceParams>,
    /// The key types from now on.
    pub validator: Option<ValidatorParams>,
    /// The application's new version.
    pub version: Option<VersionParams>,
    /// What the application interface may do from now on.
    pub abci: Option<AbciParams>,
    /// Without effect on parameters that follow v0.38.
    pub authority: Option<String>,
}

impl ConsensusParams {
    /// The parameters of a chain whose genesis gives none, as v0.38 has them.
    #[must_use]
    pub fn default_v038() -> Self {
        Self {
            block: BlockParams {
                max_bytes: 22_020_096,
                max_gas: -1,
            },
            evidence: EvidenceParams {
                max_age_num_blocks: 100_000,
                max_age_duration: 48 * 3600 * 1_000_000_000,
                max_bytes: 1_048_576,
            },
            validator: ValidatorParams {
                pub_key_types: vec!["ed25519".to_owned()],
            },
            version: VersionParams { app: 0 },
            abci: AbciParams {
                vote_extensions_enable_height: 0,
            },
            authority: None,
        }
    }

    /// The same as v0.40 has them: larger blocks, with room for the commit of 10,000 validators
    /// with the largest signatures, and an empty authority.
    #[must_use]
    pub fn default_v040() -> Self {
        let mut params = Self::default_v038();
        params.block.max_bytes = 55_600_190;
        params.authority = Some(String::new());
        params
    }

    /// What headers commit to: maximal bytes and gas.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let hashed = pb::HashedParams {
            block_max_bytes: self.block.max_bytes,
            block_max_gas: self.block.max_gas,
        };
        Hash::of(&hashed.encode_to_vec())
    }

    /// The largest block in bytes: `block.max_bytes`, or the protocol's bound where that is -1.
    #[must_use]
    pub fn max_block_bytes(&self) -> i64 {
        if self.block.max_bytes == -1 {
            MAX_BLOCK_BYTES as i64
        } else {
            self.block.max_bytes
        }
    }

    /// Whether precommits at `height` carry extensions.
    #[must_use]
    pub fn vote_extensions_enabled(&self, height: Height) -> bool {
        let enable = self.abci.vote_extensions_enable_height;
        enable != 0 && height.get() >= enable
    }

    /// Whether validators may have keys of `key_type`, by the name that the application uses.
    #[must_use]
    pub fn allows_key_type(&self, key_type: &str) -> bool {
        self.validator.pub_key_types.iter().any(|t| t == key_type)
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        let BlockParams { max_bytes, max_gas } = self.block;
        require(max_bytes == -1 || max_bytes > 0, || {
            format!("block.max_bytes must be -1 or positive, not {max_bytes}")
        })?;
        require(max_bytes <= MAX_BLOCK_BYTES as i64, || {
            format!("block.max_bytes is {max_bytes}, at most {MAX_BLOCK_BYTES} are allowed")
        })?;
        require(max_gas >= -1, || {
            format!("block.max_gas must be -1 or more, not {max_gas}")
        })?;
        self.validate_evidence()?;
        let height = self.abci.vote_extensions_enable_height;
        require(height >= 0, || {
            format!("abci.vote_extensions_enable_height is negative: {height}")
        })?;
        self.validate_key_types()?;
        let length = self.authority.as_ref().map_or(0, String::len);
        require(length <= MAX_AUTHORITY_BYTES, || {
            format!("authority has {length} bytes, at most {MAX_AUTHORITY_BYTES} are allowed")
        })
    }

    fn validate_evidence(&self) -> Result<(), InvalidError> {
        let evidence = &self.evidence;
        require(evidence.max_age_num_blocks > 0, || {
            let blocks = evidence.max_age_num_blocks;
            format!("evidence.max_age_num_blocks must be positive, not {blocks}")
        })?;
        require(evidence.max_age_duration > 0, || {
            let nanos = evidence.max_age_duration;
            format!("evidence.max_age_duration must be positive, not {nanos} ns")
        })?;
        let bound = self.max_block_bytes();
        require((0..=bound).contains(&evidence.max_bytes), || {
            let bytes = evidence.max_bytes;
            format!("evidence.max_bytes is {bytes}, must be within 0..={bound}")
        })
    }

    fn validate_key_types(&self) -> Result<(), InvalidError> {
        let types = &self.validator.pub_key_types;
        require(!types.is_empty(), || {
            "validator.pub_key_types is empty".to_owned()
        })?;
        for key_type in types {
            let known = match key_type.as_str() {
                "ed25519" | "secp256k1" => true,
                "ml_dsa_65" | "secp256k1eth" => self.authority.is_some(),
                _ => false,
            };
            require(known, || {
                let name: String = key_type.chars().take(64).collect();
                format!("validator.pub_key_types holds the unknown type {name:?}")
            })?;
        }
        Ok(())
    }

    /// The parameters with `update` applied, unchecked.
    #[must_use]
    pub fn updated(&self, update: &ParamsUpdate) -> Self {
        Self {
            block: update.block.unwrap_or(self.block),
            evidence: update.evidence.unwrap_or(self.evidence),
            validator: update.validator.as_ref().unwrap_or(&self.validator).clone(),
            version: update.version.unwrap_or(self.version),
            abci: update.abci.unwrap_or(self.abci),
            authority: self
                .authority
                .as_ref()
                .map(|authority| update.authority.as_ref().unwrap_or(authority).clone()),
        }
    }

    /// Whether `update`, given at `height`, may change when vote extensions begin: once they have,
    /// they stay, and they begin in the future only.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn validate_update(
        &self,
        update: &ParamsUpdate,
        height: Height,
    ) -> Result<(), InvalidError> {
        let Some(abci) = update.abci else {
            return Ok(());
        };
        let now = self.abci.vote_extensions_enable_height;
        let then = abci.vote_extensions_enable_height;
        require(then >= 0, || {
            format!("abci.vote_extensions_enable_height is negative: {then}")
        })?;
        if now == then || (now <= 0 && then == 0) {
            return Ok(());
        }
        require(now <= 0 || now > height.get(), || {
            format!("vote extensions hold since {now}: no change to {then} at {height}")
        })?;
        require(then == 0 || then > height.get(), || {
            format!("vote extensions cannot begin at {then}, not above {height}")
        })
    }
}

fn require(holds: bool, reason: impl FnOnce() -> String) -> Result<(), InvalidError> {
    if holds {
        Ok(())
    } else {
        Err(InvalidError::new("consensus parameters", reason()))
    }
}

/// Nanoseconds of a duration, as CometBFT reads it: at most 10,000 years in seconds, both parts of
/// one sign, within 64 bits of nanoseconds.
fn nanos_of(duration: Option<prost_types::Duration>) -> Result<i64, DecodeError> {
    const MAX_SECONDS: i64 = 315_576_000_000;
    let prost_types::Duration { seconds, nanos } = duration.unwrap_or_default();
    let in_range = (-MAX_SECONDS..=MAX_SECONDS).contains(&seconds)
        && (-999_999_999..=999_999_999).contains(&nanos)
        && i64::from(nanos).signum() * seconds.signum() >= 0;
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|whole| whole.checked_add(i64::from(nanos)))
        .filter(|_| in_range)
        .ok_or_else(|| DecodeError::Field {
            field: "max_age_duration",
            reason: format!("{seconds} seconds and {nanos} nanoseconds are no duration"),
        })
}

impl TryFrom<pb::EvidenceParams> for EvidenceParams {
    type Error = DecodeError;

    fn try_from(params: pb::EvidenceParams) -> Result<Self, DecodeError> {
        Ok(Self {
            max_age_num_blocks: params.max_age_num_blocks,
            max_age_duration: nanos_of(params.max_age_duration)?,
            max_bytes: params.max_bytes,
        })
    }
}

impl TryFrom<pb::ConsensusParams> for ParamsUpdate {
    type Error = DecodeError;

    fn try_from(params: pb::ConsensusParams) -> Result<Self, DecodeError> {
        Ok(Self {
            block: params.block.map(|block| BlockParams {
                max_bytes: block.max_bytes,
                max_gas: block.max_gas,
            }),
            evidence: params.evidence.map(TryInto::try_into).transpose()?,
            validator: params.validator.map(|validator| ValidatorParams {
                pub_key_types: validator.pub_key_types,
            }),
            version: params
                .version
                .map(|version| VersionParams { app: version.app }),
            abci: params.abci.map(|abci| AbciParams {
                vote_extensions_enable_height: abci.vote_extensions_enable_height,
            }),
            authority: params.authority.map(|authority| authority.authority),
        })
    }
}

impl TryFrom<pb::ConsensusParams> for ConsensusParams {
    type Error = DecodeError;

    /// Demands all groups but the two that came later.
    fn try_from(params: pb::ConsensusParams) -> Result<Self, DecodeError> {
        let params = ParamsUpdate::try_from(params)?;
        Ok(Self {
            block: params
                .block
                .ok_or(DecodeError::Missing("block parameters"))?,
            evidence: params
                .evidence
                .ok_or(DecodeError::Missing("evidence parameters"))?,
            validator: params
                .validator
                .ok_or(DecodeError::Missing("validator parameters"))?,
            version: params
                .version
                .ok_or(DecodeError::Missing("version parameters"))?,
            abci: params.abci.unwrap_or(AbciParams {
                vote_extensions_enable_height: 0,
            }),
            authority: params.authority,
        })
    }
}

impl From<&ConsensusParams> for pb::ConsensusParams {
    fn from(params: &ConsensusParams) -> Self {
        let nanos = params.evidence.max_age_duration;
        Self {
            block: Some(pb::BlockParams {
                max_bytes: params.block.max_bytes,
                max_gas: params.block.max_gas,
            }),
            evidence: Some(pb::EvidenceParams {
                max_age_num_blocks: params.evidence.max_age_num_blocks,
                max_age_duration: Some(prost_types::Duration {
                    seconds: nanos / 1_000_000_000,
                    nanos: (nanos % 1_000_000_000) as i32,
                }),
                max_bytes: params.evidence.max_bytes,
            }),
            validator: Some(pb::ValidatorParams {
                pub_key_types: params.validator.pub_key_types.clone(),
            }),
            version: Some(pb::VersionParams {
                app: params.version.app,
            }),
            abci: Some(pb::AbciParams {
                vote_extensions_enable_height: params.abci.vote_extensions_enable_height,
            }),
            authority: params
                .authority
                .clone()
                .map(|authority| pb::AuthorityParams { authority }),
        }
    }
}
