//! Chained proofs, as applications give them with a query's answer: each operator proves its
//! output from its input, the last output is the app hash, and a path names the keys.

use bytes::Bytes;
use perihelion_proto::tendermint::crypto as pb;
use prost::Message;
use thiserror::Error;

use super::{Proof, ProofError, leaf_hash};
use crate::{DecodeError, wire};

/// The one kind of operator that the protocol itself defines: a key and the hash of a value as the
/// leaf of a tree.
const VALUE_OP: &str = "simple:v";

/// A chained proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofOpsError {
    /// The path does not begin with a slash.
    #[error("the path of keys does not begin with a slash")]
    Path,
    /// A part of the path is neither hexadecimal after `x:` nor URL-encoded.
    #[error("part {0} of the path of keys cannot be decoded")]
    PathPart(usize),
    /// An operator of a type that is not known.
    #[error("unknown type of proof {0:?}")]
    Type(String),
    /// An operator's data are no proof.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The operator's key is not the one that the path names, or the path has none left.
    #[error("the key of operator {0} is not the path's")]
    Key(usize),
    /// An operator does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The path names more keys than there are operators with keys.
    #[error("the path has more keys than the proof")]
    PathLeft,
}

/// Shows that `value` is at the keys of `path` under `root`, the path's last key being the first
/// operator's.
///
/// # Errors
/// When it does not, or an operator is of a type other than `simple:v`.
pub fn verify_value(
    proof: &pb::ProofOps,
    root: &[u8],
    path: &str,
    value: &[u8],
) -> Result<(), ProofOpsError> {
    let operators = proof
        .ops
        .iter()
        .map(decode)
        .collect::<Result<Vec<_>, _>>()?;
    let mut keys = keys(path)?;
    let mut value = Bytes::copy_from_slice(value);
    for (index, (key, proof)) in operators.into_iter().enumerate() {
        if !key.is_empty() && keys.pop().as_deref() != Some(&key[..]) {
            return Err(ProofOpsError::Key(index));
        }
        value = run(&key, &proof, &value)?;
    }
    if value != root {
        return Err(ProofError::Root.into());
    }
    if !keys.is_empty() {
        return Err(ProofOpsError::PathLeft);
    }
    Ok(())
}

fn decode(operator: &pb::ProofOp) -> Result<(Bytes, Proof), ProofOpsError> {
    if operator.r#type != VALUE_OP {
        let name = operator.r#type.chars().take(64).collect();
        return Err(ProofOpsError::Type(name));
    }
    let data = pb::ValueOp::decode(operator.data.clone()).map_err(DecodeError::from)?;
    let proof = data.proof.ok_or(DecodeError::Missing("proof"))?;
    Ok((operator.key.clone(), proof.try_into()?))
}

/// The root that an operator leads to: its leaf is the key and the value's hash, each with its
/// length before it.
fn run(key: &[u8], proof: &Proof, value: &[u8]) -> Result<Bytes, ProofError> {
    let hash = perihelion_crypto::sha256(value);
    let mut leaf = Vec::with_capacity(key.len() + 48);
    for part in [key, &hash] {
        wire::put_varint(&mut leaf, part.len() as u64);
        leaf.extend_from_slice(part);
    }
    if proof.leaf_hash[..] != leaf_hash(&leaf)[..] {
        return Err(ProofError::Leaf);
    }
    proof.compute_root()
}

/// The keys of a path: each part is hexadecimal after `x:`, or URL-encoded.
fn keys(path: &str) -> Result<Vec<Vec<u8>>, ProofOpsError> {
    let parts = path.strip_prefix('/').ok_or(ProofOpsError::Path)?;
    parts
        .split('/')
        .enumerate()
        .map(|(index, part)| {
            match part.strip_prefix("x:") {
                Some(digits) => hex::decode(digits).ok(),
                None => unescape(part),
            }
            .ok_or(ProofOpsError::PathPart(index))
        })
        .collect()
}

/// Undoes URL encoding: a percent sign and two hexadecimal digits stand for a byte.
fn unescape(part: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            bytes.extend(hex::decode(tail.get(..2)?).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}
