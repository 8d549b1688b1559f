//! What a program that wrote the store's format 2 has indexed stays found.

use std::ops::{ControlFlow, RangeInclusive};

use perihelion_types::{Hash, Height};

use super::{
    TxLocation, Values,
    keys::{self, Kind},
    posting::Posting,
};
use crate::{
    Store, StoreOptions, Sync,
    columns::{Column, height_key},
    database::Batch,
};

const LONG: [u8; 600] = [b'l'; 600];

fn place(height: i64, index: u32) -> TxLocation {
    TxLocation {
        height: Height::new(height),
        index,
    }
}

fn hash_of(place: TxLocation) -> Hash {
    Hash::of(&place.encode())
}

fn attribute_key(kind: Kind, value: &[u8]) -> (Vec<u8>, bool) {
    keys::value_prefix(kind, b"transfer.to", value)
}

/// Two transactions a block, each with an event that names it and one that is long, as format 2 had
/// them.
fn put_earlier(batch: &mut Batch<'_>, height: i64) {
    for index in 0..2 {
        let place = place(height, index);
        let hash = hash_of(place).as_bytes().to_vec();
        let key = [&[Kind::EarlierPlace as u8][..], &place.encode()].concat();
        batch.put(Column::IndexEvents, key, hash.clone());
        for (value, event) in [(&b"alice"[..], 1_u32), (&LONG[..], 2)] {
            let (mut key, is_long) = attribute_key(Kind::EarlierTx, value);
            key.extend(place.encode());
            key.extend(event.to_be_bytes());
            let long = if is_long { value } else { &[] };
            batch.put(Column::IndexEvents, key, [&hash[..], long].concat());
        }
    }
}

/// The same in the form of today.
fn put_current(batch: &mut Batch<'_>, height: i64) {
    let hashes: Vec<u8> = (0..2)
        .flat_map(|index| hash_of(place(height, index)).as_bytes().to_vec())
        .collect();
    for (value, event) in [(&b"alice"[..], 1), (&LONG[..], 2)] {
        let mut posting = Posting::new((0, event));
        posting.push((1, event));
        let (mut key, is_long) = attribute_key(Kind::Txs, value);
        key.extend(height_key(Height::new(height)));
        let long = if is_long { value } else { &[] };
        let entry = [&posting.encode(&hashes)[..], long].concat();
        batch.put(Column::IndexEvents, key, entry);
    }
    let key = keys::hashes_key(Height::new(height));
    batch.put(Column::IndexEvents, key, hashes);
}

fn heights(from: i64, to: i64) -> RangeInclusive<Height> {
    Height::new(from)..=Height::new(to)
}

fn until_there_are<T>(most: usize, found: &[T]) -> ControlFlow<()> {
    if found.len() < most {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}

/// What is found until so many were, with a check of each hash and value.
fn found(store: &Store, values: &Values<'_>, most: usize) -> Vec<(TxLocation, u32)> {
    let mut found = Vec::new();
    store
        .visit_tx_attributes("transfer.to", values, |attribute| {
            assert_eq!(attribute.hash, hash_of(attribute.place));
            let value = if attribute.event == 1 {
                &b"alice"[..]
            } else {
                &LONG
            };
            assert_eq!(attribute.value, value);
            found.push((attribute.place, attribute.event));
            until_there_are(most, &found)
        })
        .unwrap();
    found
}

fn txs(store: &Store, heights: &RangeInclusive<Height>, most: usize) -> Vec<TxLocation> {
    let mut found = Vec::new();
    store
        .visit_txs(heights, |place, hash| {
            assert_eq!(hash, hash_of(place));
            found.push(place);
            until_there_are(most, &found)
        })
        .unwrap();
    found
}

#[test]
fn both_forms_are_searched_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
    let mut batch = Batch::default();
    (1..=2).for_each(|height| put_earlier(&mut batch, height));
    (3..=4).for_each(|height| put_current(&mut batch, height));
    store.db.write(batch, Sync::No, Height::new(4)).unwrap();
    let all: Vec<TxLocation> = (1..=4)
        .flat_map(|height| [place(height, 0), place(height, 1)])
        .collect();
    for (value, event) in [(&b"alice"[..], 1), (&LONG[..], 2)] {
        let expected: Vec<_> = all.iter().map(|place| (*place, event)).collect();
        let one = |from, to| Values::One(value, heights(from, to));
        assert_eq!(found(&store, &one(1, 4), 100), expected);
        assert_eq!(found(&store, &one(2, 3), 100), expected[2..6]);
        // A search ends where it is told to, in either form and between them.
        for most in 1..=8 {
            assert_eq!(found(&store, &one(1, 4), most), expected[..most]);
        }
    }
    let mut every = found(&store, &Values::All, 100);
    every.sort_unstable();
    let expected: Vec<_> = all.iter().flat_map(|at| [(*at, 1), (*at, 2)]).collect();
    assert_eq!(every, expected);
    assert_eq!(txs(&store, &heights(1, 4), 100), all);
    assert_eq!(txs(&store, &heights(2, 3), 100), all[2..6]);
    for most in 1..=8 {
        assert_eq!(txs(&store, &heights(1, 4), most), all[..most]);
    }
}

#[test]
fn a_posting_without_its_hashes_is_a_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &StoreOptions::default()).unwrap();
    let mut batch = Batch::default();
    put_current(&mut batch, 3);
    batch.delete(Column::IndexEvents, keys::hashes_key(Height::new(3)));
    store.db.write(batch, Sync::No, Height::new(3)).unwrap();
    let visited = store.visit_tx_attributes("transfer.to", &Values::All, |_| panic!("no hash"));
    let error = visited.unwrap_err().to_string();
    assert!(error.contains("no entry of the index"), "{error}");
}
