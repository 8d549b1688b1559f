use std::fs;

use bytes::Bytes;
use perihelion_test_support::{Hex, each, folder, load_lines};
use perihelion_types::{Block, FetchedBlock, Hash, PartSet, tx};
use serde::Deserialize;

/// The fields of a chain's block that hashing and encoding decide; the others are for whoever
/// executes it.
#[derive(Deserialize)]
struct ChainBlock {
    block: Hex,
    block_id: Hex,
    header_hash: Hex,
    parts_hash: Hex,
    parts_total: u32,
    last_commit_hash: Hex,
    data_hash: Hex,
    evidence_hash: Hex,
    tx_hashes: Vec<Hex>,
    seen_commit: Hex,
    seen_commit_hash: Hex,
    #[serde(default)]
    extended_commit: Option<Hex>,
}

#[test]
fn vector_chain_blocks() {
    let mut chains = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("chain_") {
            continue;
        }
        chains += 1;
        let blocks: Vec<ChainBlock> = load_lines(&format!("{name}/blocks.jsonl"));
        each(&name, &blocks, |index, case| check(&name, index, case));
    }
    assert!(chains > 0, "no chains among the vectors");
}

fn check(chain: &str, index: usize, case: &ChainBlock) {
    use perihelion_proto::tendermint::types as pb;
    use prost::Message;

    let what = format!("{chain}, block {index}");
    let raw = Bytes::from(case.block.0.clone());
    let extended = case
        .extended_commit
        .as_ref()
        .map(|hex| hex.0.clone().into());
    let fetched = FetchedBlock::decode(raw.clone(), extended).expect(&what);
    let block = fetched.block();
    assert_eq!(block.hash().as_bytes(), &case.header_hash[..], "{what}");
    let id = fetched.block_id();
    assert_eq!(
        id.part_set_header.hash.as_bytes(),
        &case.parts_hash[..],
        "{what}"
    );
    assert_eq!(id.part_set_header.total, case.parts_total, "{what}");
    assert_eq!(pb::BlockId::from(&id).encode_to_vec(), case.block_id.0);
    assert_eq!(block.encode(), raw, "{what}");
    assert!(fetched.reencoded().is_none(), "{what}");
    assert!(fetched.memory() > raw.len());

    let header = &block.header;
    for (hash, expected) in [
        (header.last_commit_hash, &case.last_commit_hash),
        (header.data_hash, &case.data_hash),
        (header.evidence_hash, &case.evidence_hash),
    ] {
        assert_eq!(hash, Hash::try_from(&expected[..]).unwrap(), "{what}");
    }
    let hashes = block.data.iter().map(|raw| Hex(tx::hash(raw).to_vec()));
    assert_eq!(hashes.collect::<Vec<_>>(), case.tx_hashes, "{what}");

    let seen = pb::Commit::decode(&case.seen_commit[..]).unwrap();
    let commit = perihelion_types::Commit::try_from(seen).expect(&what);
    assert_eq!(commit.hash().as_bytes(), &case.seen_commit_hash[..]);
    assert_eq!(
        pb::Commit::from(&commit).encode_to_vec(),
        case.seen_commit.0
    );
    if let (Some(extended), Some(bytes)) = (fetched.extended_commit(), &case.extended_commit) {
        assert_eq!(extended.encode()[..], bytes[..], "{what}");
        assert_eq!(extended.to_commit(), commit, "{what}");
        assert!(extended.ensure_extensions(true).is_ok(), "{what}");
        assert!(fetched.without_extended_commit().memory() < fetched.memory());
    }

    let parts = PartSet::from_data(raw.clone());
    assert_eq!(parts.header(), id.part_set_header, "{what}");
    let mut copy = PartSet::from_header(id.part_set_header).unwrap();
    for index in 0..case.parts_total {
        assert!(copy.assemble().is_none());
        let part = pb::Part::from(parts.part(index).unwrap());
        let part = pb::Part::decode(&part.encode_to_vec()[..]).unwrap();
        assert_eq!(copy.add_part(part.try_into().unwrap()), Ok(true));
    }
    assert_eq!(copy.assemble(), Some(raw.clone()), "{what}");
    assert_eq!(Block::decode(raw).unwrap(), *block);
}
