use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use perihelion_types::{
    BlockId, BlockIdFlag, Commit, CommitSig, ExtendedCommit, ExtendedCommitSig, Height, PeerId,
    Round, SignedMsgType, Validator, ValidatorSet, Vote,
};
use thiserror::Error;

use crate::{BitArray, Fault, Verify};

/// Most peers whose claim of a majority is kept for one set of votes. Each claim lets conflicting
/// votes for one more block be counted, at most one for each validator.
pub const MAX_MAJ23_CLAIMS: usize = 256;

/// The votes of one type in one round, and what they add up to.
///
/// A validator's first vote is kept. A second one for another block is a conflict: it is counted
/// for its block only when a peer claims that this block has more than 2/3, so that a node to which
/// the equivocator showed the wrong vote first can still follow.
///
/// Bounds: one vote for each validator, and with [`MAX_MAJ23_CLAIMS`] claims as many more.
#[derive(Debug, Clone)]
pub struct VoteSet {
    chain_id: Arc<str>,
    height: Height,
    round: Round,
    vote_type: SignedMsgType,
    extensions: bool,
    validators: Arc<ValidatorSet>,
    votes: Vec<Option<Arc<Vote>>>,
    bits: BitArray,
    power: i64,
    maj23: Option<BlockId>,
    by_block: BTreeMap<Vec<u8>, BlockVotes>,
    claims: BTreeMap<PeerId, BlockId>,
    reported: BTreeSet<usize>,
}

/// The votes for one block.
#[derive(Debug, Clone, Default)]
struct BlockVotes {
    claimed: bool,
    power: i64,
    votes: BTreeMap<usize, Arc<Vote>>,
}

/// A vote does not belong into a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VoteError {
    /// It is of another height, round or type.
    #[error("vote of another height, round or type")]
    Misplaced,
    /// The validator set has no such index.
    #[error("vote of validator {index}, there are {validators}")]
    Index {
        /// As the vote has it.
        index: i32,
        /// How many there are.
        validators: usize,
    },
    /// The address is not that of the index.
    #[error("vote of validator {index} with another's address")]
    Address {
        /// As the vote has it.
        index: i32,
    },
    /// The validator did not sign it.
    #[error("vote of validator {index} with a wrong signature")]
    Signature {
        /// As the vote has it.
        index: i32,
    },
    /// The validator signed the same vote before, with another time.
    #[error("validator {index} signed this vote twice")]
    SignedTwice {
        /// As the vote has it.
        index: i32,
    },
    /// Vote extensions are enabled, and it has none that its validator signed.
    #[error("vote of validator {index} without a valid extension")]
    Extension {
        /// As the vote has it.
        index: i32,
    },
    /// It has an extension where there can be none.
    #[error("vote of validator {index} with an extension where there are none")]
    UnexpectedExtension {
        /// As the vote has it.
        index: i32,
    },
    /// The peer has sent votes of too many rounds that are not due.
    #[error("vote of round {round}, which is not due")]
    UnwantedRound {
        /// As the vote has it.
        round: Round,
    },
}

impl VoteError {
    /// What the sender did, where no honest one can have sent the vote. Extensions convict nobody:
    /// servers older than v0.38.22 may honestly hold bad ones in the commits that they give out.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        match self {
            Self::Index { index, validators } => Some(Fault::VoteIndex { index, validators }),
            Self::Address { index } => Some(Fault::VoteAddress { index }),
            Self::Signature { index } => Some(Fault::VoteSignature { index }),
            Self::Misplaced
            | Self::SignedTwice { .. }
            | Self::Extension { .. }
            | Self::UnexpectedExtension { .. }
            | Self::UnwantedRound { .. } => None,
        }
    }
}

/// What a vote is to a set, before it is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// It is valid and new.
    New,
    /// It is here already.
    Known,
}

/// What became of a valid vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Whether it counts.
    pub added: bool,
    /// The vote that it contradicts, the first time that this validator is caught in this set.
    pub conflict: Option<Arc<Vote>>,
}

impl VoteSet {
    /// An empty set. With `extensions`, precommits for a block must carry a signed extension;
    /// without, no vote may have one.
    #[must_use]
    pub fn new(
        chain_id: Arc<str>,
        height: Height,
        round: Round,
        vote_type: SignedMsgType,
        validators: Arc<ValidatorSet>,
        extensions: bool,
    ) -> Self {
        let count = validators.len();
        Self {
            chain_id,
            height,
            round,
            vote_type,
            extensions: extensions && vote_type == SignedMsgType::Precommit,
            validators,
            votes: vec![None; count],
            bits: BitArray::new(count),
            power: 0,
            maj23: None,
            by_block: BTreeMap::new(),
            claims: BTreeMap::new(),
            reported: BTreeSet::new(),
        }
    }

    /// The precommits of a commit, each verified.
    ///
    /// # Errors
    /// Names what is wrong with the first vote that does not belong.
    pub fn from_commit(
        chain_id: Arc<str>,
        commit: &ExtendedCommit,
        validators: Arc<ValidatorSet>,
        extensions: bool,
        verify: &dyn Verify,
    ) -> Result<Self, VoteError> {
        let precommit = SignedMsgType::Precommit;
        let (height, round) = (commit.height, commit.round);
        let mut set = Self::new(chain_id, height, round, precommit, validators, extensions);
        for index in 0..commit.extended_signatures.len() {
            if let Some(vote) = commit.vote(index) {
                set.add(&Arc::new(vote), verify)?;
            }
        }
        Ok(set)
    }

    /// Checks a vote without adding it: place, index, address, whether it is here, signatures.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn check(&self, vote: &Vote, verify: &dyn Verify) -> Result<Checked, VoteError> {
        if (vote.height, vote.round, vote.vote_type) != (self.height, self.round, self.vote_type) {
            return Err(VoteError::Misplaced);
        }
        let index = vote.validator_index;
        let (place, validator) = self.member(vote)?;
        let known = self.known(place, &vote.block_id);
        if known.is_some_and(|known| known.signature == vote.signature) {
            return Ok(Checked::Known);
        }
        let message = vote.sign_bytes(&self.chain_id);
        if !verify.verify(&validator.pub_key, &message, &vote.signature) {
            return Err(VoteError::Signature { index });
        }
        if known.is_some() {
            return Err(VoteError::SignedTwice { index });
        }
        self.check_extension(vote, validator, verify)?;
        Ok(Checked::New)
    }

    fn member(&self, vote: &Vote) -> Result<(usize, &Validator), VoteError> {
        let index = vote.validator_index;
        let unknown = VoteError::Index {
            index,
            validators: self.validators.len(),
        };
        let place = usize::try_from(index).map_err(|_| unknown)?;
        let validator = self.validators.get(place).ok_or(unknown)?;
        if vote.validator_address[..] != validator.address.as_bytes()[..] {
            return Err(VoteError::Address { index });
        }
        Ok((place, validator))
    }

    fn check_extension(
        &self,
        vote: &Vote,
        validator: &Validator,
        verify: &dyn Verify,
    ) -> Result<(), VoteError> {
        let index = vote.validator_index;
        let has_any = !vote.extension.is_empty() || !vote.extension_signature.is_empty();
        if !self.extensions || vote.block_id.is_nil() {
            return if has_any {
                Err(VoteError::UnexpectedExtension { index })
            } else {
                Ok(())
            };
        }
        let message = vote.extension_sign_bytes(&self.chain_id);
        if verify.verify(&validator.pub_key, &message, &vote.extension_signature) {
            Ok(())
        } else {
            Err(VoteError::Extension { index })
        }
    }

    /// Whether the validator's vote for the same block, or for nil, is here: no other of its votes for
    /// it is of use.
    #[must_use]
    pub fn has_same(&self, vote: &Vote) -> bool {
        let place = usize::try_from(vote.validator_index);
        place.is_ok_and(|place| self.known(place, &vote.block_id).is_some())
    }

    fn known(&self, place: usize, block_id: &BlockId) -> Option<&Arc<Vote>> {
        let first = self.votes.get(place)?.as_ref();
        first
            .filter(|vote| vote.block_id == *block_id)
            .or_else(|| self.by_block.get(&block_id.key())?.votes.get(&place))
    }

    /// Checks a vote and adds it. A vote that is here already is not added again.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn add(&mut self, vote: &Arc<Vote>, verify: &dyn Verify) -> Result<Added, VoteError> {
        match self.check(vote, verify)? {
            Checked::New => Ok(self.add_checked(vote)),
            Checked::Known => Ok(Added {
                added: false,
                conflict: None,
            }),
        }
    }

    /// Adds a vote that [`check`](Self::check) found new.
    pub(crate) fn add_checked(&mut self, vote: &Arc<Vote>) -> Added {
        let Ok((place, validator)) = self.member(vote) else {
            // Checked before; nothing is counted for a stranger.
            return Added {
                added: false,
                conflict: None,
            };
        };
        let power = validator.voting_power;
        let first = self.votes[place].clone();
        if first.is_none() {
            self.votes[place] = Some(Arc::clone(vote));
            self.bits.set(place, true);
            self.power += power;
        } else if self.maj23 == Some(vote.block_id) {
            self.votes[place] = Some(Arc::clone(vote));
        }
        let conflict = first
            .as_ref()
            .filter(|_| self.reported.insert(place))
            .cloned();
        let key = vote.block_id.key();
        if first.is_some() && !self.by_block.get(&key).is_some_and(|votes| votes.claimed) {
            return Added {
                added: false,
                conflict,
            };
        }
        let votes = self.by_block.entry(key).or_default();
        votes.power += power;
        votes.votes.insert(place, Arc::clone(vote));
        let (has_quorum, votes) = (votes.power >= self.quorum(), &self.by_block);
        if has_quorum && self.maj23.is_none() {
            self.maj23 = Some(vote.block_id);
            for (place, vote) in &votes[&vote.block_id.key()].votes {
                self.votes[*place] = Some(Arc::clone(vote));
            }
        }
        Added {
            added: true,
            conflict,
        }
    }

    /// The least power that is more than 2/3.
    fn quorum(&self) -> i64 {
        two_thirds(&self.validators) + 1
    }

    /// Records a peer's claim that `block_id` has more than 2/3, for which conflicting votes count
    /// from now on. Claims beyond [`MAX_MAJ23_CLAIMS`] are ignored.
    ///
    /// # Errors
    /// When the peer claimed another block before.
    pub fn claim_maj23(&mut self, peer: PeerId, block_id: BlockId) -> Result<(), Fault> {
        match self.claims.get(&peer) {
            Some(claimed) if *claimed == block_id => return Ok(()),
            Some(_) => return Err(Fault::Maj23 { round: self.round }),
            None if self.claims.len() >= MAX_MAJ23_CLAIMS => return Ok(()),
            None => {}
        }
        self.claims.insert(peer, block_id);
        self.by_block.entry(block_id.key()).or_default().claimed = true;
        Ok(())
    }

    /// Which block each peer claims to have more than 2/3, at most [`MAX_MAJ23_CLAIMS`] of them.
    pub fn claims(&self) -> impl Iterator<Item = (&PeerId, &BlockId)> {
        self.claims.iter()
    }

    /// Whether no more claims are taken.
    pub(crate) fn is_crowded(&self) -> bool {
        self.claims.len() >= MAX_MAJ23_CLAIMS
    }

    /// Forgets the claims of peers that are gone, and the conflicting votes that they alone let
    /// count; the majority's votes stay.
    pub(crate) fn retain_claims(&mut self, is_there: impl Fn(&PeerId) -> bool) {
        self.claims.retain(|peer, _| is_there(peer));
        let claimed: BTreeSet<Vec<u8>> = self.claims.values().map(BlockId::key).collect();
        let majority = self.maj23.map(|block_id| block_id.key());
        let (first, members) = (&self.votes, self.validators.validators());
        self.by_block.retain(|key, block| {
            if !block.claimed || claimed.contains(key) || majority.as_ref() == Some(key) {
                return true;
            }
            block.claimed = false;
            block.votes.retain(|place, vote| {
                let kept = first[*place].as_ref();
                kept.is_some_and(|kept| kept.block_id == vote.block_id)
            });
            let powers = block.votes.keys().map(|place| members[*place].voting_power);
            block.power = powers.sum();
            !block.votes.is_empty()
        });
    }

    /// Whether somebody claims that `block_id` has more than 2/3, so that conflicting votes for it
    /// count.
    #[must_use]
    pub fn is_claimed(&self, block_id: &BlockId) -> bool {
        let votes = self.by_block.get(&block_id.key());
        votes.is_some_and(|votes| votes.claimed)
    }

    /// The chain's id.
    #[must_use]
    pub fn chain_id(&self) -> &str {
        &self.chain_id
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

    /// Who may vote.
    #[must_use]
    pub fn validators(&self) -> &Arc<ValidatorSet> {
        &self.validators
    }

    /// The vote that stands for a validator: its first, or that for the block with more than 2/3.
    #[must_use]
    pub fn vote(&self, index: usize) -> Option<&Arc<Vote>> {
        self.votes.get(index)?.as_ref()
    }

    /// The votes that stand for their validators.
    pub fn votes(&self) -> impl Iterator<Item = &Arc<Vote>> {
        self.votes.iter().flatten()
    }

    /// A validator's vote for `block_id`, a conflicting one included.
    #[must_use]
    pub fn vote_for(&self, index: usize, block_id: &BlockId) -> Option<&Arc<Vote>> {
        self.known(index, block_id)
    }

    /// Who has voted.
    #[must_use]
    pub fn bits(&self) -> &BitArray {
        &self.bits
    }

    /// Who has voted for `block_id`; `None` when nobody has and nobody claims it.
    #[must_use]
    pub fn bits_for(&self, block_id: &BlockId) -> Option<BitArray> {
        let votes = self.by_block.get(&block_id.key())?;
        let mut bits = BitArray::new(self.validators.len());
        votes.votes.keys().for_each(|place| bits.set(*place, true));
        Some(bits)
    }

    /// The block, or nil, that more than 2/3 of the power has voted for.
    #[must_use]
    pub fn maj23(&self) -> Option<BlockId> {
        self.maj23
    }

    /// Whether more than 2/3 of the power has voted for anything.
    #[must_use]
    pub fn has_two_thirds_any(&self) -> bool {
        self.power > two_thirds(&self.validators)
    }

    /// Whether more than 1/3 of the power has voted for anything: some of it is honest.
    pub(crate) fn has_one_third_any(&self) -> bool {
        self.power > self.validators.total_voting_power() / 3
    }

    /// Whether everybody has voted.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.power == self.validators.total_voting_power()
    }

    /// The power that has voted.
    #[must_use]
    pub fn power(&self) -> i64 {
        self.power
    }

    /// The commit for the block that has more than 2/3 of the precommits, with the extensions.
    /// Votes for other blocks are left out, votes for nil are in.
    #[must_use]
    pub fn extended_commit(&self) -> Option<ExtendedCommit> {
        let block_id = self.maj23.filter(|block_id| !block_id.is_nil())?;
        if self.vote_type != SignedMsgType::Precommit {
            return None;
        }
        let place = |vote: &Option<Arc<Vote>>| {
            vote.as_ref()
                .filter(|vote| vote.block_id.is_nil() || vote.block_id == block_id)
                .and_then(|vote| vote.extended_commit_sig())
                .unwrap_or_else(absent)
        };
        Some(ExtendedCommit {
            height: self.height,
            round: self.round,
            block_id,
            extended_signatures: self.votes.iter().map(place).collect(),
        })
    }

    /// [`extended_commit`](Self::extended_commit) without the extensions.
    #[must_use]
    pub fn commit(&self) -> Option<Commit> {
        Some(self.extended_commit()?.to_commit())
    }

    /// How many votes are held, conflicting ones included, and how many claims: what the bounds
    /// are for.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        let votes = self.by_block.values().map(|votes| votes.votes.len()).sum();
        (votes, self.claims.len())
    }
}

fn absent() -> ExtendedCommitSig {
    ExtendedCommitSig {
        commit_sig: CommitSig {
            block_id_flag: BlockIdFlag::Absent,
            ..CommitSig::absent()
        },
        extension: bytes::Bytes::new(),
        extension_signature: bytes::Bytes::new(),
    }
}

/// Two thirds of the power, rounded down.
fn two_thirds(validators: &ValidatorSet) -> i64 {
    // A set's power is at most an eighth of the largest integer.
    validators.total_voting_power() * 2 / 3
}
