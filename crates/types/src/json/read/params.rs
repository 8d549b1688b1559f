//! Reading consensus parameters.

use serde::{Deserialize, Deserializer};

use super::{deserialize_int64, nullable};
use crate::{
    ConsensusParams,
    params::{AbciParams, BlockParams, EvidenceParams, ValidatorParams, VersionParams},
};

#[derive(Deserialize, Default)]
#[serde(default)]
struct BlockParamsForm {
    #[serde(deserialize_with = "deserialize_int64")]
    max_bytes: i64,
    #[serde(deserialize_with = "deserialize_int64")]
    max_gas: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EvidenceParamsForm {
    #[serde(deserialize_with = "deserialize_int64")]
    max_age_num_blocks: i64,
    #[serde(deserialize_with = "deserialize_int64")]
    max_age_duration: i64,
    #[serde(deserialize_with = "deserialize_int64")]
    max_bytes: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ValidatorParamsForm {
    #[serde(deserialize_with = "nullable")]
    pub_key_types: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VersionParamsForm {
    #[serde(deserialize_with = "deserialize_int64")]
    app: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AbciParamsForm {
    #[serde(deserialize_with = "deserialize_int64")]
    vote_extensions_enable_height: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthorityForm {
    #[serde(deserialize_with = "nullable")]
    authority: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConsensusParamsForm {
    #[serde(deserialize_with = "nullable")]
    block: BlockParamsForm,
    #[serde(deserialize_with = "nullable")]
    evidence: EvidenceParamsForm,
    #[serde(deserialize_with = "nullable")]
    validator: ValidatorParamsForm,
    #[serde(deserialize_with = "nullable")]
    version: VersionParamsForm,
    #[serde(deserialize_with = "nullable")]
    abci: AbciParamsForm,
    authority: Option<AuthorityForm>,
}

/// The parameters follow v0.40 where an authority is there, else v0.38.
impl<'de> Deserialize<'de> for ConsensusParams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = ConsensusParamsForm::deserialize(deserializer)?;
        Ok(Self {
            block: BlockParams {
                max_bytes: form.block.max_bytes,
                max_gas: form.block.max_gas,
            },
            evidence: EvidenceParams {
                max_age_num_blocks: form.evidence.max_age_num_blocks,
                max_age_duration: form.evidence.max_age_duration,
                max_bytes: form.evidence.max_bytes,
            },
            validator: ValidatorParams {
                pub_key_types: form.validator.pub_key_types,
            },
            version: VersionParams {
                app: form.version.app,
            },
            abci: AbciParams {
                vote_extensions_enable_height: form.abci.vote_extensions_enable_height,
            },
            authority: form.authority.map(|form| form.authority),
        })
    }
}
