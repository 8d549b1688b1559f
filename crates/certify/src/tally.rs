//! Power and signatures: collected first, verified together.

use std::ops::{Add, AddAssign};

use perihelion_crypto::BatchVerifier;
use perihelion_types::PublicKey;

/// How many signatures were verified; the work that pinning saves is measured in these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SignatureCount(u64);

impl SignatureCount {
    /// No work at all.
    pub const ZERO: Self = Self(0);

    /// A count.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Add for SignatureCount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for SignatureCount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// One signature to verify, and the place in its commit that it came from.
pub(crate) struct Claim<'a> {
    pub(crate) index: usize,
    pub(crate) key: &'a PublicKey,
    pub(crate) message: Vec<u8>,
    pub(crate) signature: &'a [u8],
}

/// Verifies all claims in one batch: the positions among them of those that do not hold, in order.
pub(crate) fn wrong_claims(claims: Vec<Claim<'_>>) -> Vec<usize> {
    if claims.is_empty() {
        return Vec::new();
    }
    let mut batch = BatchVerifier::new();
    for claim in claims {
        batch.push(claim.key, claim.message, claim.signature);
    }
    let mut wrong = batch.verify().err().unwrap_or_default();
    wrong.sort_unstable();
    wrong
}

/// Verifies all claims in one batch: the place of the first one that does not hold.
pub(crate) fn first_wrong(claims: Vec<Claim<'_>>) -> Option<usize> {
    let indexes: Vec<usize> = claims.iter().map(|claim| claim.index).collect();
    let wrong = wrong_claims(claims);
    wrong.first().and_then(|first| indexes.get(*first)).copied()
}

/// The power that must be exceeded for more than two thirds of `total`.
pub(crate) const fn two_thirds(total: i64) -> i64 {
    // Totals are at most i64::MAX / 8.
    total.saturating_mul(2) / 3
}
