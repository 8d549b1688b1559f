//! A member of a validator set.

use perihelion_crypto::{Address, PublicKey};
use perihelion_proto::tendermint::types as pb;
use prost::Message;

use crate::{DecodeError, InvalidError};

/// A member of a validator set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator {
    /// The address of `pub_key`, once `validate_basic` has passed.
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

    /// The bytes that a validator set's hash covers: key and power, as `SimpleValidator`.
    #[must_use]
    pub fn hashed_bytes(&self) -> Vec<u8> {
        pb::SimpleValidator {
            pub_key: Some((&self.pub_key).into()),
            voting_power: self.voting_power,
        }
        .encode_to_vec()
    }

    /// The stateless rules: a power that is not negative, and the address of the key.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        if self.voting_power < 0 {
            return Err(InvalidError::new(
                "validator",
                format!("negative voting power {}", self.voting_power),
            ));
        }
        let address = self.pub_key.address();
        if self.address != address {
            return Err(InvalidError::new(
                "validator",
                format!("address {} is not the key's, {address}", self.address),
            ));
        }
        Ok(())
    }

    /// Whether it proposes before `other`: the higher priority does, of equals the lower address.
    pub(crate) fn proposes_before(&self, other: &Self) -> bool {
        self.proposer_priority
            .cmp(&other.proposer_priority)
            .then_with(|| other.address.cmp(&self.address))
            .is_gt()
    }
}

impl TryFrom<pb::Validator> for Validator {
    type Error = DecodeError;

    /// Keeps an address that is not the key's (`validate_basic` refuses it), refuses one that is
    /// not 20 bytes long.
    fn try_from(validator: pb::Validator) -> Result<Self, DecodeError> {
        let pub_key = validator
            .pub_key
            .ok_or(DecodeError::Missing("validator public key"))?;
        Ok(Self {
            address: Address::try_from(&validator.address[..]).map_err(|_| DecodeError::Field {
                field: "validator address",
                reason: format!("expected 20 bytes, got {}", validator.address.len()),
            })?,
            pub_key: pub_key.try_into().map_err(|error| DecodeError::Field {
                field: "validator public key",
                reason: format!("{error}"),
            })?,
            voting_power: validator.voting_power,
            proposer_priority: validator.proposer_priority,
        })
    }
}

impl From<&Validator> for pb::Validator {
    fn from(validator: &Validator) -> Self {
        Self {
            address: bytes::Bytes::copy_from_slice(validator.address.as_bytes()),
            pub_key: Some((&validator.pub_key).into()),
            voting_power: validator.voting_power,
            proposer_priority: validator.proposer_priority,
        }
    }
}
