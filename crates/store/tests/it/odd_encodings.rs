//! Blocks in encodings that only CometBFT's decoder reads.

use bytes::Bytes;
use perihelion_store::{BlockSave, IndexKind, SeenCommit, StateSave, Store, StoreOptions, Sync};
use perihelion_types::{FetchedBlock, Hash};
use prost::encoding::{DecodeContext, decode_key, decode_varint, encode_varint, skip_field};

use crate::chain::{height, options, rows, start, state};

/// A group with another end, which other decoders refuse.
const GROUP: &[u8] = &[0x7b, 0x0b, 0x14, 0x0c];

/// Each field of the messages of a block as an occurrence of that message, with a group in it.
fn odd(usual: &[u8]) -> Bytes {
    let (mut rest, mut odd) = (usual, Vec::new());
    while !rest.is_empty() {
        let tag = rest[0];
        rest = &rest[1..];
        let length = usize::try_from(decode_varint(&mut rest).unwrap()).unwrap();
        let (mut content, behind) = rest.split_at(length);
        while !content.is_empty() {
            let before = content;
            let (number, wire_type) = decode_key(&mut content).unwrap();
            skip_field(wire_type, number, &mut content, DecodeContext::default()).unwrap();
            let field = &before[..before.len() - content.len()];
            odd.push(tag);
            encode_varint((field.len() + GROUP.len()) as u64, &mut odd);
            odd.extend_from_slice(field);
            odd.extend_from_slice(GROUP);
        }
        rest = behind;
    }
    odd.into()
}

#[test]
fn blocks_in_odd_encodings_are_stored_as_they_came_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        index: IndexKind::Kv,
        ..options()
    };
    let rows = rows("chain_basic");
    let blocks = rows.iter().map(|row| {
        let block = FetchedBlock::decode(odd(&row.block), None).unwrap();
        assert_eq!(block.block(), row.block().block());
        block
    });
    let blocks: Vec<_> = blocks.collect();
    let store = Store::open(folder.path(), &options).unwrap();
    for (row, pair) in rows.iter().zip(blocks.windows(2)) {
        let save = BlockSave {
            block: &pair[0],
            commit: Some(SeenCommit::LastOf(&pair[1])),
            extended_commit: None,
            results: Some(&row.finalize_response),
        };
        store.save_block(&save, Sync::No).unwrap();
        let seen = store.load_seen_commit(pair[0].height()).unwrap();
        assert_eq!(seen, pair[1].block().last_commit);
    }
    let last = state(rows[99].state_after.as_ref().unwrap());
    let save = StateSave {
        state: &last,
        previous: &start("chain_basic"),
        app_writes: &[],
    };
    store.save_state(&save, Sync::No).unwrap();
    store.index_pending().unwrap();
    drop(store);
    let store = Store::open(folder.path(), &options).unwrap();
    for (row, pair) in rows.iter().zip(blocks.windows(2)) {
        let at = height(row.height);
        let block = pair[0].block();
        assert_eq!(
            store.load_block_bytes(at).unwrap().as_ref(),
            Some(pair[0].raw())
        );
        assert_eq!(store.load_block(at).unwrap().as_ref(), Some(block));
        assert_eq!(store.load_header(at).unwrap().as_ref(), Some(&block.header));
        let id = pair[0].block_id();
        assert_eq!(store.load_block_id(at).unwrap(), Some(id));
        assert_eq!(store.height_by_hash(&id.hash).unwrap(), Some(at));
        let results = store.load_results(at).unwrap();
        assert_eq!(results.as_deref(), Some(&row.finalize_response[..]));
        for hash in &row.tx_hashes {
            let hash = Hash::try_from(&hash[..]).unwrap();
            assert!(store.load_tx_result(&hash).unwrap().is_some());
        }
        if row.height < store.height().get() {
            let commit = store.load_commit(at).unwrap();
            assert_eq!(commit, pair[1].block().last_commit);
        }
    }
    // What outlives their bodies.
    let pruned = store.prune(height(50), &last).unwrap();
    assert_eq!(pruned, 49);
    for pair in blocks[..49].windows(2) {
        let at = pair[0].height();
        assert_eq!(store.load_block(at).unwrap(), None);
        assert_eq!(store.load_block_id(at).unwrap(), Some(pair[0].block_id()));
        assert_eq!(
            store.load_header(at).unwrap().as_ref(),
            Some(&pair[0].block().header)
        );
        assert_eq!(store.load_commit(at).unwrap(), pair[1].block().last_commit);
    }
}
