//! Blocks, headers, commits and results.

use bytes::Bytes;
use perihelion_abci::types::ResponseFinalizeBlock;
use perihelion_store::BlockMeta;
use perihelion_types::{Block, BlockId, Commit, Hash, Header, Height, json::Text};
use prost::Message as _;
use serde::Serialize;

use super::{Answer, CallError, forms, height_in, write};
use crate::{arguments::Arguments, context::Backend};

/// Headers in one answer at most.
const BLOCKCHAIN_LIMIT: i64 = 20;

/// The stored height that a call names.
fn stored(backend: &Backend, arguments: &Arguments) -> Result<Height, CallError> {
    let (base, height) = backend.context.store.base_and_height();
    height_in(base..=height, arguments.integer(0))
}

fn by_hash(backend: &Backend, arguments: &Arguments) -> Result<Option<Height>, CallError> {
    let Some(hash) = arguments.bytes(0) else {
        return Ok(None);
    };
    match Hash::try_from(&hash[..]) {
        Ok(hash) if !hash.is_empty() => Ok(backend.context.store.height_by_hash(&hash)?),
        _ => Ok(None),
    }
}

#[derive(Serialize)]
struct BlockAnswer {
    block_id: BlockId,
    block: Option<Block>,
}

fn block_at(backend: &Backend, height: Option<Height>) -> Answer {
    let store = &backend.context.store;
    let (mut block_id, mut block) = (BlockId::default(), None);
    if let Some(height) = height {
        match store.load_block_and_id(height)? {
            Some((found, id)) => (block_id, block) = (id, Some(found)),
            None => block_id = store.load_block_id(height)?.unwrap_or_default(),
        }
    }
    write(&BlockAnswer { block_id, block })
}

pub(super) fn block(backend: &Backend, arguments: &Arguments) -> Answer {
    block_at(backend, Some(stored(backend, arguments)?))
}

pub(super) fn block_by_hash(backend: &Backend, arguments: &Arguments) -> Answer {
    block_at(backend, by_hash(backend, arguments)?)
}

#[derive(Serialize)]
struct HeaderAnswer {
    header: Option<Header>,
}

fn header_at(backend: &Backend, height: Option<Height>) -> Answer {
    let header = match height {
        Some(height) => backend.context.store.load_header(height)?,
        None => None,
    };
    write(&HeaderAnswer { header })
}

pub(super) fn header(backend: &Backend, arguments: &Arguments) -> Answer {
    header_at(backend, Some(stored(backend, arguments)?))
}

pub(super) fn header_by_hash(backend: &Backend, arguments: &Arguments) -> Answer {
    header_at(backend, by_hash(backend, arguments)?)
}

#[derive(Serialize)]
struct SignedHeader {
    header: Header,
    commit: Option<Commit>,
}

#[derive(Serialize)]
struct CommitAnswer {
    signed_header: SignedHeader,
    canonical: bool,
}

/// The commit of the last height is the one seen here, of others the one that the next block
/// carries. A block may be stored in between, so that the one is looked for after the other.
pub(super) fn commit(backend: &Backend, arguments: &Arguments) -> Answer {
    let height = stored(backend, arguments)?;
    let store = &backend.context.store;
    let Some(header) = store.load_header(height)? else {
        return Ok("null".to_owned());
    };
    let mut canonical = height < store.height();
    let mut commit = if canonical {
        store.load_commit(height)?
    } else {
        store.load_seen_commit(height)?
    };
    if commit.is_none() {
        commit = store.load_commit(height)?;
        canonical |= commit.is_some();
    }
    write(&CommitAnswer {
        signed_header: SignedHeader { header, commit },
        canonical,
    })
}

pub(super) fn results(backend: &Backend, arguments: &Arguments) -> Answer {
    let height = stored(backend, arguments)?;
    let store = &backend.context.store;
    let Some(raw) = store.load_results(height)? else {
        return Err(if store.options().discard_abci_responses {
            CallError::ResultsDiscarded
        } else {
            CallError::NoResults(height)
        });
    };
    write(&forms::results(height, &decode_results(height, raw)?))
}

pub(super) fn decode_results(
    height: Height,
    raw: Bytes,
) -> Result<ResponseFinalizeBlock, CallError> {
    ResponseFinalizeBlock::decode(raw).map_err(|error| CallError::Results {
        height,
        reason: error.to_string(),
    })
}

#[derive(Serialize)]
struct Meta {
    block_id: BlockId,
    block_size: Text<usize>,
    header: Header,
    num_txs: Text<usize>,
}

impl From<BlockMeta> for Meta {
    fn from(meta: BlockMeta) -> Self {
        Self {
            block_id: meta.block_id,
            block_size: Text(meta.block_size),
            header: meta.header,
            num_txs: Text(meta.num_txs),
        }
    }
}

#[derive(Serialize)]
struct Blockchain {
    last_height: Height,
    block_metas: Vec<Option<Meta>>,
}

pub(super) fn blockchain(backend: &Backend, arguments: &Arguments) -> Answer {
    let store = &backend.context.store;
    let (base, height) = store.base_and_height();
    let min = arguments.integer(0).unwrap_or_default();
    let max = arguments.integer(1).unwrap_or_default();
    let (min, max) = window(base.get(), height.get(), min, max)?;
    let metas = (min..=max).rev().map(|height| {
        let meta = store.load_block_meta(Height::new(height))?;
        Ok(meta.map(Meta::from))
    });
    write(&Blockchain {
        last_height: height,
        block_metas: metas.collect::<Result<_, CallError>>()?,
    })
}

/// The heights to show of those from `min` to `max` (0: not given): the upper ones.
fn window(base: i64, height: i64, min: i64, max: i64) -> Result<(i64, i64), CallError> {
    if min < 0 || max < 0 {
        return Err(CallError::Negative);
    }
    let max = if max == 0 { height } else { max.min(height) };
    let min = min.max(1).max(base).max(max - BLOCKCHAIN_LIMIT + 1);
    if min > max {
        return Err(CallError::EmptyRange { min, max });
    }
    Ok((min, max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_is_small_and_inside(
            base in 0..50_i64, more in 0..100_i64, min in any::<i64>(), max in any::<i64>()
        ) {
            let height = base + more;
            if let Ok((low, high)) = window(base, height, min, max) {
                prop_assert!(base <= low && low <= high && high <= height);
                prop_assert!(high - low < BLOCKCHAIN_LIMIT);
                prop_assert!(max == 0 || high <= max);
                prop_assert!(low >= min);
            }
        }
    }

    #[test]
    fn an_empty_store_has_no_window() {
        let error = window(0, 0, 0, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "min height 1 can't be greater than max height 0"
        );
    }
}
