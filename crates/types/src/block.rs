use bytes::Bytes;

use crate::{Commit, DecodeError, Evidence, Hash, Header, InvalidError};

/// A block's transactions, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Data {
    /// The raw transactions.
    pub txs: Vec<Bytes>,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The header; its hash is the block's.
    pub header: Header,
    /// Transactions.
    pub data: Data,
    /// Evidence of misbehaviour.
    pub evidence: Vec<Evidence>,
    /// The commit of the block before; `None` only if it was absent on the wire.
    pub last_commit: Option<Commit>,
}

impl Data {
    /// Merkle root over the transactions' hashes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        todo!()
    }
}

impl Block {
    /// Decodes a `tendermint.types.Block` without a length prefix, sharing `raw`'s memory, after
    /// its counts have been checked on the raw bytes (see [`crate::bounds`]). Applies
    /// `validate_basic`, as CometBFT's `BlockFromProto` does.
    ///
    /// # Errors
    /// When CometBFT would refuse the bytes.
    pub fn decode(_raw: Bytes) -> Result<Self, DecodeError> {
        todo!()
    }

    /// The canonical encoding, without a length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        todo!()
    }

    /// The header's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.header.hash()
    }

    /// The stateless rules, hashes of the body against the header included.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        todo!()
    }
}
