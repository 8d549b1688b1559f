use std::{sync::Arc, time::Duration};

use perihelion_types::{Height, Part, PeerId, Proposal, Round, Vote};

use crate::Step;

/// What peers and this node itself say to the state machine. Each has passed its stateless rules
/// (`validate_basic`) before it gets here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A proposal.
    Proposal(Arc<Proposal>),
    /// A part of a proposed block.
    Part {
        /// The height of the block.
        height: Height,
        /// The round that the sender is in.
        round: Round,
        /// The part with its proof.
        part: Arc<Part>,
    },
    /// A vote.
    Vote(Arc<Vote>),
}

impl Message {
    /// The height that it is about.
    #[must_use]
    pub fn height(&self) -> Height {
        match self {
            Self::Proposal(proposal) => proposal.height,
            Self::Part { height, .. } => *height,
            Self::Vote(vote) => vote.height,
        }
    }

    /// The round that it is about.
    #[must_use]
    pub fn round(&self) -> Round {
        match self {
            Self::Proposal(proposal) => proposal.round,
            Self::Part { round, .. } => *round,
            Self::Vote(vote) => vote.round,
        }
    }
}

/// A timeout that has run out, as the write-ahead log records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutInfo {
    /// How long it was.
    pub duration: Duration,
    /// The height it was for.
    pub height: Height,
    /// The round it was for.
    pub round: Round,
    /// The step it was for: `NewHeight`, `NewRound`, `Propose`, `PrevoteWait` or `PrecommitWait`.
    pub step: Step,
}

/// One record of the write-ahead log: every input that moves the state machine, in the order in
/// which it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalMessage {
    /// A step was entered (`tendermint.types.EventDataRoundState`). Not needed for replaying.
    RoundState {
        /// At this height.
        height: Height,
        /// In this round.
        round: Round,
        /// The step entered.
        step: Step,
    },
    /// A message was taken (`tendermint.consensus.MsgInfo`).
    Message {
        /// From whom; `None` (an empty id) for this node's own.
        peer: Option<PeerId>,
        /// The message.
        message: Message,
    },
    /// A timeout ran out (`tendermint.consensus.TimeoutInfo`).
    Timeout(TimeoutInfo),
    /// The block of this height is decided and stored (`tendermint.consensus.EndHeight`).
    EndHeight(Height),
}
