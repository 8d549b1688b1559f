//! Reading.

use std::{borrow::Cow, str::FromStr};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    Address, BlockId, BlockIdFlag, Commit, CommitSig, ConsensusParams, DuplicateVoteEvidence,
    Evidence, Hash, Header, Height, LightBlock, LightClientAttackEvidence, PartSetHeader,
    PublicKey, Round, SignedHeader, SignedMsgType, Time, Validator, ValidatorSet, Vote,
    header::Version,
    params::{AbciParams, BlockParams, EvidenceParams, ValidatorParams, VersionParams},
};

/// Reads a 64-bit integer from its string; 0 for `null`. Numbers outside of strings are refused, as
/// CometBFT refuses them. For `#[serde(deserialize_with)]`, with `default`.
///
/// # Errors
/// When it is no string of a decimal integer in range.
pub fn deserialize_int64<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr + Default,
{
    let Some(text) = Option::<Cow<'de, str>>::deserialize(deserializer)? else {
        return Ok(T::default());
    };
    let digits = text.strip_prefix('-').unwrap_or(&text);
    let plain = digits == "0" || digits.starts_with(|c: char| ('1'..='9').contains(&c));
    text.parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| D::Error::custom(format_args!("{:?} is no 64-bit integer", cut(&text))))
}

/// Reads bytes from hexadecimal of either case; empty for `null`. For
/// `#[serde(deserialize_with)]`, with `default`.
///
/// # Errors
/// When it is no hexadecimal string.
pub fn deserialize_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
    hex::decode(text.as_bytes())
        .map(Bytes::from)
        .map_err(|error| D::Error::custom(format_args!("hexadecimal: {error}")))
}

/// Reads bytes from base64; empty for `null`. For `#[serde(deserialize_with)]`, with `default`.
///
/// # Errors
/// When it is no base64 string.
pub fn deserialize_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
    BASE64_STANDARD
        .decode(text.as_bytes())
        .map(Bytes::from)
        .map_err(|error| D::Error::custom(format_args!("base64: {error}")))
}

/// Reads a value whose `null` means its default.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The first characters of a text, for a message.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<Cow<'de, str>>::deserialize(deserializer)? else {
            return Ok(Self::ZERO);
        };
        if !text.ends_with('Z') {
            let text = cut(&text);
            return Err(D::Error::custom(format_args!(
                "time {text:?} is not in UTC"
            )));
        }
        text.parse().map_err(D::Error::custom)
    }
}

/// The zero time, for a field that is missing.
pub(crate) const fn no_time() -> Time {
    Time::ZERO
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(&deserialize_hex(deserializer)?[..]).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Height {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_int64(deserializer).map(Self::new)
    }
}

const fn no_height() -> Height {
    Height::ZERO
}

impl<'de> Deserialize<'de> for Round {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        nullable(deserializer).map(Self::new)
    }
}

const fn no_round() -> Round {
    Round::ZERO
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PartSetHeaderForm {
    #[serde(deserialize_with = "nullable")]
    total: u32,
    hash: Hash,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BlockIdForm {
    hash: Hash,
    #[serde(deserialize_with = "nullable")]
    parts: PartSetHeaderForm,
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form: BlockIdForm = nullable(deserializer)?;
        Ok(Self {
            hash: form.hash,
            part_set_header: PartSetHeader {
                total: form.parts.total,
                hash: form.parts.hash,
            },
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VersionForm {
    #[serde(deserialize_with = "deserialize_int64")]
    block: u64,
    #[serde(deserialize_with = "deserialize_int64")]
    app: u64,
}

#[derive(Deserialize)]
struct HeaderForm {
    #[serde(default, deserialize_with = "nullable")]
    version: VersionForm,
    #[serde(default, deserialize_with = "nullable")]
    chain_id: String,
    #[serde(default = "no_height")]
    height: Height,
    #[serde(default = "no_time")]
    time: Time,
    #[serde(default)]
    last_block_id: BlockId,
    #[serde(default)]
    last_commit_hash: Hash,
    #[serde(default)]
    data_hash: Hash,
    #[serde(default)]
    validators_hash: Hash,
    #[serde(default)]
    next_validators_hash: Hash,
    #[serde(default)]
    consensus_hash: Hash,
    #[serde(default, deserialize_with = "deserialize_hex")]
    app_hash: Bytes,
    #[serde(default)]
    last_results_hash: Hash,
    #[serde(default)]
    evidence_hash: Hash,
    #[serde(default, deserialize_with = "deserialize_hex")]
    proposer_address: Bytes,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = HeaderForm::deserialize(deserializer)?;
        Ok(Self {
            version: Version {
                block: form.version.block,
                app: form.version.app,
            },
            chain_id: form.chain_id,
            height: form.height,
            time: form.time,
            last_block_id: form.last_block_id,
            last_commit_hash: form.last_commit_hash,
            data_hash: form.data_hash,
            validators_hash: form.validators_hash,
            next_validators_hash: form.next_validators_hash,
            consensus_hash: form.consensus_hash,
            app_hash: form.app_hash,
            last_results_hash: form.last_results_hash,
            evidence_hash: form.evidence_hash,
            proposer_address: form.proposer_address,
        })
    }
}

#[derive(Deserialize)]
struct CommitSigForm {
    #[serde(default, deserialize_with = "nullable")]
    block_id_flag: u8,
    #[serde(default, deserialize_with = "deserialize_hex")]
    validator_address: Bytes,
    #[serde(default = "no_time")]
    timestamp: Time,
    #[serde(default, deserialize_with = "deserialize_base64")]
    signature: Bytes,
}

impl<'de> Deserialize<'de> for CommitSig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = CommitSigForm::deserialize(deserializer)?;
        Ok(Self {
            block_id_flag: match form.block_id_flag {
                1 => BlockIdFlag::Absent,
                2 => BlockIdFlag::Commit,
                3 => BlockIdFlag::Nil,
                flag => BlockIdFlag::Unknown(flag.into()),
            },
            validator_address: form.validator_address,
            timestamp: form.timestamp,
            signature: form.signature,
        })
    }
}

#[derive(Deserialize)]
struct CommitForm {
    #[serde(default = "no_height")]
    height: Height,
    #[serde(default = "no_round")]
    round: Round,
    #[serde(default)]
    block_id: BlockId,
    #[serde(default, deserialize_with = "nullable")]
    signatures: Vec<CommitSig>,
}

impl<'de> Deserialize<'de> for Commit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = CommitForm::deserialize(deserializer)?;
        Ok(Self {
            height: form.height,
            round: form.round,
            block_id: form.block_id,
            signatures: form.signatures,
        })
    }
}

#[derive(Deserialize)]
struct VoteForm {
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    vote_type: i32,
    #[serde(default = "no_height")]
    height: Height,
    #[serde(default = "no_round")]
    round: Round,
    #[serde(default)]
    block_id: BlockId,
    #[serde(default = "no_time")]
    timestamp: Time,
    #[serde(default, deserialize_with = "deserialize_hex")]
    validator_address: Bytes,
    #[serde(default, deserialize_with = "nullable")]
    validator_index: i32,
    #[serde(default, deserialize_with = "deserialize_base64")]
    signature: Bytes,
    #[serde(default, deserialize_with = "deserialize_base64")]
    extension: Bytes,
    #[serde(default, deserialize_with = "deserialize_base64")]
    extension_signature: Bytes,
}

impl<'de> Deserialize<'de> for Vote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = VoteForm::deserialize(deserializer)?;
        Ok(Self {
            vote_type: match form.vote_type {
                1 => SignedMsgType::Prevote,
                2 => SignedMsgType::Precommit,
                32 => SignedMsgType::Proposal,
                number => SignedMsgType::Unknown(number),
            },
            height: form.height,
            round: form.round,
            block_id: form.block_id,
            timestamp: form.timestamp,
            validator_address: form.validator_address,
            validator_index: form.validator_index,
            signature: form.signature,
            extension: form.extension,
            extension_signature: form.extension_signature,
        })
    }
}

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
    DuplicateVote(DuplicateVoteForm),
    #[serde(rename = "tendermint/LightClientAttackEvidence")]
    LightClientAttack(LightClientAttackForm),
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
