use std::{
    ops::{ControlFlow, RangeInclusive},
    sync::Arc,
};

use bytes::Bytes;
use perihelion_proto::tendermint::abci::{
    Event, EventAttribute, ExecTxResult, ResponseFinalizeBlock,
};
use perihelion_store::{
    IndexKind, Indexer, Store, StoreOptions, Sync, TxLocation,
    index::{BlockAttribute, TxAttribute, Values},
};
use perihelion_types::{Hash, Height};
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
            event("tx", "height", "7", true),
        ],
        ..Default::default()
    };
    let results = ResponseFinalizeBlock {
        events: vec![
            event("block", "parity", parity, true),
            event("block", "height", "7", true),
        ],
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

/// The transactions with an attribute of this value, in order.
fn find(
    store: &Store,
    key: &str,
    value: &str,
    heights: RangeInclusive<Height>,
) -> Vec<(TxLocation, u32)> {
    let mut found = Vec::new();
    let values = Values::One(value.as_bytes(), heights);
    let visit = |attribute: TxAttribute<'_>| {
        assert_eq!(attribute.value, value.as_bytes());
        found.push((attribute.place, attribute.event));
        ControlFlow::Continue(())
    };
    store.visit_tx_attributes(key, &values, visit).unwrap();
    found
}

/// All values of transactions' attributes, with their places and events, sorted.
fn values_of(store: &Store, key: &str) -> Vec<(String, TxLocation, u32)> {
    let mut found = Vec::new();
    let visit = |attribute: TxAttribute<'_>| {
        let value = String::from_utf8(attribute.value.to_vec()).unwrap();
        assert_eq!(
            store.find_tx(&attribute.hash).unwrap(),
            Some(attribute.place)
        );
        found.push((value, attribute.place, attribute.event));
        ControlFlow::Continue(())
    };
    store.visit_tx_attributes(key, &Values::All, visit).unwrap();
    found.sort();
    found
}

fn find_blocks(store: &Store, key: &str, values: &Values<'_>) -> Vec<(Height, u32)> {
    let mut found = Vec::new();
    let visit = |attribute: BlockAttribute<'_>| {
        found.push((attribute.height, attribute.event));
        ControlFlow::Continue(())
    };
    store.visit_block_attributes(key, values, visit).unwrap();
    found.sort();
    found
}

fn all() -> RangeInclusive<Height> {
    Height::ZERO..=Height::MAX
}

fn place(at: i64, index: u32) -> TxLocation {
    TxLocation {
        height: height(at),
        index,
    }
}

fn check(store: &Store, top: i64) {
    assert_eq!(store.index_height().unwrap(), height(top));
    let places =
        |index| -> Vec<(TxLocation, u32)> { (1..=top).map(|at| (place(at, index), 1)).collect() };
    let find = |key: &str, value: &str| find(store, key, value, all());
    assert_eq!(find("transfer.to", "alice"), places(0));
    assert_eq!(find("transfer.to", "bob"), places(1));
    assert_eq!(find("transfer.to", "bo"), []);
    assert_eq!(find("transfer.note", "hidden"), []);
    assert_eq!(find(".to", "bob"), []);
    assert_eq!(find("tx.height", "7"), []);
    let long = "v".repeat(5_000);
    assert_eq!(find("transfer.long", &long).len(), 2 * places(0).len());
    assert_eq!(find("transfer.long", &long)[0], (place(1, 0), 4));
    assert_eq!(find("transfer.long", &"v".repeat(4_999)), []);
    let values = values_of(store, "transfer.to");
    let alices = places(0)
        .into_iter()
        .map(|(at, event)| ("alice", at, event));
    let bobs = places(1).into_iter().map(|(at, event)| ("bob", at, event));
    let expected: Vec<_> = alices
        .chain(bobs)
        .map(|(name, at, event)| (name.to_owned(), at, event))
        .collect();
    assert_eq!(values, expected);
    assert_eq!(values_of(store, "transfer.long")[0].0, long);
    let even: Vec<_> = (1..=top)
        .filter(|at| at % 2 == 0)
        .map(|at| (height(at), 1))
        .collect();
    let is_even = |heights| Values::One(b"even", heights);
    assert_eq!(find_blocks(store, "block.parity", &is_even(all())), even);
    let above = height(3)..=height(6);
    let found = find_blocks(store, "block.parity", &is_even(above));
    assert_eq!(found, [(height(4), 1), (height(6), 1)]);
    let all_blocks = find_blocks(store, "block.parity", &Values::All);
    assert_eq!(all_blocks.len(), places(0).len());
    assert_eq!(find_blocks(store, "block.height", &Values::All), []);
    for at in 1..=top {
        let hash = Hash::of(format!("other-{at}").as_bytes());
        let place = place(at, 1);
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
        let some = find(&store, "transfer.to", "bob", height(2)..=height(3));
        assert_eq!(some, [(place(2, 1), 1), (place(3, 1), 1)]);
        let mut txs = Vec::new();
        let visit = |place: TxLocation, hash: Hash| {
            txs.push(place);
            assert_eq!(store.find_tx(&hash).unwrap(), Some(place));
            if txs.len() < 3 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        store
            .visit_txs(&(height(299)..=Height::MAX), visit)
            .unwrap();
        assert_eq!(txs, [place(299, 0), place(299, 1), place(300, 0)]);
        for empty in [height(5)..=height(4), height(301)..=Height::MAX] {
            let visit = |_, _| panic!("there is none");
            store.visit_txs(&empty, visit).unwrap();
        }
    }
}

/// Type and key of an attribute may have points in them, and are searched for as one.
#[test]
fn names_that_are_the_same_as_one_are_found_alike() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options(false)).unwrap();
    let mut chain = Growing::new(&store);
    let result = |values: [&str; 3]| ExecTxResult {
        events: vec![
            event("a.b", "c", values[0], true),
            event("a", "b.c", values[1], true),
            event("a", "b", values[2], true),
        ],
        ..Default::default()
    };
    let results = ResponseFinalizeBlock {
        tx_results: vec![result(["v", "v", "v"]), result(["w", "v", "v"])],
        ..Default::default()
    };
    let txs = [Bytes::from("one"), Bytes::from("two")];
    let encoded = results.encode_to_vec();
    chain.grow(&store, &txs, &Changes::default(), &encoded, Sync::No);
    store.index_pending().unwrap();
    let found = |key, value| find(&store, key, value, all());
    let (one, two) = (place(1, 0), place(1, 1));
    assert_eq!(found("a.b.c", "v"), [(one, 1), (one, 2), (two, 2)]);
    assert_eq!(found("a.b.c", "w"), [(two, 1)]);
    assert_eq!(found("a.b", "v"), [(one, 3), (two, 3)]);
    assert_eq!(values_of(&store, "a.b.c").len(), 4);
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
