use std::{collections::BTreeMap, sync::Arc};

use perihelion_types::{BlockId, Height, PeerId, Round, SignedMsgType, ValidatorSet, Vote};

use super::{Added, Checked, VoteError, VoteSet};
use crate::{Fault, Maj23, Verify};

/// How many rounds beyond the next one a peer may open by its votes: one for the round in which it
/// saw the commit, one for the round of the commit in the next block.
pub const CATCHUP_ROUNDS_PER_PEER: usize = 2;

/// How many rounds all peers together may open. Those that have gone count until there is no room
/// left (`Consensus::retain_peers`). Fewer could let liars, validators among them, shut out
/// the commit; more only costs memory.
pub const MAX_CATCHUP_ROUNDS: usize = 256;

/// The votes of all rounds of one height.
///
/// Bounds: the rounds up to the one after this node's own, and [`MAX_CATCHUP_ROUNDS`] more. A round
/// is opened by a vote whose signature holds.
#[derive(Debug, Clone)]
pub struct HeightVoteSet {
    chain_id: Arc<str>,
    height: Height,
    validators: Arc<ValidatorSet>,
    extensions: bool,
    round: Round,
    rounds: BTreeMap<Round, RoundVotes>,
    catchup: BTreeMap<PeerId, Vec<Round>>,
    catchup_rounds: usize,
    polkas: BTreeMap<Round, BlockId>,
    commit_round: Option<Round>,
}

#[derive(Debug, Clone)]
struct RoundVotes {
    prevotes: VoteSet,
    precommits: VoteSet,
}

impl HeightVoteSet {
    /// No votes yet; round 0 and 1 are open.
    #[must_use]
    pub fn new(
        chain_id: Arc<str>,
        height: Height,
        validators: Arc<ValidatorSet>,
        extensions: bool,
    ) -> Self {
        let mut votes = Self {
            chain_id,
            height,
            validators,
            extensions,
            round: Round::ZERO,
            rounds: BTreeMap::new(),
            catchup: BTreeMap::new(),
            catchup_rounds: 0,
            polkas: BTreeMap::new(),
            commit_round: None,
        };
        votes.set_round(Round::ZERO);
        votes
    }

    /// This node is in `round`: votes of it, of all before and of the next one are taken.
    pub(crate) fn set_round(&mut self, round: Round) {
        self.round = self.round.max(round);
        for open in [self.round, Round::new(self.round.get().saturating_add(1))] {
            if !self.rounds.contains_key(&open) {
                let votes = self.empty_round(open);
                self.rounds.insert(open, votes);
            }
        }
    }

    fn empty_round(&self, round: Round) -> RoundVotes {
        let set = |vote_type| {
            VoteSet::new(
                Arc::clone(&self.chain_id),
                self.height,
                round,
                vote_type,
                Arc::clone(&self.validators),
                self.extensions,
            )
        };
        RoundVotes {
            prevotes: set(SignedMsgType::Prevote),
            precommits: set(SignedMsgType::Precommit),
        }
    }

    /// Checks a vote of this height, without adding it. `peer` is `None` for this node's own.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn check(
        &self,
        vote: &Vote,
        peer: Option<PeerId>,
        verify: &dyn Verify,
    ) -> Result<Checked, VoteError> {
        if vote.round < Round::ZERO {
            return Err(VoteError::Misplaced);
        }
        if let Some(votes) = self.rounds.get(&vote.round) {
            return votes.of(vote.vote_type)?.check(vote, verify);
        }
        if !self.may_open(vote.round, peer) {
            return Err(VoteError::UnwantedRound { round: vote.round });
        }
        self.empty_round(vote.round)
            .of(vote.vote_type)?
            .check(vote, verify)
    }

    fn may_open(&self, round: Round, peer: Option<PeerId>) -> bool {
        if round.get() <= self.round.get().saturating_add(1) {
            return true;
        }
        let Some(peer) = peer else {
            return false;
        };
        let opened = self.catchup.get(&peer).map_or(0, Vec::len);
        opened < CATCHUP_ROUNDS_PER_PEER && self.catchup_rounds < MAX_CATCHUP_ROUNDS
    }

    /// Opens the round of a vote that [`check`](Self::check) found new, where that is due. It is one
    /// of those that the peer may open, whatever becomes of the vote.
    pub(crate) fn open(&mut self, round: Round, peer: Option<PeerId>) {
        if self.rounds.contains_key(&round) {
            return;
        }
        if round.get() > self.round.get().saturating_add(1) {
            let Some(peer) = peer else { return };
            self.catchup.entry(peer).or_default().push(round);
            self.catchup_rounds += 1;
        }
        let votes = self.empty_round(round);
        self.rounds.insert(round, votes);
    }

    /// Adds a vote that [`check`](Self::check) found new; opens its round where that is due.
    pub(crate) fn add_checked(&mut self, vote: &Arc<Vote>, peer: Option<PeerId>) -> Added {
        let refused = Added {
            added: false,
            conflict: None,
        };
        let round = vote.round;
        self.open(round, peer);
        let Some(votes) = self.rounds.get_mut(&round) else {
            return refused;
        };
        let Ok(set) = votes.of_mut(vote.vote_type) else {
            return refused;
        };
        let added = set.add_checked(vote);
        if let Some(block_id) = set.maj23() {
            match vote.vote_type {
                SignedMsgType::Prevote => {
                    self.polkas.entry(round).or_insert(block_id);
                }
                _ if !block_id.is_nil() => {
                    self.commit_round.get_or_insert(round);
                }
                _ => {}
            }
        }
        added
    }

    /// Records a peer's claim; claims about rounds that are not open are ignored.
    ///
    /// # Errors
    /// When the peer claimed another block before.
    pub fn claim_maj23(&mut self, peer: PeerId, claim: &Maj23) -> Result<(), Fault> {
        match self.rounds.get_mut(&claim.round) {
            Some(votes) => match votes.of_mut(claim.vote_type) {
                Ok(set) => set.claim_maj23(peer, claim.block_id),
                Err(_) => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Whether the room that all peers share, for rounds or for claims, is used up.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        let full =
            |votes: &RoundVotes| votes.prevotes.is_crowded() || votes.precommits.is_crowded();
        self.catchup_rounds >= MAX_CATCHUP_ROUNDS || self.rounds.values().any(full)
    }

    /// Gives the room of peers that are gone to others. The rounds that they opened are closed, but
    /// for those in which more than 1/3 of the power voted: honest validators are there.
    pub(crate) fn retain_peers(&mut self, is_there: impl Fn(&PeerId) -> bool) {
        let next = self.round.get().saturating_add(1);
        let (rounds, count) = (&mut self.rounds, &mut self.catchup_rounds);
        self.catchup.retain(|peer, opened| {
            let stays = is_there(peer);
            if !stays {
                *count -= opened.len();
                for round in opened.iter().filter(|round| round.get() > next) {
                    if rounds.get(round).is_some_and(|votes| !votes.is_honest()) {
                        rounds.remove(round);
                    }
                }
            }
            stays
        });
        for votes in self.rounds.values_mut() {
            votes.prevotes.retain_claims(&is_there);
            votes.precommits.retain_claims(&is_there);
        }
    }

    /// The height voted on.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// Who may vote.
    #[must_use]
    pub fn validators(&self) -> &Arc<ValidatorSet> {
        &self.validators
    }

    /// The prevotes of a round that is open.
    #[must_use]
    pub fn prevotes(&self, round: Round) -> Option<&VoteSet> {
        Some(&self.rounds.get(&round)?.prevotes)
    }

    /// The precommits of a round that is open.
    #[must_use]
    pub fn precommits(&self, round: Round) -> Option<&VoteSet> {
        Some(&self.rounds.get(&round)?.precommits)
    }

    /// The votes of a type in a round that is open.
    #[must_use]
    pub fn votes(&self, round: Round, vote_type: SignedMsgType) -> Option<&VoteSet> {
        self.rounds.get(&round)?.of(vote_type).ok()
    }

    /// The rounds that are open, rising.
    pub fn rounds(&self) -> impl Iterator<Item = Round> + '_ {
        self.rounds.keys().copied()
    }

    /// The block, or nil, that has more than 2/3 of the round's prevotes: a polka.
    #[must_use]
    pub fn polka(&self, round: Round) -> Option<BlockId> {
        self.polkas.get(&round).copied()
    }

    /// The last round up to `round` that has a polka, and for what.
    #[must_use]
    pub fn last_polka(&self, round: Round) -> Option<(Round, BlockId)> {
        let (round, block_id) = self.polkas.range(..=round).next_back()?;
        Some((*round, *block_id))
    }

    /// The polkas of the rounds behind `after` and up to `to`.
    pub(crate) fn polkas(
        &self,
        after: Round,
        to: Round,
    ) -> impl Iterator<Item = (Round, BlockId)> + '_ {
        self.polkas
            .iter()
            .map(|(round, block_id)| (*round, *block_id))
            .filter(move |(round, _)| after < *round && *round <= to)
    }

    /// The first round that was found to have more than 2/3 of its precommits for a block.
    #[must_use]
    pub fn commit_round(&self) -> Option<Round> {
        self.commit_round
    }

    /// The highest round above `round` in which more than 2/3 of the power has prevoted, or
    /// precommitted, anything.
    pub(crate) fn round_ahead(&self, round: Round) -> Option<Round> {
        let ahead = |votes: &RoundVotes| {
            votes.prevotes.has_two_thirds_any() || votes.precommits.has_two_thirds_any()
        };
        self.rounds
            .iter()
            .rev()
            .take_while(|(open, _)| **open > round)
            .find(|(_, votes)| ahead(votes))
            .map(|(open, _)| *open)
    }

    /// Takes the precommits of a round out.
    pub(crate) fn into_precommits(mut self, round: Round) -> Option<VoteSet> {
        Some(self.rounds.remove(&round)?.precommits)
    }

    /// How many rounds peers have opened.
    #[must_use]
    pub fn catchup_rounds(&self) -> usize {
        self.catchup_rounds
    }
}

impl RoundVotes {
    fn is_honest(&self) -> bool {
        self.prevotes.has_one_third_any() || self.precommits.has_one_third_any()
    }

    fn of(&self, vote_type: SignedMsgType) -> Result<&VoteSet, VoteError> {
        match vote_type {
            SignedMsgType::Prevote => Ok(&self.prevotes),
            SignedMsgType::Precommit => Ok(&self.precommits),
            SignedMsgType::Proposal | SignedMsgType::Unknown(_) => Err(VoteError::Misplaced),
        }
    }

    fn of_mut(&mut self, vote_type: SignedMsgType) -> Result<&mut VoteSet, VoteError> {
        match vote_type {
            SignedMsgType::Prevote => Ok(&mut self.prevotes),
            SignedMsgType::Precommit => Ok(&mut self.precommits),
            SignedMsgType::Proposal | SignedMsgType::Unknown(_) => Err(VoteError::Misplaced),
        }
    }
}
