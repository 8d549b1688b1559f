use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use perihelion_test_support::{Hex, Moment, Verdict, each, load};
use perihelion_types::{
    BlockId, Commit, Data, DecodeError, Evidence, Hash, Header, Height, Rules, Time, Version,
    evidence, header, merkle, tx, tx::TxProof,
};
use prost::Message;
use serde::{Deserialize, de::IgnoredAny};

use crate::sign_bytes::{IdForm, timestamp};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct File {
    about: String,
    made_by: String,
    headers: Vec<HeaderCase>,
    commits: Vec<CommitCase>,
    data: Vec<DataCase>,
    evidence_lists: Vec<EvidenceList>,
    evidence_verdicts: Vec<EvidenceVerdict>,
    block_ids: Vec<BlockIdCase>,
    validator_sets: IgnoredAny,
    consensus_params: IgnoredAny,
    param_updates: IgnoredAny,
    results: IgnoredAny,
}

/// The cases of v0.40 that differ.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct NewFile {
    about: String,
    made_by: String,
    commits: Vec<CommitCase>,
    evidence_verdicts: Vec<EvidenceVerdict>,
    consensus_params: IgnoredAny,
    param_updates: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderCase {
    name: String,
    fields: HeaderFields,
    /// Absent where the time cannot be encoded.
    proto: Option<Hex>,
    hash: Hex,
    validate_basic: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderFields {
    version_block: u64,
    version_app: u64,
    chain_id: String,
    height: i64,
    time: Moment,
    last_block_id: IdForm,
    last_commit_hash: Hex,
    data_hash: Hex,
    validators_hash: Hex,
    next_validators_hash: Hex,
    consensus_hash: Hex,
    app_hash: Hex,
    last_results_hash: Hex,
    evidence_hash: Hex,
    proposer_address: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitCase {
    name: String,
    proto: Hex,
    hash: Hex,
    from_proto: Verdict,
    validate_basic: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DataCase {
    txs: Vec<Hex>,
    tx_hashes: Vec<Hex>,
    proto: Hex,
    hash: Hex,
    size_in_block: usize,
    /// Of each transaction, for small lists only.
    proofs: Option<Vec<TxProofCase>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TxProofCase {
    index: usize,
    proto: Hex,
    validate: Verdict,
    /// Against the hash of no transactions.
    validate_other_root: Verdict,
    /// With the byte 1 before the transaction.
    validate_other_tx: Verdict,
    /// With the next index, the first after the last.
    validate_other_index: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceList {
    evidence: Vec<EvidenceCase>,
    proto: Hex,
    hash: Hex,
    byte_size: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceCase {
    bytes: Hex,
    hash: Hex,
    proto: Hex,
    validate_basic: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceVerdict {
    name: String,
    proto: Hex,
    validate_basic: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockIdCase {
    name: String,
    fields: IdForm,
    proto: Hex,
    from_proto: Verdict,
    validate_basic: Verdict,
    is_complete: bool,
    is_zero: bool,
    key: Hex,
    text: String,
}

impl HeaderFields {
    fn message(&self) -> pb::Header {
        let bytes = |hex: &Hex| Bytes::from(hex.0.clone());
        pb::Header {
            version: Some(perihelion_proto::tendermint::version::Consensus {
                block: self.version_block,
                app: self.version_app,
            }),
            chain_id: self.chain_id.clone(),
            height: self.height,
            time: Some(timestamp(&self.time)),
            last_block_id: Some(self.last_block_id.message()),
            last_commit_hash: bytes(&self.last_commit_hash),
            data_hash: bytes(&self.data_hash),
            validators_hash: bytes(&self.validators_hash),
            next_validators_hash: bytes(&self.next_validators_hash),
            consensus_hash: bytes(&self.consensus_hash),
            app_hash: bytes(&self.app_hash),
            last_results_hash: bytes(&self.last_results_hash),
            evidence_hash: bytes(&self.evidence_hash),
            proposer_address: bytes(&self.proposer_address),
        }
    }

    /// The header in memory, where its hashes can be represented; its time may be any.
    fn header(&self) -> Result<Header, DecodeError> {
        let hash = |hex: &Hex| Hash::try_from(&hex[..]);
        Ok(Header {
            version: Version {
                block: self.version_block,
                app: self.version_app,
            },
            chain_id: self.chain_id.clone(),
            height: Height::new(self.height),
            time: Time::new(self.time.seconds, self.time.nanos),
            last_block_id: self.last_block_id.message().try_into()?,
            last_commit_hash: hash(&self.last_commit_hash)?,
            data_hash: hash(&self.data_hash)?,
            validators_hash: hash(&self.validators_hash)?,
            next_validators_hash: hash(&self.next_validators_hash)?,
            consensus_hash: hash(&self.consensus_hash)?,
            app_hash: self.app_hash.0.clone().into(),
            last_results_hash: hash(&self.last_results_hash)?,
            evidence_hash: hash(&self.evidence_hash)?,
            proposer_address: self.proposer_address.0.clone().into(),
        })
    }
}

#[test]
fn vector_header_hashes() {
    let file: File = load("hashes.json");
    each("headers", &file.headers, |index, case| {
        let what = format!("header {index}, {}", case.name);
        let message = case.fields.message();
        assert_eq!(
            header::hash_proto(&message).as_bytes(),
            &case.hash[..],
            "{what}"
        );

        let in_memory = case.fields.header();
        let verdict = in_memory
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|header| Ok(header.validate_basic()?));
        case.validate_basic.assert_agrees(&what, &verdict);
        if let Ok(header) = &in_memory {
            assert_eq!(header.hash().as_bytes(), &case.hash[..], "{what}");
        }

        let Some(proto) = &case.proto else {
            assert!(Header::try_from(message).is_err(), "{what}");
            return;
        };
        assert_eq!(message.encode_to_vec(), proto.0, "{what}");
        let decoded = Header::try_from(pb::Header::decode(&proto[..]).unwrap());
        case.validate_basic.assert_agrees(&what, &decoded);
        if let Ok(decoded) = decoded {
            assert_eq!(decoded, in_memory.unwrap(), "{what}");
            assert_eq!(
                pb::Header::from(&decoded).encode_to_vec(),
                proto.0,
                "{what}"
            );
        }
    });
}

fn check_commits(commits: &[CommitCase], rules: Rules) {
    each("commits", commits, |_, case| {
        let message = pb::Commit::decode(&case.proto[..]).unwrap();
        let checked = Commit::from_proto(message.clone(), rules);
        case.from_proto.assert_agrees(&case.name, &checked);
        let commit = Commit::from_proto_unchecked(message).unwrap();
        case.validate_basic
            .assert_agrees(&case.name, &commit.validate_basic_by(rules));
        assert_eq!(commit.hash().as_bytes(), &case.hash[..], "{}", case.name);
        assert_eq!(pb::Commit::from(&commit).encode_to_vec(), case.proto.0);
    });
}

fn check_evidence_verdicts(verdicts: &[EvidenceVerdict], rules: Rules) {
    each("evidence_verdicts", verdicts, |_, case| {
        let message = pb::Evidence::decode(&case.proto[..]).unwrap();
        let verdict = Evidence::from_proto(message, rules);
        case.validate_basic.assert_agrees(&case.name, &verdict);
        if let Ok(evidence) = verdict {
            assert!(evidence.validate_basic_by(rules).is_ok());
            assert_eq!(pb::Evidence::from(&evidence).encode_to_vec(), case.proto.0);
        }
    });
}

#[test]
fn vector_commit_hashes() {
    check_commits(&load::<File>("hashes.json").commits, Rules::V038);
    check_commits(&load::<NewFile>("hashes_v0.40.json").commits, Rules::V040);
}

#[test]
fn vector_evidence_verdicts() {
    let file: File = load("hashes.json");
    check_evidence_verdicts(&file.evidence_verdicts, Rules::V038);
    let file: NewFile = load("hashes_v0.40.json");
    check_evidence_verdicts(&file.evidence_verdicts, Rules::V040);
}

#[test]
fn vector_evidence_hashes() {
    let file: File = load("hashes.json");
    each("evidence_lists", &file.evidence_lists, |index, case| {
        let what = format!("list {index}");
        let message = pb::EvidenceList::decode(&case.proto[..]).unwrap();
        let list: Vec<Evidence> = message
            .evidence
            .into_iter()
            .map(|evidence| Evidence::try_from(evidence).expect(&what))
            .collect();
        assert_eq!(list.len(), case.evidence.len(), "{what}");
        assert_eq!(
            evidence::hash_list(&list).as_bytes(),
            &case.hash[..],
            "{what}"
        );
        assert_eq!(evidence::list_bytes(&list), case.byte_size, "{what}");
        for (evidence, expected) in list.iter().zip(&case.evidence) {
            assert_eq!(evidence.hash().as_bytes(), &expected.hash[..], "{what}");
            assert_eq!(evidence.hashed_bytes(), expected.bytes.0, "{what}");
            let encoded = pb::Evidence::from(evidence).encode_to_vec();
            assert_eq!(encoded, expected.proto.0, "{what}");
            expected
                .validate_basic
                .assert_agrees(&what, &evidence.validate_basic());
        }
    });
}

#[test]
fn vector_data_hashes() {
    let file: File = load("hashes.json");
    each("data", &file.data, |index, case| {
        let txs: Vec<Bytes> = case.txs.iter().map(|hex| hex.0.clone().into()).collect();
        let data = Data::decode(case.proto.0.clone().into()).unwrap();
        assert_eq!(data.to_vec(), txs, "list {index}");
        assert_eq!(data, Data::new(&txs), "list {index}");
        assert_eq!(data.hash().as_bytes(), &case.hash[..], "list {index}");
        assert_eq!(data.encoded_len(), case.size_in_block, "list {index}");
        let hashes = txs.iter().map(|raw| Hex(tx::hash(raw).to_vec()));
        assert_eq!(hashes.collect::<Vec<_>>(), case.tx_hashes, "list {index}");
        let Some(proofs) = &case.proofs else { return };
        assert_eq!(proofs.len(), txs.len());
        each("proofs", proofs, |_, proof| check_tx_proof(&txs, proof));
        assert!(TxProof::new(&txs, txs.len()).is_none());
    });
    assert!(file.data.iter().any(|case| case.proofs.is_some()));
}

fn check_tx_proof(txs: &[Bytes], case: &TxProofCase) {
    let what = format!("proof {} of {}", case.index, txs.len());
    let proof = TxProof::new(txs, case.index).unwrap();
    assert_eq!(pb::TxProof::from(&proof).encode_to_vec(), case.proto.0);
    let decoded = TxProof::try_from(pb::TxProof::decode(&case.proto[..]).unwrap());
    assert_eq!(decoded.unwrap(), proof);
    let root = proof.root_hash;
    case.validate.assert_agrees(&what, &proof.validate(root));
    case.validate_other_root
        .assert_agrees(&what, &proof.validate(merkle::root::<&[u8]>(&[])));
    let mut other = proof.clone();
    other.data = [&[1], &txs[case.index][..]].concat().into();
    case.validate_other_tx
        .assert_agrees(&what, &other.validate(root));
    let mut moved = proof;
    moved.proof.index = (moved.proof.index + 1) % moved.proof.total;
    case.validate_other_index
        .assert_agrees(&what, &moved.validate(root));
}

#[test]
fn vector_block_ids() {
    let file: File = load("hashes.json");
    each("block_ids", &file.block_ids, |_, case| {
        assert_eq!(case.fields.message().encode_to_vec(), case.proto.0);
        let decoded = BlockId::try_from(pb::BlockId::decode(&case.proto[..]).unwrap());
        case.from_proto.assert_agrees(&case.name, &decoded);
        // One that cannot be represented breaks the rules, and so is neither zero nor complete.
        let valid = decoded.clone().and_then(|id| Ok(id.validate_basic()?));
        case.validate_basic.assert_agrees(&case.name, &valid);
        let is_complete = decoded.as_ref().is_ok_and(BlockId::is_complete);
        assert_eq!(is_complete, case.is_complete, "{}", case.name);
        let is_nil = decoded.as_ref().is_ok_and(BlockId::is_nil);
        assert_eq!(is_nil, case.is_zero, "{}", case.name);
        if let Ok(id) = decoded {
            assert_eq!(id.key(), case.key.0, "{}", case.name);
            assert_eq!(id.to_string(), case.text, "{}", case.name);
            assert_eq!(pb::BlockId::from(&id).encode_to_vec(), case.proto.0);
        }
    });
}
