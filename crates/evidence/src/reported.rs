//! Votes of our own consensus that contradict each other.

use std::sync::Arc;

use bytes::Bytes;
use perihelion_certify::{EvidenceError, History};
use perihelion_types::{DuplicateVoteEvidence, Evidence, Height, Time, Vote};

use crate::wire;

/// Pairs of votes that may wait for the time of their block. Consensus reports one a validator,
/// round and type of vote.
pub const MAX_REPORTED: usize = 1_000;
/// Of these, how many may be by one validator: it can sign as many as it likes. More would let few
/// validators keep out what the others did; with fewer, some of what it did is not told.
pub const MAX_REPORTED_OF_ONE_VOTER: usize = 64;

/// Two votes of one validator, height, round and type.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    first: Arc<Vote>,
    second: Arc<Vote>,
}

impl Pair {
    pub(crate) fn new(first: Arc<Vote>, second: Arc<Vote>) -> Self {
        Self { first, second }
    }

    pub(crate) fn height(&self) -> Height {
        self.first.height
    }

    /// The address of who signed both.
    pub(crate) fn voter(&self) -> &Bytes {
        &self.first.validator_address
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let pair = |it: &Self| (Arc::clone(&it.first), Arc::clone(&it.second));
        let (first, second) = pair(other);
        pair(self) == (Arc::clone(&first), Arc::clone(&second)) || pair(self) == (second, first)
    }

    /// The evidence, which needs the block at the votes' height and its validators.
    pub(crate) fn evidence(&self, history: &impl History) -> Result<Evidence, EvidenceError> {
        let height = self.height();
        let header = history
            .header(height)?
            .ok_or(EvidenceError::NoHeader(height))?;
        let set = history
            .validators(height)?
            .ok_or(EvidenceError::NoValidators(height))?;
        let (_, member) = self
            .first
            .address()
            .and_then(|address| set.by_address(&address))
            .ok_or(EvidenceError::NotAValidator { height })?;
        Ok(self.with(set.total_voting_power(), member.voting_power, header.time))
    }

    /// Bytes that its evidence takes at most, as the pool counts them; needs nothing of the chain.
    pub(crate) fn most_bytes(&self) -> usize {
        let widest = Time::new(-1, 999_999_999);
        wire::encode(&self.with(i64::MAX, i64::MAX, widest)).len()
    }

    fn with(&self, total_voting_power: i64, validator_power: i64, timestamp: Time) -> Evidence {
        let (first, second) = ((*self.first).clone(), (*self.second).clone());
        let (vote_a, vote_b) = if first.block_id.key() < second.block_id.key() {
            (first, second)
        } else {
            (second, first)
        };
        Evidence::DuplicateVote(DuplicateVoteEvidence {
            vote_a,
            vote_b,
            total_voting_power,
            validator_power,
            timestamp,
        })
    }
}
