//! Searches in the index, with the meaning that CometBFT's `kv` indexer gives to queries.
//!
//! Conditions on attributes must be met by one event; those on heights bound the blocks. Each
//! condition is a walk over the index; a search ends with an error once it has walked too far or for
//! too long, so that no query takes the node's time.

mod index;
mod plan;

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, RangeInclusive},
    time::{Duration, Instant},
};

use perihelion_events::{Condition, Op, Query, TX_HASH_KEY};
use perihelion_store::{Store, StoreError, TxLocation, index::Values};
use perihelion_types::{Hash, Height};
use thiserror::Error;

use index::{Blocks, Entry, Index, Txs};
use plan::{Plan, Range};

/// What a search may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries of the index that are looked at.
    pub(crate) entries: usize,
    /// How long it may take.
    pub(crate) time: Duration,
}

/// A search has no answer.
#[derive(Debug, Error)]
pub(crate) enum SearchError {
    /// CometBFT's text.
    #[error("error during searching for a hash in the query: {0}")]
    Hash(String),
    /// CometBFT's text.
    #[error("error while retrieving the result: transaction hash cannot be empty")]
    NoHash,
    #[error(
        "the search would look at more than {0} entries of the index; narrow it, for example by heights"
    )]
    TooWide(usize),
    #[error(
        "the search would take more than {} ms; narrow it, for example by heights",
        .0.as_millis()
    )]
    TooLong(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Blocks that were found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// In order.
    Some(Vec<Height>),
    /// All of these.
    All(RangeInclusive<Height>),
}

/// The transactions that a query asks for, in the order of the chain.
///
/// # Errors
/// When the query's hash is none, or the search would cost too much.
pub(crate) fn txs(
    store: &Store,
    query: &Query,
    limits: Limits,
) -> Result<Vec<TxLocation>, SearchError> {
    if let Some(condition) = query.conditions().iter().find(|it| it.tag() == TX_HASH_KEY) {
        return by_hash(store, condition);
    }
    let mut budget = Budget::new(limits);
    let plan = Plan::of(query, Txs::HEIGHT_KEY);
    let found = run(&Txs(store), &plan, &mut budget)?;
    let hashes: BTreeSet<Hash> = found.into_iter().map(|((_, hash), _)| hash).collect();
    let mut places = Vec::with_capacity(hashes.len());
    for hash in hashes {
        budget.spend(LOOKUP)?;
        // A transaction that is there twice is the last one.
        places.extend(store.find_tx(&hash)?);
    }
    // Those of pruned blocks cannot be shown, so that pages and their number would differ.
    let base = store.base();
    places.retain(|place| place.height >= base);
    places.sort_unstable();
    Ok(places)
}

/// What looking up one transaction costs, in entries.
const LOOKUP: usize = 4;

fn by_hash(store: &Store, condition: &Condition) -> Result<Vec<TxLocation>, SearchError> {
    let text = condition.arg().map_or("", |arg| arg.text());
    let bytes = crate::arguments::decode_hex(text.as_bytes()).map_err(SearchError::Hash)?;
    if bytes.is_empty() {
        return Err(SearchError::NoHash);
    }
    match Hash::try_from(&bytes[..]) {
        Ok(hash) => {
            let place = store.find_tx(&hash)?;
            let shown = place.filter(|place| place.height >= store.base());
            Ok(shown.into_iter().collect())
        }
        Err(_) => Ok(Vec::new()),
    }
}

/// The blocks that a query asks for.
///
/// # Errors
/// When the search would cost too much.
pub(crate) fn blocks(store: &Store, query: &Query, limits: Limits) -> Result<Found, SearchError> {
    let plan = Plan::of(query, Blocks::HEIGHT_KEY);
    let indexed = store.base().max(Height::new(1))..=store.index_height()?;
    if let Some(height) = plan.only_height() {
        let found = Some(Height::new(height)).filter(|height| indexed.contains(height));
        return Ok(Found::Some(found.into_iter().collect()));
    }
    if let Some(range) = plan.only_height_range() {
        return Ok(Found::All(exactly(range, indexed)));
    }
    let mut budget = Budget::new(limits);
    let found = run(&Blocks(store), &plan, &mut budget)?;
    let heights = found.into_iter().map(|(height, _)| height);
    let heights: BTreeSet<Height> = heights.filter(|it| indexed.contains(it)).collect();
    Ok(Found::Some(heights.into_iter().collect()))
}

/// The heights among these that a range has.
fn exactly(range: &Range, among: RangeInclusive<Height>) -> RangeInclusive<Height> {
    let about = range.heights();
    let mut first = *among.start().max(about.start());
    let mut last = *among.end().min(about.end());
    if !range.has_height(first) {
        first = first.next();
    }
    if !range.has_height(last) {
        last = last.prev();
    }
    if !range.has_height(first) || !range.has_height(last) {
        last = first.prev();
    }
    first..=last
}

/// What meets all conditions, each with the event that does.
fn run<I: Index>(
    index: &I,
    plan: &Plan<'_>,
    budget: &mut Budget,
) -> Result<BTreeSet<(I::Id, u32)>, SearchError> {
    let mut left: Option<BTreeSet<(I::Id, u32)>> = None;
    for range in plan.ranges() {
        let is_height = range.key() == I::HEIGHT_KEY;
        let values = if is_height {
            Values::One(&[], range.heights())
        } else {
            Values::All
        };
        let is_met = |entry: &Entry<'_, I::Id>| {
            range.has_value(entry.value) && (is_height || plan.has_height(entry.height))
        };
        narrow(
            &mut left,
            walk(index, range.key(), &values, is_met, budget)?,
        );
        if is_empty(&left) {
            break;
        }
    }
    for condition in plan.conditions() {
        if is_empty(&left) {
            break;
        }
        let text = condition.arg().map_or("", |arg| arg.text());
        let values = match condition.op() {
            Op::Equal => Values::One(text.as_bytes(), plan.heights()),
            _ => Values::All,
        };
        let is_met = |entry: &Entry<'_, I::Id>| {
            let by_value = condition.op() == Op::Equal || condition.accepts(entry.value);
            by_value && plan.has_height(entry.height)
        };
        narrow(
            &mut left,
            walk(index, condition.tag(), &values, is_met, budget)?,
        );
    }
    Ok(left.unwrap_or_default())
}

/// Keeps what is in both, or takes the first set.
fn narrow<T: Ord>(left: &mut Option<BTreeSet<T>>, found: BTreeSet<T>) {
    match left {
        None => *left = Some(found),
        Some(left) => left.retain(|item| found.contains(item)),
    }
}

/// Whether nothing can be found any more.
fn is_empty<T>(left: &Option<BTreeSet<T>>) -> bool {
    left.as_ref().is_some_and(BTreeSet::is_empty)
}

/// The entries of an attribute that meet a condition.
fn walk<I: Index>(
    index: &I,
    tag: &str,
    values: &Values<'_>,
    is_met: impl Fn(&Entry<'_, I::Id>) -> bool,
    budget: &mut Budget,
) -> Result<BTreeSet<(I::Id, u32)>, SearchError> {
    let mut found = BTreeSet::new();
    let mut spent = budget.spend(1);
    index.visit(tag, values, |entry| {
        spent = budget.spend(1);
        if spent.is_err() {
            return ControlFlow::Break(());
        }
        if is_met(&entry) {
            found.insert((entry.id, entry.event));
        }
        ControlFlow::Continue(())
    })?;
    spent?;
    Ok(found)
}

/// What is left of what a search may cost.
struct Budget {
    limits: Limits,
    left: usize,
    end: Instant,
}

/// Entries between two looks at the clock.
const CLOCK_EVERY: usize = 1_024;

impl Budget {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            left: limits.entries,
            end: Instant::now() + limits.time,
        }
    }

    fn spend(&mut self, entries: usize) -> Result<(), SearchError> {
        let before = self.left;
        self.left = before
            .checked_sub(entries)
            .ok_or(SearchError::TooWide(self.limits.entries))?;
        let is_due = before / CLOCK_EVERY != self.left / CLOCK_EVERY;
        if is_due && Instant::now() >= self.end {
            return Err(SearchError::TooLong(self.limits.time));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
