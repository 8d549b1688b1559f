use std::{sync::Arc, time::Instant};

use perihelion_consensus::{Announce, BitArray, Maj23, RoundStep, Step};
use perihelion_types::{
    BlockId, Height, Part, PartSetHeader, Proposal, Round, Rules, SignedMsgType, Vote,
    bounds::MAX_SIGNATURES, part_set::MAX_PARTS,
};

use super::{Channel, WireError};

/// What a peer says about consensus, on any of its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// It entered a step (channel 0x20).
    NewRoundStep(NewRoundStep),
    /// It collects or has a block with more than 2/3 of the prevotes or precommits (0x20).
    NewValidBlock(NewValidBlock),
    /// It has a vote (0x20).
    HasVote(HasVote),
    /// It saw more than 2/3 of a round's votes for one block (`VoteSetMaj23`, 0x20).
    Maj23(Maj23),
    /// A proposal (0x21).
    Proposal(Arc<Proposal>),
    /// Which prevotes it has of the round that its proposal's proof of lock is of (0x21).
    ProposalPol(ProposalPol),
    /// A part of a block (`BlockPart`, 0x21).
    Part {
        /// The block's height.
        height: Height,
        /// The round that the sender is in.
        round: Round,
        /// The part with its proof.
        part: Arc<Part>,
    },
    /// A vote (0x22).
    Vote(Arc<Vote>),
    /// Which votes it has for the block of a claim (0x23).
    VoteSetBits(VoteSetBits),
}

/// `NewRoundStep`: where the sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRoundStep {
    /// The height that it decides.
    pub height: Height,
    /// Its round.
    pub round: Round,
    /// Its step.
    pub step: Step,
    /// Whole seconds since round 0 of the height began; negative while it is to begin.
    pub seconds_since_start_time: i64,
    /// The round in which the block below was decided; -1 at the initial height.
    pub last_commit_round: Round,
}

/// `NewValidBlock`: which block the sender collects, and which parts it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewValidBlock {
    /// The height.
    pub height: Height,
    /// The sender's round.
    pub round: Round,
    /// Count and root of the parts.
    pub header: PartSetHeader,
    /// Which parts are there; 1 to [`MAX_PARTS`] bits, as many as the header says.
    pub parts: BitArray,
    /// Whether the block is decided.
    pub is_commit: bool,
}

/// `HasVote`: the sender has this vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HasVote {
    /// The vote's height.
    pub height: Height,
    /// The vote's round.
    pub round: Round,
    /// Prevote or precommit.
    pub vote_type: SignedMsgType,
    /// The validator's index, not below 0.
    pub index: i32,
}

/// `ProposalPOL`: prevotes that the sender has of the proof of lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalPol {
    /// The height.
    pub height: Height,
    /// The round of the proof of lock.
    pub pol_round: Round,
    /// Whose prevotes are there; 1 to [`MAX_SIGNATURES`] bits.
    pub prevotes: BitArray,
}

/// `VoteSetBits`: votes that the sender has for one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoteSetBits {
    /// The height.
    pub height: Height,
    /// The round; any, as CometBFT does not check it.
    pub round: Round,
    /// Prevotes or precommits.
    pub vote_type: SignedMsgType,
    /// The block, or nil.
    pub block_id: BlockId,
    /// Whose votes are there; 0 to [`MAX_SIGNATURES`] bits, 0 when there are none.
    pub votes: BitArray,
}

impl PeerMessage {
    /// On which channel it travels.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::NewRoundStep(_) | Self::NewValidBlock(_) | Self::HasVote(_) | Self::Maj23(_) => {
                Channel::State
            }
            Self::Proposal(_) | Self::ProposalPol(_) | Self::Part { .. } => Channel::Data,
            Self::Vote(_) => Channel::Vote,
            Self::VoteSetBits(_) => Channel::VoteSetBits,
        }
    }

    /// What is told to all peers at once; `None` for proposals and parts, which each peer is sent
    /// when it lacks them. Of a vote, that it is here.
    #[must_use]
    pub fn announcing(announce: &Announce, now: Instant) -> Option<Self> {
        Some(match announce {
            Announce::RoundStep(step) => Self::NewRoundStep(NewRoundStep::of(step, now)),
            Announce::ValidBlock {
                height,
                round,
                header,
                parts,
                is_commit,
            } => Self::NewValidBlock(NewValidBlock {
                height: *height,
                round: *round,
                header: *header,
                parts: parts.clone(),
                is_commit: *is_commit,
            }),
            Announce::Vote(vote) => Self::HasVote(HasVote {
                height: vote.height,
                round: vote.round,
                vote_type: vote.vote_type,
                index: vote.validator_index,
            }),
            Announce::Proposal(_) | Announce::Part { .. } => return None,
        })
    }

    /// The stateless rules (CometBFT's `ValidateBasic`).
    ///
    /// # Errors
    /// Names the first rule that is broken; the sender is to be disconnected.
    pub fn validate_basic(&self, rules: Rules) -> Result<(), WireError> {
        match self {
            Self::NewRoundStep(message) => message.validate_basic(),
            Self::NewValidBlock(message) => message.validate_basic(),
            Self::HasVote(message) => {
                let name = "has vote";
                place(name, message.height, message.round)?;
                vote_type(name, message.vote_type)?;
                not_negative(name, "index", message.index.into())
            }
            Self::Maj23(claim) => {
                let name = "vote set majority";
                place(name, claim.height, claim.round)?;
                vote_type(name, claim.vote_type)
            }
            Self::Proposal(proposal) => Ok(proposal.validate_basic_by(rules)?),
            Self::ProposalPol(message) => {
                let name = "proposal POL";
                not_negative(name, "height", message.height.get())?;
                not_negative(name, "proof of lock round", message.pol_round.get().into())?;
                some_bits(name, &message.prevotes, MAX_SIGNATURES)
            }
            Self::Part {
                height,
                round,
                part,
            } => {
                place("block part", *height, *round)?;
                Ok(part.validate_basic()?)
            }
            Self::Vote(vote) => Ok(vote.validate_basic_by(rules)?),
            Self::VoteSetBits(message) => {
                let name = "vote set bits";
                not_negative(name, "height", message.height.get())?;
                vote_type(name, message.vote_type)?;
                at_most(name, &message.votes, MAX_SIGNATURES)
            }
        }
    }
}

impl NewRoundStep {
    /// What this node tells of itself.
    #[must_use]
    pub fn of(step: &RoundStep, now: Instant) -> Self {
        let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        let seconds = match now.checked_duration_since(step.start_time) {
            Some(since) => whole(since.as_secs()),
            None => -whole(step.start_time.duration_since(now).as_secs()),
        };
        Self {
            height: step.height,
            round: step.round,
            step: step.step,
            seconds_since_start_time: seconds,
            last_commit_round: step.last_commit_round,
        }
    }

    fn validate_basic(&self) -> Result<(), WireError> {
        place("new round step", self.height, self.round)?;
        if self.last_commit_round < Round::new(-1) {
            return Err(WireError::LastCommitRound(self.last_commit_round));
        }
        Ok(())
    }

    /// The rules that need the chain's initial height.
    ///
    /// # Errors
    /// Names the first rule that is broken; the sender is to be disconnected.
    pub fn validate_height(&self, initial: Height) -> Result<(), WireError> {
        let (height, round) = (self.height, self.last_commit_round);
        if height < initial {
            return Err(WireError::BelowInitialHeight { height, initial });
        }
        let is_right = if height == initial {
            round == Round::new(-1)
        } else {
            round >= Round::ZERO
        };
        if is_right {
            Ok(())
        } else {
            Err(WireError::LastCommitAt { height, round })
        }
    }
}

impl NewValidBlock {
    fn validate_basic(&self) -> Result<(), WireError> {
        let name = "new valid block";
        place(name, self.height, self.round)?;
        some_bits(name, &self.parts, MAX_PARTS as usize)?;
        let (bits, total) = (self.parts.size(), self.header.total);
        if u32::try_from(bits) == Ok(total) {
            Ok(())
        } else {
            Err(WireError::PartBits { bits, total })
        }
    }
}

fn place(message: &'static str, height: Height, round: Round) -> Result<(), WireError> {
    not_negative(message, "height", height.get())?;
    not_negative(message, "round", round.get().into())
}

fn not_negative(message: &'static str, field: &'static str, value: i64) -> Result<(), WireError> {
    if value < 0 {
        return Err(WireError::Negative {
            message,
            field,
            value,
        });
    }
    Ok(())
}

fn vote_type(message: &'static str, vote_type: SignedMsgType) -> Result<(), WireError> {
    match vote_type {
        SignedMsgType::Prevote | SignedMsgType::Precommit => Ok(()),
        SignedMsgType::Proposal | SignedMsgType::Unknown(_) => Err(WireError::VoteType {
            message,
            vote_type: vote_type.to_i32(),
        }),
    }
}

fn some_bits(message: &'static str, bits: &BitArray, max: usize) -> Result<(), WireError> {
    if bits.size() == 0 {
        return Err(WireError::NoBits(message));
    }
    at_most(message, bits, max)
}

fn at_most(message: &'static str, bits: &BitArray, max: usize) -> Result<(), WireError> {
    if bits.size() > max {
        return Err(WireError::TooManyBits {
            message,
            bits: i64::try_from(bits.size()).unwrap_or(i64::MAX),
            max,
        });
    }
    Ok(())
}
