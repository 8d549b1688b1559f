use perihelion_certify::{verify_commit, verify_extended_commit};
use perihelion_types::BlockIdFlag;

use super::*;

/// Opens the store again and checks that every block, its commit and the state are there.
fn reopen(made: &MadeChain, shape: &ChainShape) -> (Arc<Store>, State) {
    let store = Store::open(&made.home.join("data"), &StoreOptions::default()).unwrap();
    let state = store.load_state().unwrap().unwrap();
    assert_eq!(store.height(), made.height);
    assert_eq!(store.base(), Height::new(shape.initial_height));
    assert_eq!(state.last_block_height, made.height);
    assert_eq!(state.last_block_id, made.last_block_id);
    assert_eq!(state.app_hash, made.app_hash);
    for height in shape.initial_height..=made.height.get() {
        let height = Height::new(height);
        let set = store.load_validators(height).unwrap().unwrap();
        let id = store.load_block_id(height).unwrap().unwrap();
        let commit = match store.load_commit(height).unwrap() {
            Some(commit) => commit,
            None => store.load_seen_commit(height).unwrap().unwrap(),
        };
        verify_commit(&shape.chain_id, &set, id, height, &commit).unwrap();
    }
    (Arc::new(store), state)
}

#[test]
fn equal_shapes_give_equal_chains_that_open_again() {
    let folder = tempfile::tempdir().unwrap();
    let shape = ChainShape::new("twice", 4, 12);
    let first = make_home(&folder.path().join("1"), &shape).unwrap();
    let second = make_home(&folder.path().join("2"), &shape).unwrap();
    assert_eq!(first.height, Height::new(12));
    assert_eq!(first.last_block_id, second.last_block_id);
    let (store, _) = reopen(&first, &shape);
    let block = store.load_block(Height::new(3)).unwrap().unwrap();
    assert_eq!(block.data.len(), 1);
    assert_eq!(block.data.to_vec()[0].len(), 100);
    let other = ChainShape { seed: 2, ..shape };
    let third = make_home(&folder.path().join("3"), &other).unwrap();
    assert_ne!(first.last_block_id, third.last_block_id);
}

#[test]
fn validators_change_some_are_absent_and_rounds_pass() {
    let folder = tempfile::tempdir().unwrap();
    let shape = ChainShape {
        churn: 2,
        absent: 0.2,
        rounds: 3,
        initial_height: 100,
        ..ChainShape::new("mixed", 20, 24)
    };
    let made = make_home(folder.path(), &shape).unwrap();
    assert_eq!(made.initial_height, Height::new(100));
    assert_eq!(made.height, Height::new(123));
    let (store, state) = reopen(&made, &shape);
    assert!(state.last_height_validators_changed > Height::new(102));
    let (mut rounds, mut absent) = (Vec::new(), 0);
    for height in 100..123 {
        let commit = store.load_commit(Height::new(height)).unwrap().unwrap();
        rounds.push(commit.round.get());
        let is_absent = |place: &&CommitPlace| place.block_id_flag == BlockIdFlag::Absent;
        absent += commit.signatures.iter().filter(is_absent).count();
    }
    rounds.sort_unstable();
    rounds.dedup();
    assert_eq!(rounds, [0, 1, 2]);
    assert_eq!(absent, 23 * 4);
    let sizes: Vec<usize> = [100, 112, 123]
        .map(|height| {
            store
                .load_validators(Height::new(height))
                .unwrap()
                .unwrap()
                .len()
        })
        .to_vec();
    assert!(
        sizes.iter().all(|size| (20..=21).contains(size)),
        "{sizes:?}"
    );
}

type CommitPlace = perihelion_types::CommitSig;

#[test]
fn extensions_are_signed_from_their_height_on() {
    let folder = tempfile::tempdir().unwrap();
    let shape = ChainShape {
        extensions_height: 4,
        ..ChainShape::new("extended", 3, 6)
    };
    let made = make_home(folder.path(), &shape).unwrap();
    let (store, _) = reopen(&made, &shape);
    for height in 1..=6 {
        let height = Height::new(height);
        let extended = store.load_extended_commit(height).unwrap();
        assert_eq!(extended.is_some(), height.get() >= 4);
        if let Some(extended) = extended {
            let set = store.load_validators(height).unwrap().unwrap();
            let id = store.load_block_id(height).unwrap().unwrap();
            verify_extended_commit("extended", &set, id, height, &extended).unwrap();
        }
    }
}

#[test]
fn shapes_out_of_bounds_and_homes_that_are_there_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shape = ChainShape::new("one", 1, 2);
    for (bad, field) in [
        (
            ChainShape {
                validators: 0,
                ..shape.clone()
            },
            "validators",
        ),
        (
            ChainShape {
                absent: 0.34,
                ..shape.clone()
            },
            "absent",
        ),
        (
            ChainShape {
                tx_bytes: 5,
                ..shape.clone()
            },
            "tx-bytes",
        ),
        (
            ChainShape {
                txs: 2_000,
                tx_bytes: 100_000,
                ..shape.clone()
            },
            "txs times tx-bytes",
        ),
    ] {
        let error = make_home(folder.path(), &bad).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    make_home(folder.path(), &shape).unwrap();
    let error = make_home(folder.path(), &shape).unwrap_err().to_string();
    assert!(error.contains("holds a home already"), "{error}");
    for name in ["a", "b", "c"] {
        ChainShape::preset(name).unwrap().check().unwrap();
    }
    assert_eq!(ChainShape::preset("d"), None);
}

#[test]
fn copies_have_keys_of_their_own_and_the_chain_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let shape = ChainShape::new("copied", 1, 3);
    let made = make_home(&folder.path().join("made"), &shape).unwrap();
    let mut ids = vec![crate::process::node_id(&made.home).unwrap()];
    for (name, data) in [
        ("none", CopyData::None),
        ("copied", CopyData::Copied),
        ("linked", CopyData::Linked),
    ] {
        let home = folder.path().join(name);
        copy_home(&made.home, &home, data).unwrap();
        ids.push(crate::process::node_id(&home).unwrap());
        if data == CopyData::None {
            let (config, _) = Config::load(&home, &Overrides::default()).unwrap();
            let store = Store::open(&config.data_dir(), &StoreOptions::default()).unwrap();
            assert_eq!(store.height(), Height::ZERO);
        } else {
            let copy = MadeChain {
                home,
                ..made.clone()
            };
            reopen(&copy, &shape);
        }
        assert!(copy_home(&made.home, &folder.path().join(name), data).is_err());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}
