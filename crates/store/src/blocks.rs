//! Saving and loading blocks, commits and results.

use std::sync::PoisonError;

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use perihelion_types::{
    Block, BlockId, Commit, DecodeError, ExtendedCommit, FetchedBlock, Hash, Header, Height,
    PartSetHeader, Rules,
    gogo::{BlockField, block_field, usual_commit, usual_field},
};
use prost::Message;

use crate::{
    IndexKind, StateSave, Store, StoreError, Sync,
    columns::{Column, height_key, key_height},
    database::Batch,
    packed,
    record::{MetaRecord, hash_key},
    store::{StoredRange, meta},
};

/// Key of the last commit in `commits`, and of the last response in `results`.
const SEEN: &[u8] = b"seen";
const LAST: &[u8] = b"last";

/// What is saved of a block.
#[derive(Debug, Clone, Copy)]
pub struct BlockSave<'a> {
    /// The block; its bytes are stored as they are.
    pub block: &'a FetchedBlock,
    /// The commit for it, where it is known. Block h+1 brings it too; until then this is the only
    /// copy, and consensus cannot go on from this height without one.
    pub commit: Option<SeenCommit<'a>>,
    /// The verified extended commit for it. Kept as long as the block.
    pub extended_commit: Option<&'a ExtendedCommit>,
    /// The encoded `ResponseFinalizeBlock`; `None` when the block has not been executed yet.
    pub results: Option<&'a [u8]>,
}

/// The commit for a block that is saved.
#[derive(Debug, Clone, Copy)]
pub enum SeenCommit<'a> {
    /// By itself.
    Apart(&'a Commit),
    /// The last commit of the block above: its bytes are taken from there.
    LastOf(&'a FetchedBlock),
}

impl<'a> From<&'a Commit> for SeenCommit<'a> {
    fn from(commit: &'a Commit) -> Self {
        Self::Apart(commit)
    }
}

impl SeenCommit<'_> {
    /// Its encoded form; `None` where the block above carries none.
    fn encode(self) -> Option<Vec<u8>> {
        let commit = match self {
            Self::Apart(commit) => commit,
            Self::LastOf(next) => match block_field(next.raw(), BlockField::LastCommit) {
                Ok(Some(bytes)) => return Some(bytes.into()),
                // It was decoded: there is none.
                _ => next.block().last_commit.as_ref()?,
            },
        };
        Some(pb::Commit::from(commit).encode_to_vec())
    }
}

/// What lists of blocks show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMeta {
    /// The block's id.
    pub block_id: BlockId,
    /// Bytes of the block as stored.
    pub block_size: usize,
    /// Its header.
    pub header: Header,
    /// Transactions in it.
    pub num_txs: usize,
}

impl Store {
    /// Saves a block that follows the last one, or any block into an empty store. The block that
    /// is stored already may be saved again, with what was not known of it before.
    ///
    /// # Errors
    /// When the block does not follow, or the disk fails; after the latter the store takes no more
    /// writes.
    pub fn save_block(&self, save: &BlockSave<'_>, sync: Sync) -> Result<(), StoreError> {
        self.save(Some(save), None, sync)
    }

    /// Saves a state, and what the built-in application changed with it.
    ///
    /// # Errors
    /// When the state is above the last block of a store that has blocks, or the disk fails; after
    /// the latter the store takes no more writes.
    pub fn save_state(&self, save: &StateSave<'_>, sync: Sync) -> Result<(), StoreError> {
        self.save(None, Some(save), sync)
    }

    /// Saves both in one batch: after any crash both are there, or neither.
    ///
    /// # Errors
    /// As [`Self::save_block`] and [`Self::save_state`].
    pub fn save_block_and_state(
        &self,
        block: &BlockSave<'_>,
        state: &StateSave<'_>,
        sync: Sync,
    ) -> Result<(), StoreError> {
        self.save(Some(block), Some(state), sync)
    }

    /// Saves the encoded `ResponseFinalizeBlock` of a block that was saved without it.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn save_results(
        &self,
        height: Height,
        results: &[u8],
        sync: Sync,
    ) -> Result<(), StoreError> {
        let block = self.load_block_bytes(height)?.unwrap_or_default();
        let mut batch = Batch::default();
        self.add_results(&mut batch, height, &block, results);
        self.db.write(batch, sync, height)?;
        self.set_range(|_| {});
        Ok(())
    }

    /// Saves the commit for the last block when it was saved without, as restoring a snapshot and
    /// entering consensus do.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn save_seen_commit(&self, commit: &Commit, sync: Sync) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(
            Column::Commits,
            SEEN,
            pb::Commit::from(commit).encode_to_vec(),
        );
        self.db.write(batch, sync, commit.height)
    }

    fn save(
        &self,
        block: Option<&BlockSave<'_>>,
        state: Option<&StateSave<'_>>,
        sync: Sync,
    ) -> Result<(), StoreError> {
        let mut range = self.range();
        let mut batch = Batch::default();
        if let Some(block) = block {
            self.add_block(&mut batch, &mut range, block)?;
        }
        if let Some(state) = state {
            self.add_state(&mut batch, &mut range, state)?;
        }
        let height = range.height.max(range.state);
        self.db.write(batch, sync, height)?;
        self.set_range(|current| *current = range);
        Ok(())
    }

    fn add_block<'a>(
        &self,
        batch: &mut Batch<'a>,
        range: &mut StoredRange,
        save: &BlockSave<'a>,
    ) -> Result<(), StoreError> {
        let block = save.block;
        let height = block.height();
        let key = height_key(height);
        let is_first = range.height == Height::ZERO;
        if !is_first && height == range.height {
            self.check_same_block(height, block.block_id())?;
        } else {
            if !height.is_positive() || (!is_first && height != range.height.next()) {
                return Err(StoreError::NotContiguous {
                    height,
                    last: range.height,
                });
            }
            let record = MetaRecord::of(block);
            batch.put_large(Column::Blocks, key, block.raw());
            self.judge_compression(block.raw());
            batch.put(Column::BlockMeta, key, record.encode());
            batch.put(Column::Hashes, record.hash, key);
            range.height = height;
            if is_first {
                range.base = height;
                range.light_base = height;
                for name in [meta::BASE, meta::SWEPT, meta::LIGHT_BASE] {
                    batch.put(Column::Meta, name, key);
                }
            }
        }
        if let Some(commit) = save.commit.and_then(SeenCommit::encode) {
            batch.put(Column::Commits, SEEN, commit);
        }
        if let Some(commit) = save.extended_commit {
            let bytes = pb::ExtendedCommit::from(commit).encode_to_vec();
            batch.put(Column::ExtendedCommits, key, bytes);
        }
        if let Some(results) = save.results {
            self.add_results(batch, height, block.raw(), results);
        }
        Ok(())
    }

    fn judge_compression(&self, block: &Bytes) {
        let mut judge = self
            .compressible
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(pays) = judge.note(block) {
            self.db.compress_blobs(Column::Blocks, pays);
        }
    }

    fn check_same_block(&self, height: Height, given: BlockId) -> Result<(), StoreError> {
        // Parts that are the same are the same block: no more is read.
        let parts = self.load_parts_header(height)?;
        if parts == Some(given.part_set_header) {
            return Ok(());
        }
        let stored = self.load_block_id(height)?.unwrap_or(BlockId::NIL);
        Err(StoreError::OtherBlock {
            height,
            stored: Box::new(stored),
            given: Box::new(given),
        })
    }

    /// Discarded results stay until they are indexed; the last ones always do.
    fn add_results<'a>(
        &self,
        batch: &mut Batch<'a>,
        height: Height,
        block: &Bytes,
        results: &'a [u8],
    ) {
        let key = height_key(height);
        if self.options.discard_abci_responses {
            batch.put(Column::Results, LAST, [&key, results].concat());
        }
        if !self.options.discard_abci_responses || self.options.index == IndexKind::Kv {
            match packed::pack(results, &transactions(block)) {
                Some(packed) => batch.put(Column::Results, key, packed),
                None => batch.put_large(Column::Results, key, results),
            }
        }
    }

    /// The block's bytes as they were received.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load_block_bytes(&self, height: Height) -> Result<Option<Bytes>, StoreError> {
        if height < self.base() {
            return Ok(None);
        }
        self.load_bytes(Column::Blocks, &height_key(height))
    }

    /// The block.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_block(&self, height: Height) -> Result<Option<Block>, StoreError> {
        self.load_block_bytes(height)?
            .map(|raw| {
                Block::decode_by(raw, Rules::STORED)
                    .map_err(|error| self.corrupt_block(height, &error))
            })
            .transpose()
    }

    /// The block and its id.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_block_and_id(
        &self,
        height: Height,
    ) -> Result<Option<(Block, BlockId)>, StoreError> {
        let (Some(block), Some(parts)) =
            (self.load_block(height)?, self.load_parts_header(height)?)
        else {
            return Ok(None);
        };
        let id = BlockId {
            hash: block.header.hash(),
            part_set_header: parts,
        };
        Ok(Some((block, id)))
    }

    /// The header, of a pruned block too as long as it is within the evidence window.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_header(&self, height: Height) -> Result<Option<Header>, StoreError> {
        if let Some(raw) = self.load_block_bytes(height)? {
            let header = usual_field(&raw, BlockField::Header)
                .and_then(|field| {
                    let field = field.ok_or(DecodeError::Missing("header"))?;
                    Header::try_from(pb::Header::decode(field)?)
                })
                .map_err(|error| self.corrupt_block(height, &error))?;
            return Ok(Some(header));
        }
        let Some(light) = self.load_light(height)? else {
            return Ok(None);
        };
        let header = light
            .header
            .ok_or(DecodeError::Missing("header"))
            .and_then(Header::try_from)
            .map_err(|error| self.db.corrupt(Column::Light, &height_key(height), error))?;
        Ok(Some(header))
    }

    /// The block's id, of a pruned block too as long as it is within the evidence window. Its hash is
    /// computed from the header, so the whole block is read.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_block_id(&self, height: Height) -> Result<Option<BlockId>, StoreError> {
        Ok(self.load_block_meta(height)?.map(|meta| meta.block_id))
    }

    /// Count and root of the block's parts, in one small read.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_parts_header(&self, height: Height) -> Result<Option<PartSetHeader>, StoreError> {
        Ok(self.load_record(height)?.map(|record| record.parts))
    }

    /// What lists of blocks show.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_block_meta(&self, height: Height) -> Result<Option<BlockMeta>, StoreError> {
        let Some(record) = self.load_record(height)? else {
            return Ok(None);
        };
        let header = self.load_header(height)?;
        Ok(header.map(|header| BlockMeta {
            block_id: BlockId {
                hash: header.hash(),
                part_set_header: record.parts,
            },
            block_size: record.size as usize,
            header,
            num_txs: record.num_txs as usize,
        }))
    }

    fn load_record(&self, height: Height) -> Result<Option<MetaRecord>, StoreError> {
        if height < self.light_base() {
            return Ok(None);
        }
        let key = height_key(height);
        let Some(bytes) = self.db.get(Column::BlockMeta, &key)? else {
            return Ok(None);
        };
        MetaRecord::decode(&bytes).map(Some).ok_or_else(|| {
            self.db
                .corrupt(Column::BlockMeta, &key, "not a record of a block")
        })
    }

    /// The height of the block with this header hash.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn height_by_hash(&self, hash: &Hash) -> Result<Option<Height>, StoreError> {
        if hash.is_empty() {
            return Ok(None);
        }
        // Up to format 3 the whole hash is the key.
        for key in [&hash_key(hash)[..], hash.as_bytes()] {
            let Some(value) = self.db.get(Column::Hashes, key)? else {
                continue;
            };
            let height = key_height(&value)
                .ok_or_else(|| self.db.corrupt(Column::Hashes, key, "not a height"))?;
            if height < self.base() {
                return Ok(None);
            }
            let header = self.load_header(height)?;
            if header.is_some_and(|header| header.hash() == *hash) {
                return Ok(Some(height));
            }
        }
        Ok(None)
    }

    /// The commit for the block at `height`, as block `height + 1` carries it: of a pruned block
    /// too as long as it is within the evidence window, and none for the last height.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_commit(&self, height: Height) -> Result<Option<Commit>, StoreError> {
        let Some(raw) = self.load_commit_bytes(height)? else {
            return Ok(None);
        };
        pb::Commit::decode(raw)
            .map_err(DecodeError::from)
            .and_then(|commit| Commit::from_proto(commit, Rules::STORED))
            // The first block carries an empty commit, which is for no block.
            .map(|commit| (commit.height == height).then_some(commit))
            .map_err(|error| self.corrupt_block(height.next(), &error))
    }

    /// The same as its bytes.
    fn load_commit_bytes(&self, height: Height) -> Result<Option<Bytes>, StoreError> {
        if !height.is_positive() {
            return Ok(None);
        }
        if let Some(raw) = self.load_block_bytes(height.next())? {
            return usual_field(&raw, BlockField::LastCommit)
                .map_err(|error| self.corrupt_block(height.next(), &error));
        }
        let light = self.load_light(height)?;
        Ok(light
            .and_then(|light| light.commit)
            .map(|commit| commit.encode_to_vec().into()))
    }

    /// The commit that was saved with the last block; `None` for any other height.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_seen_commit(&self, height: Height) -> Result<Option<Commit>, StoreError> {
        let Some(raw) = self.load_bytes(Column::Commits, SEEN)? else {
            return Ok(None);
        };
        let commit = usual_commit(&raw)
            .and_then(|raw| Ok(pb::Commit::decode(raw)?))
            .and_then(|commit| Commit::from_proto(commit, Rules::STORED))
            .map_err(|error| self.db.corrupt(Column::Commits, SEEN, error))?;
        Ok((commit.height == height).then_some(commit))
    }

    /// The extended commit for the block at `height`.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_extended_commit(
        &self,
        height: Height,
    ) -> Result<Option<ExtendedCommit>, StoreError> {
        let Some(raw) = self.load_extended_commit_bytes(height)? else {
            return Ok(None);
        };
        pb::ExtendedCommit::decode(raw)
            .map_err(DecodeError::from)
            .and_then(|commit| ExtendedCommit::from_proto(commit, Rules::STORED))
            .map(Some)
            .map_err(|error| {
                self.db
                    .corrupt(Column::ExtendedCommits, &height_key(height), error)
            })
    }

    /// The same, encoded.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load_extended_commit_bytes(&self, height: Height) -> Result<Option<Bytes>, StoreError> {
        if height < self.base() {
            return Ok(None);
        }
        self.load_bytes(Column::ExtendedCommits, &height_key(height))
    }

    /// The encoded `ResponseFinalizeBlock` of the block at `height`; when responses are discarded
    /// only the last one is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load_results(&self, height: Height) -> Result<Option<Bytes>, StoreError> {
        if height < self.base() {
            return Ok(None);
        }
        let key = height_key(height);
        if let Some(value) = self.load_bytes(Column::Results, &key)? {
            if !packed::is_packed(&value) {
                return Ok(Some(value));
            }
            // Without it: both were pruned between the two reads.
            let Some(block) = self.load_block_bytes(height)? else {
                return Ok(None);
            };
            return packed::unpack(&value, &transactions(&block))
                .map(Some)
                .map_err(|error| self.db.corrupt(Column::Results, &key, error));
        }
        let last = self.load_recorded_last()?;
        Ok(last.and_then(|(at, results)| (at == height).then_some(results)))
    }

    /// The encoded `ResponseFinalizeBlock` of the last executed block, and its height.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load_last_results(&self) -> Result<Option<(Height, Bytes)>, StoreError> {
        let height = self.height();
        for height in [height, height.prev()] {
            if height.is_positive()
                && let Some(results) = self.load_results(height)?
            {
                return Ok(Some((height, results)));
            }
        }
        self.load_recorded_last()
    }

    fn load_recorded_last(&self) -> Result<Option<(Height, Bytes)>, StoreError> {
        let Some(mut value) = self.load_bytes(Column::Results, LAST)? else {
            return Ok(None);
        };
        let height = key_height(&value)
            .ok_or_else(|| self.db.corrupt(Column::Results, LAST, "no height"))?;
        Ok(Some((height, value.split_off(8))))
    }

    fn load_light(&self, height: Height) -> Result<Option<pb::SignedHeader>, StoreError> {
        if height < self.light_base() {
            return Ok(None);
        }
        let key = height_key(height);
        self.load_bytes(Column::Light, &key)?
            .map(|raw| {
                pb::SignedHeader::decode(raw)
                    .map_err(|error| self.db.corrupt(Column::Light, &key, error))
            })
            .transpose()
    }

    /// The record that outlives a block's body: its header and the commit for it.
    pub(crate) fn light_record(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(raw) = self.load_block_bytes(height)? else {
            return Ok(None);
        };
        let header = usual_field(&raw, BlockField::Header)
            .map_err(|error| self.corrupt_block(height, &error))?
            .unwrap_or_default();
        let commit = self.load_commit_bytes(height)?;
        let light = pb::SignedHeader {
            header: Some(
                pb::Header::decode(header)
                    .map_err(|error| self.corrupt_block(height, &error.into()))?,
            ),
            commit: commit
                .map(pb::Commit::decode)
                .transpose()
                .map_err(|error| self.corrupt_block(height.next(), &error.into()))?,
        };
        Ok(Some(light.encode_to_vec()))
    }

    pub(crate) fn load_bytes(
        &self,
        column: Column,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .db
            .get(column, key)?
            .map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(crate) fn corrupt_block(&self, height: Height, error: &DecodeError) -> StoreError {
        self.db.corrupt(Column::Blocks, &height_key(height), error)
    }
}

/// The encoded transactions of a block, which its results are packed against.
fn transactions(block: &Bytes) -> Bytes {
    let found = block_field(block, BlockField::Data);
    found.ok().flatten().unwrap_or_default()
}
