//! Evidence that waits for a block.

use bytes::Bytes;
use perihelion_store::{PendingEvidence, Store};
use perihelion_types::Hash;

use crate::chain::{Changes, Growing, height, options};

fn evidence(at: i64, byte: u8) -> PendingEvidence {
    PendingEvidence {
        height: height(at),
        hash: Hash::of(&[byte]),
        bytes: Bytes::from(vec![byte; 1_000]),
    }
}

#[test]
fn pending_evidence_is_kept_in_order_until_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut all = vec![evidence(300, 1), evidence(2, 2), evidence(2, 3)];
    for one in &all {
        store.save_pending_evidence(one).unwrap();
        store.save_pending_evidence(one).unwrap();
    }
    all.sort_by_key(|one| (one.height, one.hash));
    assert_eq!(store.load_pending_evidence(9).unwrap(), all);
    assert_eq!(store.load_pending_evidence(2).unwrap(), all[..2]);
    // What is committed is another thing.
    let committed = |store: &Store, one: &PendingEvidence| {
        store.is_evidence_committed(one.height, &one.hash).unwrap()
    };
    assert!(!all.iter().any(|one| committed(&store, one)));
    let gone = (all[0].height, all[0].hash);
    store.mark_evidence_committed(gone.0, &gone.1).unwrap();
    store.remove_pending_evidence(&[gone]).unwrap();
    drop(store);
    let store = Store::open(folder.path(), &options()).unwrap();
    assert_eq!(store.load_pending_evidence(9).unwrap(), all[1..]);
    assert!(committed(&store, &all[0]) && !committed(&store, &all[1]));
}

#[test]
fn pruning_leaves_pending_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut chain = Growing::new(&store);
    for _ in 0..20 {
        chain.grow(
            &store,
            &[],
            &Changes::default(),
            b"",
            perihelion_store::Sync::No,
        );
    }
    let pending = evidence(3, 1);
    store.save_pending_evidence(&pending).unwrap();
    store
        .mark_evidence_committed(height(3), &Hash::of(b"committed"))
        .unwrap();
    let mut state = chain.state.clone();
    state.consensus_params.evidence.max_age_num_blocks = 1;
    state.consensus_params.evidence.max_age_duration = 0;
    store.prune(height(18), &state).unwrap();
    assert!(
        !store
            .is_evidence_committed(height(3), &Hash::of(b"committed"))
            .unwrap()
    );
    assert_eq!(store.load_pending_evidence(9).unwrap(), [pending]);
}
