use bytes::Bytes;
use perihelion_crypto::sha256;
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Verdict, each, load};
use perihelion_types::{Part, PartSet, PartSetHeader, part_set};
use prost::Message;
use serde::Deserialize;

use crate::merkle::ProofForm;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct File {
    about: String,
    made_by: String,
    pattern_rule: String,
    verdict_data: VerdictData,
    explicit: Vec<Explicit>,
    pattern: Vec<Pattern>,
    empty: Vec<HeaderForm>,
    other_part_sizes: Vec<OtherSize>,
    part_verdicts: Vec<PartVerdict>,
    part_added_twice: Vec<AddedTwice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictData {
    label: String,
    length: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderForm {
    total: u32,
    hash: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explicit {
    data: Hex,
    header: HeaderForm,
    header_proto: Hex,
    parts: Vec<PartForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    label: String,
    length: usize,
    header: HeaderForm,
    header_proto: Hex,
    parts: Vec<PartForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartForm {
    index: u32,
    length: usize,
    proof: ProofForm,
    /// Absent for large parts.
    proto: Option<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherSize {
    data: Hex,
    part_size: usize,
    total: u32,
    hash: Hex,
    parts: Vec<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartVerdict {
    name: String,
    from_part: u32,
    index: u32,
    length: usize,
    proof: ProofForm,
    validate_basic: Verdict,
    add: Verdict,
    added: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddedTwice {
    first: bool,
    second: bool,
    count: u32,
    complete: bool,
}

/// The vectors' rule for long data.
fn pattern(label: &str, length: usize) -> Bytes {
    let seed = sha256(label.as_bytes());
    let mut data = Vec::with_capacity(length + 32);
    let mut counter = 0_u64;
    while data.len() < length {
        data.extend(sha256(&[&seed[..], &counter.to_be_bytes()].concat()));
        counter += 1;
    }
    data.truncate(length);
    data.into()
}

fn check(data: &Bytes, header: &HeaderForm, header_proto: &Hex, parts: &[PartForm]) {
    let set = PartSet::from_data(data.clone());
    assert_eq!(set.header().total, header.total);
    assert_eq!(set.header().hash.as_bytes(), &header.hash[..]);
    assert_eq!(part_set::header_of(data), set.header());
    let message = pb::PartSetHeader::from(&set.header());
    assert_eq!(message.encode_to_vec(), header_proto.0);
    assert_eq!(PartSetHeader::try_from(message).unwrap(), set.header());
    assert!(set.is_complete());
    assert_eq!(set.byte_size(), data.len());
    assert_eq!(set.assemble().as_ref(), Some(data));

    assert_eq!(parts.len(), header.total as usize);
    let mut copy = PartSet::from_header(set.header()).unwrap();
    each("parts", parts, |_, form| {
        let part = set.part(form.index).unwrap();
        assert_eq!(part.bytes.len(), form.length);
        assert_eq!(part.proof, form.proof.proof());
        let encoded = pb::Part::from(part).encode_to_vec();
        if let Some(proto) = &form.proto {
            assert_eq!(encoded, proto.0);
        }
        let decoded = Part::try_from(pb::Part::decode(&encoded[..]).unwrap()).unwrap();
        assert_eq!(copy.add_part(decoded), Ok(true));
    });
    assert_eq!(copy.assemble().as_ref(), Some(data));
}

#[test]
fn vector_part_sets() {
    let file: File = load("partset.json");
    each("explicit", &file.explicit, |_, case| {
        let data = case.data.0.clone().into();
        check(&data, &case.header, &case.header_proto, &case.parts);
    });
    each("pattern", &file.pattern, |_, case| {
        let data = pattern(&case.label, case.length);
        check(&data, &case.header, &case.header_proto, &case.parts);
    });
    each("empty", &file.empty, |_, case| {
        let header = PartSet::from_data(Bytes::new()).header();
        assert_eq!(header.total, case.total);
        assert_eq!(header.hash.as_bytes(), &case.hash[..]);
        assert_eq!(part_set::header_of(&[]), header);
    });
    each("other_part_sizes", &file.other_part_sizes, |_, case| {
        let set = PartSet::from_data_by(case.data.0.clone().into(), case.part_size);
        assert_eq!(set.header().total, case.total);
        assert_eq!(set.header().hash.as_bytes(), &case.hash[..]);
        let parts = (0..case.total).map(|index| {
            let part = set.part(index).unwrap();
            Hex(pb::Part::from(part).encode_to_vec())
        });
        assert_eq!(parts.collect::<Vec<_>>(), case.parts);
    });
}

/// The data of a bent part: those of `from_part` with a byte changed, cut or lengthened, as the
/// case's name says.
fn bent_bytes(case: &PartVerdict, original: &Bytes) -> Bytes {
    let mut bytes = original.to_vec();
    if case.name == "a byte changed" {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    bytes.resize(case.length, 0);
    bytes.into()
}

#[test]
fn vector_part_verdicts() {
    let file: File = load("partset.json");
    let data = pattern(&file.verdict_data.label, file.verdict_data.length);
    let right = PartSet::from_data(data);
    each("part_verdicts", &file.part_verdicts, |_, case| {
        let original = &right.part(case.from_part).unwrap().bytes;
        let part = Part {
            index: case.index,
            bytes: bent_bytes(case, original),
            proof: case.proof.proof(),
        };
        let verdict = part.validate_basic();
        case.validate_basic.assert_agrees(&case.name, &verdict);
        let message = pb::Part::from(&part);
        case.validate_basic
            .assert_agrees(&case.name, &Part::try_from(message));
        let mut set = PartSet::from_header(right.header()).unwrap();
        let added = set.add_part(part);
        case.add.assert_agrees(&case.name, &added);
        assert_eq!(added.unwrap_or(false), case.added, "{}", case.name);
    });
    each("part_added_twice", &file.part_added_twice, |_, case| {
        let mut set = PartSet::from_header(right.header()).unwrap();
        let part = right.part(0).unwrap();
        assert_eq!(set.add_part(part.clone()), Ok(case.first));
        assert_eq!(set.add_part(part.clone()), Ok(case.second));
        assert_eq!(set.count(), case.count);
        assert_eq!(set.is_complete(), case.complete);
        assert_eq!(set.assemble().is_some(), case.complete);
    });
}
