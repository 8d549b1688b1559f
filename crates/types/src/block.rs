//! Blocks.

use bytes::Bytes;
use perihelion_proto::tendermint::types as pb;
use prost::Message;

use crate::{
    Commit, Data, DecodeError, Evidence, Hash, Header, Height, InvalidError, Rules, bounds,
    evidence,
    gogo::{self, BlockField},
};

/// A block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The header; its hash is the block's.
    pub header: Header,
    /// Transactions.
    pub data: Data,
    /// Evidence of misbehaviour.
    pub evidence: Vec<Evidence>,
    /// The commit of the block before; `None` only if it was absent on the wire.
    pub last_commit: Option<Commit>,
}

/// A block's message whose transactions stay encoded.
#[derive(Clone, PartialEq, Message)]
struct BlockMessage {
    #[prost(message, optional, tag = "1")]
    header: Option<pb::Header>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    data: Option<Bytes>,
    #[prost(message, optional, tag = "3")]
    evidence: Option<pb::EvidenceList>,
    #[prost(message, optional, tag = "4")]
    last_commit: Option<pb::Commit>,
}

/// What is left of a block's message besides transactions and last commit.
#[derive(Clone, PartialEq, Message)]
struct Remainder {
    #[prost(message, optional, tag = "1")]
    header: Option<pb::Header>,
    #[prost(message, optional, tag = "3")]
    evidence: Option<pb::EvidenceList>,
}

/// The last commit of an encoded block when it is there once, and in the usual encoding.
fn usual_commit_of(raw: &Bytes) -> Option<Commit> {
    let mut found = None;
    for field in gogo::Fields(raw) {
        match field.ok()? {
            (4, Some(commit)) if found.is_none() => found = Some(commit),
            (4, _) => return None,
            _ => {}
        }
    }
    Commit::decode_usual(&raw.slice_ref(found?))
}

/// Reads a block that is in the usual encoding.
///
/// # Errors
/// When the counts are out of bounds, or it is in another one that is not understood.
fn read(raw: &Bytes) -> Result<(Remainder, Data, LastCommit), DecodeError> {
    bounds::check_block(raw)?;
    let last_commit = match usual_commit_of(raw) {
        Some(commit) => LastCommit::Decoded(commit),
        None => LastCommit::Message(
            gogo::block_field(raw, BlockField::LastCommit)?
                .map(pb::Commit::decode)
                .transpose()?,
        ),
    };
    let data = gogo::block_field(raw, BlockField::Data)?.unwrap_or_default();
    Ok((
        Remainder::decode(raw.clone())?,
        Data::decode(data)?,
        last_commit,
    ))
}

/// The same of one that all decoders read in the same way, as nearly every block.
fn read_plain(raw: &Bytes) -> Option<(Remainder, Data, LastCommit)> {
    let read = gogo::is_plain(raw).then(|| read(raw).ok())??;
    matches!(read.2, LastCommit::Decoded(_)).then_some(read)
}

impl Block {
    /// Decodes a `tendermint.types.Block` without a length prefix after its counts have been
    /// checked on the bytes (see [`crate::bounds`]), sharing `raw`'s memory, or that of its usual
    /// encoding where it is in another one (see [`crate::gogo`]). Applies `validate_basic`, as
    /// CometBFT's `BlockFromProto` does.
    ///
    /// # Errors
    /// When CometBFT would refuse the bytes.
    pub fn decode(raw: Bytes) -> Result<Self, DecodeError> {
        Self::decode_by(raw, Rules::V038)
    }

    /// As [`decode`](Self::decode), with the stateless rules of `rules`.
    ///
    /// # Errors
    /// When CometBFT would refuse the bytes.
    pub fn decode_by(raw: Bytes, rules: Rules) -> Result<Self, DecodeError> {
        bounds::check_size(&raw)?;
        let (rest, data, last_commit) = match read_plain(&raw) {
            Some(read) => read,
            None => read(&gogo::usual_block(&raw, rules)?)?,
        };
        Self::unchecked(rest.header, data, rest.evidence, last_commit, rules)?.checked(rules)
    }

    /// The height that the header in `raw` names, whatever the rest is: to know what a block that
    /// does not decode was meant to be. `None` when there is no header to be read.
    #[must_use]
    pub fn peek_height(raw: &Bytes) -> Option<Height> {
        Some(Height::new(gogo::peek_header(raw)?.height))
    }

    /// The canonical encoding, without a length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = BlockMessage {
            header: Some((&self.header).into()),
            data: Some(self.data.encoded().clone()),
            evidence: Some(evidence::list_message(&self.evidence)),
            last_commit: self.last_commit.as_ref().map(Into::into),
        };
        message.encode_to_vec().into()
    }

    /// The header's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.header.hash()
    }

    /// The stateless rules of v0.38, hashes of the body against the header included.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        self.validate_basic_by(Rules::V038)
    }

    /// The stateless rules, hashes of the body against the header included.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic_by(&self, rules: Rules) -> Result<(), InvalidError> {
        self.header.validate_basic()?;
        let last_commit = self
            .last_commit
            .as_ref()
            .ok_or_else(|| InvalidError::new("block", "no last commit"))?;
        last_commit.validate_basic_by(rules)?;
        same(
            "last commit hash",
            self.header.last_commit_hash,
            last_commit.hash(),
        )?;
        same("data hash", self.header.data_hash, self.data.hash())?;
        for evidence in &self.evidence {
            evidence.validate_basic_by(rules)?;
        }
        same(
            "evidence hash",
            self.header.evidence_hash,
            evidence::hash_list(&self.evidence),
        )
    }

    /// The block of a message, with the stateless rules of `rules`.
    ///
    /// # Errors
    /// When CometBFT would refuse it.
    pub fn from_proto(mut block: pb::Block, rules: Rules) -> Result<Self, DecodeError> {
        let data = Data::new(block.data.take().unwrap_or_default().txs);
        Self::of_message(block, data, rules)?.checked(rules)
    }

    /// The same once the stateless rules hold.
    fn checked(self, rules: Rules) -> Result<Self, DecodeError> {
        // In a last commit of height 0 these are not covered by `validate_basic`.
        for place in self.last_commit.iter().flat_map(|c| &c.signatures) {
            place.validate_basic(rules)?;
        }
        self.validate_basic_by(rules)?;
        Ok(self)
    }

    /// The block of a message without its stateless rules; light blocks inside of evidence are
    /// held to `rules`.
    ///
    /// # Errors
    /// When a hash, a time or a piece of evidence cannot be represented.
    pub fn from_proto_unchecked(mut block: pb::Block, rules: Rules) -> Result<Self, DecodeError> {
        let data = Data::new(block.data.take().unwrap_or_default().txs);
        Self::of_message(block, data, rules)
    }

    fn of_message(block: pb::Block, data: Data, rules: Rules) -> Result<Self, DecodeError> {
        let last_commit = LastCommit::Message(block.last_commit);
        Self::unchecked(block.header, data, block.evidence, last_commit, rules)
    }

    fn unchecked(
        header: Option<pb::Header>,
        data: Data,
        evidence: Option<pb::EvidenceList>,
        last_commit: LastCommit,
        rules: Rules,
    ) -> Result<Self, DecodeError> {
        Ok(Self {
            header: Header::from_proto_unchecked(header.unwrap_or_default())?,
            data,
            evidence: evidence
                .unwrap_or_default()
                .evidence
                .into_iter()
                .map(|evidence| Evidence::from_proto_unchecked(evidence, rules))
                .collect::<Result<_, _>>()?,
            last_commit: match last_commit {
                LastCommit::Decoded(commit) => Some(commit),
                LastCommit::Message(commit) => {
                    commit.map(Commit::from_proto_unchecked).transpose()?
                }
            },
        })
    }
}

/// A last commit on its way into a block.
enum LastCommit {
    Decoded(Commit),
    Message(Option<pb::Commit>),
}

fn same(what: &'static str, header: Hash, body: Hash) -> Result<(), InvalidError> {
    if header == body {
        return Ok(());
    }
    Err(InvalidError::new(
        what,
        format!("the header has {header}, the body {body}"),
    ))
}

impl TryFrom<pb::Block> for Block {
    type Error = DecodeError;

    fn try_from(block: pb::Block) -> Result<Self, DecodeError> {
        Self::from_proto(block, Rules::V038)
    }
}

impl From<&Block> for pb::Block {
    fn from(block: &Block) -> Self {
        Self {
            header: Some((&block.header).into()),
            data: Some(pb::Data {
                txs: block.data.to_vec(),
            }),
            evidence: Some(evidence::list_message(&block.evidence)),
            last_commit: block.last_commit.as_ref().map(Into::into),
        }
    }
}
