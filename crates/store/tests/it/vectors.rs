use bytes::Bytes;
use perihelion_store::{BlockSave, IndexKind, SeenCommit, StateSave, Store, Sync};
use perihelion_types::{Block, Commit, ConsensusParams, FetchedBlock, Hash, Rules, State};
use prost::Message;

use crate::chain::{self, CHAINS, Row, encoded, height, options, rows, start};

/// Saves a chain as the vectors have it, and checks after a reopening that all of it is there.
fn check_chain(name: &str, discard: bool) {
    let folder = tempfile::tempdir().unwrap();
    let options = perihelion_store::StoreOptions {
        index: IndexKind::Kv,
        discard_abci_responses: discard,
        ..options()
    };
    let store = Store::open(folder.path(), &options).unwrap();
    let rows = rows(name);
    let mut state = start(name);
    save_state(&store, &state, &state);
    let mut saved_states = 0;
    for row in &rows {
        let block = row.block();
        let (commit, extended) = (row.commit(), row.extended_commit());
        let save = BlockSave {
            block: &block,
            commit: Some((&commit).into()),
            extended_commit: extended.as_ref(),
            results: Some(&row.finalize_response),
        };
        store.save_block(&save, Sync::No).unwrap();
        if let Some(raw) = &row.state_after {
            let next = chain::state(raw);
            save_state(&store, &next, &state);
            let restored = store.load_state().unwrap().unwrap();
            assert_eq!(hex::encode(encoded(&restored)), hex::encode(&raw[..]));
            state = next;
            saved_states += 1;
        }
    }
    assert!(saved_states > 0, "{name} has no state");
    store.index_pending().unwrap();
    check_rows(&store, &rows, &state, discard);
    drop(store);
    let store = Store::open(folder.path(), &options).unwrap();
    check_rows(&store, &rows, &state, discard);
}

fn save_state(store: &Store, state: &State, previous: &State) {
    let save = StateSave {
        state,
        previous,
        app_writes: &[],
    };
    store.save_state(&save, Sync::No).unwrap();
}

fn check_rows(store: &Store, rows: &[Row], state: &State, discard: bool) {
    let (first, last) = (&rows[0], &rows[rows.len() - 1]);
    assert_eq!(store.base(), height(first.height));
    assert_eq!(store.height(), height(last.height));
    assert_eq!(store.state_height(), state.last_block_height);
    let restored = store.load_state().unwrap().unwrap();
    assert_eq!(encoded(&restored), encoded(state));
    let seen = store.load_seen_commit(height(last.height)).unwrap();
    assert_eq!(seen, Some(last.commit()));
    assert_eq!(store.load_commit(height(last.height)).unwrap(), None);
    assert_eq!(store.load_commit(height(first.height - 1)).unwrap(), None);
    assert_eq!(store.load_block(height(last.height + 1)).unwrap(), None);
    for (index, row) in rows.iter().enumerate() {
        let at = height(row.height);
        let raw = Bytes::copy_from_slice(&row.block);
        let block = Block::decode(raw.clone()).unwrap();
        assert_eq!(store.load_block_bytes(at).unwrap(), Some(raw));
        assert_eq!(store.load_header(at).unwrap().as_ref(), Some(&block.header));
        assert_eq!(store.load_block(at).unwrap().as_ref(), Some(&block));
        assert_eq!(store.load_block_id(at).unwrap(), Some(row.id()));
        let meta = store.load_block_meta(at).unwrap().unwrap();
        assert_eq!(meta.num_txs, block.data.len());
        assert_eq!(meta.block_size, row.block.len());
        assert_eq!(store.height_by_hash(&row.id().hash).unwrap(), Some(at));
        if let Some(next) = rows.get(index + 1) {
            let carried = next.block().block().last_commit.clone();
            assert_eq!(store.load_commit(at).unwrap(), carried);
        }
        let extended = store.load_extended_commit(at).unwrap();
        assert_eq!(extended, row.extended_commit());
        let results = store.load_results(at).unwrap();
        if discard && row.height != last.height {
            assert_eq!(results, None);
        } else {
            assert_eq!(results.as_deref(), Some(&row.finalize_response[..]));
        }
        for (place, hash) in row.tx_hashes.iter().enumerate() {
            let hash = Hash::try_from(&hash[..]).unwrap();
            let (found, result) = store.load_tx_result(&hash).unwrap().unwrap();
            assert!(found.height >= at, "a later block may have it again");
            if found.height == at && found.index as usize == place {
                let response = perihelion_proto::tendermint::abci::ResponseFinalizeBlock::decode(
                    &row.finalize_response[..],
                )
                .unwrap();
                assert_eq!(result, response.tx_results[place]);
            }
        }
    }
    let results = store.load_last_results().unwrap().unwrap();
    assert_eq!(results.0, height(last.height));
    assert_eq!(results.1, &last.finalize_response[..]);
}

#[test]
fn vector_chains_are_saved_and_restored() {
    for name in CHAINS {
        check_chain(name, false);
    }
}

#[test]
fn vector_chains_are_restored_with_discarded_responses() {
    for name in CHAINS {
        check_chain(name, true);
    }
}

/// Chains with a state at every height: saved as changes only.
#[test]
fn vector_parameters_hold_from_their_height_on() {
    for name in ["chain_initial_height", "chain_extensions", "chain_params"] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &options()).unwrap();
        let mut state = start(name);
        save_state(&store, &state, &state);
        for row in &rows(name) {
            let params = store
                .load_consensus_params(height(row.height))
                .unwrap()
                .unwrap();
            let expected = perihelion_proto::tendermint::types::ConsensusParams::decode(
                &row.consensus_params[..],
            )
            .unwrap();
            assert_eq!(params, ConsensusParams::try_from(expected).unwrap());
            let validators = store.load_validators(height(row.height)).unwrap().unwrap();
            assert_eq!(validators.hash(), state.validators.hash());
            let next = store
                .load_validators(height(row.height + 1))
                .unwrap()
                .unwrap();
            assert_eq!(next.hash(), state.next_validators.hash());
            assert_eq!(store.load_validators(height(row.height + 2)).unwrap(), None);
            let block = row.block();
            let save = BlockSave {
                block: &block,
                commit: None,
                extended_commit: None,
                results: None,
            };
            let next = chain::state(row.state_after.as_ref().unwrap());
            let state_save = StateSave {
                state: &next,
                previous: &state,
                app_writes: &[],
            };
            store
                .save_block_and_state(&save, &state_save, Sync::No)
                .unwrap();
            state = next;
        }
    }
}

/// The commit for a block is the same, however it is given.
#[test]
fn a_commit_in_the_block_above_is_kept_like_one_apart_as_the_vectors_have_it() {
    let rows = rows("chain_basic");
    let kept = [false, true].map(|apart| {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &options()).unwrap();
        let pairs = rows.windows(2).map(|pair| {
            let (block, next) = (pair[0].block(), pair[1].block());
            let last_commit = next.block().last_commit.as_ref().unwrap();
            let save = BlockSave {
                block: &block,
                commit: Some(if apart {
                    SeenCommit::Apart(last_commit)
                } else {
                    SeenCommit::LastOf(&next)
                }),
                extended_commit: None,
                results: None,
            };
            store.save_block(&save, Sync::No).unwrap();
            let kept = store.load_seen_commit(block.height()).unwrap();
            assert_eq!(kept.as_ref(), Some(last_commit));
        });
        pairs.count()
    });
    assert!(kept[0] > 0 && kept[0] == kept[1]);
}

/// What a chain of a later release holds was judged by its rules when it was stored.
#[test]
fn signatures_of_later_releases_are_read_back() {
    let rows = rows("chain_extensions");
    let (row, next) = (&rows[4], &rows[5]);
    let long = |commit: &mut Commit| commit.signatures[0].signature = vec![7; 65].into();
    let mut extended = row.extended_commit().unwrap();
    extended.extended_signatures[0].commit_sig.signature = vec![7; 65].into();
    let mut blocks = [row.block().block().clone(), next.block().block().clone()];
    for block in &mut blocks {
        long(block.last_commit.as_mut().unwrap());
        block.header.last_commit_hash = block.last_commit.as_ref().unwrap().hash();
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &options()).unwrap();
    let mut seen = next.commit();
    long(&mut seen);
    for (block, commit) in blocks.iter().zip([None, Some(&seen)]) {
        let fetched = FetchedBlock::decode_by(block.encode(), None, Rules::V040).unwrap();
        let save = BlockSave {
            block: &fetched,
            commit: commit.map(Into::into),
            extended_commit: commit.is_none().then_some(&extended),
            results: None,
        };
        store.save_block(&save, Sync::No).unwrap();
    }
    let [first, second] = blocks;
    let at = height(row.height);
    let carried = second.last_commit.clone();
    assert_eq!(store.load_block(at).unwrap(), Some(first));
    assert_eq!(store.load_commit(at).unwrap(), carried);
    assert_eq!(store.load_extended_commit(at).unwrap(), Some(extended));
    assert_eq!(store.load_seen_commit(at.next()).unwrap(), Some(seen));
    assert_eq!(store.load_block(at.next()).unwrap(), Some(second));
}
