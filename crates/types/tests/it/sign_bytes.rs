use bytes::Bytes;
use perihelion_crypto::PrivateKey;
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Moment, each, load};
use perihelion_types::{
    BlockId, Commit, CommitSig, Height, Proposal, Round, SignedMsgType, Time, Vote, canonical,
};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct File {
    about: String,
    made_by: String,
    private_key: Hex,
    public_key: Hex,
    votes: Vec<VoteCase>,
    proposals: Vec<ProposalCase>,
    vote_extensions: Vec<ExtensionCase>,
}

/// A block id as the vectors write it; hashes may have any length.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdForm {
    pub(crate) hash: Hex,
    pub(crate) parts_hash: Hex,
    pub(crate) parts_total: u32,
}

impl IdForm {
    pub(crate) fn message(&self) -> pb::BlockId {
        pb::BlockId {
            hash: self.hash.0.clone().into(),
            part_set_header: Some(pb::PartSetHeader {
                total: self.parts_total,
                hash: self.parts_hash.0.clone().into(),
            }),
        }
    }
}

pub(crate) fn timestamp(time: &Moment) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.seconds,
        nanos: time.nanos,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VoteCase {
    name: String,
    #[serde(rename = "type")]
    vote_type: i32,
    height: i64,
    round: i32,
    block_id: IdForm,
    time: Moment,
    chain_id: String,
    /// Absent where it cannot be encoded.
    vote: Option<Hex>,
    sign_bytes: Option<Hex>,
    signature: Option<Hex>,
    panic: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProposalCase {
    name: String,
    #[serde(rename = "type")]
    proposal_type: i32,
    height: i64,
    round: i32,
    pol_round: i32,
    block_id: IdForm,
    time: Moment,
    chain_id: String,
    proposal: Option<Hex>,
    sign_bytes: Option<Hex>,
    signature: Option<Hex>,
    panic: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtensionCase {
    name: String,
    chain_id: String,
    height: i64,
    round: i32,
    extension: Hex,
    sign_bytes: Hex,
    signature: Hex,
}

fn private_key(file: &File) -> PrivateKey {
    let key = PrivateKey::from_bytes(perihelion_crypto::KeyType::Ed25519, &file.private_key);
    let key = key.unwrap();
    assert_eq!(key.public_key().as_bytes(), &file.public_key[..]);
    key
}

/// Compares what is signed and the signature, or that both sides refuse.
fn check<E: std::fmt::Debug>(
    name: &str,
    key: &PrivateKey,
    got: &Result<Vec<u8>, E>,
    expected: (&Option<Hex>, &Option<Hex>, &Option<String>),
) {
    match (got, expected) {
        (Ok(bytes), (Some(expected), Some(signature), None)) => {
            assert_eq!(*bytes, expected.0, "{name}");
            assert_eq!(key.sign(bytes)[..], signature[..], "{name}");
            assert_eq!(key.public_key().verify(bytes, signature), Ok(()), "{name}");
        }
        (Err(_), (None, None, Some(_))) => {}
        _ => panic!("{name}: {got:?}, expected {expected:?}"),
    }
}

#[test]
fn vector_vote_sign_bytes() {
    let file: File = load("sign_bytes.json");
    let key = private_key(&file);
    each("votes", &file.votes, |_, case| {
        let message = pb::Vote {
            r#type: case.vote_type,
            height: case.height,
            round: case.round,
            block_id: Some(case.block_id.message()),
            timestamp: Some(timestamp(&case.time)),
            ..pb::Vote::default()
        };
        let got = canonical::vote_message(&case.chain_id, &message);
        let expected = (&case.sign_bytes, &case.signature, &case.panic);
        check(&case.name, &key, &got, expected);
        if let Some(bytes) = &case.vote {
            let decoded = pb::Vote::decode(&bytes[..]).unwrap();
            let again = canonical::vote_message(&case.chain_id, &decoded);
            check(&case.name, &key, &again, expected);
            if let Ok(vote) = Vote::try_from(decoded) {
                assert_eq!(pb::Vote::from(&vote).encode_to_vec(), bytes.0);
                check_in_commit(&case.chain_id, &vote, &got.unwrap());
            }
        }
    });
}

/// A precommit's sign bytes are those of its place in a commit.
fn check_in_commit(chain_id: &str, vote: &Vote, sign_bytes: &[u8]) {
    let Some(place) = vote.commit_sig() else {
        return;
    };
    if vote.vote_type != SignedMsgType::Precommit {
        return;
    }
    for block_id in [vote.block_id, BlockId::default()] {
        let commit = Commit {
            height: vote.height,
            round: vote.round,
            block_id,
            signatures: vec![CommitSig::absent(), place.clone()],
        };
        let got = commit.vote_sign_bytes(chain_id, 1).unwrap();
        assert_eq!(got == sign_bytes, block_id == vote.block_id);
        assert_eq!(commit.vote_sign_bytes(chain_id, 2), None);
    }
}

#[test]
fn vector_proposal_sign_bytes() {
    let file: File = load("sign_bytes.json");
    let key = private_key(&file);
    each("proposals", &file.proposals, |_, case| {
        let message = pb::Proposal {
            r#type: case.proposal_type,
            height: case.height,
            round: case.round,
            pol_round: case.pol_round,
            block_id: Some(case.block_id.message()),
            timestamp: Some(timestamp(&case.time)),
            signature: Bytes::new(),
        };
        let got = canonical::proposal_message(&case.chain_id, &message);
        let expected = (&case.sign_bytes, &case.signature, &case.panic);
        check(&case.name, &key, &got, expected);
        if let Some(bytes) = &case.proposal {
            let decoded = pb::Proposal::decode(&bytes[..]).unwrap();
            let again = canonical::proposal_message(&case.chain_id, &decoded);
            check(&case.name, &key, &again, expected);
            if let Ok(proposal) = Proposal::from_proto_unchecked(decoded) {
                assert_eq!(pb::Proposal::from(&proposal).encode_to_vec(), bytes.0);
            }
        }
    });
}

#[test]
fn vector_vote_extension_sign_bytes() {
    let file: File = load("sign_bytes.json");
    let key = private_key(&file);
    each("vote_extensions", &file.vote_extensions, |_, case| {
        let vote = Vote {
            vote_type: SignedMsgType::Precommit,
            height: Height::new(case.height),
            round: Round::new(case.round),
            block_id: BlockId::NIL,
            timestamp: Time::ZERO,
            validator_address: Bytes::new(),
            validator_index: 0,
            signature: Bytes::new(),
            extension: case.extension.0.clone().into(),
            extension_signature: Bytes::new(),
        };
        let bytes = vote.extension_sign_bytes(&case.chain_id);
        assert_eq!(bytes, case.sign_bytes.0, "{}", case.name);
        assert_eq!(key.sign(&bytes)[..], case.signature[..], "{}", case.name);
    });
}
