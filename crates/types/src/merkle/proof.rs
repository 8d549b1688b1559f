use bytes::Bytes;
use perihelion_proto::tendermint::crypto as pb;
use thiserror::Error;

use super::{Node, fold, leaf_hash, leaf_hashes};
use crate::{DecodeError, Hash, InvalidError};

/// Most aunts that a proof may have; a tree of 2^63 leaves has fewer.
pub const MAX_AUNTS: usize = 100;

/// Membership of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Leaves of the tree.
    pub total: i64,
    /// The leaf's place, from 0.
    pub index: i64,
    /// The leaf's hash; 32 bytes once `validate_basic` has passed.
    pub leaf_hash: Bytes,
    /// Siblings on the way from the leaf to the root, 32 bytes each.
    pub aunts: Vec<Bytes>,
}

/// A proof does not show what it should.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The index is not below the total, or one is negative.
    #[error("no leaf {index} among {total}")]
    Index {
        /// The index that the proof names.
        index: i64,
        /// The total that it names.
        total: i64,
    },
    /// The number of aunts is not that of the leaf's place.
    #[error("{got} aunts, expected {expected}")]
    Aunts {
        /// How many the leaf's place has.
        expected: usize,
        /// How many the proof has.
        got: usize,
    },
    /// The proof is for another leaf.
    #[error("the leaf's hash is not the proof's")]
    Leaf,
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

impl Proof {
    /// Shows that `leaf` is in the tree of `root`, at the proof's index of the proof's total.
    ///
    /// # Errors
    /// When it does not.
    pub fn verify(&self, root: &[u8], leaf: &[u8]) -> Result<(), ProofError> {
        if self.leaf_hash[..] != leaf_hash(leaf)[..] {
            return Err(ProofError::Leaf);
        }
        if self.compute_root()? != root {
            return Err(ProofError::Root);
        }
        Ok(())
    }

    /// The root that leaf hash and aunts lead to.
    ///
    /// # Errors
    /// When index and total name no leaf, or the number of aunts is not that of the leaf's place.
    pub fn compute_root(&self) -> Result<Bytes, ProofError> {
        let (mut index, mut total) = (self.index, self.total);
        if index < 0 || index >= total {
            return Err(ProofError::Index { index, total });
        }
        // From the root down: is the leaf on the left?
        let mut on_left = Vec::with_capacity(64);
        while total > 1 {
            let left = 1_i64 << (total - 1).ilog2();
            on_left.push(index < left);
            if index < left {
                total = left;
            } else {
                index -= left;
                total -= left;
            }
        }
        if on_left.len() != self.aunts.len() {
            return Err(ProofError::Aunts {
                expected: on_left.len(),
                got: self.aunts.len(),
            });
        }
        let mut node = self.leaf_hash.clone();
        for (left, aunt) in on_left.iter().rev().zip(&self.aunts) {
            let (first, second) = if *left { (&node, aunt) } else { (aunt, &node) };
            // The lengths are checked by `validate_basic`, not here: join whatever they are.
            node = Bytes::copy_from_slice(&perihelion_crypto::sha256(
                &[&[1], &first[..], &second[..]].concat(),
            ));
        }
        Ok(node)
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("proof", reason));
        if self.total < 0 || self.index < 0 {
            return invalid(format!("index {} of {}", self.index, self.total));
        }
        if self.leaf_hash.len() != 32 {
            return invalid(format!("leaf hash of {} bytes", self.leaf_hash.len()));
        }
        if self.aunts.len() > MAX_AUNTS {
            return invalid(format!("{} aunts", self.aunts.len()));
        }
        if let Some(aunt) = self.aunts.iter().find(|aunt| aunt.len() != 32) {
            return invalid(format!("aunt of {} bytes", aunt.len()));
        }
        Ok(())
    }
}

/// Root over `leaves`, and a proof for each.
#[must_use]
pub fn proofs<L: AsRef<[u8]>>(leaves: &[L]) -> (Hash, Vec<Proof>) {
    let tree = Tree::new(leaves);
    let proofs = (0..leaves.len()).map_while(|index| tree.proof(index));
    (tree.root(), proofs.collect())
}

/// All nodes of a tree: whoever needs a few proofs hashes its leaves once. Takes 64 bytes a leaf.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The leaves' hashes first, those of the level above then, up to the root's. Proofs hold parts
    /// of these.
    levels: Vec<Bytes>,
}

/// Bytes of a node.
const NODE: usize = size_of::<Node>();

impl Tree {
    /// The tree over `leaves`.
    #[must_use]
    pub fn new<L: AsRef<[u8]>>(leaves: &[L]) -> Self {
        let leaves: Vec<&[u8]> = leaves.iter().map(AsRef::as_ref).collect();
        let mut level = leaf_hashes(&leaves);
        let mut levels = vec![Bytes::copy_from_slice(level.as_flattened())];
        while level.len() > 1 {
            fold(&mut level);
            levels.push(Bytes::copy_from_slice(level.as_flattened()));
        }
        Self { levels }
    }

    /// The root; SHA-256 of nothing where there is no leaf.
    #[must_use]
    pub fn root(&self) -> Hash {
        let root = self.levels.last().and_then(|level| level.first_chunk());
        root.map_or_else(|| Hash::of(&[]), |root| Hash::new(*root))
    }

    /// The proof for the leaf at `index`, from 0; `None` where there is none.
    #[must_use]
    pub fn proof(&self, index: usize) -> Option<Proof> {
        let leaves = self.levels.first()?;
        let leaf_hash = node(leaves, index)?;
        // The leaf's ancestor at a level stands at index >> depth; its sibling is the next aunt. An
        // odd last node has none.
        let levels = self.levels.iter().enumerate();
        let aunts = levels.filter_map(|(depth, level)| node(level, (index >> depth) ^ 1));
        Some(Proof {
            total: i64::try_from(leaves.len() / NODE).ok()?,
            index: i64::try_from(index).ok()?,
            leaf_hash,
            aunts: aunts.collect(),
        })
    }
}

/// The node of a level at a place, if it has so many.
fn node(level: &Bytes, place: usize) -> Option<Bytes> {
    let start = place.checked_mul(NODE)?;
    (start < level.len()).then(|| level.slice(start..start + NODE))
}

impl TryFrom<pb::Proof> for Proof {
    type Error = DecodeError;

    fn try_from(proof: pb::Proof) -> Result<Self, DecodeError> {
        let proof = Self {
            total: proof.total,
            index: proof.index,
            leaf_hash: proof.leaf_hash,
            aunts: proof.aunts,
        };
        proof.validate_basic()?;
        Ok(proof)
    }
}

impl From<&Proof> for pb::Proof {
    fn from(proof: &Proof) -> Self {
        Self {
            total: proof.total,
            index: proof.index,
            leaf_hash: proof.leaf_hash.clone(),
            aunts: proof.aunts.clone(),
        }
    }
}
