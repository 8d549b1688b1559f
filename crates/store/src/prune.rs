//! Removing old blocks.
//!
//! Order: header and commit of what stays provable are copied; the base moves, durably; only then
//! is anything deleted, in bounded steps whose progress is recorded in the same batches. A crash
//! between any two of them leaves a store that serves from its base on, and the next opening
//! finishes the rest.

use perihelion_types::{Header, Height, State};

use crate::{
    IndexKind, Store, StoreError, Sync,
    columns::{Column, height_key, key_height},
    database::Batch,
    record::MetaRecord,
    store::{load_height, meta},
};

/// Heights of one batch. Larger: a reader's iterator waits longer and the batch grows by 28 bytes
/// a height; smaller: more batches.
const STEP: i64 = 1_000;
/// Bytes of light records that are collected before they are written.
const LIGHT_BATCH_BYTES: usize = 4 << 20;

/// How far the light data has been deleted, in `meta`.
const LIGHT_SWEPT: &[u8] = b"light_swept";

impl Store {
    /// Removes the blocks below `retain`, with their extended commits and results, and returns how
    /// many. Headers, commits and validator sets stay as long as evidence about them counts, by
    /// the parameters, height and time of `state`: until both the number of blocks and the
    /// duration have passed.
    ///
    /// Never goes beyond what has been indexed. It syncs once, so a caller whose application
    /// raises the height to retain with every block calls it every so many blocks.
    ///
    /// # Errors
    /// When `retain` is above the last block, or the disk fails.
    pub fn prune(&self, retain: Height, state: &State) -> Result<u64, StoreError> {
        let range = self.range();
        if retain > range.height {
            return Err(StoreError::RetainAboveHeight {
                retain,
                height: range.height,
            });
        }
        let retain = retain.min(self.indexed_below()?);
        if retain <= range.base {
            return Ok(0);
        }
        let light_base = self.first_within_window(range.light_base, retain, state)?;
        self.copy_light(light_base.max(range.base), retain)?;
        let mut batch = Batch::default();
        batch.put(Column::Meta, meta::BASE, height_key(retain));
        batch.put(Column::Meta, meta::LIGHT_BASE, height_key(light_base));
        self.db.write(batch, Sync::Yes, retain)?;
        self.set_range(|current| {
            current.base = retain;
            current.light_base = light_base;
        });
        self.finish_pruning()?;
        Ok(retain.since(range.base).unsigned_abs())
    }

    /// The first height that the indexer still needs.
    fn indexed_below(&self) -> Result<Height, StoreError> {
        match self.options.index {
            IndexKind::Null => Ok(Height::MAX),
            IndexKind::Kv => Ok(self.index_height()?.next()),
        }
    }

    /// The first height of `from..to` of which evidence still counts; `to` when there is none.
    /// Times rise with heights, so the expired ones come first.
    fn first_within_window(
        &self,
        from: Height,
        to: Height,
        state: &State,
    ) -> Result<Height, StoreError> {
        let (mut low, mut high) = (from, to);
        while low < high {
            let middle = low.plus(high.since(low) / 2);
            let expired = self
                .load_header(middle)?
                .is_none_or(|header| is_expired(&header, state));
            if expired {
                low = middle.next();
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Copies header and commit of the heights `from..to`. What a crash leaves of it is written
    /// again.
    fn copy_light(&self, from: Height, to: Height) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        let mut height = from;
        while height < to {
            if let Some(record) = self.light_record(height)? {
                bytes += record.len();
                batch.put(Column::Light, height_key(height), record);
            }
            if bytes > LIGHT_BATCH_BYTES {
                self.db
                    .write(std::mem::take(&mut batch), Sync::No, height)?;
                bytes = 0;
            }
            height = height.next();
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.db.write(batch, Sync::No, to)
    }

    /// Deletes what is below the base and has not been deleted yet.
    pub(crate) fn finish_pruning(&self) -> Result<(), StoreError> {
        let range = self.range();
        let mut from = load_height(&self.db, meta::SWEPT)?.unwrap_or(range.base);
        let first = from;
        while from < range.base {
            let to = from.plus(STEP).min(range.base);
            self.delete_bodies(from, to)?;
            from = to;
        }
        self.delete_light(range.light_base)?;
        if first.get() / STEP != range.base.get() / STEP {
            let (zero, base) = (height_key(Height::ZERO), height_key(range.base));
            for column in [Column::Blocks, Column::ExtendedCommits, Column::Results] {
                self.db.drop_files(column, &zero, &base, range.base)?;
            }
        }
        Ok(())
    }

    /// One step: bodies and hashes of the heights `from..to`.
    fn delete_bodies(&self, from: Height, to: Height) -> Result<(), StoreError> {
        let (first, end) = (height_key(from), height_key(to));
        let mut batch = Batch::default();
        for column in [Column::Blocks, Column::ExtendedCommits, Column::Results] {
            batch.delete_range(column, first, end);
        }
        for (_, record) in self.db.range(Column::BlockMeta, &first, &end, usize::MAX)? {
            if let Some(key) = MetaRecord::key_in_hashes(&record) {
                batch.delete(Column::Hashes, key);
            }
        }
        batch.put(Column::Meta, meta::SWEPT, end);
        self.db.write(batch, Sync::No, to)
    }

    /// Deletes what only evidence needed, below `light_base`. The last set and the last parameters
    /// at or below it still hold there.
    fn delete_light(&self, light_base: Height) -> Result<(), StoreError> {
        let swept = load_height(&self.db, LIGHT_SWEPT)?.unwrap_or(Height::ZERO);
        if swept >= light_base {
            return Ok(());
        }
        let (first, end) = (height_key(swept), height_key(light_base));
        let mut batch = Batch::default();
        for column in [Column::Light, Column::BlockMeta, Column::Evidence] {
            batch.delete_range(column, first, end);
        }
        for column in [Column::Validators, Column::Params] {
            if let Some((key, _)) = self.db.last_at_or_below(column, &end)?
                && let Some(last) = key_height(&key)
            {
                batch.delete_range(column, height_key(Height::ZERO), height_key(last));
            }
        }
        batch.put(Column::Meta, LIGHT_SWEPT, end);
        self.db.write(batch, Sync::No, light_base)
    }
}

/// Whether evidence about this block is too old, in blocks and in time.
fn is_expired(header: &Header, state: &State) -> bool {
    let params = &state.consensus_params.evidence;
    let blocks = state.last_block_height.since(header.height);
    blocks > params.max_age_num_blocks && age_nanos(header, state) > params.max_age_duration.into()
}

/// Nanoseconds between the block's time and the last block's.
fn age_nanos(header: &Header, state: &State) -> i128 {
    let nanos = |time: perihelion_types::Time| {
        i128::from(time.seconds()) * 1_000_000_000 + i128::from(time.nanos())
    };
    nanos(state.last_block_time) - nanos(header.time)
}
