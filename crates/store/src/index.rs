//! Transactions by hash and by event, blocks by event: written by a thread of its own, off the way
//! of a block.
//!
//! The indexer reads blocks and results from the store, so nothing is handed to it but the news
//! that something was saved; any amount of news is one wake-up. Its place is recorded in the same
//! batch as what it indexed, and after a crash it goes on from there.

#[cfg(test)]
mod earlier_tests;
mod keys;
mod posting;
mod visit;

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    io,
    sync::Arc,
    thread,
};

use bytes::{Buf, Bytes};
use perihelion_proto::tendermint::abci::{Event, ExecTxResult, ResponseFinalizeBlock};
use perihelion_types::{
    Data, Hash, Height,
    gogo::{BlockField, block_field},
};
use prost::Message;

use crate::{
    IndexKind, Store, StoreError, Sync,
    columns::{Column, height_key, key_height},
    database::Batch,
    store::{load_height, meta},
};
use keys::Kind;
use posting::Posting;
pub use visit::{BlockAttribute, TxAttribute, Values};

/// Heights and bytes of one batch of the index. Larger: it lags further behind, and holds more
/// memory; smaller: more batches compete with those of blocks.
const BATCH_HEIGHTS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// Keys that applications may not use for attributes of their own: searches know them as a
/// transaction's hash, its height and a block's height.
const RESERVED_IN_TXS: [(&[u8], &[u8]); 2] = [(b"tx", b"hash"), (b"tx", b"height")];
const RESERVED_IN_BLOCKS: [(&[u8], &[u8]); 1] = [(b"block", b"height")];

/// A transaction's place on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxLocation {
    /// The block.
    pub height: Height,
    /// The place in the block, from 0.
    pub index: u32,
}

/// The thread that indexes. Dropping it stops the thread after the batch at hand.
#[derive(Debug)]
pub struct Indexer {
    store: Arc<Store>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Indexer {
    /// Starts the thread of `store`; one is enough. With [`IndexKind::Null`] it has nothing to do.
    ///
    /// # Errors
    /// When the system makes no thread.
    pub fn start(store: Arc<Store>) -> io::Result<Self> {
        store.set_stopping(false);
        let worker = Arc::clone(&store);
        let thread = thread::Builder::new()
            .name("indexer".into())
            .spawn(move || run(&worker))?;
        Ok(Self {
            store,
            thread: Some(thread),
        })
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.store.set_stopping(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the indexer panicked");
        }
    }
}

fn run(store: &Store) {
    loop {
        let seen = *store.signal();
        if seen.stopping {
            return;
        }
        match store.index_batch() {
            Ok(true) => {}
            Ok(false) => {
                store.wait_for_change(seen);
            }
            Err(error) if error.is_consequence() => {
                tracing::debug!(%error, "indexing stops; the next start goes on from here");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "indexing stops; the next start goes on from here");
                return;
            }
        }
    }
}

impl Store {
    /// The last height that is indexed; the height below the base when none is yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn index_height(&self) -> Result<Height, StoreError> {
        let cursor = load_height(&self.db, meta::INDEX_CURSOR)?.unwrap_or(Height::ZERO);
        Ok(cursor.max(self.base().prev()).max(Height::ZERO))
    }

    /// Indexes all that can be; what the [`Indexer`]'s thread does, for callers without one.
    ///
    /// # Errors
    /// When a block or its results cannot be read, or the disk fails.
    pub fn index_pending(&self) -> Result<(), StoreError> {
        while self.index_batch()? {}
        Ok(())
    }

    /// Indexes a bounded number of heights; whether there were any.
    fn index_batch(&self) -> Result<bool, StoreError> {
        if self.options.index == IndexKind::Null {
            return Ok(false);
        }
        self.index_batch_of(self.state_height())
    }

    /// `executed` is the state's height from before any results are looked for: those of a block may
    /// be saved with the state, so a later one does not say that there are none.
    fn index_batch_of(&self, executed: Height) -> Result<bool, StoreError> {
        let cursor = self.index_height()?;
        let (mut at, top) = (cursor, self.height());
        let mut entries = Entries::default();
        for _ in 0..BATCH_HEIGHTS {
            let height = at.next();
            if height > top || entries.bytes > BATCH_BYTES {
                break;
            }
            match self.load_results(height)? {
                Some(results) => self.index_block(&mut entries, height, results)?,
                // Executed, but nothing was kept: nothing can be indexed.
                None if height <= executed => {}
                None => break,
            }
            at = height;
        }
        if at == cursor {
            return Ok(false);
        }
        let mut batch = entries.batch;
        if load_height(&self.db, meta::INDEX_CURSOR)?.is_none() {
            let (from, to) = keys::OUTDATED;
            batch.delete_range(Column::IndexEvents, from, to);
        }
        batch.put(Column::Meta, meta::INDEX_CURSOR, height_key(at));
        self.db.write(batch, Sync::No, at)?;
        Ok(true)
    }

    fn index_block(
        &self,
        entries: &mut Entries,
        height: Height,
        results: Bytes,
    ) -> Result<(), StoreError> {
        let results = ResponseFinalizeBlock::decode(results)
            .map_err(|error| self.db.corrupt(Column::Results, &height_key(height), error))?;
        // Pruning waits for the index, so the block is there.
        let data = self.load_block_bytes(height)?.map(|raw| {
            let data = block_field(&raw, BlockField::Data)?;
            Data::decode(data.unwrap_or_default())
        });
        let data = data.transpose().map_err(|error| {
            let key = height_key(height);
            self.db.corrupt(Column::Blocks, &key, error)
        })?;
        let discards = self.options.discard_abci_responses;
        let mut hashes = Vec::new();
        let mut postings = HashMap::new();
        let txs = data.iter().flat_map(Data::iter);
        for (index, (tx, result)) in (0_u32..).zip(txs.zip(&results.tx_results)) {
            let place = TxLocation { height, index };
            let hash = Hash::of(tx);
            let mut value = place.encode().to_vec();
            if discards {
                result
                    .encode(&mut value)
                    .expect("a vector grows as it is written");
            }
            entries.put(Column::IndexTxs, hash.as_bytes().to_vec(), value);
            hashes.extend_from_slice(hash.as_bytes());
            for attribute in indexed_attributes(&result.events, &RESERVED_IN_TXS) {
                let place = (index, attribute.event);
                match postings.entry((attribute.kind, attribute.key, attribute.value)) {
                    Entry::Occupied(posting) => Posting::push(posting.into_mut(), place),
                    Entry::Vacant(posting) => {
                        posting.insert(Posting::new(place));
                    }
                }
            }
        }
        for ((kind, key, value), posting) in postings {
            let suffix = height_key(height);
            let found = posting.encode(&hashes);
            entries.put_attribute(Kind::Txs, &Indexed::name(kind, &key), value, &suffix, found);
        }
        if !hashes.is_empty() {
            entries.put(Column::IndexEvents, keys::hashes_key(height), hashes);
        }
        for attribute in indexed_attributes(&results.events, &RESERVED_IN_BLOCKS) {
            let suffix = keys::block_suffix(height, attribute.event);
            let name = Indexed::name(attribute.kind, &attribute.key);
            entries.put_attribute(Kind::Block, &name, attribute.value, &suffix, Vec::new());
        }
        if discards {
            entries.batch.delete(Column::Results, height_key(height));
        }
        Ok(())
    }

    /// Where the transaction with this hash is: in the last block that has it, once that block is
    /// indexed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find_tx(&self, hash: &Hash) -> Result<Option<TxLocation>, StoreError> {
        Ok(self.find_tx_record(hash)?.map(|(place, _)| place))
    }

    /// The transaction's place and its result, also of a block whose results were discarded or
    /// which was pruned with results discarded.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    pub fn load_tx_result(
        &self,
        hash: &Hash,
    ) -> Result<Option<(TxLocation, ExecTxResult)>, StoreError> {
        let Some((place, kept)) = self.find_tx_record(hash)? else {
            return Ok(None);
        };
        if let Some(results) = self.load_results(place.height)? {
            let results = ResponseFinalizeBlock::decode(results).map_err(|error| {
                self.db
                    .corrupt(Column::Results, &height_key(place.height), error)
            })?;
            let result = results.tx_results.into_iter().nth(place.index as usize);
            return Ok(result.map(|result| (place, result)));
        }
        let Some(kept) = kept else {
            return Ok(None);
        };
        ExecTxResult::decode(kept)
            .map(|result| Some((place, result)))
            .map_err(|error| self.db.corrupt(Column::IndexTxs, hash.as_bytes(), error))
    }

    /// The place, and the result where it was kept with it.
    fn find_tx_record(
        &self,
        hash: &Hash,
    ) -> Result<Option<(TxLocation, Option<Bytes>)>, StoreError> {
        let Some(mut value) = self.load_bytes(Column::IndexTxs, hash.as_bytes())? else {
            return Ok(None);
        };
        let place = TxLocation::decode(&value).ok_or_else(|| {
            self.db.corrupt(
                Column::IndexTxs,
                hash.as_bytes(),
                "not a transaction's place",
            )
        })?;
        let kept = value.split_off(TxLocation::LEN);
        Ok(Some((
            place,
            self.options.discard_abci_responses.then_some(kept),
        )))
    }
}

/// What a batch of the index has so far.
#[derive(Default)]
struct Entries {
    batch: Batch<'static>,
    bytes: usize,
}

impl Entries {
    fn put(&mut self, column: Column, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.batch.put(column, key, value);
    }

    /// `found` is the entry's own value.
    fn put_attribute(
        &mut self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        suffix: &[u8],
        mut found: Vec<u8>,
    ) {
        let (mut key, is_long) = keys::value_prefix(kind, key, value);
        key.extend(suffix);
        if is_long {
            found.extend(value);
        }
        self.put(Column::IndexEvents, key, found);
    }
}

/// An attribute that the application wants indexed. A search names type and key of it as one, with
/// a point between, which stands in either of them too: here they are parted at the first point.
struct Indexed<'a> {
    kind: &'a [u8],
    key: Cow<'a, [u8]>,
    value: &'a [u8],
    /// The event's place among all of the transaction or block, from 1.
    event: u32,
}

impl TxLocation {
    const LEN: usize = 12;

    fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&height_key(self.height));
        bytes[8..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let height = key_height(bytes)?;
        let mut rest = bytes.get(8..Self::LEN)?;
        Some(Self {
            height,
            index: rest.get_u32(),
        })
    }
}

/// The attributes that the application wants indexed, but for those with a reserved key.
fn indexed_attributes<'a>(
    events: &'a [Event],
    reserved: &'a [(&[u8], &[u8])],
) -> impl Iterator<Item = Indexed<'a>> {
    events
        .iter()
        .zip(1_u32..)
        .filter(|(event, _)| !event.r#type.is_empty())
        .flat_map(|(event, number)| {
            event
                .attributes
                .iter()
                .filter(|attribute| attribute.index && !attribute.key.is_empty())
                .map(move |attribute| {
                    let (kind, key) = parted(event.r#type.as_bytes(), &attribute.key);
                    Indexed {
                        kind,
                        key,
                        value: &attribute.value[..],
                        event: number,
                    }
                })
        })
        .filter(|attribute| !attribute.is_any_of(reserved))
}

/// `kind.key`, parted at its first point.
fn parted<'a>(kind: &'a [u8], key: &'a [u8]) -> (&'a [u8], Cow<'a, [u8]>) {
    match kind.iter().position(|byte| *byte == b'.') {
        None => (kind, Cow::Borrowed(key)),
        Some(point) => {
            let behind = [&kind[point + 1..], b".", key].concat();
            (&kind[..point], Cow::Owned(behind))
        }
    }
}

impl Indexed<'_> {
    /// Whether it is one of these.
    fn is_any_of(&self, reserved: &[(&[u8], &[u8])]) -> bool {
        let is = |(kind, key): &(&[u8], &[u8])| self.kind == *kind && *self.key == **key;
        reserved.iter().any(is)
    }

    /// As a search names it.
    fn name(kind: &[u8], key: &[u8]) -> Vec<u8> {
        [kind, b".", key].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreOptions;

    /// Results and state of a block are saved at once, also between two reads of the indexer.
    #[test]
    fn a_block_that_is_executed_meanwhile_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
        let first = Height::new(1);
        store.set_range(|range| range.height = first);
        let executed = store.state_height();
        store.set_range(|range| range.state = first);
        assert!(!store.index_batch_of(executed).unwrap());
        assert_eq!(store.index_height().unwrap(), Height::ZERO);
        // None were kept.
        assert!(store.index_batch_of(first).unwrap());
        assert_eq!(store.index_height().unwrap(), first);
    }
}
