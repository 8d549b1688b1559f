use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use perihelion_blocksync_reactor::wire;
use perihelion_crypto::PrivateKey;
use perihelion_store::Store;
use perihelion_types::{
    Address, Block, BlockId, BlockIdFlag, Commit, CommitSig, Data, ExtendedCommit, Height, Round,
    ValidatorSet, part_set,
};
use prost::encoding::{decode_varint, encode_varint};

/// One height in so many is withheld, half of them in silence.
const WITHHELD: i64 = 20;

/// What an endless block says of its size, in bytes.
const ENDLESS: u64 = 104_000_000;

/// What a peer lies about. Whatever it does not lie about it serves as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lie {
    /// Transactions that are not its header's.
    CorruptBody,
    /// A last commit with a signature that its validator never made, in a header that names it.
    ForgedCommit,
    /// A chain of its own from a height on, signed by less than a third of the power.
    StaleFork,
    /// An extended commit with a vote extension's signature bent.
    BadExtendedCommit,
    /// Heights within its range that it does not serve: NoBlockResponse, or nothing at all.
    WithheldHeight,
    /// A height far above what it has.
    InflatedRange,
    /// A block of 100 MB, of which nothing follows what announces it.
    EndlessBlock,
    /// Other bytes for the same block.
    OtherEncoding(Encoding),
}

/// How a block's bytes differ from what every node would encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// With a field that no version knows.
    UnknownField,
    /// Its fields in another order.
    FieldOrder,
    /// A length in more bytes than it needs.
    OverlongVarint,
}

impl Lie {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::CorruptBody,
        Self::ForgedCommit,
        Self::StaleFork,
        Self::BadExtendedCommit,
        Self::WithheldHeight,
        Self::InflatedRange,
        Self::EndlessBlock,
        Self::OtherEncoding(Encoding::UnknownField),
        Self::OtherEncoding(Encoding::FieldOrder),
        Self::OtherEncoding(Encoding::OverlongVarint),
    ];

    /// Whether whoever tells it must end up banned. The others may be honest: a server can hold
    /// such bytes, or lack a block, without having lied.
    #[must_use]
    pub const fn is_convicted(self) -> bool {
        matches!(
            self,
            Self::CorruptBody | Self::ForgedCommit | Self::StaleFork
        )
    }
}

/// A chain as a liar tells it.
pub struct LyingChain {
    store: Arc<Store>,
    lie: Lie,
    chain_id: String,
    fork: HashMap<Height, Bytes>,
}

impl std::fmt::Debug for LyingChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LyingChain")
            .field("lie", &self.lie)
            .field("chain_id", &self.chain_id)
            .finish_non_exhaustive()
    }
}

impl LyingChain {
    /// The chain in `store`, with a lie. `keys` are validators' keys that the liar has got hold
    /// of; only a fork needs any.
    ///
    /// # Errors
    /// When the store cannot be read, or a fork cannot be made of it.
    pub fn new(store: Arc<Store>, lie: Lie, keys: &[PrivateKey]) -> anyhow::Result<Self> {
        let header = store.load_header(store.base())?;
        let chain_id = header.context("an empty chain")?.chain_id;
        let mut chain = Self {
            store,
            lie,
            chain_id,
            fork: HashMap::new(),
        };
        if lie == Lie::StaleFork {
            chain.fork(keys)?;
        }
        Ok(chain)
    }

    /// The chain's id.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        &self.chain_id
    }

    /// What it lies about.
    #[must_use]
    pub const fn lie(&self) -> Lie {
        self.lie
    }

    /// The status that it tells.
    #[must_use]
    pub fn status(&self) -> Bytes {
        let (base, height) = self.store.base_and_height();
        if self.lie == Lie::InflatedRange {
            return wire::status_response(base, Height::new(i64::MAX));
        }
        wire::status_response(base, height)
    }

    /// Its answer to a request for a block, and whether it is a lie; `None` for silence.
    #[must_use]
    pub fn answer(&self, height: Height) -> Option<(Bytes, bool)> {
        if self.lie == Lie::WithheldHeight && height.get() % (WITHHELD / 2) == 0 {
            let says_so = height.get() % WITHHELD == 0;
            return says_so.then(|| (wire::no_block_response(height), true));
        }
        let true_block = self.store.load_block_bytes(height).ok().flatten();
        let Some(true_block) = true_block else {
            let inflated = self.lie == Lie::InflatedRange;
            return Some((wire::no_block_response(height), inflated));
        };
        let extended = self.store.load_extended_commit_bytes(height).ok().flatten();
        let mut told = extended.clone();
        let mut block = true_block.clone();
        match self.lie {
            Lie::CorruptBody => block = corrupt_body(&true_block).unwrap_or(block),
            Lie::ForgedCommit => block = forge_commit(&true_block).unwrap_or(block),
            Lie::StaleFork => block = self.fork.get(&height).cloned().unwrap_or(block),
            Lie::BadExtendedCommit => {
                told = extended.clone().map(|raw| bend(&raw).unwrap_or(raw));
            }
            Lie::OtherEncoding(encoding) => {
                block = encode_otherwise(&true_block, encoding).unwrap_or(block);
            }
            Lie::WithheldHeight | Lie::InflatedRange | Lie::EndlessBlock => {}
        }
        let is_lie = block != true_block || told != extended;
        Some((wire::block_response(&block, told.as_deref()), is_lie))
    }

    /// The first bytes of an answer that it never ends, if that is its lie.
    #[must_use]
    pub fn beginning(&self) -> Option<Bytes> {
        (self.lie == Lie::EndlessBlock).then(|| {
            let mut begin = BytesMut::new();
            // The block response, and the block in it.
            encode_varint(3 << 3 | 2, &mut begin);
            encode_varint(ENDLESS, &mut begin);
            encode_varint(1 << 3 | 2, &mut begin);
            encode_varint(ENDLESS - 5, &mut begin);
            begin.freeze()
        })
    }

    /// From a twentieth of the chain on: empty blocks, each linked to the one before and committed
    /// by as many validators as may lie without being more than faulty.
    fn fork(&mut self, keys: &[PrivateKey]) -> anyhow::Result<()> {
        let keys: HashMap<Address, &PrivateKey> = keys
            .iter()
            .map(|key| (key.public_key().address(), key))
            .collect();
        let (base, end) = self.store.base_and_height();
        let mut height = base.plus(end.since(base) / 20 + 2);
        let mut before: Option<(BlockId, ValidatorSet)> = None;
        while height <= end {
            let mut block = self.store.load_block(height)?.context("a missing block")?;
            block.data = Data::default();
            block.header.data_hash = block.data.hash();
            if let Some((id, set)) = &before {
                let commit = sign_commit(&self.chain_id, height.prev(), *id, set, &keys)?;
                block.header.last_block_id = *id;
                block.header.last_commit_hash = commit.hash();
                block.last_commit = Some(commit);
            }
            let raw = block.encode();
            let id = BlockId {
                hash: block.hash(),
                part_set_header: part_set::header_of(&raw),
            };
            let set = self.store.load_validators(height)?;
            before = Some((id, set.context("a missing validator set")?));
            self.fork.insert(height, raw);
            height = height.next();
        }
        Ok(())
    }
}

/// A commit by validators whose keys are known, as many as hold less than a third of the power.
fn sign_commit(
    chain_id: &str,
    height: Height,
    block_id: BlockId,
    set: &ValidatorSet,
    keys: &HashMap<Address, &PrivateKey>,
) -> anyhow::Result<Commit> {
    let mut commit = Commit {
        height,
        round: Round::new(0),
        block_id,
        signatures: vec![CommitSig::absent(); set.len()],
    };
    let mut power = 0;
    for (index, validator) in set.validators().iter().enumerate() {
        let more = power + validator.voting_power;
        let Some(key) = keys.get(&validator.address) else {
            continue;
        };
        if 3 * more >= set.total_voting_power() {
            continue;
        }
        power = more;
        let place = commit.signatures.get_mut(index).context("as many places")?;
        *place = CommitSig {
            block_id_flag: BlockIdFlag::Commit,
            validator_address: Bytes::copy_from_slice(validator.address.as_bytes()),
            timestamp: crate::home::GENESIS_TIME,
            signature: Bytes::new(),
        };
        let bytes = commit.vote_sign_bytes(chain_id, index);
        let signature = key.sign(&bytes.context("the place of a vote")?);
        if let Some(place) = commit.signatures.get_mut(index) {
            place.signature = Bytes::copy_from_slice(signature.as_ref());
        }
    }
    anyhow::ensure!(power > 0, "the liar has no validator's key at {height}");
    Ok(commit)
}

/// One bit of the first transaction, the header unchanged.
fn corrupt_body(raw: &Bytes) -> Option<Bytes> {
    let mut block = Block::decode(raw.clone()).ok()?;
    let mut txs = block.data.to_vec();
    let tx = txs.first_mut()?;
    *tx = flip(tx, tx.len() / 2)?;
    block.data = Data::new(txs);
    Some(block.encode())
}

/// One bit of the first signature, and the header that goes with it.
fn forge_commit(raw: &Bytes) -> Option<Bytes> {
    let mut block = Block::decode(raw.clone()).ok()?;
    let commit = block.last_commit.as_mut()?;
    let place = commit
        .signatures
        .iter_mut()
        .find(|place| place.block_id_flag == BlockIdFlag::Commit)?;
    place.signature = flip(&place.signature, 7)?;
    block.header.last_commit_hash = commit.hash();
    Some(block.encode())
}

/// One bit of the first vote extension's signature.
fn bend(raw: &Bytes) -> Option<Bytes> {
    let mut commit = ExtendedCommit::decode(raw.clone()).ok()?;
    let place = commit
        .extended_signatures
        .iter_mut()
        .find(|place| !place.extension_signature.is_empty())?;
    place.extension_signature = flip(&place.extension_signature, 7)?;
    Some(commit.encode())
}

fn flip(bytes: &Bytes, at: usize) -> Option<Bytes> {
    let mut bytes = bytes.to_vec();
    *bytes.get_mut(at)? ^= 1;
    Some(bytes.into())
}

/// A field of a message: its key, its length and its bytes.
fn split_fields(mut raw: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut fields = Vec::new();
    while !raw.is_empty() {
        let key = decode_varint(&mut raw).ok()?;
        let length = usize::try_from(decode_varint(&mut raw).ok()?).ok()?;
        let (field, rest) = raw.split_at_checked(length)?;
        fields.push((key, field));
        raw = rest;
    }
    Some(fields)
}

/// The same block in other bytes. All fields of a block are messages.
fn encode_otherwise(raw: &[u8], encoding: Encoding) -> Option<Bytes> {
    let mut fields = split_fields(raw)?;
    match encoding {
        Encoding::UnknownField => fields.push((77 << 3 | 2, b"unknown")),
        Encoding::FieldOrder => fields.reverse(),
        Encoding::OverlongVarint => {}
    }
    let mut out = BytesMut::new();
    for (key, field) in fields {
        encode_varint(key, &mut out);
        encode_varint(field.len() as u64, &mut out);
        if encoding == Encoding::OverlongVarint {
            let last = out.len() - 1;
            out[last] |= 0x80;
            out.extend_from_slice(&[0x80, 0x00]);
        }
        out.extend_from_slice(field);
    }
    Some(out.freeze())
}

/// The keys of the first `count` validators of a chain that the Go chain maker made from `seed`.
#[must_use]
pub fn made_validator_keys(seed: u64, count: usize) -> Vec<PrivateKey> {
    (0..count)
        .map(|number| {
            let secret = format!("chain-maker/{seed}/validator/{number}");
            PrivateKey::ed25519_from_secret(secret.as_bytes())
        })
        .collect()
}

#[cfg(test)]
#[path = "lie_tests.rs"]
mod tests;
