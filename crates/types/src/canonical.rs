//! Canonical sign bytes: what votes, proposals and vote extensions are signed over. Messages of
//! `tendermint.types.Canonical*`, each with its length before it.

use perihelion_proto::tendermint::types as pb;

use crate::{
    BlockId, BlockIdFlag, CommitSig, DecodeError, Height, Proposal, Round, SignedMsgType, Time,
    Vote, wire,
};

/// The fields of a canonical vote before its time.
fn vote_head(vote_type: SignedMsgType, height: Height, round: Round, id: &BlockId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(112);
    wire::put_int(&mut bytes, 1, i64::from(vote_type.to_i32()));
    wire::put_sfixed64(&mut bytes, 2, height.get());
    wire::put_sfixed64(&mut bytes, 3, i64::from(round.get()));
    wire::put_canonical_block_id(&mut bytes, 4, id);
    bytes
}

/// What a prevote or precommit is signed over. The time is encoded as it is; one outside of the
/// years 1 to 9999 cannot be decoded by anyone.
#[must_use]
pub fn vote(
    chain_id: &str,
    vote_type: SignedMsgType,
    height: Height,
    round: Round,
    block_id: &BlockId,
    timestamp: Time,
) -> Vec<u8> {
    let mut bytes = vote_head(vote_type, height, round, block_id);
    wire::put_time(&mut bytes, 5, timestamp);
    wire::put_bytes(&mut bytes, 6, chain_id.as_bytes());
    wire::delimited(&bytes)
}

/// What a proposal is signed over; its type is always that of a proposal.
#[must_use]
pub fn proposal(chain_id: &str, proposal: &Proposal) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(160);
    let proposal_type = SignedMsgType::Proposal.to_i32();
    wire::put_int(&mut bytes, 1, i64::from(proposal_type));
    wire::put_sfixed64(&mut bytes, 2, proposal.height.get());
    wire::put_sfixed64(&mut bytes, 3, i64::from(proposal.round.get()));
    wire::put_int(&mut bytes, 4, i64::from(proposal.pol_round.get()));
    wire::put_canonical_block_id(&mut bytes, 5, &proposal.block_id);
    wire::put_time(&mut bytes, 6, proposal.timestamp);
    wire::put_bytes(&mut bytes, 7, chain_id.as_bytes());
    wire::delimited(&bytes)
}

/// What a vote extension is signed over.
#[must_use]
pub fn vote_extension(chain_id: &str, height: Height, round: Round, extension: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(extension.len() + 96);
    wire::put_bytes(&mut bytes, 1, extension);
    wire::put_sfixed64(&mut bytes, 2, height.get());
    wire::put_sfixed64(&mut bytes, 3, i64::from(round.get()));
    wire::put_bytes(&mut bytes, 4, chain_id.as_bytes());
    wire::delimited(&bytes)
}

/// What a vote of the schema is signed over.
///
/// # Errors
/// When its block id has hashes that are neither empty nor 32 bytes long, or its time is outside
/// of the years 1 to 9999 (where CometBFT panics).
pub fn vote_message(chain_id: &str, message: &pb::Vote) -> Result<Vec<u8>, DecodeError> {
    Ok(Vote::try_from(message.clone())?.sign_bytes(chain_id))
}

/// What a proposal of the schema is signed over.
///
/// # Errors
/// As [`vote_message`].
pub fn proposal_message(chain_id: &str, message: &pb::Proposal) -> Result<Vec<u8>, DecodeError> {
    Ok(Proposal::from_proto_unchecked(message.clone())?.sign_bytes(chain_id))
}

/// The sign bytes of one commit's precommits, prepared once: they differ in the time, and in
/// whether they are for the block or for nil.
#[derive(Debug, Clone)]
pub struct CommitSignBytes {
    for_block: Vec<u8>,
    for_nil: Vec<u8>,
    tail: Vec<u8>,
}

impl CommitSignBytes {
    /// Prepares the precommits for `block_id` at `height` and `round`.
    #[must_use]
    pub fn new(chain_id: &str, height: Height, round: Round, block_id: &BlockId) -> Self {
        let precommit = SignedMsgType::Precommit;
        let mut tail = Vec::with_capacity(chain_id.len() + 3);
        wire::put_bytes(&mut tail, 6, chain_id.as_bytes());
        Self {
            for_block: vote_head(precommit, height, round, block_id),
            for_nil: vote_head(precommit, height, round, &BlockId::NIL),
            tail,
        }
    }

    /// Writes what the validator at `place` signed into `bytes`, in place of what they held.
    /// `None`, and `bytes` empty, for an unknown flag.
    pub fn write(&self, place: &CommitSig, bytes: &mut Vec<u8>) -> Option<()> {
        bytes.clear();
        let head = match place.block_id_flag {
            BlockIdFlag::Commit => &self.for_block,
            BlockIdFlag::Nil | BlockIdFlag::Absent => &self.for_nil,
            BlockIdFlag::Unknown(_) => return None,
        };
        let mut time = Vec::with_capacity(24);
        wire::put_time(&mut time, 5, place.timestamp);
        let parts = [head, &time, &self.tail];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        wire::put_varint(bytes, length as u64);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Some(())
    }

    /// What the validator at `place` signed; `None` for an unknown flag.
    #[must_use]
    pub fn of(&self, place: &CommitSig) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.for_block.len() + self.tail.len() + 28);
        self.write(place, &mut bytes)?;
        Some(bytes)
    }
}
