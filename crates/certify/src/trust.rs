//! How much of a set is trusted.

/// The fraction of a validator set's power that must have signed, exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrustLevel {
    numerator: u64,
    denominator: u64,
}

impl TrustLevel {
    /// One third: a light client's default, and what evidence of an attack needs.
    pub const ONE_THIRD: Self = Self::new(1, 3);
    /// Two thirds: what makes a commit.
    pub const TWO_THIRDS: Self = Self::new(2, 3);

    /// A fraction; whether it makes sense is judged where it is used, as in CometBFT.
    #[must_use]
    pub const fn new(numerator: u64, denominator: u64) -> Self {
        Self {
            numerator,
            denominator,
        }
    }

    /// Above the line.
    #[must_use]
    pub const fn numerator(self) -> u64 {
        self.numerator
    }

    /// Below the line.
    #[must_use]
    pub const fn denominator(self) -> u64 {
        self.denominator
    }
}
