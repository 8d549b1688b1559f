//! Block ids and part set headers.

use std::fmt;

use perihelion_proto::tendermint::types as pb;

use crate::{DecodeError, Hash, InvalidError, wire};

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

    /// The bytes that order block ids in evidence: the hash, then the encoded part set header.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let mut key = self.hash.as_bytes().to_vec();
        key.extend(wire::part_set_header(&self.part_set_header));
        key
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

/// Hash, number of parts and the first six bytes of the parts' root (zeros when there is none).
impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fingerprint = [0; 6];
        let hash = self.part_set_header.hash.as_bytes();
        let length = hash.len().min(6);
        fingerprint[..length].copy_from_slice(&hash[..length]);
        write!(
            f,
            "{}:{}:{}",
            self.hash,
            self.part_set_header.total,
            hex::encode_upper(fingerprint)
        )
    }
}

impl TryFrom<pb::PartSetHeader> for PartSetHeader {
    type Error = DecodeError;

    fn try_from(header: pb::PartSetHeader) -> Result<Self, DecodeError> {
        Ok(Self {
            total: header.total,
            hash: Hash::try_from(&header.hash[..])?,
        })
    }
}

impl From<&PartSetHeader> for pb::PartSetHeader {
    fn from(header: &PartSetHeader) -> Self {
        Self {
            total: header.total,
            hash: header.hash.to_bytes(),
        }
    }
}

impl TryFrom<pb::BlockId> for BlockId {
    type Error = DecodeError;

    fn try_from(id: pb::BlockId) -> Result<Self, DecodeError> {
        Ok(Self {
            hash: Hash::try_from(&id.hash[..])?,
            part_set_header: id.part_set_header.unwrap_or_default().try_into()?,
        })
    }
}

impl From<&BlockId> for pb::BlockId {
    fn from(id: &BlockId) -> Self {
        Self {
            hash: id.hash.to_bytes(),
            part_set_header: Some((&id.part_set_header).into()),
        }
    }
}
