//! What differs between versions, and how much of a set is trusted.

/// The release whose rules judge a commit. The two differ in one point here: the longest signature
/// that a place in a commit may hold. A chain that was upgraded has blocks of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rules {
    /// CometBFT v0.38: signatures of at most 64 bytes.
    V038,
    /// CometBFT v0.40: at most 3,309 bytes, room for keys that this node never verifies.
    V040,
}

impl Rules {
    /// The longest signature in bytes that a place in a commit may hold.
    #[must_use]
    pub const fn max_signature_bytes(self) -> usize {
        match self {
            Self::V038 => 64,
            Self::V040 => 3_309,
        }
    }
}

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
