use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{block_validation::File, each};
use perihelion_types::{Block, DecodeError, FetchedBlock, Rules, header};
use prost::Message;

/// Blocks alone; the verdicts against a state are for whoever holds one.
fn check(file: &str, rules: Rules) {
    let file = File::load(file);
    each("cases", &file.cases, |_, case| {
        let raw = Bytes::from(case.block.0.clone());
        let message = pb::Block::decode(raw.clone()).unwrap();
        let hash = header::hash_proto(message.header.as_ref().unwrap());
        assert_eq!(hash.as_bytes(), &case.header_hash[..], "{}", case.name);

        let verdict = Block::from_proto_unchecked(message, rules)
            .and_then(|block| Ok(block.validate_basic_by(rules)?));
        case.validate_basic.assert_agrees(&case.name, &verdict);

        let decoded = Block::decode_by(raw.clone(), rules);
        case.from_proto.assert_agrees(&case.name, &decoded);
        if let Ok(block) = decoded {
            assert_eq!(block.hash(), hash, "{}", case.name);
            assert_eq!(block.encode(), raw, "{}", case.name);
        }
        if rules == Rules::V038 {
            let fetched: Result<_, DecodeError> = FetchedBlock::decode(raw, None);
            case.from_proto.assert_agrees(&case.name, &fetched);
        }
    });
}

#[test]
fn vector_block_rules() {
    check("block_validation.json", Rules::V038);
}

#[test]
fn vector_block_rules_of_v0_40() {
    check("block_validation_v0.40.json", Rules::V040);
}
