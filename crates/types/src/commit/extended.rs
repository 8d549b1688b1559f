use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use prost::Message;

use super::{BlockIdFlag, Commit, CommitSig, check_heading};
use crate::{
    BlockId, DecodeError, Height, InvalidError, Round, Rules, SignedMsgType, Vote, bounds,
    canonical,
};

/// Longest vote extension, in bytes.
pub const MAX_VOTE_EXTENSION_BYTES: usize = 1024 * 1024;

/// A commit's place with its vote extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedCommitSig {
    /// The place as an ordinary commit has it.
    pub commit_sig: CommitSig,
    /// The application's bytes; empty unless the flag is `Commit`.
    pub extension: Bytes,
    /// Signature over the extension's sign bytes.
    pub extension_signature: Bytes,
}

/// A commit with vote extensions, which the next proposer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedCommit {
    /// The height of the block that was committed.
    pub height: Height,
    /// The round it was committed in.
    pub round: Round,
    /// The block that was committed.
    pub block_id: BlockId,
    /// One place a validator.
    pub extended_signatures: Vec<ExtendedCommitSig>,
}

impl ExtendedCommitSig {
    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self, rules: Rules) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("vote extension", reason));
        self.commit_sig.validate_basic(rules)?;
        if self.commit_sig.block_id_flag == BlockIdFlag::Commit {
            if self.extension.len() > MAX_VOTE_EXTENSION_BYTES {
                return invalid(format!("{} bytes", self.extension.len()));
            }
            if self.extension_signature.len() > rules.max_signature_bytes() {
                return invalid(format!(
                    "signature of {} bytes",
                    self.extension_signature.len()
                ));
            }
        } else if self.extension_signature.is_empty() && !self.extension.is_empty() {
            return invalid("no signature".into());
        }
        Ok(())
    }

    /// Whether the extension is there exactly where it must be: with extensions enabled each
    /// precommit for the block has a signed one, and nothing else has any.
    ///
    /// # Errors
    /// Names what is missing or too much.
    pub fn ensure_extension(&self, enabled: bool) -> Result<(), InvalidError> {
        let invalid = |reason: &str| Err(InvalidError::new("vote extension", reason));
        let signed = !self.extension_signature.is_empty();
        if enabled && self.commit_sig.block_id_flag == BlockIdFlag::Commit {
            if !signed {
                return invalid("the signature is missing");
            }
        } else if signed || !self.extension.is_empty() {
            return invalid("present where there must be none");
        }
        Ok(())
    }
}

impl ExtendedCommit {
    /// Decodes a `tendermint.types.ExtendedCommit` without a length prefix, sharing `raw`'s
    /// memory, after its counts have been checked on the raw bytes.
    ///
    /// # Errors
    /// When CometBFT would refuse the bytes.
    pub fn decode(raw: Bytes) -> Result<Self, DecodeError> {
        Self::decode_by(raw, Rules::V038)
    }

    /// As [`decode`](Self::decode), with the stateless rules of `rules`.
    ///
    /// # Errors
    /// When CometBFT would refuse the bytes.
    pub fn decode_by(raw: Bytes, rules: Rules) -> Result<Self, DecodeError> {
        bounds::check_extended_commit(&raw)?;
        let Some(commit) = Self::decode_usual(&raw) else {
            return Self::from_proto(pb::ExtendedCommit::decode(raw)?, rules);
        };
        for place in &commit.extended_signatures {
            place.validate_basic(rules)?;
        }
        commit.validate_basic_by(rules)?;
        Ok(commit)
    }

    /// The extended commit of a message, with the stateless rules of `rules`.
    ///
    /// # Errors
    /// When CometBFT would refuse it.
    pub fn from_proto(commit: pb::ExtendedCommit, rules: Rules) -> Result<Self, DecodeError> {
        let commit = Self {
            height: Height::new(commit.height),
            round: Round::new(commit.round),
            block_id: commit.block_id.unwrap_or_default().try_into()?,
            extended_signatures: commit
                .extended_signatures
                .into_iter()
                .map(|place| ExtendedCommitSig::from_proto(place, rules))
                .collect::<Result<_, _>>()?,
        };
        commit.validate_basic_by(rules)?;
        Ok(commit)
    }

    /// The canonical encoding, without a length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        pb::ExtendedCommit::from(self).encode_to_vec().into()
    }

    /// The ordinary commit inside.
    #[must_use]
    pub fn to_commit(&self) -> Commit {
        Commit {
            height: self.height,
            round: self.round,
            block_id: self.block_id,
            signatures: self
                .extended_signatures
                .iter()
                .map(|place| place.commit_sig.clone())
                .collect(),
        }
    }

    /// The precommit at `index`, as it was sent; `None` outside of the commit and where it is
    /// absent or its flag unknown.
    #[must_use]
    pub fn vote(&self, index: usize) -> Option<Vote> {
        let place = self.extended_signatures.get(index)?;
        let block_id = match place.commit_sig.block_id_flag {
            BlockIdFlag::Commit => self.block_id,
            BlockIdFlag::Nil => BlockId::NIL,
            BlockIdFlag::Absent | BlockIdFlag::Unknown(_) => return None,
        };
        Some(Vote {
            vote_type: SignedMsgType::Precommit,
            height: self.height,
            round: self.round,
            block_id,
            timestamp: place.commit_sig.timestamp,
            validator_address: place.commit_sig.validator_address.clone(),
            validator_index: i32::try_from(index).ok()?,
            signature: place.commit_sig.signature.clone(),
            extension: place.extension.clone(),
            extension_signature: place.extension_signature.clone(),
        })
    }

    /// The bytes that the extension's signature at `index` covers; `None` outside of the commit.
    #[must_use]
    pub fn extension_sign_bytes(&self, chain_id: &str, index: usize) -> Option<Vec<u8>> {
        let place = self.extended_signatures.get(index)?;
        Some(canonical::vote_extension(
            chain_id,
            self.height,
            self.round,
            &place.extension,
        ))
    }

    /// [`ExtendedCommitSig::ensure_extension`] for every place.
    ///
    /// # Errors
    /// Names what is missing or too much.
    pub fn ensure_extensions(&self, enabled: bool) -> Result<(), InvalidError> {
        self.extended_signatures
            .iter()
            .try_for_each(|place| place.ensure_extension(enabled))
    }

    /// The stateless rules, of v0.38.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        self.validate_basic_by(Rules::V038)
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic_by(&self, rules: Rules) -> Result<(), InvalidError> {
        check_heading(self.height, self.round, &self.block_id, || {
            self.extended_signatures.is_empty()
        })?;
        if self.height.is_positive() {
            for place in &self.extended_signatures {
                place.validate_basic(rules)?;
            }
        }
        Ok(())
    }
}

impl ExtendedCommitSig {
    fn from_proto(place: pb::ExtendedCommitSig, rules: Rules) -> Result<Self, DecodeError> {
        let place = Self {
            commit_sig: CommitSig {
                block_id_flag: place.block_id_flag.into(),
                validator_address: place.validator_address,
                timestamp: place.timestamp.try_into()?,
                signature: place.signature,
            },
            extension: place.extension,
            extension_signature: place.extension_signature,
        };
        place.validate_basic(rules)?;
        Ok(place)
    }
}

impl TryFrom<pb::ExtendedCommitSig> for ExtendedCommitSig {
    type Error = DecodeError;

    fn try_from(place: pb::ExtendedCommitSig) -> Result<Self, DecodeError> {
        Self::from_proto(place, Rules::V038)
    }
}

impl From<&ExtendedCommitSig> for pb::ExtendedCommitSig {
    fn from(place: &ExtendedCommitSig) -> Self {
        Self {
            block_id_flag: place.commit_sig.block_id_flag.to_i32(),
            validator_address: place.commit_sig.validator_address.clone(),
            timestamp: Some(place.commit_sig.timestamp.into()),
            signature: place.commit_sig.signature.clone(),
            extension: place.extension.clone(),
            extension_signature: place.extension_signature.clone(),
        }
    }
}

impl TryFrom<pb::ExtendedCommit> for ExtendedCommit {
    type Error = DecodeError;

    fn try_from(commit: pb::ExtendedCommit) -> Result<Self, DecodeError> {
        Self::from_proto(commit, Rules::V038)
    }
}

impl From<&ExtendedCommit> for pb::ExtendedCommit {
    fn from(commit: &ExtendedCommit) -> Self {
        Self {
            height: commit.height.get(),
            round: commit.round.get(),
            block_id: Some((&commit.block_id).into()),
            extended_signatures: commit.extended_signatures.iter().map(Into::into).collect(),
        }
    }
}
