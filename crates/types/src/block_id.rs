use crate::{Hash, InvalidError};

/// Number of parts of a block and the Merkle root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PartSetHeader {
    /// Parts of 65,536 bytes each, the last one shorter.
    pub total: u32,
    /// Root over the parts.
    pub hash: Hash,
}

/// A block's identity: its header's hash and its part set's. Empty for nil.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BlockId {
    /// Hash of the header.
    pub hash: Hash,
    /// The part set's header; covers every byte of the block.
    pub part_set_header: PartSetHeader,
}

impl BlockId {
    /// The id of nil, and of the block before the first.
    pub const NIL: Self = Self {
        hash: Hash::EMPTY,
        part_set_header: PartSetHeader {
            total: 0,
            hash: Hash::EMPTY,
        },
    };

    /// Whether it is nil.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }

    /// Whether it names a block: both hashes of 32 bytes and at least one part.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.hash.is_empty()
            && self.part_set_header.total > 0
            && !self.part_set_header.hash.is_empty()
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// None today: the types hold only what passes.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        Ok(())
    }
}
