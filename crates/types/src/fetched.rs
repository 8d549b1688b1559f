use bytes::Bytes;

use crate::{Block, BlockId, DecodeError, ExtendedCommit, Height};

/// A block from a peer, decoded once: its exact bytes, what they say and the id that they hash to.
/// Nothing is known yet of whether it is on the chain.
///
/// Invariant: `block` was decoded from `raw`; `block_id` is the header's hash and the part set of
/// `raw`; the body's hashes are the header's.
#[derive(Debug, Clone)]
pub struct FetchedBlock {
    raw: Bytes,
    block: Block,
    block_id: BlockId,
    extended_commit: Option<ExtendedCommit>,
}

impl FetchedBlock {
    /// Checks counts, decodes, hashes header, body and parts.
    ///
    /// # Errors
    /// What CometBFT's decoding refuses, a body that is not its header's included.
    pub fn decode(_raw: Bytes, _extended_commit: Option<Bytes>) -> Result<Self, DecodeError> {
        todo!()
    }

    /// The block's bytes as received (`tendermint.types.Block`, no prefix).
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The decoded block.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Its id: header hash and part-set root of `raw`.
    #[must_use]
    pub fn block_id(&self) -> BlockId {
        self.block_id
    }

    /// Its height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.block.header.height
    }

    /// The extended commit that came with it, unverified.
    #[must_use]
    pub fn extended_commit(&self) -> Option<&ExtendedCommit> {
        self.extended_commit.as_ref()
    }

    /// The same block with its bytes encoded canonically again, when that changes the id: another
    /// encoding of a final block hashes to another part set. `None` when the bytes were canonical.
    #[must_use]
    pub fn reencoded(&self) -> Option<Self> {
        todo!()
    }

    /// The same block without its extended commit.
    #[must_use]
    pub fn without_extended_commit(&self) -> Self {
        Self {
            extended_commit: None,
            ..self.clone()
        }
    }

    /// Memory that it holds, in bytes, for budgets: raw bytes and the decoded form's overhead.
    #[must_use]
    pub fn memory(&self) -> usize {
        todo!()
    }
}
