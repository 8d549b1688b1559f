//! How a query is searched for: which of its conditions are ranges, which bound the heights, and
//! which are passed over, as in CometBFT's `kv` indexers.

use std::{collections::HashMap, ops::RangeInclusive};

use perihelion_events::{
    BLOCK_HEIGHT_KEY, Condition, Op, Query, TX_HEIGHT_KEY,
    query::{Arg, Number},
};
use perihelion_types::Height;

/// A query's conditions, sorted by what is done about them.
pub(super) struct Plan<'q> {
    /// The height's key in this index.
    height_key: &'static str,
    /// Those that are walked one by one.
    conditions: Vec<&'q Condition>,
    ranges: Vec<Range>,
    /// The range of heights that all else is in, by its place among the ranges.
    height_range: Option<usize>,
    /// The height that all else is at; 0 for any.
    height: i64,
    /// Whether there is nothing but one height, nothing but ranges of heights.
    only_height: bool,
    only_range: bool,
}

/// Bounds of an attribute's values: several conditions on one attribute make one range, of which the
/// last bound on each side counts.
#[derive(Debug, Clone)]
pub(super) struct Range {
    key: String,
    lower: Option<Bound>,
    upper: Option<Bound>,
    has_lower: bool,
    has_upper: bool,
}

/// `None` for a moment: the index compares numbers alone, so nothing is within it.
type Bound = Option<Number>;

impl<'q> Plan<'q> {
    pub(super) fn of(query: &'q Query, height_key: &'static str) -> Self {
        let mut plan = Self {
            height_key,
            conditions: Vec::new(),
            ranges: Vec::new(),
            height_range: None,
            height: 0,
            only_height: true,
            only_range: true,
        };
        let mut others = Vec::new();
        let (mut height, mut has_range) = (None, false);
        for condition in query.conditions() {
            let is_height = condition.tag() == height_key;
            if is_height && condition.op() == Op::Equal {
                // Only the first one counts, before any other condition on the height; and what is
                // no number is passed over.
                if height.is_none() && !has_range {
                    height = number(condition).map(|number| (condition, number.to_i64()));
                }
                continue;
            }
            plan.only_height = false;
            plan.only_range &= is_height;
            has_range |= is_height;
            others.push(condition);
        }
        match height.filter(|_| !has_range) {
            Some((condition, height)) => {
                plan.height = height;
                plan.only_range = false;
                if plan.only_height {
                    others.push(condition);
                }
            }
            None => plan.only_height = false,
        }
        plan.sort(others);
        plan
    }

    /// Parts ranges from the rest.
    fn sort(&mut self, conditions: Vec<&'q Condition>) {
        let mut places = HashMap::new();
        for condition in conditions {
            if !condition.op().is_range() {
                self.conditions.push(condition);
                continue;
            }
            let key = condition.tag();
            let at = *places.entry(key).or_insert_with(|| {
                self.ranges.push(Range::of(key));
                self.ranges.len() - 1
            });
            self.ranges[at].narrow(condition);
            // The other index's key bounds the heights too.
            if key == TX_HEIGHT_KEY || key == BLOCK_HEIGHT_KEY {
                self.height_range = Some(at);
            }
        }
    }

    fn height_range(&self) -> Option<&Range> {
        self.height_range.map(|at| &self.ranges[at])
    }

    /// The height, when the query has nothing else.
    pub(super) fn only_height(&self) -> Option<i64> {
        self.only_height.then_some(self.height)
    }

    /// The range of heights, when the query has nothing else.
    pub(super) fn only_height_range(&self) -> Option<&Range> {
        match &self.ranges[..] {
            [range] if self.only_range && self.conditions.is_empty() => Some(range),
            _ => None,
        }
    }

    /// The ranges to walk: those of heights only where there is nothing else.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges
            .iter()
            .filter(|range| range.key != self.height_key || self.only_range)
    }

    pub(super) fn conditions(&self) -> &[&'q Condition] {
        &self.conditions
    }

    /// Whether what is at this height can be asked for.
    pub(super) fn has_height(&self, height: Height) -> bool {
        match self.height_range() {
            Some(range) => range.has_height(height),
            None => self.height == 0 || self.height == height.get(),
        }
    }

    /// Heights outside of which nothing is asked for.
    pub(super) fn heights(&self) -> RangeInclusive<Height> {
        match self.height_range() {
            Some(range) => range.heights(),
            None if self.height == 0 && !self.only_height => Height::ZERO..=Height::MAX,
            None => Height::new(self.height)..=Height::new(self.height),
        }
    }
}

/// The number that a condition compares with, of text too.
fn number(condition: &Condition) -> Option<Number> {
    match condition.arg()? {
        Arg::Number(_, number) => Some(number.clone()),
        other => Number::of_indexed(other.text().as_bytes()),
    }
}

impl Range {
    fn of(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            lower: None,
            upper: None,
            has_lower: false,
            has_upper: false,
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    fn narrow(&mut self, condition: &Condition) {
        let bound = match condition.arg() {
            Some(Arg::Number(_, number)) => Some(number.clone()),
            _ => None,
        };
        match condition.op() {
            Op::Greater => self.lower = Some(bound),
            Op::GreaterOrEqual => {
                self.lower = Some(bound);
                self.has_lower = true;
            }
            Op::Less => self.upper = Some(bound),
            Op::LessOrEqual => {
                self.upper = Some(bound);
                self.has_upper = true;
            }
            Op::Equal | Op::Contains | Op::Exists => {}
        }
    }

    /// Whether a number is within.
    fn has(&self, value: &Number) -> bool {
        let above = match &self.lower {
            None => true,
            Some(None) => false,
            Some(Some(lower)) => value > lower || (self.has_lower && value == lower),
        };
        above
            && match &self.upper {
                None => true,
                Some(None) => false,
                Some(Some(upper)) => value < upper || (self.has_upper && value == upper),
            }
    }

    /// Whether a value is a number within.
    pub(super) fn has_value(&self, value: &[u8]) -> bool {
        Number::of_indexed(value).is_some_and(|value| self.has(&value))
    }

    pub(super) fn has_height(&self, height: Height) -> bool {
        self.has(&Number::of_height(height.get()))
    }

    /// Heights outside of which there is none within: at most one too many on each side.
    pub(super) fn heights(&self) -> RangeInclusive<Height> {
        let lower = self.lower.iter().flatten().next();
        let upper = self.upper.iter().flatten().next();
        let first = lower.map_or(0, Number::to_i64);
        let last = upper.map_or(i64::MAX, |upper| upper.to_i64());
        Height::new(first)..=Height::new(last)
    }
}
