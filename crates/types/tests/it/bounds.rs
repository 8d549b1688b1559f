//! Counts are bounded before anything is decoded.

use bytes::Bytes;
use perihelion_test_support::{Hex, load_lines};
use perihelion_types::{Block, Data, DecodeError, ExtendedCommit, FetchedBlock, bounds::*};

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encode_length_delimiter(content.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(content);
    bytes
}

fn repeated(number: u8, content: &[u8], times: usize) -> Vec<u8> {
    field(number, content).repeat(times)
}

const PLACE: &[u8] = &[8, 1];
const VALIDATOR: &[u8] = &[0xff; 22];

/// A light client attack with so many signatures, validators and byzantine validators, each kind
/// split over two occurrences of the messages around it.
fn attack(signatures: usize, validators: usize, byzantine: usize) -> Vec<u8> {
    let mut light_blocks = Vec::new();
    for part in 0..2 {
        let half = |count: usize| {
            if part == 0 {
                count / 2
            } else {
                count - count / 2
            }
        };
        let commit = repeated(4, PLACE, half(signatures));
        let signed_header = field(2, &commit);
        let set = repeated(1, VALIDATOR, half(validators));
        let light_block = [field(1, &signed_header), field(2, &set)].concat();
        let mut attack = field(1, &light_block);
        attack.extend(repeated(3, VALIDATOR, half(byzantine)));
        light_blocks.extend(field(2, &attack));
    }
    light_blocks
}

fn in_block(evidence: &[Vec<u8>]) -> Vec<u8> {
    let list: Vec<u8> = evidence.iter().flat_map(|one| field(1, one)).collect();
    field(3, &list)
}

/// Room for many items in evidence.
fn transactions(bytes: usize) -> Vec<u8> {
    field(2, &field(1, &vec![0; bytes]))
}

fn first_block() -> Bytes {
    #[derive(serde::Deserialize)]
    struct Line {
        block: Hex,
    }
    let lines: Vec<Line> = load_lines("chain_basic/blocks.jsonl");
    lines[0].block.0.clone().into()
}

/// A peer that packs a block with empty transactions, two bytes each, makes us hold no more than it
/// sent.
#[test]
fn small_transactions_take_no_more_memory_than_on_the_wire() {
    let template = FetchedBlock::decode(first_block(), None).unwrap();
    let mut block = template.block().clone();
    block.data = Data::new(vec![b""; 1 << 20]);
    block.header.data_hash = block.data.hash();
    let raw = block.encode();
    let fetched = FetchedBlock::decode(raw.clone(), None).unwrap();
    let data = &fetched.block().data;
    assert_eq!(data.len(), 1 << 20);
    assert!(raw.as_ptr_range().contains(&data.encoded().as_ptr()));
    assert!(data.iter().all(<[u8]>::is_empty));
    let overhead = template.memory() - template.raw().len();
    assert_eq!(fetched.memory() - raw.len(), overhead);
}

#[test]
fn transactions_that_are_split_over_fields_are_joined_and_counted() {
    let template = Block::decode(first_block()).unwrap();
    let mut block = template;
    block.data = Data::new([b"a", b"b"]);
    block.header.data_hash = block.data.hash();
    let raw = block.encode();
    let at = raw
        .windows(8)
        .position(|bytes| bytes == b"\x12\x06\x0a\x01a\x0a\x01b")
        .unwrap();
    let split = [
        &raw[..at],
        b"\x12\x03\x0a\x01a\x12\x03\x0a\x01b",
        &raw[at + 8..],
    ]
    .concat();
    let fetched = FetchedBlock::decode(split.into(), None).unwrap();
    assert_eq!(fetched.block(), &block);
    let canonical = FetchedBlock::decode(raw, None).unwrap();
    assert!(fetched.memory() > canonical.memory() + 6);
    assert_eq!(
        fetched.reencoded().unwrap().block_id(),
        canonical.block_id()
    );
}

fn is_too_many(result: &Result<(), DecodeError>, wanted: &str) -> bool {
    matches!(result, Err(DecodeError::TooMany { what, .. }) if *what == wanted)
}

#[test]
fn signatures_of_the_last_commit_are_counted_over_all_its_occurrences() {
    let commit = |count| field(4, &repeated(4, PLACE, count));
    assert_eq!(check_block(&commit(MAX_SIGNATURES)), Ok(()));
    let split = [commit(MAX_SIGNATURES / 2), commit(MAX_SIGNATURES / 2)].concat();
    assert_eq!(check_block(&split), Ok(()));
    let one_more = [split, commit(1)].concat();
    assert!(is_too_many(&check_block(&one_more), "signatures"));
    assert!(is_too_many(
        &check_block(&commit(MAX_SIGNATURES + 1)),
        "signatures"
    ));
    let decoded = Block::decode(one_more.into());
    assert!(matches!(decoded, Err(DecodeError::TooMany { .. })));
}

#[test]
fn extended_commits_are_counted() {
    let places = |count| repeated(4, PLACE, count);
    assert_eq!(check_extended_commit(&places(MAX_SIGNATURES)), Ok(()));
    let many = places(MAX_SIGNATURES + 1);
    assert!(is_too_many(&check_extended_commit(&many), "signatures"));
    let decoded = ExtendedCommit::decode(many.into());
    assert!(matches!(decoded, Err(DecodeError::TooMany { .. })));
}

#[test]
fn lists_in_evidence_are_counted_one_by_one() {
    let max = MAX_SIGNATURES;
    let room = transactions(max * 48);
    let check = |evidence| check_block(&[in_block(&[evidence]), room.clone()].concat());
    assert_eq!(check(attack(max, max, max)), Ok(()));
    assert!(is_too_many(&check(attack(max + 1, 1, 1)), "signatures"));
    assert!(is_too_many(&check(attack(1, max + 1, 1)), "validators"));
    let byzantine = check(attack(1, 1, max + 1));
    assert!(is_too_many(&byzantine, "byzantine validators"));
}

#[test]
fn all_evidence_of_a_block_has_items_in_proportion_to_its_bytes() {
    let many = in_block(&vec![attack(MAX_SIGNATURES, 1, 0); 3]);
    assert!(is_too_many(
        &check_block(&many),
        "signatures and validators in evidence"
    ));
    let roomy = [many, transactions(3 * 16 * (MAX_SIGNATURES + 1))].concat();
    assert_eq!(check_block(&roomy), Ok(()));
}

#[test]
fn empty_repetitions_are_refused() {
    for raw in [
        field(4, &field(4, &[])),
        in_block(&[vec![]]),
        [in_block(&[attack(9, 9, 9)]), field(3, &field(1, &[0; 43]))].concat(),
    ] {
        let refused = check_block(&raw);
        assert!(
            matches!(refused, Err(DecodeError::Field { .. })),
            "{refused:?}"
        );
    }
    assert!(check_extended_commit(&field(4, &[])).is_err());
}

#[test]
fn a_block_has_at_most_100_mib() {
    let raw = Bytes::from(transactions(MAX_BLOCK_BYTES));
    assert!(is_too_many(&check_block(&raw), "bytes"));
    assert!(FetchedBlock::decode(raw, None).is_err());
}

#[test]
fn malformed_bytes_are_refused_and_groups_are_skipped() {
    for raw in [
        &[0x0a][..],
        &[0x0a, 5, 1],
        &[0x80],
        &[0x0f],
        &[0x0c],
        &[0x0b, 8, 1],
        &[0x09, 1, 2, 3],
        &[0x0d, 1],
        &[0xff; 11],
        &[
            0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
        ],
    ] {
        let refused = check_block(raw);
        assert!(matches!(refused, Err(DecodeError::Protobuf(_))), "{raw:?}");
    }
    // A group with a group, a varint, fixed numbers and bytes inside of it.
    let group = [
        0x7b, 0x0b, 0x0c, 8, 0x80, 1, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x0d, 0, 0, 0, 0, 0x12, 1, 7,
        0x7c,
    ];
    assert_eq!(check_block(&group), Ok(()));
    let deep = [vec![0x7b; 100_000], vec![0x7c; 100_000]].concat();
    assert_eq!(check_block(&deep), Ok(()));
    assert!(Block::decode(deep.into()).is_err());
}
