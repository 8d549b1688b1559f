//! Reading.

use std::{borrow::Cow, str::FromStr};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    BlockId, BlockIdFlag, Commit, CommitSig, Hash, Header, Height, PartSetHeader, Round,
    SignedMsgType, Time, Vote, header::Version,
};

mod evidence;
mod params;

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
