//! From bytes. What a message can make this node allocate is bounded by its length, and the length
//! by its kind: a packed word of a bit array has one byte on the wire and eight in memory.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_consensus::{BitArray, Maj23, Step};
use perihelion_proto::tendermint::{consensus as pb, libs::bits, types};
use perihelion_types::{
    BlockId, DecodeError, Height, Part, Proposal, Round, Rules, Vote, bounds::MAX_SIGNATURES,
    part_set::MAX_PARTS,
};
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};

use super::{
    Channel, HasVote, MAX_MESSAGE_BYTES, NewRoundStep, NewValidBlock, PeerMessage, ProposalPol,
    VoteSetBits, WireError,
};

/// Largest message in bytes that holds neither a part nor a vote. A bit array of 10,000 validators
/// has at most 1,570, a proposal with the longest signature 3,500; smaller, and one of these would
/// be refused.
pub const MAX_SMALL_MESSAGE_BYTES: usize = 4_096;

/// Largest message in bytes that holds a part: 65,536 of the block, 100 aunts of 34, and room for
/// the rest. Smaller, and a whole part would be refused.
pub const MAX_PART_MESSAGE_BYTES: usize = 73_728;

/// Fields of `Message` that may be long.
const PART: u32 = 5;
const VOTE: u32 = 6;

impl PeerMessage {
    /// Reads a message that came on `channel`, and checks its stateless rules. `None` for one of
    /// another channel: CometBFT ignores it, so that later versions may send more.
    ///
    /// # Errors
    /// When the sender is to be disconnected.
    pub fn decode_on(
        channel: Channel,
        bytes: &Bytes,
        rules: Rules,
    ) -> Result<Option<Self>, WireError> {
        let message = Self::decode(bytes, rules)?;
        Ok((message.channel() == channel).then_some(message))
    }

    /// Reads a message, and checks its stateless rules. What is kept of it holds no more memory
    /// than it needs, whatever else the bytes had.
    ///
    /// # Errors
    /// When the sender is to be disconnected.
    pub fn decode(bytes: &Bytes, rules: Rules) -> Result<Self, WireError> {
        let malformed = |error: prost::DecodeError| WireError::Malformed(error.to_string());
        let bytes = bounded(bytes)?;
        let length = bytes.len();
        let mut message = pb::Message::decode(bytes).map_err(malformed)?;
        if length > MAX_SMALL_MESSAGE_BYTES && message.encoded_len() < length {
            // Fields that we do not know would be kept with the bytes that share their buffer.
            let known = Bytes::from(message.encode_to_vec());
            message = pb::Message::decode(known).map_err(malformed)?;
        }
        let message = from_proto(message.sum.ok_or(WireError::Unknown)?)?;
        message.validate_basic(rules)?;
        Ok(message)
    }
}

/// The bytes, as long as a message of their kind may be; a buffer of their own where they are few.
fn bounded(bytes: &Bytes) -> Result<Bytes, WireError> {
    let length = bytes.len();
    if length <= MAX_SMALL_MESSAGE_BYTES {
        return Ok(Bytes::copy_from_slice(bytes));
    }
    let malformed = |error: prost::DecodeError| WireError::Malformed(error.to_string());
    let mut rest = &bytes[..];
    let (field, wire_type) = decode_key(&mut rest).map_err(malformed)?;
    let max = match field {
        PART => MAX_PART_MESSAGE_BYTES,
        VOTE => MAX_MESSAGE_BYTES,
        _ => MAX_SMALL_MESSAGE_BYTES,
    };
    if length > max {
        return Err(WireError::TooLong { bytes: length, max });
    }
    // Nothing beside it: the bound would be another.
    let inner = decode_varint(&mut rest).map_err(malformed)?;
    if wire_type != WireType::LengthDelimited || usize::try_from(inner) != Ok(rest.len()) {
        return Err(WireError::Malformed(
            "a long message of more than one field".to_owned(),
        ));
    }
    Ok(bytes.clone())
}

fn from_proto(sum: pb::message::Sum) -> Result<PeerMessage, WireError> {
    use pb::message::Sum;
    Ok(match sum {
        Sum::NewRoundStep(message) => PeerMessage::NewRoundStep(NewRoundStep {
            height: Height::new(message.height),
            round: Round::new(message.round),
            step: Step::from_number(message.step).ok_or(WireError::Step(message.step))?,
            seconds_since_start_time: message.seconds_since_start_time,
            last_commit_round: Round::new(message.last_commit_round),
        }),
        Sum::NewValidBlock(message) => {
            let name = "new valid block";
            let header = message.block_part_set_header.unwrap_or_default();
            let parts = message.block_parts.unwrap_or_default();
            PeerMessage::NewValidBlock(NewValidBlock {
                height: Height::new(message.height),
                round: Round::new(message.round),
                header: header.try_into().map_err(in_message(name))?,
                parts: bit_array(name, parts, MAX_PARTS as usize)?,
                is_commit: message.is_commit,
            })
        }
        Sum::HasVote(message) => PeerMessage::HasVote(HasVote {
            height: Height::new(message.height),
            round: Round::new(message.round),
            vote_type: message.r#type.into(),
            index: message.index,
        }),
        Sum::VoteSetMaj23(message) => PeerMessage::Maj23(Maj23 {
            height: Height::new(message.height),
            round: Round::new(message.round),
            vote_type: message.r#type.into(),
            block_id: block_id("vote set majority", message.block_id)?,
        }),
        Sum::Proposal(message) => {
            let proposal = message.proposal.unwrap_or_default();
            let proposal =
                Proposal::from_proto_unchecked(proposal).map_err(in_message("proposal"))?;
            PeerMessage::Proposal(Arc::new(proposal))
        }
        Sum::ProposalPol(message) => {
            let prevotes = message.proposal_pol.unwrap_or_default();
            PeerMessage::ProposalPol(ProposalPol {
                height: Height::new(message.height),
                pol_round: Round::new(message.proposal_pol_round),
                prevotes: bit_array("proposal POL", prevotes, MAX_SIGNATURES)?,
            })
        }
        Sum::BlockPart(message) => {
            let part = message.part.unwrap_or_default();
            let part = Part::try_from(part).map_err(in_message("block part"))?;
            PeerMessage::Part {
                height: Height::new(message.height),
                round: Round::new(message.round),
                part: Arc::new(part),
            }
        }
        Sum::Vote(message) => {
            let vote = message.vote.ok_or(WireError::NoVote)?;
            let vote = Vote::try_from(vote).map_err(in_message("vote"))?;
            PeerMessage::Vote(Arc::new(vote))
        }
        Sum::VoteSetBits(message) => {
            let name = "vote set bits";
            PeerMessage::VoteSetBits(VoteSetBits {
                height: Height::new(message.height),
                round: Round::new(message.round),
                vote_type: message.r#type.into(),
                block_id: block_id(name, message.block_id)?,
                votes: bit_array(name, message.votes.unwrap_or_default(), MAX_SIGNATURES)?,
            })
        }
    })
}

fn in_message(message: &'static str) -> impl Fn(DecodeError) -> WireError {
    move |source| WireError::Decode { message, source }
}

fn block_id(message: &'static str, id: Option<types::BlockId>) -> Result<BlockId, WireError> {
    id.unwrap_or_default()
        .try_into()
        .map_err(in_message(message))
}

fn bit_array(
    message: &'static str,
    array: bits::BitArray,
    max: usize,
) -> Result<BitArray, WireError> {
    let (bits, words) = (array.bits, array.elems.len());
    let mismatch = WireError::Words {
        message,
        bits,
        words,
    };
    let Ok(size) = usize::try_from(bits) else {
        return Err(mismatch);
    };
    if size > max {
        return Err(WireError::TooManyBits { message, bits, max });
    }
    BitArray::from_words(size, array.elems).ok_or(mismatch)
}
