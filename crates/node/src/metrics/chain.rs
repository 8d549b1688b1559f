//! What the last blocks tell.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use perihelion_store::{BlockMeta, Store, StoreError};
use perihelion_types::{
    Address, BlockIdFlag, Commit, Evidence, Height, Time, Validator, ValidatorSet,
    evidence::hash_list,
};
use prometheus_client::{
    encoding::EncodeMetric as _,
    metrics::{MetricType, histogram::Histogram},
};

use super::Out;

/// Bounds of the time between two blocks in seconds: the usual ones, which CometBFT has too.
const INTERVALS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Blocks that are read at a question at most; those below are not counted. A question comes every
/// few seconds.
const BLOCKS: i64 = 1_000;

/// Sums over the blocks since the start.
pub(super) struct Chain {
    store: Arc<Store>,
    own_address: Option<Address>,
    intervals: Histogram,
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    height: Height,
    time: Option<Time>,
    txs: i64,
    bytes: i64,
    /// Blocks of whose set this validator is and whose commit lacks its precommit.
    missed: i64,
    last_signed: Height,
}

impl Chain {
    /// Blocks above those that are stored now count.
    pub(super) fn new(store: Arc<Store>, own_address: Option<Address>) -> Self {
        let seen = Seen {
            height: store.height(),
            time: None,
            txs: 0,
            bytes: 0,
            missed: 0,
            last_signed: Height::ZERO,
        };
        Self {
            store,
            own_address,
            intervals: Histogram::new(INTERVALS),
            seen: Mutex::new(seen),
        }
    }

    /// `decides` says that the blocks come from consensus: when many are caught up with, the times
    /// between them say nothing of now.
    pub(super) fn encode(&self, out: &mut Out<'_, '_>, decides: bool) -> fmt::Result {
        let last = self.look(decides).unwrap_or_else(|error| {
            tracing::debug!(%error, "blocks cannot be read for the metrics");
            None
        });
        if let Some(last) = last {
            self.encode_last(out, &last)?;
        }
        let seen = self.seen();
        let sums = [
            (
                "consensus_total_txs",
                "Transactions in blocks since the node started",
                seen.txs,
            ),
            (
                "consensus_chain_size_bytes",
                "Bytes of blocks since the node started",
                seen.bytes,
            ),
        ];
        for (name, help, value) in sums {
            out.gauge(name, help, value)?;
        }
        let encoder = out.0.encode_descriptor(
            "consensus_block_interval_seconds",
            "Time between a block and the one below",
            None,
            MetricType::Histogram,
        )?;
        self.intervals.encode(encoder)
    }

    fn encode_last(&self, out: &mut Out<'_, '_>, last: &Last) -> fmt::Result {
        let whole = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let figures = [
            (
                "consensus_latest_block_height",
                "The last block's height",
                last.meta.header.height.get(),
            ),
            (
                "consensus_num_txs",
                "Its transactions",
                whole(last.meta.num_txs),
            ),
            (
                "consensus_block_size_bytes",
                "Its bytes",
                whole(last.meta.block_size),
            ),
            (
                "consensus_validators",
                "Validators of its height",
                whole(last.validators.len()),
            ),
            (
                "consensus_validators_power",
                "Their power",
                last.validators.total_voting_power(),
            ),
            (
                "consensus_missing_validators",
                "Validators without a precommit, for the block or for none, in the last commit",
                last.missing.count,
            ),
            (
                "consensus_missing_validators_power",
                "Their power",
                last.missing.power,
            ),
            (
                "consensus_byzantine_validators",
                "Validators whose two votes are evidence in the last block",
                last.byzantine.count,
            ),
            (
                "consensus_byzantine_validators_power",
                "Their power",
                last.byzantine.power,
            ),
        ];
        for (name, help, value) in figures {
            out.gauge(name, help, value)?;
        }
        let own = self.own_address.and_then(|address| {
            let (_, validator) = last.validators.by_address(&address)?;
            Some((address.to_string(), validator.voting_power))
        });
        let Some((address, power)) = own else {
            return Ok(());
        };
        let seen = self.seen();
        let label = "validator_address";
        let own = [
            ("consensus_validator_power", "This validator's power", power),
            (
                "consensus_validator_last_signed_height",
                "The last block whose last commit has its precommit for the block below",
                seen.last_signed.get(),
            ),
            (
                "consensus_validator_missed_blocks",
                "Blocks since the node started whose last commit has none of it, or one for nil",
                seen.missed,
            ),
        ];
        for (name, help, value) in own {
            out.gauges(name, help, label, &[(address.as_str(), value)])?;
        }
        Ok(())
    }

    /// Reads the blocks since the last look; the last one, where there is any block.
    fn look(&self, decides: bool) -> Result<Option<Last>, StoreError> {
        let top = self.store.height();
        let mut seen = self.seen();
        if top > seen.height.plus(BLOCKS) {
            seen.height = top.plus(-BLOCKS);
            seen.time = None;
        }
        while seen.height < top {
            let height = seen.height.next();
            let Some(meta) = self.store.load_block_meta(height)? else {
                break;
            };
            self.take(&mut seen, &meta, decides)?;
        }
        *self.lock() = seen;
        self.last(top)
    }

    fn take(&self, seen: &mut Seen, meta: &BlockMeta, decides: bool) -> Result<(), StoreError> {
        let header = &meta.header;
        if let Some(before) = seen.time.filter(|_| decides) {
            self.intervals.observe(seconds_between(before, header.time));
        }
        seen.height = header.height;
        seen.time = Some(header.time);
        seen.txs += i64::try_from(meta.num_txs).unwrap_or(0);
        seen.bytes += i64::try_from(meta.block_size).unwrap_or(0);
        let Some(address) = self.own_address else {
            return Ok(());
        };
        // The commit for the block below stands in this one.
        let below = header.height.prev();
        let commit = self.store.load_commit(below)?;
        let validators = self.store.load_members(below)?;
        if let (Some(commit), Some(validators)) = (commit, validators)
            && let Some((index, _)) = validators.by_address(&address)
        {
            if has_signed(&commit, index) {
                seen.last_signed = header.height;
            } else {
                seen.missed += 1;
            }
        }
        Ok(())
    }

    fn last(&self, height: Height) -> Result<Option<Last>, StoreError> {
        let Some(meta) = self.store.load_block_meta(height)? else {
            return Ok(None);
        };
        let Some(validators) = self.store.load_members(height)? else {
            return Ok(None);
        };
        let below = height.prev();
        let missing = match (
            self.store.load_commit(below)?,
            self.store.load_members(below)?,
        ) {
            (Some(commit), Some(set)) => missing(&commit, &set),
            _ => Members::default(),
        };
        // Blocks without evidence, nearly all, are not decoded for it.
        let block = if meta.header.evidence_hash == hash_list(&[]) {
            None
        } else {
            self.store.load_block(height)?
        };
        let byzantine = block.map_or_else(Members::default, |block| {
            byzantine(&block.evidence, &validators)
        });
        Ok(Some(Last {
            meta,
            validators,
            missing,
            byzantine,
        }))
    }

    fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last block.
struct Last {
    meta: BlockMeta,
    validators: ValidatorSet,
    missing: Members,
    byzantine: Members,
}

/// Validators, and the power of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Members {
    count: i64,
    power: i64,
}

impl Members {
    fn of<'a>(members: impl Iterator<Item = &'a Validator>) -> Self {
        members.fold(Self::default(), |sum, member| Self {
            count: sum.count + 1,
            power: sum.power.saturating_add(member.voting_power),
        })
    }
}

/// The members of a set that have no precommit in its commit: one for nil is one.
fn missing(commit: &Commit, set: &ValidatorSet) -> Members {
    let is_absent = |index: usize| {
        let place = commit.signatures.get(index);
        place.is_none_or(|place| place.block_id_flag == BlockIdFlag::Absent)
    };
    let members = set.validators().iter().enumerate();
    Members::of(members.filter_map(|(index, member)| is_absent(index).then_some(member)))
}

/// The members of a set of whom evidence says that they voted twice, each as often as it does: as
/// CometBFT counts them, which leaves out attacks on light clients.
fn byzantine(evidence: &[Evidence], set: &ValidatorSet) -> Members {
    Members::of(evidence.iter().filter_map(|piece| match piece {
        Evidence::DuplicateVote(votes) => {
            let address = Address::try_from(&votes.vote_a.validator_address[..]).ok()?;
            set.by_address(&address).map(|(_, member)| member)
        }
        Evidence::LightClientAttack(_) => None,
    }))
}

fn has_signed(commit: &Commit, index: usize) -> bool {
    let place = commit.signatures.get(index);
    place.is_some_and(|place| place.block_id_flag == BlockIdFlag::Commit)
}

#[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
fn seconds_between(before: Time, after: Time) -> f64 {
    after.nanos_since(before) as f64 / 1e9
}

#[cfg(test)]
mod tests;
