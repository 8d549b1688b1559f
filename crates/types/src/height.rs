//! Heights, ranges of them, and rounds.

use std::fmt;

/// A block's height. Any 64-bit value can be read from a peer; blocks have heights of 1 and more,
/// and 0 stands for "before the first block".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(i64);

impl Height {
    /// Before the first block.
    pub const ZERO: Self = Self(0);
    /// The largest height that the wire can carry.
    pub const MAX: Self = Self(i64::MAX);

    /// Wraps a height as the wire has it.
    #[must_use]
    pub const fn new(height: i64) -> Self {
        Self(height)
    }

    /// The height as the wire has it.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The height above, or the largest one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The height below, or the smallest one.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// `count` heights above, or the largest one.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How far above `other` it is; negative when below.
    #[must_use]
    pub const fn since(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }

    /// Whether a block can have this height.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The heights that a peer says it can serve: `base` to `height`, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeightRange {
    base: Height,
    height: Height,
}

impl HeightRange {
    /// A claimed range; `None` when base is above height or either is negative.
    #[must_use]
    pub fn new(base: Height, height: Height) -> Option<Self> {
        (base <= height && base.get() >= 0).then_some(Self { base, height })
    }

    /// The lowest height claimed; 0 for a peer without blocks.
    #[must_use]
    pub const fn base(self) -> Height {
        self.base
    }

    /// The highest height claimed.
    #[must_use]
    pub const fn height(self) -> Height {
        self.height
    }

    /// Whether `height` is claimed.
    #[must_use]
    pub fn contains(self, height: Height) -> bool {
        self.base <= height && height <= self.height
    }
}

/// A consensus round; 0 is the first of a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(i32);

impl Round {
    /// The first round of a height.
    pub const ZERO: Self = Self(0);

    /// Wraps a round as the wire has it (negative values can be read, and are refused by
    /// `validate_basic`).
    #[must_use]
    pub const fn new(round: i32) -> Self {
        Self(round)
    }

    /// The round as the wire has it.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
