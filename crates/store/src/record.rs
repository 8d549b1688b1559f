//! What is stored of a block beside its bytes: little, since its header is in them.

use bytes::Buf as _;
use perihelion_types::{FetchedBlock, Hash, PartSetHeader};

/// The record in `block_meta`. The header, of which the block's hash is made, is in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetaRecord {
    /// What the block is found by in `hashes`.
    pub(crate) hash: HashKey,
    /// Count and root of its parts.
    pub(crate) parts: PartSetHeader,
    /// Bytes of the block.
    pub(crate) size: u32,
    pub(crate) num_txs: u32,
}

/// The first bytes of a block's hash: its key in `hashes`. To find two blocks that share these 128
/// bits takes 2^64 attempts, and who looks one up compares the whole hash.
type HashKey = [u8; 16];

/// Bytes of a whole hash.
const HASH: usize = 32;
const HASH_KEY: usize = size_of::<HashKey>();

impl MetaRecord {
    const REST: usize = 4 + HASH + 4 + 4;
    const LEN: usize = HASH_KEY + Self::REST;
    /// Up to format 3, with the whole hash.
    const EARLIER_LEN: usize = HASH + Self::REST;

    pub(crate) fn of(block: &FetchedBlock) -> Self {
        let saturate = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let id = block.block_id();
        Self {
            hash: hash_key(&id.hash),
            parts: id.part_set_header,
            size: saturate(block.raw().len()),
            num_txs: saturate(block.block().data.len()),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(&self.hash);
        bytes.extend_from_slice(&self.parts.total.to_be_bytes());
        bytes.extend_from_slice(self.parts.hash.as_bytes());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.num_txs.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (hash, mut rest) = bytes.split_at_checked(Self::key_in_hashes(bytes)?.len())?;
        Some(Self {
            hash: *hash.first_chunk()?,
            parts: PartSetHeader {
                total: rest.get_u32(),
                hash: Hash::try_from(&rest.copy_to_bytes(HASH)[..]).ok()?,
            },
            size: rest.get_u32(),
            num_txs: rest.get_u32(),
        })
    }

    /// The key of the block with this encoded record in `hashes`; `None` where it is no record.
    pub(crate) fn key_in_hashes(bytes: &[u8]) -> Option<&[u8]> {
        match bytes.len() {
            Self::LEN => bytes.get(..HASH_KEY),
            Self::EARLIER_LEN => bytes.get(..HASH),
            _ => None,
        }
    }
}

/// Zeros where there is no hash.
pub(crate) fn hash_key(hash: &Hash) -> HashKey {
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}
