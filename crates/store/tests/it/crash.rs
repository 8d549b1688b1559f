//! Power cuts: a copy of the folder, taken while the store is open, holds what was handed to the
//! system; beyond what was synced, the log is cut at any byte.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use perihelion_store::{BlockSave, StateSave, Store, StoreOptions, Sync};
use perihelion_types::Height;
use proptest::prelude::*;

use crate::chain::{Changes, Growing, encoded, height, next_block, next_state, options};

/// Lengths of the log files.
fn log_lengths(folder: &Path) -> BTreeMap<PathBuf, u64> {
    fs::read_dir(folder.join("perihelion/db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .map(|path| (path.clone(), fs::metadata(&path).unwrap().len()))
        .collect()
}

/// The folder as a power cut leaves it: of what each log got after it was last synced, the share
/// `kept` (of 255) is there.
fn cut(folder: &Path, synced: &BTreeMap<PathBuf, u64>, kept: u8) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir_all(copy.path().join("perihelion/db")).unwrap();
    for part in ["perihelion", "perihelion/db"] {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let to = copy.path().join(part).join(path.file_name().unwrap());
                if let Err(error) = fs::copy(&path, &to) {
                    // An outdated file, which goes behind the write that outdates it.
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                    continue;
                }
                if path.extension().is_some_and(|end| end == "log") {
                    let length = fs::metadata(&to).unwrap().len();
                    let safe = synced.get(&path).copied().unwrap_or(0).min(length);
                    let lost = (length - safe) * u64::from(255 - kept) / 255;
                    let file = fs::OpenOptions::new().write(true).open(&to).unwrap();
                    file.set_len(length - lost).unwrap();
                }
            }
        }
    }
    copy
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Wherever the power is cut, the store opens, is contiguous, has all that was synced, and its
    /// state is at the last block or one below.
    #[test]
    fn unsynced_writes_are_dropped_from_the_end_only(
        steps in prop::collection::vec((0_u8..8, 0_usize..3_000), 1..40),
        kept in any::<u8>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &options()).unwrap();
        let mut chain = Growing::new(&store);
        let mut durable = Height::ZERO;
        let mut synced = log_lengths(folder.path());
        let mut states = vec![chain.state.clone()];
        let mut blocks = Vec::new();
        for (kind, length) in steps {
            let sync = if kind == 0 { Sync::Yes } else { Sync::No };
            let txs = [Bytes::from(vec![kind; length])];
            if kind < 5 {
                chain.grow(&store, &txs, &Changes::default(), b"results", sync);
            } else {
                // As a node with an application of its own saves: the block, then the state.
                let block = next_block(&chain.state, chain.last.as_ref(), &txs);
                let state = next_state(&chain.state, &block, &Changes::default());
                let save = BlockSave {
                    block: &block, commit: None, extended_commit: None, results: Some(b"results"),
                };
                store.save_block(&save, Sync::Yes).unwrap();
                durable = block.height();
                synced = log_lengths(folder.path());
                let save = StateSave { state: &state, previous: &chain.state, app_writes: &[] };
                store.save_state(&save, Sync::No).unwrap();
                chain.state = state;
                chain.last = Some(block);
            }
            states.push(chain.state.clone());
            blocks.push(chain.last.clone().unwrap());
            if kind == 0 {
                durable = store.height();
            }
            if kind == 4 {
                store.sync().unwrap();
                durable = store.height();
            }
            if matches!(kind, 0 | 4) {
                synced = log_lengths(folder.path());
            }
        }
        let copy = cut(folder.path(), &synced, kept);
        let top = store.height();
        let after = Store::open(copy.path(), &options()).unwrap();
        prop_assert!(after.height() >= durable && after.height() <= top);
        let state = after.load_state().unwrap().unwrap();
        let at = state.last_block_height;
        prop_assert!(at == after.height() || at.next() == after.height());
        prop_assert_eq!(encoded(&state), encoded(&states[usize::try_from(at.get()).unwrap()]));
        for (index, block) in blocks.iter().enumerate() {
            let h = height(i64::try_from(index).unwrap() + 1);
            let expected = (h <= after.height()).then(|| block.raw().clone());
            prop_assert_eq!(after.load_block_bytes(h).unwrap(), expected);
            prop_assert_eq!(after.load_results(h).unwrap().is_some(), h <= after.height());
        }
    }
}

/// Shows that the model above drops anything at all: a process that ends by SIGKILL loses what it
/// had not handed to the system.
#[test]
fn what_was_never_synced_can_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    chain.grow(&store, &[], &Changes::default(), b"", Sync::Yes);
    let synced = log_lengths(folder.path());
    chain.grow(&store, &[], &Changes::default(), b"", Sync::No);
    let copy = cut(folder.path(), &synced, 255);
    assert_eq!(
        Store::open(copy.path(), &options()).unwrap().height(),
        height(1)
    );
    store.sync().unwrap();
    let copy = cut(folder.path(), &log_lengths(folder.path()), 0);
    assert_eq!(
        Store::open(copy.path(), &options()).unwrap().height(),
        height(2)
    );
}

/// What skips the log is lost together, as far as it was not synced; no write after it is there
/// without it.
#[test]
fn what_skips_the_log_is_lost_from_the_end_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let mut states = vec![chain.state.clone()];
    let mut grow = |count: usize, last: Sync| {
        for left in (0..count).rev() {
            let sync = if left == 0 { last } else { Sync::No };
            let txs = [Bytes::from(vec![7; 600])];
            chain.grow(&store, &txs, &Changes::default(), b"results", sync);
            states.push(chain.state.clone());
        }
    };
    let mut cuts = Vec::new();
    let mut crash = |durable: i64| {
        cuts.push((cut(folder.path(), &log_lengths(folder.path()), 0), durable));
    };
    grow(2, Sync::Yes);
    grow(1, Sync::No);
    store.skip_log();
    grow(3, Sync::No);
    crash(2);
    store.sync().unwrap();
    grow(2, Sync::No);
    crash(6);
    grow(1, Sync::Yes);
    grow(1, Sync::No);
    crash(9);
    store.use_log().unwrap();
    crash(10);
    grow(2, Sync::No);
    crash(10);
    grow(1, Sync::Yes);
    grow(1, Sync::No);
    crash(13);
    for (cut, durable) in cuts {
        let after = Store::open(cut.path(), &options()).unwrap();
        assert_eq!(after.height(), height(durable));
        let state = after.load_state().unwrap().unwrap();
        let at = usize::try_from(durable).unwrap();
        assert_eq!(encoded(&state), encoded(&states[at]));
        for h in 1..=14 {
            let is_there = h <= durable;
            let bytes = after.load_block_bytes(height(h)).unwrap();
            assert_eq!(bytes.is_some(), is_there, "{h} of {durable}");
            let results = after.load_results(height(h)).unwrap();
            assert_eq!(results.is_some(), is_there, "{h} of {durable}");
        }
    }
}

/// RocksDB writes tables out by itself when they are full: never some of what belongs together.
#[test]
fn what_skips_the_log_is_written_out_as_one() {
    const BLOCKS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        memtable_bytes: 1 << 20,
        ..options()
    };
    let store = Store::open(folder.path(), &options).unwrap();
    let mut chain = Growing::new(&store);
    store.skip_log();
    let mut states = vec![chain.state.clone()];
    for block in 0..BLOCKS {
        let mut tx = vec![7; 20_000];
        tx[..8].copy_from_slice(&block.to_be_bytes());
        let txs = [Bytes::from(tx)];
        chain.grow(&store, &txs, &Changes::default(), b"results", Sync::No);
        states.push(chain.state.clone());
    }
    // Files come and go in the background; once that is over, the copy is whole.
    let after = (0..12_000).find_map(|_| {
        let copy = cut(folder.path(), &log_lengths(folder.path()), 0);
        let opened = Store::open(copy.path(), &options).ok();
        let opened = opened?;
        assert_eq!(
            opened.state_height(),
            opened.height(),
            "some of it is there"
        );
        (opened.height() > Height::ZERO).then_some((opened, copy))
    });
    let (after, _copy) = after.expect("tables are written out");
    let top = after.height().get();
    assert!(top < 200, "what is in memory is lost");
    let state = after.load_state().unwrap().unwrap();
    assert_eq!(state.last_block_height.get(), top);
    assert_eq!(
        encoded(&state),
        encoded(&states[usize::try_from(top).unwrap()])
    );
    for h in 1..=200 {
        let bytes = after.load_block_bytes(height(h)).unwrap();
        assert_eq!(bytes.is_some(), h <= top, "{h} of {top}");
        let results = after.load_results(height(h)).unwrap();
        assert_eq!(results.is_some(), h <= top, "{h} of {top}");
    }
}

/// A clean stop loses nothing, whether or not the log was skipped.
#[test]
fn closing_keeps_what_was_not_synced() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    for count in 0..5 {
        if count == 3 {
            store.skip_log();
        }
        chain.grow(&store, &[], &Changes::default(), b"", Sync::No);
    }
    drop(store);
    let copy = cut(folder.path(), &log_lengths(folder.path()), 0);
    assert_eq!(
        Store::open(copy.path(), &options()).unwrap().height(),
        height(5)
    );
}

/// The power is cut anywhere between the move of the base and the end of the deletions: the next
/// opening finishes them.
#[test]
fn pruning_is_finished_after_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let mut hashes = Vec::new();
    for _ in 0..2_300 {
        chain.grow(&store, &[], &Changes::default(), b"", Sync::No);
        hashes.push(chain.last.as_ref().unwrap().block_id().hash);
    }
    store.sync().unwrap();
    let synced = log_lengths(folder.path());
    let mut state = chain.state.clone();
    state.consensus_params.evidence.max_age_num_blocks = 50;
    state.consensus_params.evidence.max_age_duration = 0;
    assert_eq!(store.prune(height(2_290), &state).unwrap(), 2_289);
    let mut bases = std::collections::BTreeSet::new();
    for kept in (0..=255).step_by(5) {
        let copy = cut(folder.path(), &synced, kept);
        let after = Store::open(copy.path(), &options()).unwrap();
        bases.insert(after.base());
        let (base, light) = (after.base(), after.light_base());
        assert!(base == height(1) || base == height(2_290));
        for (index, hash) in hashes.iter().enumerate() {
            let at = height(i64::try_from(index).unwrap() + 1);
            assert_eq!(after.load_block_bytes(at).unwrap().is_some(), at >= base);
            assert_eq!(
                after.height_by_hash(hash).unwrap(),
                (at >= base).then_some(at)
            );
            assert_eq!(after.load_header(at).unwrap().is_some(), at >= light);
            let has_commit = at >= light && at < after.height();
            assert_eq!(after.load_commit(at).unwrap().is_some(), has_commit);
        }
        drop(after);
        // Nothing of what was pruned is left behind, not only out of sight.
        let path = copy.path().join("perihelion/db");
        let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), &path).unwrap();
        let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, names).unwrap();
        let left = usize::try_from(2_300 - base.get() + 1).unwrap();
        for name in ["blocks", "hashes", "results"] {
            let column = db.cf_handle(name).unwrap();
            let count = db.iterator_cf(column, rocksdb::IteratorMode::Start).count();
            assert_eq!(count, left, "{name}");
        }
    }
    assert_eq!(bases.len(), 2, "both sides of the move were seen");
}
