//! Transactions that blocks have, and searches for them and for blocks.

use std::time::{Duration, Instant};

use bytes::Bytes;
use perihelion_abci::types::ExecTxResult;
use perihelion_events::{Query, query::MAX_QUERY_BYTES};
use perihelion_store::{IndexKind, TxLocation};
use perihelion_types::{
    Block, BlockId, Hash, Height,
    json::{Base64, Text},
    merkle::{Proof, Tree},
    tx::{self, TxProof},
};
use prost::Message as _;
use serde::Serialize;

use super::{Answer, CallError, blocks::decode_results, forms, write};
use crate::{
    arguments::Arguments,
    context::Backend,
    search::{self, Found},
};

/// Results on a page by default.
const DEFAULT_PER_PAGE: usize = 30;
/// Results on a page at most.
const MAX_PER_PAGE: usize = 100;
/// Bytes of a query for blocks at most. CometBFT has no bound for these; one of a megabyte has
/// hundreds of thousands of conditions, all of which are looked at before anything is counted.
const MAX_BLOCK_QUERY_BYTES: usize = 4 << 10;

#[derive(Serialize)]
struct ProofForm<'a> {
    root_hash: Hash,
    data: Base64<'a>,
    proof: &'a Proof,
}

#[derive(Serialize)]
struct TxForm<'a> {
    hash: Hash,
    height: Height,
    index: u32,
    tx_result: forms::TxResultForm<'a>,
    tx: Base64<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofForm<'a>>,
}

/// A transaction, with what became of it.
struct Executed {
    hash: Hash,
    place: TxLocation,
    tx: Bytes,
    result: ExecTxResult,
    proof: Option<TxProof>,
}

impl Executed {
    fn form(&self) -> TxForm<'_> {
        TxForm {
            hash: self.hash,
            height: self.place.height,
            index: self.place.index,
            tx_result: forms::TxResultForm::of(&self.result),
            tx: Base64(&self.tx),
            proof: self.proof.as_ref().map(|proof| ProofForm {
                root_hash: proof.root_hash,
                data: Base64(&proof.data),
                proof: &proof.proof,
            }),
        }
    }
}

/// The block that was looked at last: neighbours on a page are often of one block.
#[derive(Default)]
struct LastBlock {
    height: Option<Height>,
    txs: Vec<Bytes>,
    results: Vec<ExecTxResult>,
    /// Of `txs`, once a proof was asked for.
    tree: Option<Tree>,
}

impl LastBlock {
    fn enter(&mut self, backend: &Backend, height: Height) -> Result<(), CallError> {
        if self.height == Some(height) {
            return Ok(());
        }
        let store = &backend.context.store;
        let block = store.load_block(height)?;
        self.txs = block.map_or_else(Vec::new, |block| block.data.to_vec());
        self.results = match store.load_results(height)? {
            None => Vec::new(),
            Some(raw) => decode_results(height, raw)?.tx_results,
        };
        self.tree = None;
        self.height = Some(height);
        Ok(())
    }

    /// What there is of a transaction; `None` where its block or result is gone.
    fn at(
        &mut self,
        backend: &Backend,
        place: TxLocation,
        prove: bool,
    ) -> Result<Option<Executed>, CallError> {
        self.enter(backend, place.height)?;
        let index = usize::try_from(place.index).unwrap_or(usize::MAX);
        let Some(tx) = self.txs.get(index) else {
            return Ok(None);
        };
        let hash = Hash::of(tx);
        let result = match self.results.get(index) {
            Some(result) => Some(result.clone()),
            // Where results are discarded, each stands with its transaction.
            None => {
                let found = backend.context.store.load_tx_result(&hash)?;
                found.map(|(_, result)| result)
            }
        };
        let proof = if prove {
            let tree = self.tree.get_or_insert_with(|| tx::tree(&self.txs));
            TxProof::from_tree(tree, &self.txs, index)
        } else {
            None
        };
        Ok(result.map(|result| Executed {
            hash,
            place,
            tx: tx.clone(),
            result,
            proof,
        }))
    }
}

/// Whether the node keeps an index.
fn is_indexed(backend: &Backend) -> bool {
    backend.context.store.options().index != IndexKind::Null
}

pub(super) fn tx(backend: &Backend, arguments: &Arguments) -> Answer {
    if !is_indexed(backend) {
        return Err(CallError::NoTxIndex);
    }
    let given = arguments.bytes(0).filter(|hash| !hash.is_empty());
    let given = given.ok_or(CallError::NoTxHash)?;
    let not_found = || CallError::NoTx(hex::encode_upper(given));
    let hash = Hash::try_from(&given[..]).map_err(|_| not_found())?;
    let place = backend
        .context
        .store
        .find_tx(&hash)?
        .ok_or_else(not_found)?;
    let found = LastBlock::default().at(backend, place, arguments.flag(1))?;
    write(&found.ok_or_else(not_found)?.form())
}

#[derive(Serialize)]
struct TxSearch<'a> {
    txs: Vec<TxForm<'a>>,
    total_count: Text<usize>,
}

pub(super) fn tx_search(backend: &Backend, arguments: &Arguments) -> Answer {
    if !is_indexed(backend) {
        return Err(CallError::NoTxIndex);
    }
    let text = arguments.text(0);
    if text.len() > MAX_QUERY_BYTES {
        return Err(CallError::LongQuery);
    }
    let query = Query::parse(text)?;
    let end = Instant::now() + backend.search.time;
    let mut places = search::txs(&backend.context.store, &query, backend.search)?;
    if is_descending(arguments.text(4), false)? {
        places.reverse();
    }
    let shown = page(places.len(), arguments, 2)?;
    let prove = arguments.flag(1);
    let (mut block, mut room) = (LastBlock::default(), Room::of(backend, end));
    let mut found = Vec::new();
    for place in &places[shown] {
        room.enter()?;
        if let Some(tx) = block.at(backend, *place, prove)? {
            room.take(tx.tx.len() + tx.result.encoded_len())?;
            found.push(tx);
        }
    }
    write(&TxSearch {
        txs: found.iter().map(Executed::form).collect(),
        total_count: Text(places.len()),
    })
}

#[derive(Serialize)]
struct BlockForm {
    block_id: BlockId,
    block: Block,
}

#[derive(Serialize)]
struct BlockSearch {
    blocks: Vec<BlockForm>,
    total_count: Text<usize>,
}

pub(super) fn block_search(backend: &Backend, arguments: &Arguments) -> Answer {
    if !is_indexed(backend) {
        return Err(CallError::NoBlockIndex);
    }
    let text = arguments.text(0);
    if text.len() > MAX_BLOCK_QUERY_BYTES {
        return Err(CallError::LongBlockQuery(MAX_BLOCK_QUERY_BYTES));
    }
    let query = Query::parse(text)?;
    let end = Instant::now() + backend.search.time;
    let store = &backend.context.store;
    let found = search::blocks(store, &query, backend.search)?;
    let is_descending = is_descending(arguments.text(3), true)?;
    let total = found.count();
    let shown = page(total, arguments, 1)?;
    let (mut blocks, mut room) = (Vec::new(), Room::of(backend, end));
    for index in shown {
        room.enter()?;
        let index = if is_descending {
            total - 1 - index
        } else {
            index
        };
        let Some(height) = found.at(index) else {
            continue;
        };
        if let Some(meta) = store.load_block_meta(height)? {
            room.take(meta.block_size)?;
            if let Some(block) = store.load_block(height)? {
                let block_id = meta.block_id;
                blocks.push(BlockForm { block_id, block });
            }
        }
    }
    write(&BlockSearch {
        blocks,
        total_count: Text(total),
    })
}

impl Found {
    fn count(&self) -> usize {
        match self {
            Self::Some(heights) => heights.len(),
            Self::All(range) => {
                let count = range.end().since(*range.start()).saturating_add(1);
                usize::try_from(count).unwrap_or(0)
            }
        }
    }

    fn at(&self, index: usize) -> Option<Height> {
        match self {
            Self::Some(heights) => heights.get(index).copied(),
            Self::All(range) => {
                let height = range.start().plus(i64::try_from(index).ok()?);
                range.contains(&height).then_some(height)
            }
        }
    }
}

/// Bytes that the results on a page may still take, and time: a page is made in memory, of whole
/// blocks.
struct Room {
    most: usize,
    left: usize,
    time: Duration,
    /// When the search and its page are to end.
    end: Instant,
    entered: bool,
}

impl Room {
    const fn of(backend: &Backend, end: Instant) -> Self {
        let most = backend.max_page_bytes;
        Self {
            most,
            left: most,
            time: backend.search.time,
            end,
            entered: false,
        }
    }

    /// Before each result: but for the first one, which a page always has, it must be in time.
    fn enter(&mut self) -> Result<(), CallError> {
        if self.entered && Instant::now() >= self.end {
            return Err(CallError::SlowPage(self.time));
        }
        self.entered = true;
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), CallError> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(CallError::LargePage(self.most))?;
        Ok(())
    }
}

/// Which way results are ordered.
fn is_descending(order: &str, by_default: bool) -> Result<bool, CallError> {
    match order {
        "asc" => Ok(false),
        "desc" => Ok(true),
        "" => Ok(by_default),
        _ => Err(CallError::Order),
    }
}

/// The results on the page that is asked for, its number and size being the arguments from `first`
/// on.
fn page(
    total: usize,
    arguments: &Arguments,
    first: usize,
) -> Result<std::ops::Range<usize>, CallError> {
    let per_page = match arguments.integer(first + 1) {
        Some(wanted @ 1..) => usize::try_from(wanted).map_or(MAX_PER_PAGE, |n| n.min(MAX_PER_PAGE)),
        _ => DEFAULT_PER_PAGE,
    };
    let pages = total.div_ceil(per_page).max(1);
    let page = match arguments.integer(first) {
        None => 1,
        Some(page) => usize::try_from(page)
            .ok()
            .filter(|page| (1..=pages).contains(page))
            .ok_or(CallError::Page { pages, page })?,
    };
    let skipped = (page - 1) * per_page;
    Ok(skipped.min(total)..(skipped + per_page).min(total))
}
