//! Commits: who precommits when, signed on all cores.

use std::{collections::HashMap, thread};

use anyhow::Context as _;
use bytes::Bytes;
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    Address, BlockId, BlockIdFlag, CommitSig, CommitSignBytes, ExtendedCommit, ExtendedCommitSig,
    Height, Round, Time, Validator, ValidatorSet, canonical,
};

use super::{
    ChainShape, GENESIS_TIME,
    draw::{Purpose, below, drawer},
    shape::validator_key,
};

/// Nanoseconds over which the precommits for one block are spread: less than the second between
/// two blocks, so that block times rise.
const SPREAD_NANOS: u64 = 200_000_000;
/// Commits of fewer places are signed by one thread: starting another takes as long as some
/// signatures.
const ALONE: usize = 16;

/// What is drawn for the commit of one block.
pub(super) struct Ballot {
    round: i32,
    is_absent: Vec<bool>,
    times: Vec<Time>,
}

impl Ballot {
    /// Draws round, absent validators and times.
    pub(super) fn draw(shape: &ChainShape, height: Height, set: &ValidatorSet) -> Self {
        let mut draw = drawer(shape.seed, Purpose::Commit, height.get());
        let rounds = u64::try_from(shape.rounds).unwrap_or(1);
        let round = i32::try_from(below(&mut draw, rounds)).unwrap_or(0);
        let mut order: Vec<usize> = (0..set.len()).collect();
        for last in (1..order.len()).rev() {
            let other = usize::try_from(below(&mut draw, last as u64 + 1)).unwrap_or(last);
            order.swap(last, other);
        }
        let nominal = (height.get() - shape.initial_height + 1).saturating_mul(1_000_000_000);
        let times = (0..set.len()).map(|_| {
            let late = i64::try_from(below(&mut draw, SPREAD_NANOS)).unwrap_or(0);
            GENESIS_TIME
                .checked_add_nanos(nominal.saturating_add(late))
                .unwrap_or(GENESIS_TIME)
        });
        let mut is_absent = absentees(shape, set, &order);
        if let Some((number, from)) = shape.gone
            && height.get() >= from
        {
            let gone = validator_key(shape.seed, number).public_key().address();
            for (member, is_absent) in set.validators().iter().zip(&mut is_absent) {
                *is_absent |= member.address == gone;
            }
        }
        Self {
            round,
            times: times.collect(),
            is_absent,
        }
    }

    /// The round in which the block is decided.
    pub(super) fn round(&self) -> i32 {
        self.round
    }
}

/// As many as asked for, in this order, as long as the rest has more than 2/3 of the power.
fn absentees(shape: &ChainShape, set: &ValidatorSet, order: &[usize]) -> Vec<bool> {
    let mut is_absent = vec![false; set.len()];
    let total = set.total_voting_power();
    let mut present = total;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let mut wanted = (shape.absent * set.len() as f64) as usize;
    for (index, validator) in order
        .iter()
        .filter_map(|&index| Some((index, set.get(index)?)))
    {
        let rest = present - validator.voting_power;
        if wanted > 0 && 3 * rest > 2 * total {
            is_absent[index] = true;
            present = rest;
            wanted -= 1;
        }
    }
    is_absent
}

/// The validators' keys.
pub(super) struct Signers {
    chain_id: String,
    keys: HashMap<Address, PrivateKey>,
    threads: usize,
}

/// What all validators sign at a height.
struct Precommit<'a> {
    chain_id: &'a str,
    ballot: &'a Ballot,
    sign_bytes: CommitSignBytes,
    height: Height,
    extension: Option<Bytes>,
}

impl Signers {
    pub(super) fn new(chain_id: &str, keys: impl Iterator<Item = PrivateKey>) -> Self {
        Self {
            chain_id: chain_id.to_owned(),
            keys: keys.map(|key| (key.public_key().address(), key)).collect(),
            threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }

    pub(super) fn add(&mut self, key: PrivateKey) {
        self.keys.insert(key.public_key().address(), key);
    }

    /// Has everybody who is not absent precommit a block; `extended` with a vote extension.
    pub(super) fn sign(
        &self,
        ballot: &Ballot,
        set: &ValidatorSet,
        block_id: BlockId,
        height: Height,
        extended: bool,
    ) -> anyhow::Result<ExtendedCommit> {
        let round = Round::new(ballot.round);
        let vote = Precommit {
            chain_id: &self.chain_id,
            ballot,
            sign_bytes: CommitSignBytes::new(&self.chain_id, height, round, &block_id),
            height,
            extension: extended.then(|| Bytes::from(format!("extension of {height}"))),
        };
        let members = set.validators();
        let share = if members.len() < ALONE {
            members.len()
        } else {
            members.len().div_ceil(self.threads)
        };
        let signed: anyhow::Result<Vec<_>> = thread::scope(|scope| {
            let rest: Vec<_> = members
                .chunks(share)
                .enumerate()
                .skip(1)
                .map(|(chunk, members)| {
                    let vote = &vote;
                    scope.spawn(move || self.sign_some(vote, chunk * share, members))
                })
                .collect();
            let mut signed = self.sign_some(&vote, 0, &members[..share])?;
            for thread in rest {
                signed.extend(thread.join().expect("signing does not panic")?);
            }
            Ok(signed)
        });
        Ok(ExtendedCommit {
            height,
            round,
            block_id,
            extended_signatures: signed?,
        })
    }

    fn sign_some(
        &self,
        vote: &Precommit<'_>,
        first: usize,
        members: &[Validator],
    ) -> anyhow::Result<Vec<ExtendedCommitSig>> {
        members
            .iter()
            .enumerate()
            .map(|(offset, member)| self.sign_one(vote, first + offset, member))
            .collect()
    }

    fn sign_one(
        &self,
        vote: &Precommit<'_>,
        index: usize,
        member: &Validator,
    ) -> anyhow::Result<ExtendedCommitSig> {
        if vote.ballot.is_absent[index] {
            return Ok(ExtendedCommitSig {
                commit_sig: CommitSig::absent(),
                extension: Bytes::new(),
                extension_signature: Bytes::new(),
            });
        }
        let key = self
            .keys
            .get(&member.address)
            .with_context(|| format!("nobody has the key of {}", member.address))?;
        let mut place = CommitSig {
            block_id_flag: BlockIdFlag::Commit,
            validator_address: Bytes::copy_from_slice(member.address.as_bytes()),
            timestamp: vote.ballot.times[index],
            signature: Bytes::new(),
        };
        let message = vote.sign_bytes.of(&place).context("the flag is known")?;
        place.signature = key.sign(&message);
        let extension = vote.extension.clone().unwrap_or_default();
        let extension_signature = match &vote.extension {
            None => Bytes::new(),
            Some(extension) => key.sign(&canonical::vote_extension(
                vote.chain_id,
                vote.height,
                Round::new(vote.ballot.round),
                extension,
            )),
        };
        Ok(ExtendedCommitSig {
            commit_sig: place,
            extension,
            extension_signature,
        })
    }
}
