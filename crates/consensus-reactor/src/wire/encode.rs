use bytes::Bytes;
use perihelion_consensus::BitArray;
use perihelion_proto::tendermint::{consensus as pb, libs::bits};
use prost::Message as _;

use super::PeerMessage;

impl PeerMessage {
    /// The bytes as CometBFT writes them.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let sum = Some(to_proto(self));
        pb::Message { sum }.encode_to_vec().into()
    }
}

fn to_proto(message: &PeerMessage) -> pb::message::Sum {
    use pb::message::Sum;
    match message {
        PeerMessage::NewRoundStep(message) => Sum::NewRoundStep(pb::NewRoundStep {
            height: message.height.get(),
            round: message.round.get(),
            step: message.step.number().into(),
            seconds_since_start_time: message.seconds_since_start_time,
            last_commit_round: message.last_commit_round.get(),
        }),
        PeerMessage::NewValidBlock(message) => Sum::NewValidBlock(pb::NewValidBlock {
            height: message.height.get(),
            round: message.round.get(),
            block_part_set_header: Some((&message.header).into()),
            block_parts: Some(bit_array(&message.parts)),
            is_commit: message.is_commit,
        }),
        PeerMessage::HasVote(message) => Sum::HasVote(pb::HasVote {
            height: message.height.get(),
            round: message.round.get(),
            r#type: message.vote_type.to_i32(),
            index: message.index,
        }),
        PeerMessage::Maj23(claim) => Sum::VoteSetMaj23(pb::VoteSetMaj23 {
            height: claim.height.get(),
            round: claim.round.get(),
            r#type: claim.vote_type.to_i32(),
            block_id: Some((&claim.block_id).into()),
        }),
        PeerMessage::Proposal(proposal) => Sum::Proposal(pb::Proposal {
            proposal: Some((&**proposal).into()),
        }),
        PeerMessage::ProposalPol(message) => Sum::ProposalPol(pb::ProposalPol {
            height: message.height.get(),
            proposal_pol_round: message.pol_round.get(),
            proposal_pol: Some(bit_array(&message.prevotes)),
        }),
        PeerMessage::Part {
            height,
            round,
            part,
        } => Sum::BlockPart(pb::BlockPart {
            height: height.get(),
            round: round.get(),
            part: Some((&**part).into()),
        }),
        PeerMessage::Vote(vote) => Sum::Vote(pb::Vote {
            vote: Some((&**vote).into()),
        }),
        PeerMessage::VoteSetBits(message) => Sum::VoteSetBits(pb::VoteSetBits {
            height: message.height.get(),
            round: message.round.get(),
            r#type: message.vote_type.to_i32(),
            block_id: Some((&message.block_id).into()),
            votes: Some(bit_array(&message.votes)),
        }),
    }
}

fn bit_array(array: &BitArray) -> bits::BitArray {
    bits::BitArray {
        // At most 10,000.
        bits: i64::try_from(array.size()).unwrap_or(i64::MAX),
        elems: array.words().to_vec(),
    }
}
