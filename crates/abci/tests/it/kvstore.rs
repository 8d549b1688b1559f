use std::sync::Arc;

use bytes::Bytes;
use perihelion_abci::{
    Application, KvStore, KvStoreOptions, MemoryAppStore, Persistence,
    types::{
        ExecTxResult, Misbehavior, MisbehaviorType, PublicKey, RequestCommit, RequestFinalizeBlock,
        RequestInfo, RequestInitChain, RequestQuery, ResponseFinalizeBlock, Validator,
        ValidatorUpdate, public_key::Sum,
    },
};
use prost::Message as _;

fn open(store: &Arc<MemoryAppStore>) -> KvStore {
    KvStore::persistent(Arc::clone(store) as _, KvStoreOptions::default()).unwrap()
}

fn block(height: i64, txs: &[&'static str]) -> RequestFinalizeBlock {
    let txs = txs.iter().map(|tx| Bytes::from_static(tx.as_bytes()));
    RequestFinalizeBlock {
        height,
        txs: txs.collect(),
        ..RequestFinalizeBlock::default()
    }
}

fn execute(app: &KvStore, height: i64, txs: &[&'static str]) {
    app.finalize_block(&block(height, txs)).unwrap();
    app.commit(&RequestCommit {}).unwrap();
}

fn value(app: &KvStore, key: &'static str) -> (String, Bytes) {
    let answer = app
        .query(&RequestQuery {
            data: Bytes::from_static(key.as_bytes()),
            ..RequestQuery::default()
        })
        .unwrap();
    (answer.log, answer.value)
}

#[test]
fn a_change_is_read_before_and_after_it_reaches_the_store() {
    let store = Arc::new(MemoryAppStore::new());
    let app = open(&store);
    execute(&app, 1, &["a=1"]);
    assert_eq!(value(&app, "a").1, "1", "pending");
    let first = app.take_writes().unwrap();
    assert_eq!(value(&app, "a").1, "1", "taken, not yet written");
    execute(&app, 2, &["a=2", "b=3"]);
    assert_eq!(value(&app, "a").1, "2", "pending over taken");
    store.write(first);
    let second = app.take_writes().unwrap();
    store.write(second);
    assert_eq!(value(&app, "b").1, "3");
    assert_eq!(value(&app, "c").0, "does not exist");
}

#[test]
fn what_was_not_taken_is_lost_and_what_was_is_there_after_a_restart() {
    let store = Arc::new(MemoryAppStore::new());
    let app = open(&store);
    execute(&app, 1, &["a=1", "b=1"]);
    store.write(app.take_writes().unwrap());
    execute(&app, 2, &["a=2"]);
    drop(app);

    let app = open(&store);
    let info = app.info(&RequestInfo::default()).unwrap();
    assert_eq!(info.last_block_height, 1);
    assert_eq!(info.data, "{\"size\":2}");
    assert_eq!(&info.last_block_app_hash[..], [4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(value(&app, "a").1, "1");
}

#[test]
fn validators_are_known_again_after_a_restart() {
    let key = PublicKey {
        sum: Some(Sum::Ed25519(Bytes::from_static(&[7; 32]))),
    };
    let address = perihelion_crypto::PublicKey::try_from(key.clone())
        .unwrap()
        .address();
    let store = Arc::new(MemoryAppStore::new());
    let app = open(&store);
    app.init_chain(&RequestInitChain {
        validators: vec![ValidatorUpdate {
            pub_key: Some(key.clone()),
            power: 10,
        }],
        ..RequestInitChain::default()
    })
    .unwrap();
    execute(&app, 1, &[]);
    store.write(app.take_writes().unwrap());

    let app = open(&store);
    app.info(&RequestInfo::default()).unwrap();
    let punished = app
        .finalize_block(&RequestFinalizeBlock {
            height: 2,
            misbehavior: vec![Misbehavior {
                r#type: MisbehaviorType::DuplicateVote.into(),
                validator: Some(Validator {
                    address: Bytes::copy_from_slice(address.as_bytes()),
                    power: 10,
                }),
                ..Misbehavior::default()
            }],
            ..RequestFinalizeBlock::default()
        })
        .unwrap();
    assert_eq!(
        punished.validator_updates,
        [ValidatorUpdate {
            pub_key: Some(key),
            power: 9
        }]
    );
}

#[test]
fn only_the_persistent_one_gives_its_changes_away() {
    let volatile = KvStore::in_memory(KvStoreOptions::default());
    execute(&volatile, 1, &["a=1"]);
    assert_eq!(volatile.persistence(), Persistence::Volatile);
    assert_eq!(volatile.take_writes(), None);
    assert_eq!(value(&volatile, "a").1, "1");

    let persistent = open(&Arc::new(MemoryAppStore::new()));
    execute(&persistent, 1, &["a=1"]);
    assert_eq!(persistent.persistence(), Persistence::InBlock);
    let keys: Vec<Vec<u8>> = persistent
        .take_writes()
        .unwrap()
        .into_iter()
        .map(|write| write.key)
        .collect();
    assert_eq!(keys, [b"kvPairKey:a".to_vec(), b"stateKey".to_vec()]);
    assert_eq!(persistent.take_writes(), Some(Vec::new()));
}

#[test]
fn bytes_that_are_no_text_execute_too() {
    let app = KvStore::in_memory(KvStoreOptions::default());
    let answer = app
        .finalize_block(&RequestFinalizeBlock {
            height: 1,
            txs: vec![Bytes::from_static(b"\xff=\x00")],
            ..RequestFinalizeBlock::default()
        })
        .unwrap();
    assert_eq!(
        answer.tx_results[0].events[0].attributes[1].value,
        &b"\xff"[..]
    );
    app.commit(&RequestCommit {}).unwrap();
    let stored = app
        .query(&RequestQuery {
            data: Bytes::from_static(b"\xff"),
            ..RequestQuery::default()
        })
        .unwrap();
    assert_eq!(&stored.value[..], b"\x00");
}

#[test]
fn a_store_of_something_else_is_refused() {
    let store = Arc::new(MemoryAppStore::new());
    store.write([perihelion_abci::AppWrite {
        key: b"stateKey".to_vec(),
        value: Some(Bytes::from_static(b"not json")),
    }]);
    assert!(KvStore::persistent(store, KvStoreOptions::default()).is_err());
}

/// Both calls execute the same block to the same end, and what is stored of it is the answer of the
/// one that answers with everything.
#[test]
fn the_encoded_answer_is_the_whole_one() {
    let key = "val=ed25519!BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=!5";
    let long = format!("long={}", "x".repeat(40_000)).leak();
    let blocks: [&[&'static str]; 5] = [
        &[],
        &["a=1"],
        &["a=2", key, "b=", "=c", long],
        &["a:3", "a=b=c", ""],
        &["z=26"],
    ];
    for block_events in [false, true] {
        let options = KvStoreOptions {
            block_events,
            ..KvStoreOptions::default()
        };
        let apps = [(); 2].map(|()| KvStore::in_memory(options));
        for (height, txs) in (1..).zip(blocks) {
            let request = block(height, txs);
            let plain = apps[0].finalize_block(&request).unwrap();
            let finalized = apps[1].finalize_block_encoded(&request).unwrap();
            assert!(finalized.encoded() == plain.encode_to_vec());
            let bare = |result: &ExecTxResult| ExecTxResult {
                events: Vec::new(),
                ..result.clone()
            };
            let without_events = ResponseFinalizeBlock {
                tx_results: plain.tx_results.iter().map(bare).collect(),
                ..plain.clone()
            };
            assert_eq!(*finalized.response(), without_events);
            assert_eq!(finalized.into_response().unwrap(), plain);
        }
    }
}
