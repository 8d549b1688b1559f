//! What must hold for every value and for all bytes.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use perihelion_types::{
    Block, Data, DuplicateVoteEvidence, Evidence, LightClientAttackEvidence, header::Version,
};
use perihelion_types::{
    BlockId, BlockIdFlag, Commit, CommitSig, ExtendedCommit, ExtendedCommitSig, FetchedBlock, Hash,
    Header, Height, Part, PartSet, PartSetHeader, Proposal, Round, Rules, SignedMsgType, Time,
    Vote, bounds, canonical, evidence, gogo, header, merkle, part_set,
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

fn bytes(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), length).prop_map(Bytes::from)
}

fn hash() -> impl Strategy<Value = Hash> {
    option::weighted(0.9, any::<[u8; 32]>()).prop_map(|bytes| bytes.map_or(Hash::EMPTY, Hash::new))
}

fn block_id() -> impl Strategy<Value = BlockId> {
    (hash(), any::<u32>(), hash()).prop_map(|(hash, total, parts)| BlockId {
        hash,
        part_set_header: PartSetHeader { total, hash: parts },
    })
}

fn complete_block_id() -> impl Strategy<Value = BlockId> {
    (any::<[u8; 32]>(), 1_u32.., any::<[u8; 32]>()).prop_map(|(hash, total, parts)| BlockId {
        hash: Hash::new(hash),
        part_set_header: PartSetHeader {
            total,
            hash: Hash::new(parts),
        },
    })
}

fn time() -> impl Strategy<Value = Time> {
    (-62_135_596_800_i64..253_402_300_800, 0..1_000_000_000)
        .prop_map(|(seconds, nanos)| Time::new(seconds, nanos))
}

/// A place that its stateless rules accept.
fn place() -> impl Strategy<Value = CommitSig> {
    (0..3, bytes(20), time(), bytes(1..65_usize)).prop_map(|(kind, address, time, signature)| {
        CommitSig {
            block_id_flag: match kind {
                0 => return CommitSig::absent(),
                1 => BlockIdFlag::Commit,
                _ => BlockIdFlag::Nil,
            },
            validator_address: address,
            timestamp: time,
            signature,
        }
    })
}

fn commit() -> impl Strategy<Value = Commit> {
    (
        1..i64::MAX,
        0..i32::MAX,
        complete_block_id(),
        vec(place(), 1..12),
    )
        .prop_map(|(height, round, block_id, signatures)| Commit {
            height: Height::new(height),
            round: Round::new(round),
            block_id,
            signatures,
        })
}

fn extended_commit() -> impl Strategy<Value = ExtendedCommit> {
    (commit(), bytes(0..40_usize), bytes(1..65_usize)).prop_map(|(commit, extension, signature)| {
        ExtendedCommit {
            height: commit.height,
            round: commit.round,
            block_id: commit.block_id,
            extended_signatures: commit
                .signatures
                .into_iter()
                .map(|commit_sig| {
                    let extended = commit_sig.block_id_flag == BlockIdFlag::Commit;
                    ExtendedCommitSig {
                        commit_sig,
                        extension: if extended {
                            extension.clone()
                        } else {
                            Bytes::new()
                        },
                        extension_signature: if extended {
                            signature.clone()
                        } else {
                            Bytes::new()
                        },
                    }
                })
                .collect(),
        }
    })
}

fn vote() -> impl Strategy<Value = Vote> {
    (
        (1..i64::MAX, 0..i32::MAX, any::<bool>()),
        complete_block_id(),
        time(),
        bytes(20),
        0..i32::MAX,
        bytes(1..65_usize),
    )
        .prop_map(
            |((height, round, precommit), block_id, timestamp, address, index, signature)| Vote {
                vote_type: if precommit {
                    SignedMsgType::Precommit
                } else {
                    SignedMsgType::Prevote
                },
                height: Height::new(height),
                round: Round::new(round),
                block_id,
                timestamp,
                validator_address: address,
                validator_index: index,
                signature,
                extension: Bytes::new(),
                extension_signature: Bytes::new(),
            },
        )
}

fn duplicate_vote() -> impl Strategy<Value = Evidence> {
    (
        vote(),
        complete_block_id(),
        any::<i64>(),
        any::<i64>(),
        time(),
    )
        .prop_filter_map(
            "the same block id twice",
            |(vote, other, total, power, timestamp)| {
                let mut votes = [
                    vote.clone(),
                    Vote {
                        block_id: other,
                        ..vote
                    },
                ];
                votes.sort_by_key(|vote| vote.block_id.key());
                let [vote_a, vote_b] = votes;
                (vote_a.block_id != vote_b.block_id).then_some(Evidence::DuplicateVote(
                    DuplicateVoteEvidence {
                        vote_a,
                        vote_b,
                        total_voting_power: total,
                        validator_power: power,
                        timestamp,
                    },
                ))
            },
        )
}

/// A block that the stateless rules accept.
pub(crate) fn block() -> impl Strategy<Value = Block> {
    (
        (
            "[a-z0-9-]{0,50}",
            1..i64::MAX,
            time(),
            block_id(),
            any::<u64>(),
        ),
        vec(hash(), 4),
        (bytes(0..40_usize), bytes(20)),
        vec(bytes(0..100_usize), 0..8),
        vec(duplicate_vote(), 0..3),
        commit(),
    )
        .prop_map(
            |(named, hashes, (app_hash, proposer), txs, evidence, commit)| {
                let (chain_id, height, time, last_block_id, app) = named;
                let data = Data::new(txs);
                Block {
                    header: Header {
                        version: Version { block: 11, app },
                        chain_id,
                        height: Height::new(height),
                        time,
                        last_block_id,
                        last_commit_hash: commit.hash(),
                        data_hash: data.hash(),
                        validators_hash: hashes[0],
                        next_validators_hash: hashes[1],
                        consensus_hash: hashes[2],
                        app_hash,
                        last_results_hash: hashes[3],
                        evidence_hash: evidence::hash_list(&evidence),
                        proposer_address: proposer,
                    },
                    data,
                    evidence,
                    last_commit: Some(commit),
                }
            },
        )
}

/// Every decoder of bytes from peers.
fn decode_all(raw: &Bytes) {
    let _ = bounds::check_block(raw);
    let _ = bounds::check_extended_commit(raw);
    let decoded = Block::decode(raw.clone());
    if let Ok(usual) = gogo::usual_block(raw, Rules::V038) {
        let again = gogo::usual_block(&usual, Rules::V038).unwrap();
        assert_eq!(again.as_ptr(), usual.as_ptr(), "{raw:?}");
        assert!(usual.is_empty() || usual.len() < 2 * raw.len(), "{raw:?}");
        assert_eq!(decoded, Block::decode(usual), "{raw:?}");
    } else {
        assert!(decoded.is_err(), "{raw:?}");
    }
    let _ = ExtendedCommit::decode(raw.clone());
    if let Ok(fetched) = FetchedBlock::decode(raw.clone(), Some(raw.clone())) {
        let _ = fetched.reencoded();
    }
    if let Ok(message) = pb::Header::decode(raw.clone()) {
        let hash = header::hash_proto(&message);
        if let Ok(header) = Header::from_proto_unchecked(message) {
            assert_eq!(header.hash(), hash);
        }
    }
    let _ = pb::Vote::decode(raw.clone()).map(|vote| canonical::vote_message("chain", &vote));
    let _ = pb::Proposal::decode(raw.clone()).map(Proposal::try_from);
    let _ = pb::Commit::decode(raw.clone()).map(Commit::try_from);
    let _ = pb::Evidence::decode(raw.clone()).map(Evidence::try_from);
    if let Ok(part) = pb::Part::decode(raw.clone()).map(Part::try_from)
        && let Ok(part) = part
    {
        let _ = part.proof.verify(&[0; 32], &part.bytes);
    }
}

/// Lengths of blocks around those where parts begin, and any.
fn block_length() -> impl Strategy<Value = usize> {
    const EDGES: [usize; 11] = [
        0, 1, 54, 55, 63, 64, 65_535, 65_536, 65_537, 131_072, 200_000,
    ];
    prop_oneof![
        prop::sample::select(&EDGES[..]),
        58_000..60_000_usize,
        0..100_usize
    ]
}

/// A block's bytes with an unknown field of `padding` bytes, and with what breaks it by `fault`.
fn padded(block: &Block, padding: usize, fault: u8) -> Bytes {
    let mut raw = block.encode().to_vec();
    raw.push(15 << 3 | 2);
    prost::encoding::encode_varint(padding as u64, &mut raw);
    raw.resize(raw.len() + padding, 7);
    match fault {
        0 => raw.clear(),
        1 => drop(raw.pop()),
        // The header's hash of the body.
        2 => raw.extend([1 << 3 | 2, 4, 7 << 3 | 2, 2, 1, 2]),
        _ => {}
    }
    raw.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn parts_of_many_blocks_hash_as_those_of_each(lengths in vec(block_length(), 0..40)) {
        let byte = |i: u32| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8;
        let data: Bytes = (0..250_000).map(byte).collect();
        let blocks = (0..).zip(lengths).map(|(at, length)| data.slice(at..at + length));
        let blocks: Vec<_> = blocks.collect();
        let raw: Vec<&[u8]> = blocks.iter().map(|block| &block[..]).collect();
        let each = blocks.iter().map(|block| PartSet::from_data(block.clone()).header());
        prop_assert_eq!(part_set::headers_of(&raw), each.collect::<Vec<_>>());
    }

    #[test]
    fn blocks_decode_together_as_each_by_itself(
        blocks in vec(
            (block(), block_length(), 0..8_u8, option::of(extended_commit()), any::<bool>()),
            0..20,
        ),
    ) {
        let encoded: Vec<_> = blocks
            .iter()
            .map(|(block, padding, fault, extended, broken)| {
                let mut extended = extended.as_ref().map(ExtendedCommit::encode);
                if let Some(bytes) = extended.as_mut().filter(|_| *broken) {
                    bytes.truncate(bytes.len() - 1);
                }
                (padded(block, *padding, *fault), extended, Rules::V038)
            })
            .collect();
        let together = FetchedBlock::decode_each(encoded.clone());
        prop_assert_eq!(together.len(), encoded.len());
        for (together, (raw, extended, rules)) in together.into_iter().zip(encoded) {
            let alone = FetchedBlock::decode_by(raw.clone(), extended, rules);
            if let Ok(block) = &together {
                prop_assert_eq!(block.raw(), &raw);
                let header = PartSet::from_data(raw).header();
                prop_assert_eq!(block.block_id().part_set_header, header);
            }
            prop_assert_eq!(format!("{together:?}"), format!("{alone:?}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn blocks_come_back_from_their_bytes(block in block(), extended in option::of(extended_commit())) {
        let raw = block.encode();
        prop_assert_eq!(&Block::decode(raw.clone()).unwrap(), &block);
        let bytes = extended.as_ref().map(ExtendedCommit::encode);
        let fetched = FetchedBlock::decode(raw.clone(), bytes).unwrap();
        prop_assert_eq!(fetched.block(), &block);
        prop_assert_eq!(fetched.extended_commit(), extended.as_ref());
        prop_assert_eq!(fetched.block_id().hash, block.hash());
        prop_assert_eq!(fetched.block_id().part_set_header, PartSet::from_data(raw.clone()).header());
        prop_assert_eq!(header::hash_proto(&(&block.header).into()), block.hash());
        prop_assert!(fetched.reencoded().is_none());

        // An unknown field makes another encoding of the same block: the same hash, other parts.
        let longer = Bytes::from([&raw[..], &[0x7a, 1, 0]].concat());
        let other = FetchedBlock::decode(longer, None).unwrap();
        prop_assert_eq!(other.block(), &block);
        prop_assert_ne!(other.block_id(), fetched.block_id());
        let again = other.reencoded().unwrap();
        prop_assert_eq!(again.block_id(), fetched.block_id());
        prop_assert_eq!(again.raw(), &raw);
    }

    #[test]
    fn hand_made_encodings_are_the_schema_s(commit in commit(), vote in vote(), id in block_id()) {
        let leaves: Vec<_> = commit
            .signatures
            .iter()
            .map(|place| pb::CommitSig::from(place).encode_to_vec())
            .collect();
        prop_assert_eq!(commit.hash(), merkle::root(&leaves));
        let canonical_id = (!id.is_nil()).then(|| pb::CanonicalBlockId {
            hash: id.hash.to_bytes(),
            part_set_header: Some(pb::CanonicalPartSetHeader {
                total: id.part_set_header.total,
                hash: id.part_set_header.hash.to_bytes(),
            }),
        });
        let vote = Vote { block_id: id, ..vote };
        let expected = pb::CanonicalVote {
            r#type: vote.vote_type.to_i32(),
            height: vote.height.get(),
            round: i64::from(vote.round.get()),
            block_id: canonical_id,
            timestamp: Some(vote.timestamp.into()),
            chain_id: "chain".into(),
        };
        prop_assert_eq!(vote.sign_bytes("chain"), expected.encode_length_delimited_to_vec());
        let template = commit.sign_bytes("chain");
        for (index, place) in commit.signatures.iter().enumerate() {
            let block_id = if place.block_id_flag == BlockIdFlag::Commit {
                commit.block_id
            } else {
                BlockId::NIL
            };
            let precommit = SignedMsgType::Precommit;
            let (height, round) = (commit.height, commit.round);
            let expected =
                canonical::vote("chain", precommit, height, round, &block_id, place.timestamp);
            prop_assert_eq!(template.of(place), Some(expected.clone()));
            prop_assert_eq!(commit.vote_sign_bytes("chain", index), Some(expected));
        }
    }

    #[test]
    fn votes_and_evidence_come_back(vote in vote(), evidence in duplicate_vote()) {
        prop_assert!(vote.validate_basic().is_ok());
        let message = pb::Vote::decode(&pb::Vote::from(&vote).encode_to_vec()[..]).unwrap();
        prop_assert_eq!(Vote::try_from(message).unwrap(), vote);
        let encoded = pb::Evidence::from(&evidence).encode_to_vec();
        let message = pb::Evidence::decode(&encoded[..]).unwrap();
        prop_assert_eq!(Evidence::try_from(message).unwrap(), evidence);
    }

    #[test]
    fn every_proof_holds_for_its_leaf_alone(leaves in vec(bytes(0..20_usize), 1..70), other in bytes(21)) {
        let (root, proofs) = merkle::proofs(&leaves);
        prop_assert_eq!(merkle::root(&leaves), root);
        prop_assert_eq!(proofs.len(), leaves.len());
        for (proof, leaf) in proofs.iter().zip(&leaves) {
            prop_assert!(proof.validate_basic().is_ok());
            prop_assert_eq!(proof.verify(root.as_bytes(), leaf), Ok(()));
            prop_assert!(proof.verify(root.as_bytes(), &other).is_err());
        }
    }

    #[test]
    fn part_sets_are_rebuilt_in_any_order(data in bytes(1..300_000_usize), backwards in any::<bool>()) {
        let set = PartSet::from_data(data.clone());
        prop_assert_eq!(part_set::header_of(&data), set.header());
        let mut copy = PartSet::from_header(set.header()).unwrap();
        let mut order: Vec<_> = (0..set.header().total).collect();
        if backwards {
            order.reverse();
        }
        for index in order {
            prop_assert_eq!(copy.add_part(set.part(index).unwrap().clone()), Ok(true));
        }
        prop_assert_eq!(copy.assemble(), Some(data));
    }

    #[test]
    fn random_bytes_never_panic(raw in bytes(0..300_usize)) {
        decode_all(&raw);
    }

    #[test]
    fn bent_blocks_never_panic(
        block in block(),
        extended in extended_commit(),
        bends in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for raw in [block.encode(), extended.encode()] {
            let mut bent = raw.to_vec();
            for (index, value) in &bends {
                let index = index.index(bent.len());
                bent[index] = *value;
            }
            decode_all(&bent.clone().into());
            bent.truncate(cut.index(bent.len()));
            decode_all(&bent.into());
        }
    }
}

#[test]
fn an_attack_on_light_clients_comes_back() {
    use perihelion_crypto::PrivateKey;
    use perihelion_types::{LightBlock, SignedHeader, Validator, ValidatorSet};

    let validators: Vec<_> = (1..5_u8)
        .map(|n| Validator::new(PrivateKey::ed25519_from_secret(&[n]).public_key(), 10))
        .collect();
    let validator_set = ValidatorSet::new(validators.clone()).unwrap();
    let header = Header {
        version: Version { block: 11, app: 0 },
        chain_id: "chain".into(),
        height: Height::new(7),
        time: Time::new(1, 2),
        last_block_id: BlockId::NIL,
        last_commit_hash: Hash::of(b"1"),
        data_hash: Hash::EMPTY,
        validators_hash: validator_set.hash(),
        next_validators_hash: Hash::of(b"2"),
        consensus_hash: Hash::of(b"3"),
        app_hash: Bytes::from_static(b"app"),
        last_results_hash: Hash::EMPTY,
        evidence_hash: Hash::EMPTY,
        proposer_address: Bytes::from_static(&[9; 20]),
    };
    let commit = Commit {
        height: header.height,
        round: Round::ZERO,
        block_id: BlockId {
            hash: header.hash(),
            part_set_header: PartSetHeader {
                total: 1,
                hash: Hash::of(b"parts"),
            },
        },
        signatures: vec![CommitSig::absent(); 4],
    };
    let attack = LightClientAttackEvidence {
        conflicting_block: LightBlock {
            signed_header: SignedHeader { header, commit },
            validator_set,
        },
        common_height: Height::new(5),
        byzantine_validators: validators,
        total_voting_power: 40,
        timestamp: Time::new(3, 4),
    };
    let decode = |attack: &LightClientAttackEvidence| {
        let evidence = Evidence::LightClientAttack(attack.clone());
        let bytes = pb::Evidence::from(&evidence).encode_to_vec();
        Evidence::from_proto(pb::Evidence::decode(&bytes[..]).unwrap(), Rules::V038)
    };
    let expected = Evidence::LightClientAttack(attack.clone());
    assert_eq!(decode(&attack).unwrap(), expected);

    // Another choice of signatures is the same evidence; another height is not.
    let mut other = attack.clone();
    let signatures = &mut other.conflicting_block.signed_header.commit.signatures;
    signatures.pop();
    let hash = |attack| Evidence::LightClientAttack(attack).hash();
    assert_eq!(hash(other), hash(attack.clone()));
    let mut other = attack.clone();
    other.common_height = Height::new(6);
    assert_ne!(hash(other.clone()), hash(attack.clone()));

    type Bend = fn(&mut LightClientAttackEvidence);
    let bends: [Bend; 5] = [
        |attack| attack.common_height = Height::new(8),
        |attack| attack.common_height = Height::ZERO,
        |attack| attack.total_voting_power = 0,
        |attack| {
            attack
                .conflicting_block
                .signed_header
                .header
                .validators_hash = Hash::of(b"x")
        },
        |attack| attack.conflicting_block.signed_header.commit.height = Height::new(6),
    ];
    for (index, bend) in bends.iter().enumerate() {
        let mut bent = attack.clone();
        bend(&mut bent);
        assert!(decode(&bent).is_err(), "bend {index}");
    }
}
