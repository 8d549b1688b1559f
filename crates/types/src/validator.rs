use perihelion_crypto::{Address, PublicKey};

/// A member of a validator set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator {
    /// The address of `pub_key`.
    pub address: Address,
    /// The consensus key.
    pub pub_key: PublicKey,
    /// Voting power, positive in a set.
    pub voting_power: i64,
    /// Priority to propose; rises by the power each round, and falls by the total when proposing.
    pub proposer_priority: i64,
}

impl Validator {
    /// A validator with priority 0.
    #[must_use]
    pub fn new(pub_key: PublicKey, voting_power: i64) -> Self {
        Self {
            address: pub_key.address(),
            pub_key,
            voting_power,
            proposer_priority: 0,
        }
    }
}
