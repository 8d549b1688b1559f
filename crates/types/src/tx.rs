//! Transactions: hashes and proofs.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use thiserror::Error;

use crate::{
    DecodeError, Hash,
    merkle::{Proof, ProofError, Tree},
};

/// A transaction's hash: SHA-256 of its bytes. Clients know it by this.
#[must_use]
pub fn hash(tx: &[u8]) -> [u8; 32] {
    perihelion_crypto::sha256(tx)
}

/// The hashes of transactions, in order: as [`hash`] of each, many at once.
#[must_use]
pub fn hashes(txs: &[&[u8]]) -> Vec<[u8; 32]> {
    let mut hashes = vec![[0; 32]; txs.len()];
    perihelion_crypto::sha256_each(&[], txs, &mut hashes);
    hashes
}

/// The tree of a block's transactions, whose root is the block's data hash: its leaves are their
/// hashes.
#[must_use]
pub fn tree(txs: &[Bytes]) -> Tree {
    let txs: Vec<&[u8]> = txs.iter().map(AsRef::as_ref).collect();
    Tree::new(&hashes(&txs))
}

/// That a transaction is in a block with a certain data hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxProof {
    /// The block's data hash.
    pub root_hash: Hash,
    /// The transaction.
    pub data: Bytes,
    /// The way from the transaction's hash to the data hash.
    pub proof: Proof,
}

/// A transaction's proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TxProofError {
    /// It is for another block.
    #[error("for data hash {0}")]
    OtherRoot(Hash),
    /// It does not lead from the transaction to its root.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl TxProof {
    /// A proof for `txs[index]`; `None` outside of `txs`.
    #[must_use]
    pub fn new(txs: &[Bytes], index: usize) -> Option<Self> {
        Self::from_tree(&tree(txs), txs, index)
    }

    /// The same where the [`tree`] of `txs` is there already.
    #[must_use]
    pub fn from_tree(tree: &Tree, txs: &[Bytes], index: usize) -> Option<Self> {
        Some(Self {
            root_hash: tree.root(),
            data: txs.get(index)?.clone(),
            proof: tree.proof(index)?,
        })
    }

    /// Shows that the transaction is in the block with `data_hash`.
    ///
    /// # Errors
    /// When it does not.
    pub fn validate(&self, data_hash: Hash) -> Result<(), TxProofError> {
        if self.root_hash != data_hash {
            return Err(TxProofError::OtherRoot(self.root_hash));
        }
        self.proof
            .verify(self.root_hash.as_bytes(), &hash(&self.data))?;
        Ok(())
    }
}

impl TryFrom<pb::TxProof> for TxProof {
    type Error = DecodeError;

    fn try_from(proof: pb::TxProof) -> Result<Self, DecodeError> {
        Ok(Self {
            root_hash: Hash::try_from(&proof.root_hash[..])?,
            data: proof.data,
            proof: proof
                .proof
                .ok_or(DecodeError::Missing("proof"))?
                .try_into()?,
        })
    }
}

impl From<&TxProof> for pb::TxProof {
    fn from(proof: &TxProof) -> Self {
        Self {
            root_hash: proof.root_hash.to_bytes(),
            data: proof.data.clone(),
            proof: Some((&proof.proof).into()),
        }
    }
}
