//! Decoding, certifying, and reading from a store.

use std::{hint::black_box, path::Path, sync::Arc, time::Duration};

use perihelion_blocksync_reactor::wire::block_response;
use perihelion_certify::{Anchor, Run, RunVerdict, certify_every, certify_run};
use perihelion_types::{BlockId, FetchedBlock, Hash, Height};

use super::{each_raw, go_on};
use crate::{
    BenchError, Verify,
    chain::{Chain, open_store},
    clock::{repeat, used},
};

/// Blocks and bytes for which a run waits far from the target, with the default window.
const RUN_BLOCKS: usize = 128;
const RUN_BYTES: usize = 8 << 20;

/// Each block decoded and hashed, from bytes of its own as a peer's are.
pub(super) fn decode(chain: &Chain, stop: &dyn Fn() -> bool) -> Result<Duration, BenchError> {
    repeat(|| {
        used(|| {
            for raw in each_raw(chain) {
                go_on(stop)?;
                let block = FetchedBlock::decode(raw.clone(), None);
                black_box(block.map_err(BenchError::chain)?);
            }
            Ok(())
        })
    })
}

/// All blocks certified, in runs as a node makes them.
pub(super) fn certify(
    chain: &Chain,
    verify: Verify,
    stop: &dyn Fn() -> bool,
) -> Result<Duration, BenchError> {
    let blocks: Vec<Arc<FetchedBlock>> = each_raw(chain)
        .map(|raw| FetchedBlock::decode(raw.clone(), None).map(Arc::new))
        .collect::<Result<_, _>>()
        .map_err(BenchError::chain)?;
    let a_block = chain.bytes() / blocks.len();
    let length = (RUN_BYTES / a_block).clamp(1, RUN_BLOCKS);
    let length = length.min(blocks.len() - 1);
    let runs: Vec<Run> = (0..(blocks.len() - 1) / length)
        .map(|number| run_from(chain, &blocks, number * length, length))
        .collect();
    let taken = repeat(|| {
        used(|| {
            for run in &runs {
                go_on(stop)?;
                let (verdict, _) = match verify {
                    Verify::Pinned => certify_run(run),
                    Verify::Every => certify_every(run, &|hash: Hash| {
                        (chain.set.hash() == hash).then(|| Arc::clone(&chain.set))
                    }),
                };
                match verdict {
                    RunVerdict::Certified { blocks, .. } if blocks.len() == length => {}
                    other => return Err(BenchError::chain(format_args!("{other:?}"))),
                }
            }
            Ok(())
        })
    })?;
    // What does not fill a run counts like the rest.
    let certified = runs.len() * length;
    Ok(taken.mul_f64(blocks.len() as f64 / certified as f64))
}

fn run_from(chain: &Chain, blocks: &[Arc<FetchedBlock>], first: usize, length: usize) -> Run {
    let previous = match first.checked_sub(1) {
        None => BlockId::NIL,
        Some(below) => blocks[below].block_id(),
    };
    Run {
        chain_id: chain.chain_id().into(),
        anchor: Anchor {
            height: blocks[first].height(),
            set: Arc::clone(&chain.set),
            next: None,
            confirmed: true,
        },
        previous,
        blocks: blocks[first..first + length].to_vec(),
        closing: Arc::clone(&blocks[first + length]),
    }
}

/// Each block read from a store's tables and made an answer.
pub(super) fn read(
    chain: &Chain,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Duration, BenchError> {
    let store = open_store(folder)?;
    store.flush()?;
    repeat(|| {
        used(|| {
            for height in 1..=chain.blocks.len() {
                go_on(stop)?;
                let height = Height::new(i64::try_from(height).unwrap_or(i64::MAX));
                let raw = store.load_block_bytes(height)?;
                let raw = raw.ok_or_else(|| BenchError::chain("a block is missing"))?;
                black_box(block_response(&raw, None));
            }
            Ok(())
        })
    })
}
