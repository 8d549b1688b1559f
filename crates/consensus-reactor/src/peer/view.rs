use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use perihelion_consensus::{BitArray, Candidate, Consensus, RoundStep, Step, VoteSet};
use perihelion_types::{
    BlockId, Commit, ExtendedCommit, ExtendedCommitSig, FetchedBlock, Height, Part, PartSet,
    PartSetHeader, PeerId, Proposal, Round, SignedMsgType, State, ValidatorSet, Vote,
    part_set::MAX_PARTS, part_set::PART_SIZE,
};

use crate::{standing::Stay, wire::NewValidBlock};

/// Blocks that are decided and stored, for peers that lag. An implementation keeps the last few
/// answers: each is asked for once for every part or vote that is sent. It need not have everything
/// at hand: what it does not give is asked for again at the next look.
pub trait Stored {
    /// Count and root of the parts of the block at `height`; `None` when it is not there. Cheap: it
    /// is asked for whatever a peer claims.
    fn header(&self, height: Height) -> Option<PartSetHeader>;

    /// The parts of the block at `height`, complete; `None` when it is not there, or not yet at
    /// hand. Only asked for when one of them is to be sent.
    fn parts(&self, height: Height) -> Option<Arc<PartSet>>;

    /// The precommits that made the block at `height` final: of its extended commit where vote
    /// extensions are enabled at that height, of its commit otherwise. `None` when it is not there,
    /// or not yet at hand.
    fn commit(&self, height: Height) -> Option<Arc<VotesView>>;
}

/// The votes of one type in one round, as they were when the picture was taken.
#[derive(Debug, Clone)]
pub struct VotesView {
    height: Height,
    round: Round,
    vote_type: SignedMsgType,
    votes: Vec<Option<Arc<Vote>>>,
    bits: BitArray,
    maj23: Option<BlockId>,
    held: usize,
}

impl VotesView {
    /// Of votes that are being collected.
    #[must_use]
    pub fn of(set: &VoteSet) -> Self {
        let count = set.validators().len();
        Self {
            height: set.height(),
            round: set.round(),
            vote_type: set.vote_type(),
            votes: (0..count).map(|index| set.vote(index).cloned()).collect(),
            bits: set.bits().clone(),
            maj23: set.maj23(),
            held: set.held().0,
        }
    }

    /// The same picture again when nothing was added to the votes since.
    fn again(previous: Option<&Arc<Self>>, set: &VoteSet) -> Arc<Self> {
        let is_same = |view: &&Arc<Self>| {
            (view.height, view.round, view.vote_type)
                == (set.height(), set.round(), set.vote_type())
                && view.held == set.held().0
                && view.maj23 == set.maj23()
                && view.bits == *set.bits()
        };
        match previous.filter(is_same) {
            Some(view) => Arc::clone(view),
            None => Arc::new(Self::of(set)),
        }
    }

    /// The precommits of a stored commit.
    #[must_use]
    pub fn of_commit(commit: &Commit) -> Self {
        let place = |place: &perihelion_types::CommitSig| ExtendedCommitSig {
            commit_sig: place.clone(),
            extension: Bytes::new(),
            extension_signature: Bytes::new(),
        };
        Self::of_extended_commit(&ExtendedCommit {
            height: commit.height,
            round: commit.round,
            block_id: commit.block_id,
            extended_signatures: commit.signatures.iter().map(place).collect(),
        })
    }

    /// The precommits of a stored extended commit.
    #[must_use]
    pub fn of_extended_commit(commit: &ExtendedCommit) -> Self {
        let votes: Vec<_> = (0..commit.extended_signatures.len())
            .map(|index| commit.vote(index).map(Arc::new))
            .collect();
        let mut bits = BitArray::new(votes.len());
        for (index, vote) in votes.iter().enumerate() {
            bits.set(index, vote.is_some());
        }
        Self {
            height: commit.height,
            round: commit.round,
            vote_type: SignedMsgType::Precommit,
            held: bits.count(),
            votes,
            bits,
            maj23: Some(commit.block_id),
        }
    }

    /// The height voted on.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// The round voted in.
    #[must_use]
    pub fn round(&self) -> Round {
        self.round
    }

    /// Prevotes or precommits.
    #[must_use]
    pub fn vote_type(&self) -> SignedMsgType {
        self.vote_type
    }

    /// How many validators there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.votes.len()
    }

    /// Whose votes are here.
    #[must_use]
    pub fn bits(&self) -> &BitArray {
        &self.bits
    }

    /// The vote that stands for a validator.
    #[must_use]
    pub fn vote(&self, index: usize) -> Option<&Arc<Vote>> {
        self.votes.get(index)?.as_ref()
    }

    /// The block, or nil, that more than 2/3 of the power has voted for.
    #[must_use]
    pub fn maj23(&self) -> Option<BlockId> {
        self.maj23
    }

    /// Whether these precommits decide a block.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        self.vote_type == SignedMsgType::Precommit && self.maj23.is_some_and(|id| !id.is_nil())
    }

    /// Whose standing votes are for `block_id`.
    #[must_use]
    pub fn bits_for(&self, block_id: &BlockId) -> BitArray {
        let mut bits = BitArray::new(self.size());
        for (index, vote) in self.votes.iter().enumerate() {
            let is_for = vote.as_ref().is_some_and(|vote| vote.block_id == *block_id);
            bits.set(index, is_for);
        }
        bits
    }
}

/// The parts of the block that is being collected or is complete.
#[derive(Debug, Clone)]
pub struct PartsView {
    header: PartSetHeader,
    parts: Vec<Option<Arc<Part>>>,
    bits: BitArray,
}

impl PartsView {
    /// The parts that are there; those that `previous` has are shared with it.
    fn of(set: &PartSet, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let header = set.header();
        let previous = previous.filter(|view| view.header == header);
        let count = usize::try_from(set.count()).unwrap_or(usize::MAX);
        if let Some(view) = previous.filter(|view| view.bits.count() == count) {
            return Arc::clone(view);
        }
        let known = |index: u32| previous.and_then(|view| view.part(index).cloned());
        let parts: Vec<_> = (0..header.total)
            .map(|index| known(index).or_else(|| set.part(index).cloned().map(Arc::new)))
            .collect();
        let mut bits = BitArray::new(parts.len());
        for (index, part) in parts.iter().enumerate() {
            bits.set(index, part.is_some());
        }
        Arc::new(Self {
            header,
            parts,
            bits,
        })
    }

    /// Count and root.
    #[must_use]
    pub fn header(&self) -> PartSetHeader {
        self.header
    }

    /// Which parts are there.
    #[must_use]
    pub fn bits(&self) -> &BitArray {
        &self.bits
    }

    /// The part at `index`, if it is there.
    #[must_use]
    pub fn part(&self, index: u32) -> Option<&Arc<Part>> {
        self.parts.get(usize::try_from(index).ok()?)?.as_ref()
    }
}

#[derive(Debug, Clone)]
struct RoundVotes {
    prevotes: Arc<VotesView>,
    precommits: Arc<VotesView>,
}

/// An immutable picture of the state machine: what gossip reads, without holding it up.
///
/// Taking one after each input costs what has changed: the votes of one round and type, one part.
/// It shares nothing with the state machine that this would have to copy before it writes.
#[derive(Debug, Clone)]
pub struct View {
    round_step: RoundStep,
    base: Height,
    validators: usize,
    validator_set: Arc<ValidatorSet>,
    state: Arc<State>,
    max_parts: u32,
    block: Option<Arc<FetchedBlock>>,
    locked: Option<(Round, Arc<FetchedBlock>)>,
    valid: Option<(Round, Arc<FetchedBlock>)>,
    proposal: Option<Arc<Proposal>>,
    parts: Option<Arc<PartsView>>,
    rounds: BTreeMap<Round, RoundVotes>,
    commit_round: Option<Round>,
    last_commit: Option<Arc<VotesView>>,
    stay: Stay,
    last_commit_claims: Arc<[(PeerId, BlockId)]>,
    commit_time: Option<Instant>,
    has_awaited_precommits: bool,
}

impl View {
    /// The picture of `core` now. `base` is the lowest height whose block is stored, 0 when there
    /// is none; all blocks from there to the height below are. What `previous` has, and what has
    /// not changed, is shared with it.
    #[must_use]
    pub fn of(core: &Consensus, base: Height, previous: Option<&Self>) -> Self {
        let previous = previous.filter(|view| view.height() == core.height());
        let votes = core.votes();
        let rounds = votes.rounds().filter_map(|round| {
            let before = previous.and_then(|view| view.rounds.get(&round));
            let prevotes = before.map(|votes| &votes.prevotes);
            let precommits = before.map(|votes| &votes.precommits);
            let votes = RoundVotes {
                prevotes: VotesView::again(prevotes, votes.prevotes(round)?),
                precommits: VotesView::again(precommits, votes.precommits(round)?),
            };
            Some((round, votes))
        });
        let last_commit = previous.and_then(|view| view.last_commit.as_ref());
        let parts = previous.and_then(|view| view.parts.as_ref());
        Self {
            round_step: core.round_step(),
            base,
            validators: core.validators().len(),
            validator_set: Arc::clone(core.validators()),
            state: Arc::clone(core.state()),
            block: core.block().cloned(),
            locked: core.locked().map(candidate),
            valid: core.valid().map(candidate),
            max_parts: max_parts(core.state().consensus_params.max_block_bytes()),
            proposal: core.proposal().cloned(),
            parts: core.parts().map(|set| PartsView::of(set, parts)),
            rounds: rounds.collect(),
            commit_round: votes.commit_round(),
            last_commit: core
                .last_commit()
                .map(|set| VotesView::again(last_commit, set)),
            stay: Stay::default(),
            // None comes once its height is decided.
            last_commit_claims: previous.map_or_else(
                || claims(core.last_commit()),
                |view| Arc::clone(&view.last_commit_claims),
            ),
            commit_time: core.commit_time(),
            has_awaited_precommits: core.has_awaited_precommits(),
        }
    }

    /// The same with what is known of the stay in consensus.
    #[must_use]
    pub fn with_stay(mut self, stay: Stay) -> Self {
        self.stay = stay;
        self
    }

    /// What is known of the stay in consensus.
    #[must_use]
    pub fn stay(&self) -> &Stay {
        &self.stay
    }

    /// What `NewRoundStep` tells a peer that was just added.
    #[must_use]
    pub fn round_step(&self) -> &RoundStep {
        &self.round_step
    }

    /// The height that is being decided.
    #[must_use]
    pub fn height(&self) -> Height {
        self.round_step.height
    }

    /// Its round.
    #[must_use]
    pub fn round(&self) -> Round {
        self.round_step.round
    }

    /// What a peer is to know of the parts that are here, when any are collected.
    #[must_use]
    pub fn valid_block(&self) -> Option<NewValidBlock> {
        let parts = self.parts.as_ref()?;
        Some(NewValidBlock {
            height: self.height(),
            round: self.round(),
            header: parts.header(),
            parts: parts.bits().clone(),
            is_commit: self.round_step.step == Step::Commit,
        })
    }

    /// Who may vote, with the priorities of the round: its proposer stands first among them.
    #[must_use]
    pub fn validator_set(&self) -> &Arc<ValidatorSet> {
        &self.validator_set
    }

    /// The state after the last applied block.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The block that is complete.
    #[must_use]
    pub fn block(&self) -> Option<&Arc<FetchedBlock>> {
        self.block.as_ref()
    }

    /// The round and the block that this node is locked on.
    #[must_use]
    pub fn locked(&self) -> Option<&(Round, Arc<FetchedBlock>)> {
        self.locked.as_ref()
    }

    /// The last round in which a block that was here had more than 2/3 of the prevotes, and it.
    #[must_use]
    pub fn valid(&self) -> Option<&(Round, Arc<FetchedBlock>)> {
        self.valid.as_ref()
    }

    /// The round whose precommits decide, once there are enough.
    #[must_use]
    pub fn commit_round(&self) -> Option<Round> {
        self.commit_round
    }

    /// The rounds that are open, rising.
    pub fn rounds(&self) -> impl Iterator<Item = Round> + '_ {
        self.rounds.keys().copied()
    }

    /// How many validators the height has.
    #[must_use]
    pub fn validators(&self) -> usize {
        self.validators
    }

    /// Most parts of a block by the chain's parameters.
    #[must_use]
    pub fn max_parts(&self) -> u32 {
        self.max_parts
    }

    /// The round's proposal.
    #[must_use]
    pub fn proposal(&self) -> Option<&Arc<Proposal>> {
        self.proposal.as_ref()
    }

    /// The parts that are being collected, or are complete.
    #[must_use]
    pub fn parts(&self) -> Option<&Arc<PartsView>> {
        self.parts.as_ref()
    }

    /// The prevotes of a round that is open.
    #[must_use]
    pub fn prevotes(&self, round: Round) -> Option<&Arc<VotesView>> {
        Some(&self.rounds.get(&round)?.prevotes)
    }

    /// The precommits of a round that is open.
    #[must_use]
    pub fn precommits(&self, round: Round) -> Option<&Arc<VotesView>> {
        Some(&self.rounds.get(&round)?.precommits)
    }

    /// The votes of a type in a round that is open.
    #[must_use]
    pub fn votes(&self, round: Round, vote_type: SignedMsgType) -> Option<&Arc<VotesView>> {
        match vote_type {
            SignedMsgType::Prevote => self.prevotes(round),
            SignedMsgType::Precommit => self.precommits(round),
            SignedMsgType::Proposal | SignedMsgType::Unknown(_) => None,
        }
    }

    /// The precommits that decide the height's block, once there are enough.
    #[must_use]
    pub fn commit(&self) -> Option<&Arc<VotesView>> {
        self.precommits(self.commit_round?)
    }

    /// The precommits for the block below.
    #[must_use]
    pub fn last_commit(&self) -> Option<&Arc<VotesView>> {
        self.last_commit.as_ref()
    }

    /// Which block each peer claimed to have more than 2/3 of the precommits, in the round that
    /// decided the block below.
    #[must_use]
    pub fn last_commit_claims(&self) -> &[(PeerId, BlockId)] {
        &self.last_commit_claims
    }

    /// When the last block was decided: this height's, or else the one below. `None` before the
    /// first since consensus was entered.
    #[must_use]
    pub fn commit_time(&self) -> Option<Instant> {
        self.commit_time
    }

    /// Whether the wait for more precommits has begun in this round.
    #[must_use]
    pub fn has_awaited_precommits(&self) -> bool {
        self.has_awaited_precommits
    }

    /// Whether the block of `height` is decided and stored.
    #[must_use]
    pub fn has_stored(&self, height: Height) -> bool {
        self.base.is_positive() && self.base <= height && height < self.height()
    }

    /// How many validators `height` has, for this height and the one below.
    pub(super) fn validators_at(&self, height: Height) -> Option<usize> {
        if height == self.height() {
            Some(self.validators)
        } else if height.next() == self.height() {
            Some(self.last_commit.as_ref()?.size())
        } else {
            None
        }
    }
}

fn claims(votes: Option<&VoteSet>) -> Arc<[(PeerId, BlockId)]> {
    let claims = votes.into_iter().flat_map(VoteSet::claims);
    claims.map(|(peer, block_id)| (*peer, *block_id)).collect()
}

fn candidate(of: &Candidate) -> (Round, Arc<FetchedBlock>) {
    (of.round, Arc::clone(&of.block))
}

fn max_parts(max_block_bytes: i64) -> u32 {
    let bytes = usize::try_from(max_block_bytes).unwrap_or(0);
    let parts = bytes.saturating_sub(1) / PART_SIZE + 1;
    u32::try_from(parts).unwrap_or(MAX_PARTS).min(MAX_PARTS)
}
