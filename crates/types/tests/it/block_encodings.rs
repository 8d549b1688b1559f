//! Blocks in encodings that CometBFT's decoder reads in its own way.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Verdict, each, load};
use perihelion_types::{Block, DecodeError, FetchedBlock, Rules, gogo, part_set};
use proptest::{collection::vec, prelude::*};
use prost::Message;
use serde::Deserialize;

use crate::properties::block;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    #[serde(rename = "made_by")]
    _made_by: String,
    #[serde(rename = "splices")]
    _splices: String,
    #[serde(rename = "verdicts")]
    _verdicts: String,
    usual: Hex,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    block: Splice,
    unmarshal: Verdict,
    reads: Option<Splice>,
    from_proto: Option<Verdict>,
    hash: Option<Hex>,
    encodes: Option<Splice>,
}

/// What stands in the place of some bytes of the usual encoding.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Splice {
    from: usize,
    to: usize,
    put: Hex,
}

impl Splice {
    fn apply(&self, usual: &[u8]) -> Bytes {
        [&usual[..self.from], &self.put.0, &usual[self.to..]]
            .concat()
            .into()
    }
}

fn applied(splice: Option<&Splice>, usual: &[u8]) -> Bytes {
    splice.map_or_else(
        || Bytes::copy_from_slice(usual),
        |splice| splice.apply(usual),
    )
}

/// What a message in the usual encoding says; `None` where no block can say it.
fn unchecked(raw: Bytes, rules: Rules) -> Option<Block> {
    let message = pb::Block::decode(raw).ok()?;
    Block::from_proto_unchecked(message, rules).ok()
}

fn check(file: &str, rules: Rules) {
    let file: File = load(file);
    let usual = &file.usual.0;
    each("cases", &file.cases, |_, case| {
        let name = &case.name;
        let raw = case.block.apply(usual);
        let written = gogo::usual_block(&raw, rules);
        case.unmarshal.assert_agrees(name, &written);
        let decoded = Block::decode_by(raw.clone(), rules);
        let Ok(written) = written else {
            assert!(
                matches!(
                    decoded,
                    Err(DecodeError::Protobuf(_) | DecodeError::Field { .. })
                ),
                "{name}: {decoded:?}"
            );
            return;
        };
        assert!(written.len() < 2 * raw.len().max(1), "{name}");
        assert_eq!(
            gogo::usual_block(&written, rules).unwrap().as_ptr(),
            written.as_ptr(),
            "{name}: written twice"
        );
        let reads = applied(case.reads.as_ref(), usual);
        // What is always there may be left out.
        let message = unchecked(written, rules);
        assert_eq!(message, unchecked(reads, rules), "{name}");
        if name.ends_with("no UTF-8 in the chain id") {
            assert!(decoded.is_err());
            return;
        }
        case.from_proto
            .as_ref()
            .unwrap()
            .assert_agrees(name, &decoded);
        if let Ok(block) = decoded {
            assert_eq!(
                block.hash().as_bytes(),
                &case.hash.as_ref().unwrap()[..],
                "{name}"
            );
            let encodes = case.encodes.as_ref().or(case.reads.as_ref());
            assert_eq!(block.encode(), applied(encodes, usual), "{name}");
        }
    });
}

#[test]
fn vector_block_encodings() {
    check("block_encodings.json", Rules::V038);
}

#[test]
fn vector_block_encodings_of_v0_40() {
    check("block_encodings_v0.40.json", Rules::V040);
}

/// A length-delimited field whose tag and length have so many bytes, ten with bits beyond the 64th.
fn padded_field(number: u64, content: &[u8], bytes: usize) -> Vec<u8> {
    let padded = |mut value: u64| {
        let mut varint = Vec::new();
        while varint.len() + 1 < bytes || value > 0x7f {
            varint.push(value as u8 | 0x80);
            value >>= 7;
        }
        varint.push(if varint.len() == 9 { 0x7e } else { value as u8 });
        varint
    };
    let length = padded(content.len() as u64);
    [padded(number << 3 | 2), length, content.to_vec()].concat()
}

/// Each field of the messages of a block as an occurrence of that message, with something unknown
/// between.
fn taken_apart(raw: &[u8], bytes: &[usize]) -> Bytes {
    let mut bytes = bytes.iter().cycle();
    let mut apart = Vec::new();
    for (number, content) in fields(raw) {
        for field in fields_as_they_are(content) {
            apart.extend(padded_field(number, field, *bytes.next().unwrap()));
            apart.extend([0x7b, 0x0b, 0x14, 0x0c]);
        }
    }
    apart.into()
}

/// The fields of a message of nothing else than bytes and messages.
fn fields(mut raw: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    while !raw.is_empty() {
        let tag = prost::encoding::decode_varint(&mut raw).unwrap();
        let length = prost::encoding::decode_varint(&mut raw).unwrap();
        let (content, rest) = raw.split_at(usize::try_from(length).unwrap());
        found.push((tag >> 3, content));
        raw = rest;
    }
    found
}

/// The fields of a message with their tags.
fn fields_as_they_are(raw: &[u8]) -> Vec<&[u8]> {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    let (mut rest, mut found) = (raw, Vec::new());
    while !rest.is_empty() {
        let before = rest;
        let (number, wire_type) = decode_key(&mut rest).unwrap();
        skip_field(wire_type, number, &mut rest, DecodeContext::default()).unwrap();
        found.push(&before[..before.len() - rest.len()]);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_block_in_the_usual_encoding_stays_as_it_is(block in block()) {
        let raw = block.encode();
        let usual = gogo::usual_block(&raw, Rules::V038).unwrap();
        prop_assert_eq!((usual.as_ptr(), usual.len()), (raw.as_ptr(), raw.len()));
    }

    #[test]
    fn a_block_taken_apart_is_the_same(block in block(), bytes in vec(1..11_usize, 1..5)) {
        let raw = block.encode();
        let apart = taken_apart(&raw, &bytes);
        let fetched = FetchedBlock::decode(apart.clone(), None).unwrap();
        prop_assert_eq!(fetched.block(), &block);
        prop_assert_eq!(fetched.raw(), &apart);
        prop_assert_eq!(fetched.block_id().part_set_header, part_set::header_of(&apart));
        prop_assert_eq!(Block::peek_height(&apart), Some(block.header.height));
    }
}
