//! Blocks cut into parts, each with a proof that it belongs to the block.

use bytes::{Bytes, BytesMut};
use perihelion_proto::tendermint::types as pb;
use thiserror::Error;

use crate::{
    DecodeError, InvalidError, PartSetHeader,
    bounds::MAX_BLOCK_BYTES,
    merkle::{self, Node, Proof, ProofError},
};

/// Bytes of a block's part; the last one is shorter.
pub const PART_SIZE: usize = 65_536;

/// Most parts of a block: those of the largest, and one more as CometBFT allows. Larger would let a
/// header alone reserve memory, smaller would refuse the largest block.
pub const MAX_PARTS: u32 = (MAX_BLOCK_BYTES / PART_SIZE) as u32 + 1;

/// One part of a block with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The part's place, from 0.
    pub index: u32,
    /// At most [`PART_SIZE`] bytes.
    pub bytes: Bytes,
    /// That the part is the part set's at its index.
    pub proof: Proof,
}

/// A block cut into parts, complete or on its way to be.
#[derive(Debug, Clone)]
pub struct PartSet {
    header: PartSetHeader,
    parts: Vec<Option<Part>>,
    count: u32,
    bytes: usize,
}

/// A part cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PartError {
    /// Beyond the set's parts.
    #[error("part {index} of a set of {total}")]
    Index {
        /// The part's index.
        index: u32,
        /// The set's parts.
        total: u32,
    },
    /// The proof is for a set of another size.
    #[error("the proof is for {0} parts")]
    Total(i64),
    /// The proof does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl Part {
    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("part", reason));
        let length = self.bytes.len();
        let index = i64::from(self.index);
        let is_last = index >= self.proof.total.saturating_sub(1);
        if length > PART_SIZE || (!is_last && length != PART_SIZE) {
            return invalid(format!("{length} bytes at {index} of {}", self.proof.total));
        }
        if self.proof.index != index {
            return invalid(format!("index {index}, the proof's {}", self.proof.index));
        }
        self.proof.validate_basic()
    }
}

impl PartSet {
    /// Cuts `data` (not empty) into parts, sharing its memory.
    #[must_use]
    pub fn from_data(data: Bytes) -> Self {
        Self::from_data_by(data, PART_SIZE)
    }

    /// Cuts `data` into parts of `part_size` bytes (at least 1; [`PART_SIZE`] on every chain).
    #[must_use]
    pub fn from_data_by(data: Bytes, part_size: usize) -> Self {
        let part_size = part_size.max(1);
        let cut: Vec<Bytes> = (0..data.len())
            .step_by(part_size)
            .map(|start| data.slice(start..data.len().min(start + part_size)))
            .collect();
        let (hash, proofs) = merkle::proofs(&cut);
        let parts: Vec<_> = (0..)
            .zip(cut)
            .zip(proofs)
            .map(|((index, bytes), proof)| {
                Some(Part {
                    index,
                    bytes,
                    proof,
                })
            })
            .collect();
        let total = parts.len() as u32;
        Self {
            header: PartSetHeader { total, hash },
            parts,
            count: total,
            bytes: data.len(),
        }
    }

    /// An empty set, to be filled by [`add_part`](Self::add_part).
    ///
    /// # Errors
    /// When the header announces more parts than [`MAX_PARTS`].
    pub fn from_header(header: PartSetHeader) -> Result<Self, DecodeError> {
        if header.total > MAX_PARTS {
            return Err(DecodeError::TooMany {
                what: "parts",
                count: header.total as usize,
                max: MAX_PARTS as usize,
            });
        }
        Ok(Self {
            header,
            parts: vec![None; header.total as usize],
            count: 0,
            bytes: 0,
        })
    }

    /// Adds a part after its proof has been verified. `false` when it is there already.
    ///
    /// That the part's index is its proof's is a rule of [`Part::validate_basic`], which every part
    /// that was decoded has passed.
    ///
    /// # Errors
    /// When the part is not this set's.
    pub fn add_part(&mut self, part: Part) -> Result<bool, PartError> {
        let total = self.header.total;
        let index = part.index;
        let place = self
            .parts
            .get_mut(index as usize)
            .ok_or(PartError::Index { index, total })?;
        if place.is_some() {
            return Ok(false);
        }
        if part.proof.total != i64::from(total) {
            return Err(PartError::Total(part.proof.total));
        }
        part.proof
            .verify(self.header.hash.as_bytes(), &part.bytes)?;
        self.count += 1;
        self.bytes += part.bytes.len();
        *place = Some(part);
        Ok(true)
    }

    /// Count and root.
    #[must_use]
    pub fn header(&self) -> PartSetHeader {
        self.header
    }

    /// The part at `index`, if it is there.
    #[must_use]
    pub fn part(&self, index: u32) -> Option<&Part> {
        self.parts.get(index as usize)?.as_ref()
    }

    /// How many parts are there.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the parts that are there.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.bytes
    }

    /// Whether all parts are there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.count == self.header.total
    }

    /// The data, once all parts are there.
    #[must_use]
    pub fn assemble(&self) -> Option<Bytes> {
        if !self.is_complete() {
            return None;
        }
        let mut data = BytesMut::with_capacity(self.bytes);
        for part in self.parts.iter().flatten() {
            data.extend_from_slice(&part.bytes);
        }
        Some(data.freeze())
    }
}

/// Count and root of `data`'s parts, without keeping parts or proofs.
#[must_use]
pub fn header_of(data: &[u8]) -> PartSetHeader {
    let parts: Vec<_> = data.chunks(PART_SIZE).collect();
    header_over(merkle::leaf_hashes(&parts))
}

/// [`header_of`] each of `blocks`, in their order. The parts of all are hashed at once, those of
/// about one length together: most blocks are one part, which by itself is hashed slowest.
#[must_use]
pub fn headers_of(blocks: &[&[u8]]) -> Vec<PartSetHeader> {
    let mut parts: Vec<(usize, &[u8])> = Vec::with_capacity(blocks.len());
    for block in blocks {
        let first = parts.len();
        parts.extend((first..).zip(block.chunks(PART_SIZE)));
    }
    parts.sort_unstable_by_key(|(_, part)| part.len());
    let sorted: Vec<_> = parts.iter().map(|(_, part)| *part).collect();
    let mut nodes = vec![[0; 32]; parts.len()];
    for ((place, _), node) in parts.iter().zip(merkle::leaf_hashes(&sorted)) {
        nodes[*place] = node;
    }
    let mut rest = &nodes[..];
    let header = |block: &&[u8]| {
        let (own, behind) = rest.split_at(block.len().div_ceil(PART_SIZE));
        rest = behind;
        header_over(own.to_vec())
    };
    blocks.iter().map(header).collect()
}

/// Count and root of parts that are hashed already.
fn header_over(parts: Vec<Node>) -> PartSetHeader {
    PartSetHeader {
        total: parts.len() as u32,
        hash: merkle::root_of(parts),
    }
}

impl TryFrom<pb::Part> for Part {
    type Error = DecodeError;

    fn try_from(part: pb::Part) -> Result<Self, DecodeError> {
        let part = Self {
            index: part.index,
            bytes: part.bytes,
            proof: part.proof.unwrap_or_default().try_into()?,
        };
        part.validate_basic()?;
        Ok(part)
    }
}

impl From<&Part> for pb::Part {
    fn from(part: &Part) -> Self {
        Self {
            index: part.index,
            bytes: part.bytes.clone(),
            proof: Some((&part.proof).into()),
        }
    }
}
