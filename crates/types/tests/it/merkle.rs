use bytes::Bytes;
use perihelion_proto::tendermint::crypto as pb;
use perihelion_test_support::{Hex, Verdict, each, load};
use perihelion_types::merkle::{self, Proof};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct File {
    about: String,
    made_by: String,
    large_leaf_rule: String,
    value_op_leaf: String,
    trees: Vec<Tree>,
    large_trees: Vec<LargeTree>,
    verify: Vec<Verify>,
    value_ops: Vec<ValueOps>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    leaves: Vec<Hex>,
    root: Hex,
    /// Trees of some sizes only; of each leaf then.
    proofs: Option<Vec<ProofForm>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LargeTree {
    total: u32,
    root: Hex,
    proofs: Vec<ProofForm>,
}

/// A proof as the vectors write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProofForm {
    total: i64,
    index: i64,
    leaf_hash: Hex,
    aunts: Vec<Hex>,
    proto: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verify {
    name: String,
    proof: ProofForm,
    root: Hex,
    root_is_nil: bool,
    leaf: Hex,
    validate_basic: Verdict,
    verify: Verdict,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueOps {
    name: String,
    key_path: String,
    proof_ops: Hex,
    root: Hex,
    value: Hex,
    verify: Verdict,
}

impl ProofForm {
    /// The proof, in memory: none of its rules holds yet.
    pub(crate) fn proof(&self) -> Proof {
        let proof = Proof {
            total: self.total,
            index: self.index,
            leaf_hash: Bytes::from(self.leaf_hash.0.clone()),
            aunts: self
                .aunts
                .iter()
                .map(|aunt| aunt.0.clone().into())
                .collect(),
        };
        assert_eq!(pb::Proof::from(&proof).encode_to_vec(), self.proto.0);
        proof
    }
}

fn check_proofs(proofs: &[ProofForm], made: &[Proof], leaves: &[Vec<u8>], root: &[u8]) {
    each("proofs", proofs, |_, form| {
        let proof = form.proof();
        let index = usize::try_from(form.index).unwrap();
        assert_eq!(proof, made[index]);
        assert_eq!(proof.verify(root, &leaves[index]), Ok(()));
        assert_eq!(proof.compute_root().unwrap(), root);
        let decoded = pb::Proof::decode(&form.proto[..]).unwrap();
        assert_eq!(Proof::try_from(decoded).unwrap(), proof);
    });
}

#[test]
fn vector_merkle_trees() {
    let file: File = load("merkle.json");
    let mut with_proofs = 0;
    each("trees", &file.trees, |_, case| {
        let leaves: Vec<_> = case.leaves.iter().map(|leaf| leaf.0.clone()).collect();
        let (root, made) = merkle::proofs(&leaves);
        assert_eq!(root.as_bytes(), &case.root[..]);
        assert_eq!(merkle::root(&leaves), root);
        if let Some(proofs) = &case.proofs {
            assert_eq!(proofs.len(), leaves.len());
            if !leaves.is_empty() {
                with_proofs += 1;
                check_proofs(proofs, &made, &leaves, &case.root);
            }
        }
    });
    assert!(with_proofs > 0);
    each("large_trees", &file.large_trees, |_, case| {
        let leaves: Vec<_> = (0..case.total).map(|i| i.to_be_bytes().to_vec()).collect();
        let (root, made) = merkle::proofs(&leaves);
        assert_eq!(root.as_bytes(), &case.root[..]);
        assert_eq!(merkle::root(&leaves), root);
        check_proofs(&case.proofs, &made, &leaves, &case.root);
    });
}

#[test]
fn vector_merkle_proof_verdicts() {
    let file: File = load("merkle.json");
    each("verify", &file.verify, |_, case| {
        let proof = case.proof.proof();
        case.validate_basic
            .assert_agrees(&case.name, &proof.validate_basic());
        let root = if case.root_is_nil {
            &[]
        } else {
            &case.root[..]
        };
        case.verify
            .assert_agrees(&case.name, &proof.verify(root, &case.leaf));
        let decoded = Proof::try_from(pb::Proof::decode(&case.proof.proto[..]).unwrap());
        case.validate_basic.assert_agrees(&case.name, &decoded);
    });
}

#[test]
fn vector_merkle_value_operators() {
    let file: File = load("merkle.json");
    each("value_ops", &file.value_ops, |_, case| {
        let operators = pb::ProofOps::decode(&case.proof_ops[..]).unwrap();
        let verdict = merkle::verify_value(&operators, &case.root, &case.key_path, &case.value);
        case.verify.assert_agrees(&case.name, &verdict);
    });
}
