use std::sync::Arc;

use bytes::Bytes;
use perihelion_proto::tendermint::abci::{
    Event, EventAttribute, ExecTxResult, ResponseFinalizeBlock,
};
use perihelion_store::{IndexKind, Indexer, Store, StoreOptions, Sync, TxLocation};
use perihelion_types::Hash;
use prost::Message;

use crate::chain::{self, Changes, Growing, height};

fn options(discard: bool) -> StoreOptions {
    StoreOptions {
        index: IndexKind::Kv,
        discard_abci_responses: discard,
        ..chain::options()
    }
}

fn event(kind: &str, key: &str, value: &str, index: bool) -> Event {
    Event {
        r#type: kind.into(),
        attributes: vec![EventAttribute {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            index,
        }],
    }
}

/// Grows by one block with two transactions and events.
fn grow(chain: &mut Growing, store: &Store, at: i64) {
    let txs = [
        Bytes::from(format!("tx-{at}")),
        Bytes::from(format!("other-{at}")),
    ];
    let parity = if at % 2 == 0 { "even" } else { "odd" };
    let result = |name: &str| ExecTxResult {
        log: format!("{name} {at}"),
        events: vec![
            event("transfer", "to", name, true),
            event("transfer", "note", "hidden", false),
            event("", "to", name, true),
            event("transfer", "long", &"v".repeat(5_000), true),
        ],
        ..Default::default()
    };
    let results = ResponseFinalizeBlock {
        events: vec![event("block", "parity", parity, true)],
        tx_results: vec![result("alice"), result("bob")],
        ..Default::default()
    };
    chain.grow(
        store,
        &txs,
        &Changes::default(),
        &results.encode_to_vec(),
        Sync::No,
    );
}

fn check(store: &Store, top: i64) {
    assert_eq!(store.index_height().unwrap(), height(top));
    let places = |index| -> Vec<TxLocation> {
        (1..=top)
            .map(|at| TxLocation {
                height: height(at),
                index,
            })
            .collect()
    };
    let find = |key: &str, value: &str| store.find_txs_by_event(key, value, None, 10_000).unwrap();
    assert_eq!(find("transfer.to", "alice"), places(0));
    assert_eq!(find("transfer.to", "bob"), places(1));
    assert_eq!(find("transfer.to", "bo"), []);
    assert_eq!(find("transfer.note", "hidden"), []);
    assert_eq!(find(".to", "bob"), []);
    assert_eq!(
        find("transfer.long", &"v".repeat(5_000)).len(),
        2 * places(0).len()
    );
    assert_eq!(find("transfer.long", &"v".repeat(4_999)), []);
    let even = store
        .find_blocks_by_event("block.parity", "even", height(2), 10_000)
        .unwrap();
    let expected: Vec<_> = (4..=top).filter(|at| at % 2 == 0).map(height).collect();
    assert_eq!(even, expected);
    for at in 1..=top {
        let hash = Hash::of(format!("other-{at}").as_bytes());
        let place = TxLocation {
            height: height(at),
            index: 1,
        };
        assert_eq!(store.find_tx(&hash).unwrap(), Some(place));
        let (found, result) = store.load_tx_result(&hash).unwrap().unwrap();
        assert_eq!((found, result.log), (place, format!("bob {at}")));
    }
    assert_eq!(store.find_tx(&Hash::of(b"none")).unwrap(), None);
}

#[test]
fn transactions_and_blocks_are_found() {
    for discard in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &options(discard)).unwrap();
        let mut chain = Growing::new(&store);
        for at in 1..=300 {
            grow(&mut chain, &store, at);
        }
        store.index_pending().unwrap();
        check(&store, 300);
        let second = store
            .find_txs_by_event(
                "transfer.to",
                "bob",
                Some(TxLocation {
                    height: height(1),
                    index: 1,
                }),
                1,
            )
            .unwrap();
        assert_eq!(
            second,
            [TxLocation {
                height: height(2),
                index: 1
            }]
        );
    }
}

#[test]
fn the_thread_indexes_what_is_saved_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), &options(true)).unwrap());
    let mut chain = Growing::new(&store);
    let indexer = Indexer::start(Arc::clone(&store)).unwrap();
    for at in 1..=20 {
        grow(&mut chain, &store, at);
    }
    drop(indexer);
    let reached = store.index_height().unwrap();
    assert!(reached <= height(20));
    grow(&mut chain, &store, 21);
    drop(store);
    let store = Arc::new(Store::open(folder.path(), &options(true)).unwrap());
    assert!(store.index_height().unwrap() >= reached);
    store.index_pending().unwrap();
    check(&store, 21);
}

#[test]
fn pruning_waits_for_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options(false)).unwrap();
    let mut chain = Growing::new(&store);
    for at in 1..=10 {
        grow(&mut chain, &store, at);
    }
    assert_eq!(store.prune(height(8), &chain.state).unwrap(), 0);
    store.index_pending().unwrap();
    assert_eq!(store.prune(height(8), &chain.state).unwrap(), 7);
    assert_eq!(store.base(), height(8));
}

#[test]
fn the_null_indexer_indexes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &chain::options()).unwrap();
    let mut chain = Growing::new(&store);
    grow(&mut chain, &store, 1);
    store.index_pending().unwrap();
    assert_eq!(store.find_tx(&Hash::of(b"tx-1")).unwrap(), None);
}
