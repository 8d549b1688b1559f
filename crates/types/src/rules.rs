/// Where the stateless rules of CometBFT's versions differ. A chain follows one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    max_signature_bytes: usize,
}

impl Rules {
    /// v0.38: the default, and what every `validate_basic` and `TryFrom` applies.
    pub const V038: Self = Self {
        max_signature_bytes: 64,
    };

    /// v0.40, which has room for ML-DSA-65.
    pub const V040: Self = Self {
        max_signature_bytes: 3309,
    };

    /// The longest signature of a vote, a proposal, a commit's place or a vote extension, in bytes.
    #[must_use]
    pub const fn max_signature_bytes(self) -> usize {
        self.max_signature_bytes
    }
}
