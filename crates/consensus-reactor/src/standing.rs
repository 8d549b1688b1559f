//! Why consensus stands still.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use perihelion_consensus::Step;
use perihelion_types::{Address, Height, Round, SignedMsgType};

use crate::peer::{PartsView, View, VotesView};

/// How long a height may take at least before it counts as standing still. Shorter: a round that is
/// lost to a slow proposer would be told of; longer: whoever looks finds no reason.
pub const STANDS_AFTER: Duration = Duration::from_secs(10);
/// Validators that are named of those whose votes are missing.
const NAMED: usize = 4;

/// What the state machine does not know of this node's stay in consensus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stay {
    /// The address that this node signs with.
    pub own_address: Option<Address>,
    /// Since when the height is being decided; `None` while nothing is due: before its first round,
    /// and while that waits for transactions.
    pub since: Option<Instant>,
    /// After which time a height stands still: [`STANDS_AFTER`] or more, where rounds are long.
    pub patience: Duration,
    /// Why this validator signs nothing; `None` while it does, and where it need not.
    pub silence: Option<Arc<str>>,
}

/// A height that is not decided for a long time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The height.
    pub height: Height,
    /// Its round.
    pub round: Round,
    /// How long it has been decided on, in seconds.
    pub seconds: u64,
    /// What it waits for.
    pub awaits: Awaits,
    /// How the round before ended, where this is not the first.
    pub before: Option<LostRound>,
}

/// What a round waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaits {
    /// The proposal.
    Proposal {
        /// Of this validator.
        proposer: Option<Address>,
        /// Whether that is this node.
        is_own: bool,
    },
    /// The rest of the proposed block.
    Parts {
        /// How many of its parts are here.
        have: usize,
        /// How many it has.
        of: usize,
    },
    /// Nothing but this node itself: the proposed block is judged.
    Judging,
    /// Votes: so far not more than 2/3 of the power has voted at all.
    Votes(MissingVotes),
    /// The votes agree on nothing: the next round follows.
    Agreement {
        /// Prevotes or precommits.
        vote_type: SignedMsgType,
        /// Whose votes are here.
        tally: Tally,
    },
    /// The rest of the block that is decided.
    DecidedParts {
        /// How many of its parts are here; 0 where not even their count is known.
        have: usize,
        /// How many it has.
        of: usize,
    },
    /// The decided block is applied.
    Applying,
}

/// How many have voted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Validators that have.
    pub voted: usize,
    /// All validators.
    pub validators: usize,
    /// The share of the power of those that have, in percent, rounded down.
    pub percent: u8,
}

/// Votes of not more than 2/3 of the power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingVotes {
    /// Prevotes or precommits.
    pub vote_type: SignedMsgType,
    /// Whose votes are here.
    pub tally: Tally,
    /// Some of the others: this node itself first, then those of the most power.
    pub missing: Vec<Address>,
    /// Whether the first of them is this node.
    pub own_is_missing: bool,
}

/// A round that has decided nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRound {
    /// The round.
    pub round: Round,
    /// Its prevotes.
    pub prevotes: Tally,
    /// Whether more than 2/3 of the power has prevoted nil.
    pub is_nil: bool,
    /// Its precommits.
    pub precommits: Tally,
}

impl Standing {
    /// Why the height of `view` is not decided yet; `None` before it has taken long.
    #[must_use]
    pub fn of(view: &View, now: Instant) -> Option<Self> {
        let stay = view.stay();
        let stood = now.saturating_duration_since(stay.since?);
        if stood < stay.patience {
            return None;
        }
        let round = view.round();
        let before = Round::new(round.get().saturating_sub(1));
        Some(Self {
            height: view.height(),
            round,
            seconds: stood.as_secs(),
            awaits: awaits(view)?,
            before: (round > Round::ZERO).then(|| lost(view, before)).flatten(),
        })
    }
}

fn awaits(view: &View) -> Option<Awaits> {
    let round = view.round();
    Some(match view.round_step().step {
        Step::NewHeight => return None,
        Step::NewRound | Step::Propose => proposal(view),
        Step::Prevote | Step::PrevoteWait => votes(view, view.prevotes(round)?),
        Step::Precommit | Step::PrecommitWait => votes(view, view.precommits(round)?),
        Step::Commit if view.block().is_some() => Awaits::Applying,
        Step::Commit => {
            let (have, of) = view.parts().map_or((0, 0), |parts| count(parts));
            Awaits::DecidedParts { have, of }
        }
    })
}

fn count(parts: &PartsView) -> (usize, usize) {
    (parts.bits().count(), parts.bits().size())
}

fn proposal(view: &View) -> Awaits {
    if view.proposal().is_none() {
        let proposer = view.validator_set().proposer().map(|member| member.address);
        return Awaits::Proposal {
            proposer,
            is_own: proposer.is_some() && proposer == view.stay().own_address,
        };
    }
    match view.parts().map(|parts| count(parts)) {
        Some((have, of)) if have < of => Awaits::Parts { have, of },
        _ => Awaits::Judging,
    }
}

fn votes(view: &View, votes: &VotesView) -> Awaits {
    let (tally, is_enough) = tally(view, votes);
    let vote_type = votes.vote_type();
    if is_enough {
        return Awaits::Agreement { vote_type, tally };
    }
    let own = view.stay().own_address;
    let members = view.validator_set().validators().iter().enumerate();
    let mut missing: Vec<Address> = members
        .filter(|(index, _)| !votes.bits().get(*index))
        .map(|(_, member)| member.address)
        .collect();
    // The set is ordered by power; the sort keeps that order.
    missing.sort_by_key(|address| Some(*address) != own);
    missing.truncate(NAMED);
    Awaits::Votes(MissingVotes {
        vote_type,
        tally,
        own_is_missing: own.is_some() && missing.first().copied() == own,
        missing,
    })
}

/// Who has voted, and whether those are more than 2/3 of the power.
fn tally(view: &View, votes: &VotesView) -> (Tally, bool) {
    let set = view.validator_set();
    let members = set.validators().iter().enumerate();
    let power: i128 = members
        .filter(|(index, _)| votes.bits().get(*index))
        .map(|(_, member)| i128::from(member.voting_power))
        .sum();
    let total = i128::from(set.total_voting_power()).max(1);
    let tally = Tally {
        voted: votes.bits().count(),
        validators: set.len(),
        percent: u8::try_from(power * 100 / total).unwrap_or(100),
    };
    (tally, power * 3 > total * 2)
}

fn lost(view: &View, round: Round) -> Option<LostRound> {
    let (prevotes, precommits) = (view.prevotes(round)?, view.precommits(round)?);
    Some(LostRound {
        round,
        prevotes: tally(view, prevotes).0,
        is_nil: prevotes.maj23().is_some_and(|block| block.is_nil()),
        precommits: tally(view, precommits).0,
    })
}

fn name(vote_type: SignedMsgType) -> &'static str {
    match vote_type {
        SignedMsgType::Prevote => "prevotes",
        SignedMsgType::Precommit => "precommits",
        SignedMsgType::Proposal | SignedMsgType::Unknown(_) => "votes",
    }
}

/// `height 12 round 3 waits (23 s): prevotes of 2 of 4 validators (50 % of the power, more than 2/3
/// needed); missing: A, B`.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            height,
            round,
            seconds,
            awaits,
            before,
        } = self;
        write!(
            f,
            "height {height} round {round} waits ({seconds} s): {awaits}"
        )?;
        match before {
            Some(before) => write!(f, "; {before}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Awaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proposal { is_own: true, .. } => {
                f.write_str("this node proposes, and has not signed a proposal")
            }
            Self::Proposal {
                proposer: Some(proposer),
                ..
            } => write!(f, "no proposal of {proposer}, whose turn it is"),
            Self::Proposal { .. } => f.write_str("no proposal"),
            Self::Parts { have, of } => {
                write!(f, "{have} of {of} parts of the proposed block are here")
            }
            Self::Judging => f.write_str("the proposed block is judged"),
            Self::Votes(votes) => votes.fmt(f),
            Self::Agreement { vote_type, tally } => {
                let votes = name(*vote_type);
                write!(f, "{votes} of {tally}, and no block has more than 2/3")
            }
            Self::DecidedParts { of: 0, .. } => {
                f.write_str("a block is decided, and none of its parts is here")
            }
            Self::DecidedParts { have, of } => {
                write!(f, "{have} of {of} parts of the decided block are here")
            }
            Self::Applying => f.write_str("the decided block is applied"),
        }
    }
}

impl fmt::Display for MissingVotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            voted,
            validators,
            percent,
        } = self.tally;
        let votes = name(self.vote_type);
        write!(
            f,
            "{votes} of {voted} of {validators} validators ({percent} % of the power, more than 2/3 \
             needed); missing: "
        )?;
        for (number, address) in self.missing.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{address}")?;
            if number == 0 && self.own_is_missing {
                f.write_str(" (this node)")?;
            }
        }
        match validators.saturating_sub(voted + self.missing.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            voted,
            validators,
            percent,
        } = self;
        write!(
            f,
            "{voted} of {validators} validators ({percent} % of the power)"
        )
    }
}

impl fmt::Display for LostRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            round,
            prevotes,
            precommits,
            ..
        } = self;
        let nil = if self.is_nil { ", for no block" } else { "" };
        write!(
            f,
            "round {round} ended without a block: {} of {} prevoted{nil}, {} precommitted",
            prevotes.voted, prevotes.validators, precommits.voted
        )
    }
}
