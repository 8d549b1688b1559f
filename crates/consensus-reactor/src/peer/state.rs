use std::time::{Duration, Instant};

use perihelion_consensus::{BitArray, Maj23, Message, Step};
use perihelion_types::{
    Height, PartSetHeader, PeerId, Proposal, Round, SignedMsgType, bounds::MAX_SIGNATURES,
    part_set::MAX_PARTS,
};

use super::{pick::Picks, view::View};
use crate::wire::{NewRoundStep, NewValidBlock, PeerMessage, ProposalPol, VoteSetBits, WireError};

/// Most bits that are kept of one peer, whatever it says: six sets of votes and one of parts.
pub const MAX_STATE_BITS: usize = 6 * MAX_SIGNATURES + MAX_PARTS as usize;

/// Which parts of which block a peer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartBits {
    /// Count and root.
    pub header: PartSetHeader,
    /// Which are there, as many bits as the header says.
    pub bits: BitArray,
}

/// What is to be done about a peer's message, once the peer's state has taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Nothing more.
    Noted,
    /// It would be for the state machine, which is not there while this node syncs: a proposal,
    /// part or vote of this height. The peer does not send it again.
    PassedOver(Height),
    /// It is for the state machine.
    Core(Message),
    /// A claim about the height that is being decided: for the state machine, and to be answered
    /// ([`answer_maj23`](super::answer_maj23)).
    Claim(Maj23),
}

/// What is known of one peer (CometBFT's `PeerRoundState`).
///
/// It only tells what is worth sending: nothing of it is believed. Bounded by [`MAX_STATE_BITS`].
/// Bits of votes are kept for the peer's round, for the round before it, for the round of its
/// proposal's proof of lock, for one round that has a commit, and for the last commit.
#[derive(Debug, Clone)]
pub struct PeerState {
    pub(super) picks: Picks,
    initial_height: Height,
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) step: Option<Step>,
    start_time: Option<Instant>,
    pub(super) has_proposal: bool,
    pub(super) has_pol: bool,
    pub(super) parts: Option<PartBits>,
    pub(super) pol_round: Option<Round>,
    pol: Option<BitArray>,
    prevotes: Option<BitArray>,
    precommits: Option<BitArray>,
    /// Prevotes of the round that it was in before.
    left: Option<(Round, BitArray)>,
    last_commit_round: Round,
    last_commit: Option<BitArray>,
    catchup_round: Option<Round>,
    /// Precommits of `catchup_round`, unless that is the peer's round: then `precommits` has them.
    catchup: Option<BitArray>,
    pub(super) idle_polls: u32,
}

impl PeerState {
    /// A peer of which nothing is known yet; `own` is this node's id, `initial_height` the chain's.
    #[must_use]
    pub fn new(own: &PeerId, peer: &PeerId, initial_height: Height) -> Self {
        Self {
            picks: Picks::new(own, peer),
            initial_height,
            height: Height::ZERO,
            round: Round::new(-1),
            step: None,
            start_time: None,
            has_proposal: false,
            has_pol: false,
            parts: None,
            pol_round: None,
            pol: None,
            prevotes: None,
            precommits: None,
            left: None,
            last_commit_round: Round::new(-1),
            last_commit: None,
            catchup_round: None,
            catchup: None,
            idle_polls: 0,
        }
    }

    /// Takes a message that [`PeerMessage::decode_on`] has read. `view` is `None` while this node
    /// syncs: then only what the peer says of itself counts, and nothing is for the state machine.
    ///
    /// # Errors
    /// When the peer is to be disconnected.
    pub fn handle(
        &mut self,
        now: Instant,
        view: Option<&View>,
        message: &PeerMessage,
    ) -> Result<Received, WireError> {
        match message {
            PeerMessage::NewRoundStep(message) => {
                message.validate_height(self.initial_height)?;
                self.take_round_step(now, message);
                return Ok(Received::Noted);
            }
            PeerMessage::NewValidBlock(message) => {
                self.take_valid_block(message);
                return Ok(Received::Noted);
            }
            PeerMessage::HasVote(vote) => {
                if vote.height == self.height {
                    let place = (vote.height, vote.round, vote.vote_type);
                    self.set_has_vote(view, place, vote.index);
                }
                return Ok(Received::Noted);
            }
            _ => {}
        }
        match view {
            Some(view) => self.handle_in_consensus(view, message),
            None => Ok(match message {
                PeerMessage::Proposal(proposal) => Received::PassedOver(proposal.height),
                PeerMessage::Part { height, .. } => Received::PassedOver(*height),
                PeerMessage::Vote(vote) => Received::PassedOver(vote.height),
                _ => Received::Noted,
            }),
        }
    }

    fn handle_in_consensus(
        &mut self,
        view: &View,
        message: &PeerMessage,
    ) -> Result<Received, WireError> {
        Ok(match message {
            PeerMessage::Maj23(claim) if claim.height == view.height() => Received::Claim(*claim),
            PeerMessage::Proposal(proposal) => {
                check_parts(view, proposal)?;
                self.set_has_proposal(proposal);
                Received::Core(Message::Proposal(proposal.clone()))
            }
            PeerMessage::ProposalPol(message) => {
                self.take_pol(view, message);
                Received::Noted
            }
            PeerMessage::Part {
                height,
                round,
                part,
            } => {
                if (*height, *round) == (self.height, self.round) {
                    self.set_has_part(part.index);
                }
                Received::Core(Message::Part {
                    height: *height,
                    round: *round,
                    part: part.clone(),
                })
            }
            PeerMessage::Vote(vote) => {
                let place = (vote.height, vote.round, vote.vote_type);
                self.set_has_vote(Some(view), place, vote.validator_index);
                Received::Core(Message::Vote(vote.clone()))
            }
            PeerMessage::VoteSetBits(message) => {
                self.take_vote_set_bits(view, message);
                Received::Noted
            }
            PeerMessage::Maj23(_)
            | PeerMessage::NewRoundStep(_)
            | PeerMessage::NewValidBlock(_)
            | PeerMessage::HasVote(_) => Received::Noted,
        })
    }

    /// Records what was sent to the peer, so that it is not sent again.
    pub fn sent(&mut self, view: &View, message: &PeerMessage) {
        match message {
            PeerMessage::Proposal(proposal) => self.set_has_proposal(proposal),
            PeerMessage::ProposalPol(_) => self.has_pol = true,
            PeerMessage::Part { height, part, .. } if *height == self.height => {
                self.set_has_part(part.index);
            }
            PeerMessage::Vote(vote) => {
                let place = (vote.height, vote.round, vote.vote_type);
                self.set_has_vote(Some(view), place, vote.validator_index);
            }
            _ => {}
        }
    }

    /// Steps that are not ahead of the last one are ignored.
    fn take_round_step(&mut self, now: Instant, message: &NewRoundStep) {
        let (old_height, old_round) = (self.height, self.round);
        let place = (message.height, message.round, Some(message.step));
        if place <= (old_height, old_round, self.step) {
            return;
        }
        (self.height, self.round, self.step) = place;
        self.start_time = started(now, message.seconds_since_start_time);
        if old_height != message.height {
            self.enter_height(old_height, old_round, message.last_commit_round);
        } else if old_round != message.round {
            self.enter_round(old_round);
        }
    }

    fn enter_height(&mut self, old_height: Height, old_round: Round, last_commit_round: Round) {
        let precommits = self.precommits.take();
        let catchup = self.catchup.take();
        self.last_commit = if old_height.next() != self.height {
            None
        } else if old_round == last_commit_round {
            precommits
        } else if self.catchup_round == Some(last_commit_round) {
            catchup
        } else {
            None
        };
        self.last_commit_round = last_commit_round;
        self.catchup_round = None;
        self.prevotes = None;
        self.left = None;
        self.idle_polls = 0;
        self.forget_proposal();
    }

    /// Bits of precommits go on counting for the round with a commit; where none is known yet, for
    /// the round that is left.
    fn enter_round(&mut self, old_round: Round) {
        let precommits = self.precommits.take();
        let is_open = self.catchup_round.is_none_or(|round| round == old_round);
        if is_open {
            self.catchup_round = Some(old_round);
            self.catchup = precommits;
        } else if self.catchup_round == Some(self.round) {
            self.precommits = self.catchup.take();
        }
        self.left = self.prevotes.take().map(|prevotes| (old_round, prevotes));
        self.forget_proposal();
    }

    fn forget_proposal(&mut self) {
        self.has_proposal = false;
        self.has_pol = false;
        self.parts = None;
        self.pol_round = None;
        self.pol = None;
    }

    /// What the peer says replaces what was thought: it may have refused what was sent.
    fn take_valid_block(&mut self, message: &NewValidBlock) {
        let is_here = message.is_commit || message.round == self.round;
        if message.height == self.height && is_here {
            self.parts = Some(PartBits {
                header: message.header,
                bits: message.parts.clone(),
            });
        }
    }

    fn take_pol(&mut self, view: &View, message: &ProposalPol) {
        if message.height != self.height || self.pol_round != Some(message.pol_round) {
            return;
        }
        if let Some(count) = view.validators_at(self.height) {
            sized(&mut self.pol, count).add_all(&message.prevotes);
        }
    }

    /// What the peer says of the votes for one block replaces what was thought of those; where this
    /// node knows nothing of the height, of all.
    fn take_vote_set_bits(&mut self, view: &View, message: &VoteSetBits) {
        let place = (message.height, message.round, message.vote_type);
        let is_here = message.height == view.height();
        let Some(Some(theirs)) = self.slot(place) else {
            return;
        };
        let kept = if is_here {
            let ours = view.votes(message.round, message.vote_type);
            match ours.map(|ours| ours.bits_for(&message.block_id)) {
                Some(ours) => theirs.minus(&ours),
                None => theirs.clone(),
            }
        } else if message.votes.size() == 0 {
            return;
        } else {
            BitArray::new(theirs.size())
        };
        *theirs = kept;
        theirs.add_all(&message.votes);
    }

    fn set_has_proposal(&mut self, proposal: &Proposal) {
        let is_here = (proposal.height, proposal.round) == (self.height, self.round);
        let header = proposal.block_id.part_set_header;
        if !is_here || self.has_proposal || header.total > MAX_PARTS {
            return;
        }
        self.has_proposal = true;
        // Parts of a block with a polka are collected already, whatever is proposed.
        if self.parts.is_none() {
            self.expect_parts(header);
        }
        if proposal.pol_round >= Round::ZERO {
            self.pol_round = Some(proposal.pol_round);
            let left = self.left.as_ref();
            self.pol = left
                .filter(|(round, _)| *round == proposal.pol_round)
                .map(|(_, prevotes)| prevotes.clone());
        }
    }

    /// The peer collects the parts of `header`, and has none that is known of.
    pub(super) fn expect_parts(&mut self, header: PartSetHeader) {
        let count = usize::try_from(header.total.min(MAX_PARTS)).unwrap_or(0);
        self.parts = Some(PartBits {
            header,
            bits: BitArray::new(count),
        });
    }

    fn set_has_part(&mut self, index: u32) {
        if let (Some(parts), Ok(index)) = (&mut self.parts, usize::try_from(index)) {
            parts.bits.set(index, true);
        }
    }

    fn set_has_vote(
        &mut self,
        view: Option<&View>,
        place: (Height, Round, SignedMsgType),
        index: i32,
    ) {
        let Ok(index) = usize::try_from(index) else {
            return;
        };
        match view.and_then(|view| view.validators_at(place.0)) {
            Some(count) => {
                if let Some(bits) = self.bits_mut(place, count) {
                    bits.set(index, true);
                }
            }
            None => {
                if let Some(Some(bits)) = self.slot(place) {
                    bits.set(index, true);
                }
            }
        }
    }

    /// The bits of the votes of one place, one for each of `count` validators; `None` where no bits
    /// are kept.
    pub(super) fn bits_mut(
        &mut self,
        place: (Height, Round, SignedMsgType),
        count: usize,
    ) -> Option<&mut BitArray> {
        self.slot(place).map(|slot| sized(slot, count))
    }

    fn slot(&mut self, place: (Height, Round, SignedMsgType)) -> Option<&mut Option<BitArray>> {
        let (height, round, vote_type) = place;
        let here = height == self.height;
        match vote_type {
            SignedMsgType::Prevote if here && round == self.round => Some(&mut self.prevotes),
            SignedMsgType::Prevote if here && self.pol_round == Some(round) => Some(&mut self.pol),
            SignedMsgType::Precommit if here && round == self.round => Some(&mut self.precommits),
            SignedMsgType::Precommit if here && self.catchup_round == Some(round) => {
                Some(&mut self.catchup)
            }
            SignedMsgType::Precommit
                if height.next() == self.height && round == self.last_commit_round =>
            {
                Some(&mut self.last_commit)
            }
            _ => None,
        }
    }

    /// Precommits of `round` make a commit: their bits are kept from now on.
    pub(super) fn keep_commit_round(&mut self, height: Height, round: Round) {
        if height != self.height || self.catchup_round == Some(round) {
            return;
        }
        self.catchup_round = Some(round);
        self.catchup = None;
    }

    /// How many bits are kept; at most [`MAX_STATE_BITS`].
    #[must_use]
    pub fn held_bits(&self) -> usize {
        let votes = [
            &self.pol,
            &self.prevotes,
            &self.precommits,
            &self.last_commit,
            &self.catchup,
        ];
        let parts = self.parts.iter().map(|parts| &parts.bits);
        let left = self.left.iter().map(|(_, bits)| bits);
        let all = votes.into_iter().flatten().chain(parts).chain(left);
        all.map(BitArray::size).sum()
    }
}

/// Getters, for status and for other reactors.
impl PeerState {
    /// The height that it decides; 0 while it has not said.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// Its round; -1 while it has not said.
    #[must_use]
    pub fn round(&self) -> Round {
        self.round
    }

    /// Its step.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        self.step
    }

    /// When round 0 of its height began, by its own account.
    #[must_use]
    pub fn start_time(&self) -> Option<Instant> {
        self.start_time
    }

    /// Whether it has the round's proposal.
    #[must_use]
    pub fn has_proposal(&self) -> bool {
        self.has_proposal
    }

    /// The block that it collects, and which parts it has.
    #[must_use]
    pub fn parts(&self) -> Option<&PartBits> {
        self.parts.as_ref()
    }

    /// The round of its proposal's proof of lock.
    #[must_use]
    pub fn pol_round(&self) -> Option<Round> {
        self.pol_round
    }

    /// Which prevotes it has of that round.
    #[must_use]
    pub fn pol(&self) -> Option<&BitArray> {
        self.pol.as_ref()
    }

    /// Which prevotes it has of its round.
    #[must_use]
    pub fn prevotes(&self) -> Option<&BitArray> {
        self.prevotes.as_ref()
    }

    /// Which precommits it has of its round.
    #[must_use]
    pub fn precommits(&self) -> Option<&BitArray> {
        self.precommits.as_ref()
    }

    /// The round in which it saw the block below decided; -1 when there is none.
    #[must_use]
    pub fn last_commit_round(&self) -> Round {
        self.last_commit_round
    }

    /// Which precommits it has of that round.
    #[must_use]
    pub fn last_commit(&self) -> Option<&BitArray> {
        self.last_commit.as_ref()
    }

    /// The round of its height of which it is known to have, or was sent, a commit, or else the
    /// first round that it left.
    #[must_use]
    pub fn catchup_commit_round(&self) -> Option<Round> {
        self.catchup_round
    }

    /// Which precommits it has of that round.
    #[must_use]
    pub fn catchup_commit(&self) -> Option<&BitArray> {
        match self.catchup_round {
            Some(round) if round == self.round => self.precommits.as_ref(),
            _ => self.catchup.as_ref(),
        }
    }
}

/// The bits for `count` validators: of another size, what a peer claimed is carried over, so that
/// what is recorded from now on stays recorded.
fn sized(slot: &mut Option<BitArray>, count: usize) -> &mut BitArray {
    let bits = slot.get_or_insert_with(|| BitArray::new(count));
    if bits.size() != count {
        let mut resized = BitArray::new(count);
        resized.add_all(bits);
        *bits = resized;
    }
    bits
}

/// When something began that is so many seconds ago, or ahead; `None` beyond the clock.
fn started(now: Instant, seconds_ago: i64) -> Option<Instant> {
    let seconds = Duration::from_secs(seconds_ago.unsigned_abs());
    if seconds_ago < 0 {
        now.checked_add(seconds)
    } else {
        now.checked_sub(seconds)
    }
}

/// A block of this height has no more parts than the parameters allow; of other heights, whose
/// parameters may be others, than the protocol allows.
fn check_parts(view: &View, proposal: &Proposal) -> Result<(), WireError> {
    let is_here = proposal.height == view.height();
    let max = if is_here { view.max_parts() } else { MAX_PARTS };
    let total = proposal.block_id.part_set_header.total;
    if total > max {
        return Err(WireError::TooManyParts { total, max });
    }
    Ok(())
}
