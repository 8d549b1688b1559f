//! Reading validators and evidence.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::Error};

use super::{deserialize_hex, deserialize_int64, no_height, no_time, nullable};
use crate::{
    Address, Commit, DuplicateVoteEvidence, Evidence, Header, Height, LightBlock,
    LightClientAttackEvidence, PublicKey, SignedHeader, Time, Validator, ValidatorSet, Vote,
};

#[derive(Deserialize)]
struct ValidatorForm {
    #[serde(default, deserialize_with = "deserialize_hex")]
    address: Bytes,
    pub_key: PublicKey,
    #[serde(default, deserialize_with = "deserialize_int64")]
    voting_power: i64,
    #[serde(default, deserialize_with = "deserialize_int64")]
    proposer_priority: i64,
}

impl<'de> Deserialize<'de> for Validator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = ValidatorForm::deserialize(deserializer)?;
        Ok(Self {
            address: Address::try_from(&form.address[..]).map_err(D::Error::custom)?,
            pub_key: form.pub_key,
            voting_power: form.voting_power,
            proposer_priority: form.proposer_priority,
        })
    }
}

#[derive(Deserialize)]
struct ValidatorSetForm {
    #[serde(default, deserialize_with = "nullable")]
    validators: Vec<Validator>,
    proposer: Validator,
}

/// Applies `validate_basic`.
impl<'de> Deserialize<'de> for ValidatorSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = ValidatorSetForm::deserialize(deserializer)?;
        Self::from_parts(form.validators, form.proposer).map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
struct SignedHeaderForm {
    header: Header,
    commit: Commit,
}

#[derive(Deserialize)]
struct LightBlockForm {
    signed_header: SignedHeaderForm,
    validator_set: ValidatorSet,
}

#[derive(Deserialize)]
struct DuplicateVoteForm {
    vote_a: Vote,
    vote_b: Vote,
    #[serde(
        default,
        rename = "TotalVotingPower",
        deserialize_with = "deserialize_int64"
    )]
    total_voting_power: i64,
    #[serde(
        default,
        rename = "ValidatorPower",
        deserialize_with = "deserialize_int64"
    )]
    validator_power: i64,
    #[serde(default = "no_time", rename = "Timestamp")]
    timestamp: Time,
}

#[derive(Deserialize)]
struct LightClientAttackForm {
    #[serde(rename = "ConflictingBlock")]
    conflicting_block: LightBlockForm,
    #[serde(default = "no_height", rename = "CommonHeight")]
    common_height: Height,
    #[serde(default, rename = "ByzantineValidators", deserialize_with = "nullable")]
    byzantine_validators: Vec<Validator>,
    #[serde(
        default,
        rename = "TotalVotingPower",
        deserialize_with = "deserialize_int64"
    )]
    total_voting_power: i64,
    #[serde(default = "no_time", rename = "Timestamp")]
    timestamp: Time,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "value")]
enum EvidenceForm {
    #[serde(rename = "tendermint/DuplicateVoteEvidence")]
    DuplicateVote(Box<DuplicateVoteForm>),
    #[serde(rename = "tendermint/LightClientAttackEvidence")]
    LightClientAttack(Box<LightClientAttackForm>),
}

/// Refuses evidence without its votes or its block.
impl<'de> Deserialize<'de> for Evidence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match EvidenceForm::deserialize(deserializer)? {
            EvidenceForm::DuplicateVote(form) => Self::DuplicateVote(DuplicateVoteEvidence {
                vote_a: form.vote_a,
                vote_b: form.vote_b,
                total_voting_power: form.total_voting_power,
                validator_power: form.validator_power,
                timestamp: form.timestamp,
            }),
            EvidenceForm::LightClientAttack(form) => {
                let block = form.conflicting_block;
                Self::LightClientAttack(LightClientAttackEvidence {
                    conflicting_block: LightBlock {
                        signed_header: SignedHeader {
                            header: block.signed_header.header,
                            commit: block.signed_header.commit,
                        },
                        validator_set: block.validator_set,
                    },
                    common_height: form.common_height,
                    byzantine_validators: form.byzantine_validators,
                    total_voting_power: form.total_voting_power,
                    timestamp: form.timestamp,
                })
            }
        })
    }
}
