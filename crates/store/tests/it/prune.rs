use bytes::Bytes;
use perihelion_store::{Store, StoreError, Sync};
use perihelion_types::{FetchedBlock, State};

use crate::chain::{Changes, Growing, height, options};

/// A chain of `count` blocks, one a second, and its blocks.
fn grown(store: &Store, count: i64) -> (State, Vec<FetchedBlock>) {
    let mut chain = Growing::new(store);
    let mut blocks = Vec::new();
    for at in 1..=count {
        let txs = [
            Bytes::from(vec![7; 900]),
            Bytes::from(at.to_be_bytes().to_vec()),
        ];
        chain.grow(store, &txs, &Changes::default(), b"results", Sync::No);
        blocks.push(chain.last.clone().unwrap());
        store
            .mark_evidence_committed(height(at), &blocks[blocks.len() - 1].block_id().hash)
            .unwrap();
    }
    (chain.state, blocks)
}

/// `state` with an evidence window of so many blocks and seconds.
fn window(state: &State, blocks: i64, seconds: i64) -> State {
    let mut state = state.clone();
    state.consensus_params.evidence.max_age_num_blocks = blocks;
    state.consensus_params.evidence.max_age_duration = seconds * 1_000_000_000;
    state
}

/// Bodies go below `base`; header, commit, id and validators stay from `light` on.
fn check(store: &Store, blocks: &[FetchedBlock], base: i64, light: i64) {
    assert_eq!(store.base(), height(base));
    assert_eq!(store.light_base(), height(light));
    for (index, block) in blocks.iter().enumerate() {
        let at = block.height();
        let has_body = at >= height(base);
        let is_light = at >= height(light);
        let hash = block.block_id().hash;
        assert_eq!(
            store.load_block_bytes(at).unwrap().is_some(),
            has_body,
            "{at}"
        );
        assert_eq!(store.load_results(at).unwrap().is_some(), has_body, "{at}");
        assert_eq!(store.height_by_hash(&hash).unwrap(), has_body.then_some(at));
        let header = is_light.then(|| block.block().header.clone());
        assert_eq!(store.load_header(at).unwrap(), header, "{at}");
        let id = is_light.then(|| block.block_id());
        assert_eq!(store.load_block_id(at).unwrap(), id, "{at}");
        assert_eq!(
            store.load_validators(at).unwrap().is_some(),
            is_light,
            "{at}"
        );
        assert_eq!(
            store.is_evidence_committed(at, &hash).unwrap(),
            is_light,
            "{at}"
        );
        if let Some(next) = blocks.get(index + 1) {
            let commit = store.load_commit(at).unwrap();
            // The commit for the height below the base is still in the block at the base.
            if is_light || at.next() >= height(base) {
                assert_eq!(commit, next.block().last_commit, "{at}");
            } else {
                assert_eq!(commit, None, "{at}");
            }
        }
    }
}

#[test]
fn light_data_within_the_evidence_window_survives() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let (state, blocks) = grown(&store, 60);
    check(&store, &blocks, 1, 1);
    // Both the blocks and the time must have passed: 60 - 40 = 20 blocks, and as many seconds.
    assert_eq!(
        store.prune(height(30), &window(&state, 40, 35)).unwrap(),
        29
    );
    check(&store, &blocks, 30, 20);
    assert_eq!(store.prune(height(30), &state).unwrap(), 0);
    assert_eq!(store.prune(height(50), &window(&state, 5, 30)).unwrap(), 20);
    check(&store, &blocks, 50, 30);
    assert_eq!(store.prune(height(60), &window(&state, 0, 0)).unwrap(), 10);
    check(&store, &blocks, 60, 60);
    drop(store);
    let store = Store::open(folder.path(), &options()).unwrap();
    check(&store, &blocks, 60, 60);
    let restored = store.load_state().unwrap().unwrap();
    assert_eq!(
        crate::chain::encoded(&restored),
        crate::chain::encoded(&state)
    );
    let error = store.prune(height(61), &state).unwrap_err();
    assert!(
        matches!(error, StoreError::RetainAboveHeight { .. }),
        "{error}"
    );
}

/// Over more heights than one step, with what was written out to files.
#[test]
fn thousands_of_heights_are_pruned_in_steps() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let (state, blocks) = grown(&store, 2_300);
    store.flush().unwrap();
    let narrow = window(&state, 10, 10);
    assert_eq!(store.prune(height(2_200), &narrow).unwrap(), 2_199);
    check(&store, &blocks, 2_200, 2_200);
    drop(store);
    check(
        &Store::open(folder.path(), &options()).unwrap(),
        &blocks,
        2_200,
        2_200,
    );
}
