//! Headers and their hash.

use bytes::Bytes;
use perihelion_proto::tendermint::{types as pb, version};
use prost::Message;

use crate::{BlockId, DecodeError, Hash, Height, InvalidError, Time, merkle, wire};

/// The block protocol that this node speaks, as CometBFT v0.38 to v0.40.
pub const BLOCK_PROTOCOL: u64 = 11;

/// Longest chain id, in bytes.
pub const MAX_CHAIN_ID_BYTES: usize = 50;

/// Protocol versions that a header commits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Block protocol, 11.
    pub block: u64,
    /// The application's own version.
    pub app: u64,
}

/// A block's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Protocol versions.
    pub version: Version,
    /// The chain.
    pub chain_id: String,
    /// The block's height.
    pub height: Height,
    /// The block's time: the weighted median of the last commit's.
    pub time: Time,
    /// The block before; nil at the initial height.
    pub last_block_id: BlockId,
    /// Hash of the last commit.
    pub last_commit_hash: Hash,
    /// Hash of the transactions.
    pub data_hash: Hash,
    /// Hash of the validators of this height.
    pub validators_hash: Hash,
    /// Hash of the validators of the next height.
    pub next_validators_hash: Hash,
    /// Hash of the consensus parameters of this height.
    pub consensus_hash: Hash,
    /// The application's after the block before, of any length.
    pub app_hash: Bytes,
    /// Hash of the results of the block before.
    pub last_results_hash: Hash,
    /// Hash of the evidence.
    pub evidence_hash: Hash,
    /// The proposer; 20 bytes once `validate_basic` has passed.
    pub proposer_address: Bytes,
}

impl Header {
    /// The header's hash: Merkle root over its encoded fields; empty while there is no validators
    /// hash or the time is outside of the years 1 to 9999, as in CometBFT.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut last_block_id = Vec::with_capacity(80);
        wire::put_block_id_fields(&mut last_block_id, &self.last_block_id);
        hash_fields(&HashedFields {
            version: self.version,
            chain_id: &self.chain_id,
            height: self.height.get(),
            time: self.time,
            last_block_id: &last_block_id,
            validators_hash: self.validators_hash.as_bytes(),
            rest: [
                self.next_validators_hash.as_bytes(),
                self.consensus_hash.as_bytes(),
                &self.app_hash,
                self.last_results_hash.as_bytes(),
                self.evidence_hash.as_bytes(),
                &self.proposer_address,
            ],
            last_commit_hash: self.last_commit_hash.as_bytes(),
            data_hash: self.data_hash.as_bytes(),
        })
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        let invalid = |reason: String| Err(InvalidError::new("header", reason));
        if self.version.block != BLOCK_PROTOCOL {
            return invalid(format!(
                "block protocol {}, expected {BLOCK_PROTOCOL}",
                self.version.block
            ));
        }
        if self.chain_id.len() > MAX_CHAIN_ID_BYTES {
            return invalid(format!(
                "chain id of {} bytes, at most {MAX_CHAIN_ID_BYTES} are allowed",
                self.chain_id.len()
            ));
        }
        if !self.height.is_positive() {
            return invalid(format!("height {}", self.height));
        }
        self.last_block_id.validate_basic()?;
        if self.proposer_address.len() != 20 {
            return invalid(format!(
                "proposer address of {} bytes",
                self.proposer_address.len()
            ));
        }
        Ok(())
    }

    /// The header of a message, without the stateless rules.
    ///
    /// # Errors
    /// When a hash or the time cannot be represented.
    pub fn from_proto_unchecked(header: pb::Header) -> Result<Self, DecodeError> {
        let version = header.version.unwrap_or_default();
        Ok(Self {
            version: Version {
                block: version.block,
                app: version.app,
            },
            chain_id: header.chain_id,
            height: Height::new(header.height),
            time: header.time.try_into()?,
            last_block_id: header.last_block_id.unwrap_or_default().try_into()?,
            last_commit_hash: Hash::try_from(&header.last_commit_hash[..])?,
            data_hash: Hash::try_from(&header.data_hash[..])?,
            validators_hash: Hash::try_from(&header.validators_hash[..])?,
            next_validators_hash: Hash::try_from(&header.next_validators_hash[..])?,
            consensus_hash: Hash::try_from(&header.consensus_hash[..])?,
            app_hash: header.app_hash,
            last_results_hash: Hash::try_from(&header.last_results_hash[..])?,
            evidence_hash: Hash::try_from(&header.evidence_hash[..])?,
            proposer_address: header.proposer_address,
        })
    }
}

impl TryFrom<pb::Header> for Header {
    type Error = DecodeError;

    fn try_from(header: pb::Header) -> Result<Self, DecodeError> {
        let header = Self::from_proto_unchecked(header)?;
        header.validate_basic()?;
        Ok(header)
    }
}

impl From<&Header> for pb::Header {
    fn from(header: &Header) -> Self {
        Self {
            version: Some(version::Consensus {
                block: header.version.block,
                app: header.version.app,
            }),
            chain_id: header.chain_id.clone(),
            height: header.height.get(),
            time: Some(header.time.into()),
            last_block_id: Some((&header.last_block_id).into()),
            last_commit_hash: header.last_commit_hash.to_bytes(),
            data_hash: header.data_hash.to_bytes(),
            validators_hash: header.validators_hash.to_bytes(),
            next_validators_hash: header.next_validators_hash.to_bytes(),
            consensus_hash: header.consensus_hash.to_bytes(),
            app_hash: header.app_hash.clone(),
            last_results_hash: header.last_results_hash.to_bytes(),
            evidence_hash: header.evidence_hash.to_bytes(),
            proposer_address: header.proposer_address.clone(),
        }
    }
}

/// The hash of a header that need not be representable: hashes may have any length. Empty where
/// [`Header::hash`] is.
#[must_use]
pub fn hash_proto(header: &pb::Header) -> Hash {
    let Ok(time) = Time::try_from(header.time) else {
        return Hash::EMPTY;
    };
    let version = header.version.unwrap_or_default();
    let mut last_block_id = header.last_block_id.clone().unwrap_or_default();
    last_block_id
        .part_set_header
        .get_or_insert_with(Default::default);
    hash_fields(&HashedFields {
        version: Version {
            block: version.block,
            app: version.app,
        },
        chain_id: &header.chain_id,
        height: header.height,
        time,
        last_block_id: &last_block_id.encode_to_vec(),
        last_commit_hash: &header.last_commit_hash,
        data_hash: &header.data_hash,
        validators_hash: &header.validators_hash,
        rest: [
            &header.next_validators_hash,
            &header.consensus_hash,
            &header.app_hash,
            &header.last_results_hash,
            &header.evidence_hash,
            &header.proposer_address,
        ],
    })
}

/// What the hash covers, in the order of the fields.
struct HashedFields<'a> {
    version: Version,
    chain_id: &'a str,
    height: i64,
    time: Time,
    /// Encoded.
    last_block_id: &'a [u8],
    last_commit_hash: &'a [u8],
    data_hash: &'a [u8],
    validators_hash: &'a [u8],
    /// Next validators, parameters, application, last results, evidence, proposer.
    rest: [&'a [u8]; 6],
}

/// Each field is a leaf: messages as they are, scalars as the only field of a message, empty ones
/// as nothing.
fn hash_fields(fields: &HashedFields<'_>) -> Hash {
    let in_range = Time::try_from(prost_types::Timestamp::from(fields.time)).is_ok();
    if fields.validators_hash.is_empty() || !in_range {
        return Hash::EMPTY;
    }
    let mut nodes = Vec::with_capacity(14);
    let mut leaf = Vec::with_capacity(96);
    let mut push = |put: &dyn Fn(&mut Vec<u8>)| {
        leaf.clear();
        put(&mut leaf);
        nodes.push(merkle::leaf_hash(&leaf));
    };
    push(&|leaf| {
        wire::put_int(leaf, 1, fields.version.block.cast_signed());
        wire::put_int(leaf, 2, fields.version.app.cast_signed());
    });
    push(&|leaf| wire::put_bytes(leaf, 1, fields.chain_id.as_bytes()));
    push(&|leaf| wire::put_int(leaf, 1, fields.height));
    push(&|leaf| wire::put_time_fields(leaf, fields.time));
    push(&|leaf| leaf.extend_from_slice(fields.last_block_id));
    push(&|leaf| wire::put_bytes(leaf, 1, fields.last_commit_hash));
    push(&|leaf| wire::put_bytes(leaf, 1, fields.data_hash));
    push(&|leaf| wire::put_bytes(leaf, 1, fields.validators_hash));
    for bytes in fields.rest {
        push(&|leaf| wire::put_bytes(leaf, 1, bytes));
    }
    merkle::root_of(nodes)
}
