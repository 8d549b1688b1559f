//! Ids of blocks, whose hashes are made of their headers.

use std::path::Path;

use perihelion_store::{BlockSave, Store, StoreError, Sync};
use perihelion_types::{FetchedBlock, Hash};
use rocksdb::{DB, Options};

use crate::chain::{Changes, Growing, height, next_block, options};

fn grown(store: &Store, chain: &mut Growing, count: usize) -> Vec<FetchedBlock> {
    let grow = |_| {
        chain.grow(store, &[], &Changes::default(), b"results", Sync::No);
        chain.last.clone().unwrap()
    };
    (0..count).map(grow).collect()
}

fn check(store: &Store, blocks: &[FetchedBlock]) {
    for block in blocks {
        let (at, id) = (block.height(), block.block_id());
        assert_eq!(store.load_block_id(at).unwrap(), Some(id), "{at}");
        assert_eq!(store.load_block_meta(at).unwrap().unwrap().block_id, id);
        let parts = store.load_parts_header(at).unwrap();
        assert_eq!(parts, Some(id.part_set_header));
        let both = store.load_block_and_id(at).unwrap();
        assert_eq!(both, Some((block.block().clone(), id)));
        assert_eq!(store.height_by_hash(&id.hash).unwrap(), Some(at));
    }
}

/// Writes what format 3 had of these blocks instead of what is written now.
fn make_earlier(data: &Path, blocks: &[FetchedBlock]) {
    let path = data.join("perihelion/db");
    let names = DB::list_cf(&Options::default(), &path).unwrap();
    let db = DB::open_cf(&Options::default(), &path, names).unwrap();
    let column = |name| db.cf_handle(name).unwrap();
    for block in blocks {
        let key = block.height().get().to_be_bytes();
        let hash = block.block_id().hash;
        let hash = hash.as_bytes();
        let now = db.get_cf(column("block_meta"), key).unwrap().unwrap();
        let record = [hash, &now[16..]].concat();
        assert_eq!(record.len(), 76);
        db.put_cf(column("block_meta"), key, record).unwrap();
        db.delete_cf(column("hashes"), &hash[..16]).unwrap();
        db.put_cf(column("hashes"), hash, key).unwrap();
    }
    std::fs::write(data.join("perihelion/FORMAT"), "3 perihelion 0.1.0\n").unwrap();
}

#[test]
fn ids_and_hashes_of_format_3_are_read_and_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let mut blocks = grown(&store, &mut chain, 5);
    store.flush().unwrap();
    drop(store);
    make_earlier(folder.path(), &blocks);
    let store = Store::open(folder.path(), &options()).unwrap();
    check(&store, &blocks);
    blocks.extend(grown(&store, &mut chain, 5));
    check(&store, &blocks);
    store.flush().unwrap();
    drop(store);
    let store = Store::open(folder.path(), &options()).unwrap();
    check(&store, &blocks);
    let mut state = chain.state.clone();
    state.consensus_params.evidence.max_age_num_blocks = 0;
    state.consensus_params.evidence.max_age_duration = 0;
    assert_eq!(store.prune(height(8), &state).unwrap(), 7);
    check(&store, &blocks[7..]);
    drop(store);
    let path = folder.path().join("perihelion/db");
    let names = DB::list_cf(&Options::default(), &path).unwrap();
    let db = DB::open_cf(&Options::default(), &path, names).unwrap();
    let hashes = db.iterator_cf(
        db.cf_handle("hashes").unwrap(),
        rocksdb::IteratorMode::Start,
    );
    assert_eq!(hashes.count(), 3, "those of pruned blocks are gone");
}

#[test]
fn another_hash_with_the_same_beginning_finds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let blocks = grown(&store, &mut chain, 2);
    for block in &blocks {
        let mut other = block.block_id().hash.as_bytes().to_vec();
        other[31] ^= 1;
        let other = Hash::try_from(&other[..]).unwrap();
        assert_eq!(store.height_by_hash(&other).unwrap(), None);
    }
    assert_eq!(store.height_by_hash(&Hash::EMPTY).unwrap(), None);
}

#[test]
fn a_block_is_saved_again_but_no_other_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let before = grown(&store, &mut chain, 1).remove(0);
    let state = chain.state.clone();
    let stored = grown(&store, &mut chain, 1).remove(0);
    let other = next_block(&state, Some(&before), &[b"another".as_slice().into()]);
    let save = |block| {
        let save = BlockSave {
            block,
            commit: None,
            extended_commit: None,
            results: None,
        };
        store.save_block(&save, Sync::No)
    };
    save(&stored).unwrap();
    let error = save(&other).unwrap_err();
    let StoreError::OtherBlock {
        stored: id, given, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((*id, *given), (stored.block_id(), other.block_id()));
    assert_eq!(
        store.load_block(height(2)).unwrap().as_ref(),
        Some(stored.block())
    );
}
