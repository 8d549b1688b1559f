//! Executing blocks and storing them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use perihelion_state::StageTimes;
use perihelion_store::{BlockSave, Sync};

use super::{go_on, micros};
use crate::{
    BenchError,
    chain::{Chain, executor, open_store},
    clock,
};

/// Blocks that are made durable one by one, at the most.
const DURABLE: usize = 50;
/// And for how long: disks are slow.
const DURABLE_TIME: Duration = Duration::from_secs(1);
/// Passes; each has a store of its own.
const PASSES: usize = 3;

/// What all blocks took: processor time of the thread that applies, by what it did, and of all others.
pub(super) struct Applied {
    pub(super) validate: Duration,
    pub(super) execute: Duration,
    pub(super) store: Duration,
    pub(super) background: Duration,
}

impl Applied {
    /// Processor time of the thread that applies.
    pub(super) fn on_thread(&self) -> Duration {
        self.validate + self.execute + self.store
    }
}

/// The median pass.
pub(super) fn measure(
    chain: &Chain,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Applied, BenchError> {
    let mut passes = (0..PASSES)
        .map(|number| pass(chain, &folder.join(format!("apply-{number}")), stop))
        .collect::<Result<Vec<_>, _>>()?;
    passes.sort_by_key(Applied::on_thread);
    Ok(passes.swap_remove(PASSES / 2))
}

/// Applies all blocks as a node that catches up does.
fn pass(chain: &Chain, folder: &Path, stop: &dyn Fn() -> bool) -> Result<Applied, BenchError> {
    let mut executor = executor(&chain.genesis, open_store(folder)?)?;
    executor.begin_catch_up();
    let mut times = StageTimes::default();
    let (mine, all) = (clock::thread(), clock::process());
    for block in &chain.blocks {
        go_on(stop)?;
        let applied = executor.apply(block)?;
        times.validate += applied.times.validate;
        times.execute += applied.times.execute;
        times.store += applied.times.store;
    }
    let on_thread = clock::thread().saturating_sub(mine);
    executor.end_catch_up()?;
    let ended = clock::thread().saturating_sub(mine);
    let background = clock::process().saturating_sub(all).saturating_sub(ended);
    // The parts were told in time that passed, waits for the disk and for a core included.
    let passed = times.validate + times.execute + times.store;
    let share = on_thread.as_secs_f64() / passed.as_secs_f64();
    Ok(Applied {
        validate: times.validate.mul_f64(share),
        execute: times.execute.mul_f64(share),
        store: times.store.mul_f64(share),
        background,
    })
}

/// Microseconds until one block is durable by itself: what an application that keeps its own state
/// waits for at each block.
pub(super) fn durable_write(
    chain: &Chain,
    folder: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<f64, BenchError> {
    let store = open_store(&folder.join("durable"))?;
    let mut waits = Vec::new();
    let begun = Instant::now();
    for block in chain.blocks.iter().take(DURABLE) {
        go_on(stop)?;
        if begun.elapsed() >= DURABLE_TIME && !waits.is_empty() {
            break;
        }
        let save = BlockSave {
            block: block.fetched(),
            commit: block.commit().map(Into::into),
            extended_commit: None,
            results: Some(&[]),
        };
        let asked = Instant::now();
        store.save_block(&save, Sync::Yes)?;
        waits.push(asked.elapsed());
    }
    waits.sort();
    Ok(micros(waits[waits.len() / 2]))
}
