use bytes::Bytes;

use crate::{PartSetHeader, merkle::Proof};

/// Bytes of a block's part; the last one is shorter.
pub const PART_SIZE: usize = 65_536;

/// One part of a block with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Part {
    pub index: u32,
    pub bytes: Bytes,
    pub proof: Proof,
}

/// A block cut into parts.
#[derive(Debug, Clone)]
pub struct PartSet {
    header: PartSetHeader,
    parts: Vec<Option<Part>>,
}

impl PartSet {
    /// Cuts `data` (not empty) into parts.
    #[must_use]
    pub fn from_data(_data: Bytes) -> Self {
        todo!()
    }

    /// Count and root.
    #[must_use]
    pub fn header(&self) -> PartSetHeader {
        self.header
    }

    /// The part at `index`, if it is there.
    #[must_use]
    pub fn part(&self, index: u32) -> Option<&Part> {
        self.parts.get(index as usize)?.as_ref()
    }
}

/// Count and root of `data`'s parts, without keeping parts or proofs.
#[must_use]
pub fn header_of(_data: &[u8]) -> PartSetHeader {
    todo!()
}
