//! What is told of a block in lists of blocks.

use crate::{BlockId, FetchedBlock, Header};

/// A block's header with its id and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMeta {
    /// Hash of the header and of the parts.
    pub block_id: BlockId,
    /// Bytes of the encoded block.
    pub block_size: u64,
    /// The header.
    pub header: Header,
    /// How many transactions it has.
    pub num_txs: u64,
}

impl BlockMeta {
    /// Of a block as it was received.
    #[must_use]
    pub fn of(block: &FetchedBlock) -> Self {
        Self {
            block_id: block.block_id(),
            block_size: block.raw().len() as u64,
            header: block.block().header.clone(),
            num_txs: block.block().data.len() as u64,
        }
    }
}
