//! The key-value application in memory, over blocks as those of chain c.
#![allow(missing_docs, reason = "the macros of criterion make functions")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use perihelion_abci::{
    Application, KvStore, KvStoreOptions,
    types::{RequestCommit, RequestFinalizeBlock},
};

/// Blocks that are committed before the mean is taken: the map outgrows the caches.
const BLOCKS: u64 = 3000;
const TXS: usize = 160;
const TX_BYTES: usize = 250;

/// A block's transactions, in one piece of memory as those of a block are.
fn transactions(height: u64) -> Vec<Bytes> {
    let mut all = Vec::with_capacity(TXS * TX_BYTES);
    for index in 0..TXS {
        all.extend(format!("{height}.{index}=").bytes());
        all.resize((index + 1) * TX_BYTES, b'x');
    }
    let all = Bytes::from(all);
    let places = (0..TXS).map(|index| index * TX_BYTES);
    places
        .map(|start| all.slice(start..start + TX_BYTES))
        .collect()
}

fn kvstore(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kvstore");
    group.sample_size(10);
    group.bench_function("commit_160", |bencher| {
        bencher.iter_custom(|times| {
            let app = KvStore::in_memory(KvStoreOptions::default());
            let mut all = Duration::ZERO;
            for height in 1..=BLOCKS {
                let request = RequestFinalizeBlock {
                    txs: transactions(height),
                    height: height as i64,
                    ..RequestFinalizeBlock::default()
                };
                app.finalize_block_encoded(&request).expect("it executes");
                let start = Instant::now();
                app.commit(&RequestCommit {}).expect("it commits");
                all += start.elapsed();
            }
            all * u32::try_from(times).unwrap_or(1) / BLOCKS as u32
        });
    });
    group.finish();
}

criterion_group!(benches, kvstore);
criterion_main!(benches);
