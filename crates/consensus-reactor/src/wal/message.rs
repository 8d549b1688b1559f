//! The state machine's records as the log has them.

use std::{sync::Arc, time::Duration};

use perihelion_consensus::{Message, Step, TimeoutInfo, WalMessage};
use perihelion_proto::tendermint::{consensus as pb, types};
use perihelion_types::{DecodeError, Height, PeerId, Proposal, Round, Rules, Vote};

/// The schema's message of a record.
#[must_use]
pub fn to_proto(message: &WalMessage) -> pb::WalMessage {
    use pb::wal_message::Sum;
    let sum = match message {
        WalMessage::RoundState {
            height,
            round,
            step,
        } => Sum::EventDataRoundState(types::EventDataRoundState {
            height: height.get(),
            round: round.get(),
            step: step.name().to_owned(),
        }),
        WalMessage::Message { peer, message } => Sum::MsgInfo(pb::MsgInfo {
            msg: Some(pb::Message {
                sum: Some(sum(message)),
            }),
            peer_id: peer.as_ref().map(PeerId::to_string).unwrap_or_default(),
        }),
        WalMessage::Timeout(info) => Sum::TimeoutInfo(pb::TimeoutInfo {
            duration: Some(duration(info.duration)),
            height: info.height.get(),
            round: info.round.get(),
            step: info.step.number().into(),
        }),
        WalMessage::EndHeight(height) => Sum::EndHeight(pb::EndHeight {
            height: height.get(),
        }),
    };
    pb::WalMessage { sum: Some(sum) }
}

fn sum(message: &Message) -> pb::message::Sum {
    use pb::message::Sum;
    match message {
        Message::Proposal(proposal) => Sum::Proposal(pb::Proposal {
            proposal: Some((&**proposal).into()),
        }),
        Message::Part {
            height,
            round,
            part,
        } => Sum::BlockPart(pb::BlockPart {
            height: height.get(),
            round: round.get(),
            part: Some((&**part).into()),
        }),
        Message::Vote(vote) => Sum::Vote(pb::Vote {
            vote: Some((&**vote).into()),
        }),
    }
}

/// The schema's duration; Go's is counted in nanoseconds of 64 bits, and no longer one is written.
fn duration(duration: Duration) -> prost_types::Duration {
    const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());
    let duration = duration.min(LONGEST);
    prost_types::Duration {
        seconds: duration.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().try_into().unwrap_or(i32::MAX),
    }
}

/// The record of the schema's message: proposals, parts and votes that pass their stateless rules.
///
/// # Errors
/// When it is none that the state machine takes.
pub fn from_proto(message: pb::WalMessage) -> Result<WalMessage, DecodeError> {
    use pb::wal_message::Sum;
    Ok(match message.sum.ok_or_else(|| field("sum", "missing"))? {
        Sum::EventDataRoundState(state) => WalMessage::RoundState {
            height: Height::new(state.height),
            round: Round::new(state.round),
            step: Step::from_name(&state.step).ok_or_else(|| field("step", state.step))?,
        },
        Sum::MsgInfo(info) => WalMessage::Message {
            peer: match info.peer_id.as_str() {
                "" => None,
                id => Some(id.parse().map_err(|_| field("peer_id", id))?),
            },
            message: from_message(info.msg.unwrap_or_default())?,
        },
        Sum::TimeoutInfo(info) => WalMessage::Timeout(TimeoutInfo {
            // One that is negative has run out at once.
            duration: Duration::try_from(info.duration.unwrap_or_default()).unwrap_or_default(),
            height: Height::new(info.height),
            round: Round::new(info.round),
            step: Step::from_number(info.step)
                .ok_or_else(|| field("step", info.step.to_string()))?,
        }),
        Sum::EndHeight(end) => WalMessage::EndHeight(Height::new(end.height)),
    })
}

fn from_message(message: pb::Message) -> Result<Message, DecodeError> {
    use pb::message::Sum;
    match message.sum {
        Some(Sum::Proposal(proposal)) => {
            let proposal = proposal.proposal.unwrap_or_default();
            let proposal = Proposal::from_proto_unchecked(proposal)?;
            proposal.validate_basic_by(Rules::STORED)?;
            Ok(Message::Proposal(Arc::new(proposal)))
        }
        Some(Sum::BlockPart(part)) => Ok(Message::Part {
            height: Height::new(part.height),
            round: Round::new(part.round),
            part: Arc::new(part.part.unwrap_or_default().try_into()?),
        }),
        Some(Sum::Vote(vote)) => {
            let vote = Vote::try_from(vote.vote.unwrap_or_default())?;
            vote.validate_basic_by(Rules::STORED)?;
            Ok(Message::Vote(Arc::new(vote)))
        }
        _ => Err(field("msg", "neither a proposal, a part nor a vote")),
    }
}

fn field(field: &'static str, reason: impl Into<String>) -> DecodeError {
    DecodeError::Field {
        field,
        reason: reason.into(),
    }
}
