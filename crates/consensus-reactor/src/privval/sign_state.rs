//! `priv_validator_state.json`: what a validator signed last.

use std::{fmt, fs, io, path::Path};

use bytes::Bytes;
use perihelion_crypto::PublicKey;
use perihelion_proto::tendermint::types as pb;
use perihelion_types::{
    BlockId, Round,
    json::{self, deserialize_base64, deserialize_hex, deserialize_int64},
};
use prost::Message as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::files::{FileError, FileKind, write_atomically};

/// The way out where there is no copy of the newest state. The chain's next height is one at which
/// the validator may have signed: hence one more than the height that the chain has, and the last
/// round.
macro_rules! without_a_copy {
    () => {
        "write {\"height\": \"H\", \"round\": 2147483647, \"step\": 3} into it, H being one more \
         than the height that the chain has now: then it signs above H only, once the chain has \
         come there without it"
    };
}

/// What to do where there is no copy of what a validator signed last, to stand behind "Without a
/// copy,".
pub const WITHOUT_A_COPY: &str = without_a_copy!();

const STATE: FileKind = FileKind {
    what: "validator state",
    missing: concat!(
        "`perihelion init` makes one for a new key. For a key that has signed, restore the newest \
         copy: without it the validator may sign twice at a height, for which it loses a part of \
         its stake and on most chains is barred for good. Without a copy, ",
        without_a_copy!()
    ),
    damaged: concat!(
        "it prevents double signing, for which a validator loses a part of its stake and on most \
         chains is barred for good: restore the newest copy, and never one that is older than the \
         last signature. Without a copy, ",
        without_a_copy!()
    ),
};

/// What a message is in its round, in the order of signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Nothing was signed yet.
    None,
    /// A proposal.
    Propose,
    /// A prevote.
    Prevote,
    /// A precommit.
    Precommit,
}

/// Height, round and step of something signed, in the order of signing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeightRoundStep {
    /// The height.
    pub height: i64,
    /// The round.
    pub round: i32,
    /// The step.
    pub step: Step,
}

impl fmt::Display for HeightRoundStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::None => "nothing",
            Step::Propose => "proposal",
            Step::Prevote => "prevote",
            Step::Precommit => "precommit",
        };
        write!(f, "height {} round {} {step}", self.height, self.round)
    }
}

/// What a validator may have been locked on when it signed last: who is locked on a block prevotes
/// that one whatever is proposed, and proposes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLock {
    /// On nothing.
    None,
    /// On this block or on none.
    Block {
        /// The last round in which it can have been locked on.
        round: Round,
        /// The block.
        block_id: BlockId,
    },
    /// The last signature does not tell.
    Unknown,
}

/// What a validator signed last. Signing refuses whatever is not after it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SignState {
    /// Its height; 0 when nothing was signed yet.
    #[serde(serialize_with = "as_text", deserialize_with = "deserialize_int64")]
    pub height: i64,
    /// Its round.
    pub round: i32,
    /// 1 a proposal, 2 a prevote, 3 a precommit; 0 when nothing was signed yet.
    pub step: i8,
    /// The signature; empty where only the place is known.
    #[serde(
        default,
        skip_serializing_if = "Bytes::is_empty",
        serialize_with = "as_base64",
        deserialize_with = "deserialize_base64"
    )]
    pub signature: Bytes,
    /// What was signed; empty where only the place is known.
    #[serde(
        default,
        skip_serializing_if = "Bytes::is_empty",
        serialize_with = "as_hex",
        deserialize_with = "deserialize_hex"
    )]
    pub signbytes: Bytes,
}

impl SignState {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing, cannot be read or is damaged: its parts must belong together.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let bytes = STATE.read(path)?;
        let state: Self = STATE.parse(path, &bytes)?;
        state
            .check()
            .map_err(|reason| STATE.damaged(path, reason))?;
        Ok(state)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.height < 0 || self.round < 0 || !(0..=3).contains(&self.step) {
            return Err("height, round or step is out of range");
        }
        if self.signature.is_empty() != self.signbytes.is_empty() {
            return Err("of signature and signbytes one is missing");
        }
        if self.signbytes.is_empty() {
            return Ok(());
        }
        let signed = self.signed().ok_or("signbytes are no vote or proposal")?;
        if signed != self.at() {
            return Err("height, round and step are not those of signbytes");
        }
        Ok(())
    }

    /// Fails when the last signature was made by another key.
    ///
    /// # Errors
    /// Then.
    pub fn check_key(&self, path: &Path, key: &PublicKey) -> Result<(), FileError> {
        if self.signbytes.is_empty() || key.verify(&self.signbytes, &self.signature).is_ok() {
            return Ok(());
        }
        let address = key.address();
        Err(STATE.damaged(
            path,
            format!("its signature is not by the validator key, whose address is {address}"),
        ))
    }

    /// Writes the file: atomically, and durable when this returns. Of a link, the file that it
    /// leads to: were the link replaced, a node started from that file would know of old
    /// signatures only.
    ///
    /// # Errors
    /// When it cannot be written; when it is a link that leads nowhere.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_string_pretty(self).expect("a state has a JSON form");
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(_) if !Self::exists(path)? => path.to_owned(),
            Err(source) => {
                return Err(FileError::Write {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        write_atomically(&real, text.as_bytes(), 0o600)
    }

    /// Whether the file is there.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn exists(path: &Path) -> Result<bool, FileError> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(FileError::Read {
                what: STATE.what,
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// The place of the last signature.
    #[must_use]
    pub fn at(&self) -> HeightRoundStep {
        HeightRoundStep {
            height: self.height,
            round: self.round,
            step: match self.step {
                1 => Step::Propose,
                2 => Step::Prevote,
                3 => Step::Precommit,
                _ => Step::None,
            },
        }
    }

    /// What the last signature tells of the validator's lock at its height.
    #[must_use]
    pub fn lock(&self) -> LastLock {
        let at = self.at();
        let (may_be_locked, block_id) = match at.step {
            Step::None => return LastLock::None,
            // What is proposed again had more than 2/3 of a round's prevotes.
            Step::Propose => match decode_proposal(&self.signbytes) {
                Some(proposal) => (i32::try_from(proposal.pol_round).ok(), proposal.block_id),
                None => (at.round.checked_sub(1), None),
            },
            Step::Prevote => {
                let vote = decode_vote(&self.signbytes);
                if vote.as_ref().is_some_and(|vote| vote.block_id.is_none()) {
                    return LastLock::None;
                }
                (at.round.checked_sub(1), vote.and_then(|vote| vote.block_id))
            }
            Step::Precommit => match decode_vote(&self.signbytes) {
                Some(vote) if vote.block_id.is_some() => (Some(at.round), vote.block_id),
                // A lock of an earlier round may have outlived it.
                Some(_) => (at.round.checked_sub(1), None),
                None => (Some(at.round), None),
            },
        };
        let Some(round) = may_be_locked.filter(|round| *round >= 0).map(Round::new) else {
            return LastLock::None;
        };
        match block_id.and_then(block_id_of) {
            Some(block_id) => LastLock::Block { round, block_id },
            None => LastLock::Unknown,
        }
    }

    /// The place that the sign bytes name.
    fn signed(&self) -> Option<HeightRoundStep> {
        let (height, round, step) = match self.step {
            1 => {
                let signed = decode_proposal(&self.signbytes)?;
                let step = (signed.r#type == 32).then_some(Step::Propose)?;
                (signed.height, signed.round, step)
            }
            _ => {
                let signed = decode_vote(&self.signbytes)?;
                let step = match signed.r#type {
                    1 => Step::Prevote,
                    2 => Step::Precommit,
                    _ => return None,
                };
                (signed.height, signed.round, step)
            }
        };
        Some(HeightRoundStep {
            height,
            round: i32::try_from(round).ok()?,
            step,
        })
    }
}

fn block_id_of(id: pb::CanonicalBlockId) -> Option<BlockId> {
    let header = id.part_set_header.unwrap_or_default();
    let id = pb::BlockId {
        hash: id.hash,
        part_set_header: Some(pb::PartSetHeader {
            total: header.total,
            hash: header.hash,
        }),
    };
    BlockId::try_from(id).ok()
}

/// The canonical vote of sign bytes.
pub(super) fn decode_vote(bytes: &[u8]) -> Option<pb::CanonicalVote> {
    pb::CanonicalVote::decode_length_delimited(bytes).ok()
}

/// The canonical proposal of sign bytes.
pub(super) fn decode_proposal(bytes: &[u8]) -> Option<pb::CanonicalProposal> {
    pb::CanonicalProposal::decode_length_delimited(bytes).ok()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_text<S: Serializer>(height: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(height)
}

fn as_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    json::Base64(bytes).serialize(serializer)
}

fn as_hex<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    json::Hex(bytes).serialize(serializer)
}
