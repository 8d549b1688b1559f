use bytes::Bytes;

use crate::{BlockId, Hash, Height, InvalidError, Round, Time};

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
#[allow(missing_docs)]
pub struct ExtendedCommit {
    pub height: Height,
    pub round: Round,
    pub block_id: BlockId,
    pub extended_signatures: Vec<ExtendedCommitSig>,
}

impl Commit {
    /// Merkle root over the encoded signatures.
    #[must_use]
    pub fn hash(&self) -> Hash {
        todo!()
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        todo!()
    }

    /// The bytes that validator `index` signed, with their length prefix: a precommit for the
    /// block id, or for nil. `None` outside of the commit.
    #[must_use]
    pub fn vote_sign_bytes(&self, _chain_id: &str, _index: usize) -> Option<Vec<u8>> {
        todo!()
    }
}

impl ExtendedCommit {
    /// The ordinary commit inside.
    #[must_use]
    pub fn to_commit(&self) -> Commit {
        todo!()
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        todo!()
    }
}
