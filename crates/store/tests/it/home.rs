use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use perihelion_store::{
    AppWrite, FORMAT, StateSave, Store, StoreError, Sync, check_store, lock_store,
};
use perihelion_types::Hash;

use crate::chain::{Changes, Growing, height, options};

fn all_files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| {
            if path.is_dir() {
                all_files(&path)
            } else {
                vec![(path.clone(), fs::read(&path).unwrap())]
            }
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_opening_names_the_lock_and_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let error = Store::open(folder.path(), &options()).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Locked { .. }), "{text}");
    assert!(text.contains("perihelion/LOCK"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    drop(store);
    Store::open(folder.path(), &options()).unwrap();
}

/// As if another process had opened the store last.
fn forget_process(folder: &Path) {
    fs::write(folder.join("perihelion/LOCK"), "1\n").unwrap();
}

#[test]
fn a_lock_is_taken_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    drop(lock_store(folder.path()).unwrap());
    drop(lock_store(&folder.path().join("none")).unwrap());
    assert_eq!(all_files(folder.path()), []);
    let store = Store::open(folder.path(), &options()).unwrap();
    let error = lock_store(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(store);
    let before = all_files(folder.path());
    let lock = lock_store(folder.path()).unwrap();
    let error = Store::open(folder.path(), &options()).err().unwrap();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(lock);
    assert!(all_files(folder.path()) == before);
}

/// Who holds the lock and has not named itself is not the one that had it before.
#[test]
fn a_process_that_is_gone_is_not_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), &options()).unwrap());
    fs::write(folder.path().join("perihelion/LOCK"), "4194999\n").unwrap();
    let _held = lock_store(folder.path()).unwrap();
    let error = lock_store(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is locked by another process"), "{error}");
}

#[test]
fn a_damaged_database_is_refused_with_a_remedy_and_not_written_to() {
    for damage in ["MANIFEST", "CURRENT"] {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path(), &options()).unwrap());
        forget_process(folder.path());
        for (path, mut bytes) in all_files(&folder.path().join("perihelion/db")) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("MANIFEST") && damage == "MANIFEST" {
                bytes[10] ^= 1;
                fs::write(&path, bytes).unwrap();
            } else if name == damage {
                fs::remove_file(&path).unwrap();
            }
        }
        let before = all_files(folder.path());
        let error = Store::open(folder.path(), &options()).err().unwrap();
        assert!(error.is_lost(), "{error}");
        let text = error.to_string();
        assert!(text.contains("perihelion/db"), "{text}");
        assert!(text.contains("remove it and sync again"), "{text}");
        assert!(all_files(folder.path()) == before, "{damage}: {text}");
    }
}

#[test]
fn other_formats_are_refused_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), &options()).unwrap());
    let path = folder.path().join("perihelion/FORMAT");
    let newer = format!("{} perihelion 9.0.0\n", FORMAT + 1);
    for (text, expected) in [
        (
            newer.as_str(),
            "perihelion 9.0.0\", and this program knows formats up to",
        ),
        ("0\n", "is no longer read: remove the folder and sync again"),
        ("", "does not name a format"),
        ("one\n", "does not name a format"),
    ] {
        fs::write(&path, text).unwrap();
        forget_process(folder.path());
        let before = all_files(folder.path());
        for error in [
            Store::open(folder.path(), &options()).err().unwrap(),
            check_store(folder.path(), &Hash::of(b"one")).unwrap_err(),
        ] {
            let message = error.to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
            assert!(message.contains("FORMAT"), "{message}");
            assert!(all_files(folder.path()) == before, "{text:?}");
        }
    }
    fs::remove_file(&path).unwrap();
    let error = Store::open(folder.path(), &options()).err().unwrap();
    assert!(matches!(error, StoreError::UnknownFormat { .. }), "{error}");
}

#[test]
fn a_store_of_an_earlier_format_is_read_and_becomes_one_of_this() {
    for earlier in 1..FORMAT {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path(), &options()).unwrap());
        let path = folder.path().join("perihelion/FORMAT");
        let own = fs::read_to_string(&path).unwrap();
        let text = format!("{earlier} perihelion 0.1.0\n");
        fs::write(&path, &text).unwrap();
        check_store(folder.path(), &Hash::of(b"one")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        drop(Store::open(folder.path(), &options()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), own);
    }
}

#[test]
fn a_missing_column_family_is_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path(), &options()).unwrap());
    let path = folder.path().join("perihelion/db");
    let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), &path).unwrap();
    let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, names).unwrap();
    db.drop_cf("hashes").unwrap();
    drop(db);
    let before = all_files(&path);
    let error = Store::open(folder.path(), &options()).err().unwrap();
    assert!(
        error.to_string().contains("\"hashes\" is missing"),
        "{error}"
    );
    assert_eq!(all_files(&path), before);
}

#[test]
fn a_damaged_block_is_named_with_its_height_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let marker = b"a transaction that can be found again, and whose bytes are then changed";
    for at in 0..3 {
        let tx = if at == 1 {
            Bytes::from_static(marker)
        } else {
            Bytes::from(vec![at; 700])
        };
        chain.grow(&store, &[tx], &Changes::default(), b"", Sync::No);
    }
    store.flush().unwrap();
    drop(store);
    let mut damaged = 0;
    for (path, mut bytes) in all_files(&folder.path().join("perihelion/db")) {
        let is_table = path
            .extension()
            .is_some_and(|end| end == "blob" || end == "sst");
        let found = bytes.windows(16).position(|window| window == &marker[..16]);
        if let (true, Some(at)) = (is_table, found) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1, "the block is stored once");
    let store = Store::open(folder.path(), &options()).unwrap();
    assert!(store.load_block(height(1)).unwrap().is_some());
    let error = store.load_block(height(2)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{text}");
    assert!(text.contains("height 2"), "{text}");
    assert!(text.contains(".blob") || text.contains(".sst"), "{text}");
    assert!(store.load_block(height(3)).unwrap().is_some());
}

/// A store whose blocks, sets and results lie in blob files and tables, more of these than RocksDB
/// looks at when it opens.
fn written(folder: &Path) {
    let store = Store::open(folder, &options()).unwrap();
    let mut chain = Growing::new(&store);
    for at in 0..3 {
        let tx = Bytes::from(vec![at; 700]);
        chain.grow(&store, &[tx], &Changes::default(), b"results", Sync::No);
        store.flush().unwrap();
    }
}

/// The tables and blob files of the database.
fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder.join("perihelion/db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "blob" || end == "sst")
        })
        .collect();
    files.sort();
    files
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copied(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_file_that_is_missing_or_short_is_named_before_anything_is_read() {
    let original = tempfile::tempdir().unwrap();
    written(original.path());
    let files = data_files(original.path());
    let count = |end: &str| {
        let named = files.iter().filter(|file| file.extension().unwrap() == end);
        named.count()
    };
    assert!(count("blob") >= 3, "{files:?}");
    assert!(count("sst") > 16, "RocksDB opens that many by itself");
    for (number, file) in files.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        copied(original.path(), folder.path());
        let name = file.file_name().unwrap().to_str().unwrap();
        let path = folder.path().join("perihelion/db").join(name);
        let whole = fs::read(&path).unwrap();
        if number % 2 == 0 {
            fs::remove_file(&path).unwrap();
        } else {
            fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        }
        let error = Store::open(folder.path(), &options()).err();
        let error = error.unwrap_or_else(|| panic!("opened without {name}"));
        let text = error.to_string();
        assert!(error.is_lost(), "{text}");
        assert!(text.contains(name), "{text}");
        assert!(text.contains("restore the folder from a copy"), "{text}");
        fs::write(&path, whole).unwrap();
        Store::open(folder.path(), &options()).unwrap();
    }
}

/// What goes while the node runs is told by whoever reads it, with the same remedy, and once.
#[test]
fn a_file_that_goes_later_is_named_where_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path());
    let store = Store::open(folder.path(), &options()).unwrap();
    for file in data_files(folder.path()) {
        if file.extension().unwrap() == "blob" {
            fs::remove_file(file).unwrap();
        }
    }
    let error = store.load_block(height(2)).unwrap_err();
    let text = error.to_string();
    assert!(error.is_lost(), "{text}");
    for part in ["height 2", ".blob", "restore the folder from a copy"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(store.report_unreadable(&error));
    let again = store.load_block(height(2)).unwrap_err();
    assert!(!store.report_unreadable(&again));
    let other = store.load_block(height(3)).unwrap_err();
    assert!(store.report_unreadable(&other), "{other}: another file");
}

#[test]
fn a_store_is_bound_to_its_genesis() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    assert_eq!(store.load_genesis_hash().unwrap(), None);
    store.save_genesis_hash(Hash::of(b"one")).unwrap();
    store.save_genesis_hash(Hash::of(b"one")).unwrap();
    let error = store.save_genesis_hash(Hash::of(b"two")).unwrap_err();
    assert!(error.to_string().contains("another home"), "{error}");
    drop(store);
    forget_process(folder.path());
    let before = all_files(folder.path());
    check_store(folder.path(), &Hash::of(b"one")).unwrap();
    let error = check_store(folder.path(), &Hash::of(b"two")).unwrap_err();
    assert!(error.to_string().contains("another home"), "{error}");
    assert!(all_files(folder.path()) == before);
    let store = Store::open(folder.path(), &options()).unwrap();
    assert_eq!(store.load_genesis_hash().unwrap(), Some(Hash::of(b"one")));
}

#[test]
fn the_application_writes_with_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let state = crate::chain::start("chain_basic");
    let write = |key: &[u8], value: Option<&[u8]>| AppWrite {
        key: key.to_vec(),
        value: value.map(Bytes::copy_from_slice),
    };
    let save = |writes: &[AppWrite]| {
        let save = StateSave {
            state: &state,
            previous: &state,
            app_writes: writes,
        };
        store.save_state(&save, Sync::No).unwrap();
    };
    assert!(store.app_is_empty().unwrap());
    save(&[
        write(b"a/1", Some(b"x")),
        write(b"a/2", Some(b"y")),
        write(b"b", Some(b"z")),
        write(b"\xff\xff", Some(b"end")),
    ]);
    save(&[write(b"a/1", None), write(b"a/3", Some(b"w"))]);
    assert!(!store.app_is_empty().unwrap());
    assert_eq!(store.app_get(b"a/1").unwrap(), None);
    assert_eq!(store.app_get(b"b").unwrap(), Some(b"z".to_vec()));
    let entry = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
    let found = store.app_scan(b"a/").unwrap();
    assert_eq!(found, [entry(b"a/2", b"y"), entry(b"a/3", b"w")]);
    assert_eq!(
        store.app_scan(b"\xff").unwrap(),
        [entry(b"\xff\xff", b"end")]
    );
    assert_eq!(store.app_scan(b"").unwrap().len(), 4);
}

#[test]
fn committed_evidence_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let hash = Hash::of(b"evidence");
    assert!(!store.is_evidence_committed(height(3), &hash).unwrap());
    store.mark_evidence_committed(height(3), &hash).unwrap();
    assert!(store.is_evidence_committed(height(3), &hash).unwrap());
    assert!(!store.is_evidence_committed(height(4), &hash).unwrap());
}

/// Bytes that the blob files of the folder's database take.
fn blob_bytes(folder: &Path) -> u64 {
    let files = data_files(folder).into_iter();
    let blobs = files.filter(|file| file.extension().unwrap() == "blob");
    blobs.map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// Trying to compress what gets no shorter takes as long as hashing it.
#[test]
fn blocks_are_compressed_while_that_makes_them_shorter() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let mut seed = 7_u64;
    let mut random = |bytes: usize| -> Vec<u8> {
        let words = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        });
        words.take(bytes).collect()
    };
    let mut before = 0;
    // What a tenth more is to be had of is compressed only where the blocks before it paid.
    for (noise, expected) in [
        (0.0, 0.0..0.1),
        (1.0, 1.0..1.1),
        (0.9, 1.0..1.1),
        (0.0, 0.0..1.0),
        (0.9, 0.89..0.99),
    ] {
        let (count, bytes) = (240, 60_000);
        for _ in 0..count {
            let mut tx = random((f64::from(bytes) * noise) as usize);
            tx.resize(bytes as usize, 7);
            let changes = Changes::default();
            chain.grow(&store, &[tx.into()], &changes, b"results", Sync::No);
        }
        store.flush().unwrap();
        let after = blob_bytes(folder.path());
        let share = (after - before) as f64 / f64::from(count * bytes);
        assert!(expected.contains(&share), "{noise}: {share}");
        before = after;
    }
    for at in 1..=store.height().get() {
        let block = store.load_block(height(at)).unwrap().unwrap();
        assert_eq!(block.header.height.get(), at);
    }
}
