use std::sync::Arc;

use perihelion_crypto::PrivateKey;
use perihelion_store::{BlockSave, StateSave, Store, StoreError, Sync};
use perihelion_types::{Validator, ValidatorSet};
use proptest::prelude::*;

use crate::chain::{Changes, Growing, encoded, height, next_block, options, start};

fn validator(seed: u8, power: i64) -> Validator {
    Validator::new(PrivateKey::ed25519_from_secret(&[seed]).public_key(), power)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the updates, the restored state is the saved one, and what `/validators` shows is
    /// the last changed set rotated in one call.
    #[test]
    fn a_restored_state_is_the_saved_one(
        steps in prop::collection::vec((0_u8..12, 0_i64..50, 0_u8..4, any::<bool>()), 1..60),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), &options()).unwrap();
        let mut chain = Growing::new(&store);
        let mut changed = (chain.state.initial_height, Arc::clone(&chain.state.validators));
        for (seed, power, kind, reopens) in steps {
            let changes = Changes {
                validators: if kind == 0 { vec![validator(seed, power)] } else { vec![] },
                params: (kind == 1).then(|| {
                    let mut params = chain.state.consensus_params.clone();
                    params.block.max_gas = power;
                    params
                }),
            };
            chain.grow(&store, &[], &changes, b"", Sync::No);
            let state = &chain.state;
            if state.last_height_validators_changed == state.last_block_height.plus(2) {
                changed = (state.last_height_validators_changed, Arc::clone(&state.next_validators));
            }
            if reopens {
                drop(store);
                store = Store::open(folder.path(), &options()).unwrap();
            }
            let restored = store.load_state().unwrap().unwrap();
            prop_assert_eq!(encoded(&restored), encoded(state));
            let top = state.last_block_height.plus(2);
            let mut shown = ValidatorSet::clone(&changed.1);
            if let Ok(times @ 1..) = i32::try_from(top.since(changed.0)) {
                shown.increment_proposer_priority(times).unwrap();
            }
            prop_assert_eq!(store.load_validators(top).unwrap().unwrap(), shown);
            let params = store.load_consensus_params(state.next_height()).unwrap();
            prop_assert_eq!(params.as_ref(), Some(&state.consensus_params));
        }
    }
}

/// Long enough for sets that only a restart needs, and for their removal.
#[test]
fn a_state_is_restored_after_thousands_of_heights_without_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    for at in 1..=3_100 {
        chain.grow(&store, &[], &Changes::default(), b"", Sync::No);
        if at % 500 < 3 || at % 1_000 > 995 {
            let restored = store.load_state().unwrap().unwrap();
            assert_eq!(encoded(&restored), encoded(&chain.state), "height {at}");
        }
    }
}

#[test]
fn blocks_must_follow_and_the_same_may_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    chain.grow(&store, &[], &Changes::default(), b"one", Sync::No);
    let first = chain.last.clone().unwrap();
    chain.grow(&store, &[], &Changes::default(), b"two", Sync::No);
    let second = chain.last.clone().unwrap();
    let save = |block, results| BlockSave {
        block,
        commit: None,
        extended_commit: None,
        results,
    };
    store
        .save_block(&save(&second, Some(b"new")), Sync::No)
        .unwrap();
    assert_eq!(
        store.load_results(height(2)).unwrap().as_deref(),
        Some(&b"new"[..])
    );
    let error = store.save_block(&save(&first, None), Sync::No).unwrap_err();
    assert!(matches!(error, StoreError::NotContiguous { .. }), "{error}");
    let mut other = start("chain_basic");
    other.last_block_height = height(1);
    let other = next_block(&other, Some(&second), &[]);
    let error = store.save_block(&save(&other, None), Sync::No).unwrap_err();
    assert!(matches!(error, StoreError::OtherBlock { .. }), "{error}");
    let mut ahead = chain.state.clone();
    ahead.last_block_height = height(3);
    let ahead = StateSave {
        state: &ahead,
        previous: &chain.state,
        app_writes: &[],
    };
    let error = store.save_state(&ahead, Sync::No).unwrap_err();
    assert!(matches!(error, StoreError::StateAhead { .. }), "{error}");
    assert_eq!(store.height(), height(2));
}

/// Large results repeat what the block says: they are stored in a shorter form, and given as they
/// were.
#[test]
fn large_results_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    let bytes: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
    let tx = bytes.clone().into();
    chain.grow(&store, &[tx], &Changes::default(), &bytes, Sync::No);
    let found = store.load_results(height(1)).unwrap();
    assert_eq!(found.as_deref(), Some(&bytes[..]));
    let others: Vec<u8> = bytes.iter().rev().copied().collect();
    store.save_results(height(1), &others, Sync::Yes).unwrap();
    drop(store);
    let store = Store::open(folder.path(), &options()).unwrap();
    let found = store.load_results(height(1)).unwrap();
    assert_eq!(found.as_deref(), Some(&others[..]));
}
