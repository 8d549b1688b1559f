//! What is stored of a block beside its bytes: little, since the block above tells its id.

use bytes::Buf;
use perihelion_types::{BlockId, FetchedBlock, Hash, Height, PartSetHeader};

use crate::{
    StoreError,
    columns::{Column, height_key, key_height},
    database::Database,
};

/// Key of the last block's height and id in `meta`: no block above has it yet.
pub(crate) const LAST_ID: &[u8] = b"last_id";
/// Bytes of an encoded id.
const ID_LEN: usize = 32 + 4 + 32;

/// The record in `block_meta`. The header is in the block, and the id in the header above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetaRecord {
    /// What the block is found by in `hashes`.
    pub(crate) hash: HashKey,
    /// In records up to format 3.
    pub(crate) block_id: Option<BlockId>,
    pub(crate) size: u32,
    pub(crate) num_txs: u32,
}

/// The bytes of a block's hash that are its key in `hashes`: nobody finds two blocks that share
/// these 128 bits, and who looks one up compares the whole hash.
type HashKey = [u8; 16];

impl MetaRecord {
    /// Up to format 3, with the id.
    const EARLIER_LEN: usize = ID_LEN + 4 + 4;
    const LEN: usize = size_of::<HashKey>() + 4 + 4;

    pub(crate) fn of(block: &FetchedBlock) -> Self {
        let saturate = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            hash: hash_key(&block.block_id().hash),
            block_id: None,
            size: saturate(block.raw().len()),
            num_txs: saturate(block.block().data.len()),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(&self.hash);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend_from_slice(&self.num_txs.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let block_id = match bytes.len() {
            Self::LEN => None,
            Self::EARLIER_LEN => Some(decode_id(&mut bytes)?),
            _ => return None,
        };
        let mut hash = HashKey::default();
        match block_id {
            Some(id) => hash = hash_key(&id.hash),
            None => bytes.copy_to_slice(&mut hash),
        }
        Some(Self {
            hash,
            block_id,
            size: bytes.get_u32(),
            num_txs: bytes.get_u32(),
        })
    }

    /// The key of the block with this encoded record in `hashes`.
    pub(crate) fn key_in_hashes(bytes: &[u8]) -> Option<&[u8]> {
        match bytes.len() {
            Self::EARLIER_LEN => bytes.get(..32),
            _ => bytes.get(..size_of::<HashKey>()),
        }
    }
}

pub(crate) fn encode_last_id(height: Height, id: BlockId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + ID_LEN);
    bytes.extend_from_slice(&height_key(height));
    bytes.extend_from_slice(id.hash.as_bytes());
    bytes.extend_from_slice(&id.part_set_header.total.to_be_bytes());
    bytes.extend_from_slice(id.part_set_header.hash.as_bytes());
    bytes
}

/// Takes an id from the front of what has at least so many bytes.
fn decode_id(bytes: &mut &[u8]) -> Option<BlockId> {
    let hash = |bytes: &mut &[u8]| Hash::try_from(&bytes.copy_to_bytes(32)[..]).ok();
    Some(BlockId {
        hash: hash(bytes)?,
        part_set_header: PartSetHeader {
            total: bytes.get_u32(),
            hash: hash(bytes)?,
        },
    })
}

/// Height and id of the last block, `None` where it was stored by format 3 or earlier.
pub(crate) fn load_last_id(db: &Database) -> Result<Option<(Height, BlockId)>, StoreError> {
    db.get(Column::Meta, LAST_ID)?
        .map(|value| {
            let mut bytes = &value[..];
            (bytes.len() == 8 + ID_LEN)
                .then(|| {
                    let height = key_height(bytes)?;
                    bytes.advance(8);
                    Some((height, decode_id(&mut bytes)?))
                })
                .flatten()
                .ok_or_else(|| db.corrupt(Column::Meta, LAST_ID, "not a height and an id"))
        })
        .transpose()
}

/// The id of the block at `height`, which is the last one.
pub(crate) fn load_id_of_last(db: &Database, height: Height) -> Result<BlockId, StoreError> {
    if let Some((at, id)) = load_last_id(db)?
        && at == height
    {
        return Ok(id);
    }
    let key = height_key(height);
    let record = db.get(Column::BlockMeta, &key)?;
    record
        .and_then(|bytes| MetaRecord::decode(&bytes)?.block_id)
        .ok_or_else(|| db.corrupt(Column::BlockMeta, &key, "not a record of the last block"))
}

pub(crate) fn check_same_block(
    height: Height,
    stored: BlockId,
    given: BlockId,
) -> Result<(), StoreError> {
    if stored == given {
        return Ok(());
    }
    Err(StoreError::OtherBlock {
        height,
        stored: Box::new(stored),
        given: Box::new(given),
    })
}

pub(crate) fn hash_key(hash: &Hash) -> HashKey {
    let bytes = hash.as_bytes();
    bytes.first_chunk().copied().unwrap_or_default()
}
