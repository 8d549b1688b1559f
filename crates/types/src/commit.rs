//! Commits, with and without vote extensions.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;

use crate::{
    BlockId, CommitSignBytes, DecodeError, Hash, Height, InvalidError, Round, Rules, Time, merkle,
    wire,
};

mod extended;
mod usual;

pub use extended::{ExtendedCommit, ExtendedCommitSig, MAX_VOTE_EXTENSION_BYTES};

/// Bytes of an encoded place with an ed25519 signature: room is made for as many at once.
const USUAL_PLACE_BYTES: usize = 108;

/// What a validator's place in a commit stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockIdFlag {
    /// No vote was received.
    Absent,
    /// A precommit for the commit's block id.
    Commit,
    /// A precommit for nil.
    Nil,
    /// Anything else; refused by `validate_basic`.
    Unknown(i32),
}

impl BlockIdFlag {
    /// The flag as the wire has it.
    #[must_use]
    pub const fn to_i32(self) -> i32 {
        match self {
            Self::Absent => 1,
            Self::Commit => 2,
            Self::Nil => 3,
            Self::Unknown(flag) => flag,
        }
    }
}

impl From<i32> for BlockIdFlag {
    fn from(flag: i32) -> Self {
        match flag {
            1 => Self::Absent,
            2 => Self::Commit,
            3 => Self::Nil,
            flag => Self::Unknown(flag),
        }
    }
}

/// One validator's place in a commit, in the order of the validator set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSig {
    /// What the place stands for.
    pub block_id_flag: BlockIdFlag,
    /// 20 bytes, or empty when absent.
    pub validator_address: Bytes,
    /// The vote's time; the zero time when absent.
    pub timestamp: Time,
    /// At most 64 bytes (3,309 in v0.40), empty when absent.
    pub signature: Bytes,
}

/// More than 2/3 of the precommits of one height and round, as block h+1 carries them for block h.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The height of the block that was committed.
    pub height: Height,
    /// The round it was committed in.
    pub round: Round,
    /// The block that was committed.
    pub block_id: BlockId,
    /// One place a validator.
    pub signatures: Vec<CommitSig>,
}

impl CommitSig {
    /// The place of a validator whose vote was not received.
    #[must_use]
    pub const fn absent() -> Self {
        Self {
            block_id_flag: BlockIdFlag::Absent,
            validator_address: Bytes::new(),
            timestamp: Time::ZERO,
            signature: Bytes::new(),
        }
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self, rules: Rules) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("commit signature", reason));
        match self.block_id_flag {
            BlockIdFlag::Absent => {
                if !self.validator_address.is_empty()
                    || self.timestamp != Time::ZERO
                    || !self.signature.is_empty()
                {
                    return invalid("absent, but has an address, a time or a signature".into());
                }
            }
            BlockIdFlag::Commit | BlockIdFlag::Nil => {
                if self.validator_address.len() != 20 {
                    return invalid(format!("address of {} bytes", self.validator_address.len()));
                }
                check_signature("commit signature", &self.signature, rules)?;
            }
            BlockIdFlag::Unknown(flag) => return invalid(format!("unknown block id flag {flag}")),
        }
        Ok(())
    }

    /// Appends the encoded place.
    fn put(&self, bytes: &mut Vec<u8>) {
        wire::put_int(bytes, 1, i64::from(self.block_id_flag.to_i32()));
        wire::put_bytes(bytes, 2, &self.validator_address);
        wire::put_time(bytes, 3, self.timestamp);
        wire::put_bytes(bytes, 4, &self.signature);
    }
}

/// A signature that is there, and not longer than the rules allow.
pub(crate) fn check_signature(
    what: &'static str,
    signature: &[u8],
    rules: Rules,
) -> Result<(), InvalidError> {
    let max = rules.max_signature_bytes();
    match signature.len() {
        0 => Err(InvalidError::new(what, "signature is missing")),
        length if length > max => Err(InvalidError::new(
            what,
            format!("signature of {length} bytes, at most {max} are allowed"),
        )),
        _ => Ok(()),
    }
}

impl Commit {
    /// Merkle root over the encoded signatures.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        merkle::root_of_groups(self.signatures.chunks(merkle::GROUP).map(|places| {
            bytes.clear();
            ends.clear();
            bytes.reserve(places.len() * USUAL_PLACE_BYTES);
            for place in places {
                place.put(&mut bytes);
                ends.push(bytes.len());
            }
            let mut start = 0;
            let leaves: Vec<_> = ends
                .iter()
                .map(|&end| &bytes[std::mem::replace(&mut start, end)..end])
                .collect();
            merkle::leaf_hashes(&leaves)
        }))
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
            self.signatures.is_empty()
        })?;
        if self.height.is_positive() {
            for place in &self.signatures {
                place.validate_basic(rules)?;
            }
        }
        Ok(())
    }

    /// The bytes that validator `index` signed, with their length prefix: a precommit for the
    /// block id, or for nil. `None` outside of the commit, and for a place of an unknown flag.
    ///
    /// For many places of one commit prepare them once with
    /// [`sign_bytes`](Self::sign_bytes).
    #[must_use]
    pub fn vote_sign_bytes(&self, chain_id: &str, index: usize) -> Option<Vec<u8>> {
        let place = self.signatures.get(index)?;
        self.sign_bytes(chain_id).of(place)
    }

    /// The sign bytes of this commit's precommits, prepared.
    #[must_use]
    pub fn sign_bytes(&self, chain_id: &str) -> CommitSignBytes {
        CommitSignBytes::new(chain_id, self.height, self.round, &self.block_id)
    }

    /// The commit of a message, without the stateless rules.
    ///
    /// # Errors
    /// When a hash or a time cannot be represented.
    pub fn from_proto_unchecked(commit: pb::Commit) -> Result<Self, DecodeError> {
        Ok(Self {
            height: Height::new(commit.height),
            round: Round::new(commit.round),
            block_id: commit.block_id.unwrap_or_default().try_into()?,
            signatures: commit
                .signatures
                .into_iter()
                .map(CommitSig::from_proto_unchecked)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The commit of a message, with the stateless rules of `rules`.
    ///
    /// # Errors
    /// When CometBFT would refuse it.
    pub fn from_proto(commit: pb::Commit, rules: Rules) -> Result<Self, DecodeError> {
        let commit = Self::from_proto_unchecked(commit)?;
        // Also at height 0, where `validate_basic` leaves them alone.
        for place in &commit.signatures {
            place.validate_basic(rules)?;
        }
        commit.validate_basic_by(rules)?;
        Ok(commit)
    }
}

/// What commits and extended commits have in common.
fn check_heading(
    height: Height,
    round: Round,
    block_id: &BlockId,
    is_empty: impl FnOnce() -> bool,
) -> Result<(), InvalidError> {
    let invalid = |reason: String| Err(InvalidError::new("commit", reason));
    if height < Height::ZERO {
        return invalid(format!("height {height}"));
    }
    if round < Round::ZERO {
        return invalid(format!("round {round}"));
    }
    if height.is_positive() {
        if block_id.is_nil() {
            return invalid("for nil".into());
        }
        if is_empty() {
            return invalid("no signatures".into());
        }
    }
    Ok(())
}

impl CommitSig {
    fn from_proto_unchecked(place: pb::CommitSig) -> Result<Self, DecodeError> {
        Ok(Self {
            block_id_flag: place.block_id_flag.into(),
            validator_address: place.validator_address,
            timestamp: place.timestamp.try_into()?,
            signature: place.signature,
        })
    }
}

impl TryFrom<pb::CommitSig> for CommitSig {
    type Error = DecodeError;

    fn try_from(place: pb::CommitSig) -> Result<Self, DecodeError> {
        let place = Self::from_proto_unchecked(place)?;
        place.validate_basic(Rules::V038)?;
        Ok(place)
    }
}

impl From<&CommitSig> for pb::CommitSig {
    fn from(place: &CommitSig) -> Self {
        Self {
            block_id_flag: place.block_id_flag.to_i32(),
            validator_address: place.validator_address.clone(),
            timestamp: Some(place.timestamp.into()),
            signature: place.signature.clone(),
        }
    }
}

impl TryFrom<pb::Commit> for Commit {
    type Error = DecodeError;

    fn try_from(commit: pb::Commit) -> Result<Self, DecodeError> {
        Self::from_proto(commit, Rules::V038)
    }
}

impl From<&Commit> for pb::Commit {
    fn from(commit: &Commit) -> Self {
        Self {
            height: commit.height.get(),
            round: commit.round.get(),
            block_id: Some((&commit.block_id).into()),
            signatures: commit.signatures.iter().map(Into::into).collect(),
        }
    }
}
