//! Blocks as they arrive from peers.

use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    Block, BlockId, Commit, CommitSig, DecodeError, Evidence, ExtendedCommit, ExtendedCommitSig,
    Height, PartSet, PartSetHeader, Rules, Validator, part_set,
};

/// A block from a peer, decoded once: its exact bytes, what they say and the id that they hash to.
/// Nothing is known yet of whether it is on the chain.
///
/// Invariant: `block` was decoded from `raw`; `block_id` is the header's hash and the part set of
/// `raw`; the body's hashes are the header's.
#[derive(Debug, Clone)]
pub struct FetchedBlock {
    raw: Bytes,
    block: Block,
    block_id: BlockId,
    extended_commit: Option<ExtendedCommit>,
    hold: Option<Hold>,
}

/// Something that lives as long as a block does, such as its share of a byte budget.
#[derive(Clone)]
pub struct Hold(Arc<dyn Any + Send + Sync>);

impl Hold {
    /// Keeps `kept` until the block is gone.
    pub fn new(kept: impl Any + Send + Sync) -> Self {
        Self(Arc::new(kept))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({} owners)", Arc::strong_count(&self.0))
    }
}

impl FetchedBlock {
    /// Checks counts, decodes, hashes header, body and parts.
    ///
    /// # Errors
    /// What CometBFT's decoding refuses, a body that is not its header's included.
    pub fn decode(raw: Bytes, extended_commit: Option<Bytes>) -> Result<Self, DecodeError> {
        Self::decode_by(raw, extended_commit, Rules::V038)
    }

    /// As [`decode`](Self::decode), with the stateless rules of `rules`.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_by(
        raw: Bytes,
        extended_commit: Option<Bytes>,
        rules: Rules,
    ) -> Result<Self, DecodeError> {
        Ok(Unhashed::decode(raw, extended_commit, rules)?.hash())
    }

    /// [`decode_by`](Self::decode_by) of each, a block's bytes, its extended commit and its rules,
    /// in their order. The parts of all blocks are hashed at once, which is quicker for blocks of
    /// few parts; what is wrong with one does not touch the others.
    pub fn decode_each(
        encoded: impl IntoIterator<Item = (Bytes, Option<Bytes>, Rules)>,
    ) -> Vec<Result<Self, DecodeError>> {
        let decoded: Vec<_> = encoded
            .into_iter()
            .map(|(raw, extended_commit, rules)| Unhashed::decode(raw, extended_commit, rules))
            .collect();
        let raw: Vec<&[u8]> = decoded.iter().flatten().map(|it| &it.raw[..]).collect();
        let mut headers = part_set::headers_of(&raw).into_iter();
        let mut hashed = |it: Unhashed| {
            let header = headers.next().expect("each that was decoded has one");
            it.with_header(header)
        };
        decoded.into_iter().map(|it| it.map(&mut hashed)).collect()
    }

    /// The block that the parts of a proposal make, by `rules`; its id has their header.
    ///
    /// # Errors
    /// When a part is missing, or as [`decode`](Self::decode).
    pub fn from_parts(parts: &PartSet, rules: Rules) -> Result<Self, DecodeError> {
        let raw = parts.assemble().ok_or(DecodeError::Missing("part"))?;
        let block = Block::decode_by(raw.clone(), rules)?;
        let unhashed = Unhashed {
            raw,
            block,
            extended_commit: None,
        };
        Ok(unhashed.with_header(parts.header()))
    }

    /// The same block, which keeps `hold` until it is dropped.
    #[must_use]
    pub fn with_hold(self, hold: Hold) -> Self {
        Self {
            hold: Some(hold),
            ..self
        }
    }

    /// The block's bytes as received (`tendermint.types.Block`, no prefix).
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The decoded block.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// Its id: header hash and part-set root of `raw`.
    #[must_use]
    pub fn block_id(&self) -> BlockId {
        self.block_id
    }

    /// Its height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.block.header.height
    }

    /// The extended commit that came with it, unverified.
    #[must_use]
    pub fn extended_commit(&self) -> Option<&ExtendedCommit> {
        self.extended_commit.as_ref()
    }

    /// The same block with its bytes encoded canonically again, when that changes the id: another
    /// encoding of a final block hashes to another part set. `None` when the bytes were canonical.
    #[must_use]
    pub fn reencoded(&self) -> Option<Self> {
        let raw = self.block.encode();
        (raw != self.raw).then(|| {
            // Decoded again so that what it shares memory with is what `memory` counts.
            let block = Block::decode_by(raw.clone(), Rules::STORED);
            let block = block.unwrap_or_else(|_| self.block.clone());
            let unhashed = Unhashed {
                raw,
                block,
                extended_commit: self.extended_commit.clone(),
            };
            Self {
                hold: self.hold.clone(),
                ..unhashed.hash()
            }
        })
    }

    /// The same block with an extended commit, which is not verified.
    #[must_use]
    pub fn with_extended_commit(&self, commit: ExtendedCommit) -> Self {
        Self {
            extended_commit: Some(commit),
            ..self.clone()
        }
    }

    /// The same block without its extended commit.
    #[must_use]
    pub fn without_extended_commit(&self) -> Self {
        Self {
            extended_commit: None,
            ..self.clone()
        }
    }

    /// Memory that it holds, in bytes, for budgets: raw bytes and the decoded form's overhead.
    #[must_use]
    pub fn memory(&self) -> usize {
        let commit_bytes = |commit: &Commit| commit.signatures.len() * size_of::<CommitSig>();
        let evidence: usize = self
            .block
            .evidence
            .iter()
            .map(|evidence| match evidence {
                Evidence::DuplicateVote(_) => 0,
                Evidence::LightClientAttack(attack) => {
                    let block = &attack.conflicting_block;
                    let validators = block.validator_set.len() + attack.byzantine_validators.len();
                    commit_bytes(&block.signed_header.commit)
                        + validators * (size_of::<Validator>() + size_of::<usize>())
                }
            })
            .sum();
        let extended = self.extended_commit.as_ref().map_or(0, |commit| {
            let places = commit.extended_signatures.iter();
            places
                .map(|place| {
                    size_of::<ExtendedCommitSig>()
                        + place.commit_sig.signature.len()
                        + place.commit_sig.validator_address.len()
                        + place.extension.len()
                        + place.extension_signature.len()
                })
                .sum()
        });
        size_of::<Self>()
            + self.raw.len()
            + self.own_copy()
            + self.block.last_commit.as_ref().map_or(0, commit_bytes)
            + self.block.evidence.len() * size_of::<Evidence>()
            + evidence
            + extended
    }

    /// The most bytes that the block's fields share instead of `raw`, since it, or its transactions,
    /// had to be encoded again; 0 where none had to.
    fn own_copy(&self) -> usize {
        let own = [
            self.block.data.encoded(),
            &self.block.header.proposer_address,
        ];
        let shares = |it: &Bytes| it.is_empty() || self.raw.as_ptr_range().contains(&it.as_ptr());
        if own.into_iter().all(shares) {
            0
        } else {
            self.raw.len()
        }
    }
}

/// A decoded block before its parts are hashed.
struct Unhashed {
    raw: Bytes,
    block: Block,
    extended_commit: Option<ExtendedCommit>,
}

impl Unhashed {
    fn decode(
        raw: Bytes,
        extended_commit: Option<Bytes>,
        rules: Rules,
    ) -> Result<Self, DecodeError> {
        let block = Block::decode_by(raw.clone(), rules)?;
        let extended_commit = extended_commit
            .map(|commit| ExtendedCommit::decode_by(commit, rules))
            .transpose()?;
        Ok(Self {
            raw,
            block,
            extended_commit,
        })
    }

    fn hash(self) -> FetchedBlock {
        let header = part_set::header_of(&self.raw);
        self.with_header(header)
    }

    fn with_header(self, part_set_header: PartSetHeader) -> FetchedBlock {
        let block_id = BlockId {
            hash: self.block.hash(),
            part_set_header,
        };
        FetchedBlock {
            raw: self.raw,
            block: self.block,
            block_id,
            extended_commit: self.extended_commit,
            hold: None,
        }
    }
}
