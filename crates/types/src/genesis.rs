//! The genesis document of a chain.

use bytes::Bytes;
use perihelion_crypto::PublicKey;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    Address, ConsensusParams, Height, InvalidError, Time, Validator, ValidatorSet,
    json::{Hex, Text, deserialize_hex, deserialize_int64},
};

/// Longest chain id in bytes.
pub const MAX_CHAIN_ID_BYTES: usize = 50;

/// A chain's genesis document, complete: what may be left out has its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// When the chain starts; the time of its first block.
    pub genesis_time: Time,
    /// 1 to [`MAX_CHAIN_ID_BYTES`] bytes.
    pub chain_id: String,
    /// At least 1.
    pub initial_height: Height,
    /// The parameters that the chain starts with.
    pub consensus_params: ConsensusParams,
    /// In the order of the document; empty when the application gives the validators.
    pub validators: Vec<GenesisValidator>,
    /// What the application's state hashes to before the first block.
    pub app_hash: Bytes,
    /// Raw JSON for the application, byte for byte as in the document; empty for none.
    pub app_state: Bytes,
}

/// A validator of the genesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenesisValidator {
    /// The key's address.
    pub address: Address,
    /// The key that it signs with.
    pub pub_key: PublicKey,
    /// Not 0.
    pub power: i64,
    /// For people; may be empty.
    pub name: String,
}

/// What a genesis document may leave out and the protocol does not fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenesisDefaults {
    /// The time of a genesis without one: now.
    pub time: Time,
    /// The parameters of a genesis without any; they differ between v0.38 and v0.40.
    pub consensus_params: ConsensusParams,
}

/// A genesis document cannot be used.
#[derive(Debug, Error)]
pub enum GenesisError {
    /// Not JSON, or not of the form; the error says where.
    #[error("genesis: {0}")]
    Json(#[from] serde_json::Error),
    /// A rule is broken.
    #[error(transparent)]
    Invalid(#[from] InvalidError),
}

impl Genesis {
    /// Reads a document, fills in `defaults` and checks the rules. Unknown fields are passed over.
    ///
    /// # Errors
    /// When CometBFT would refuse the document, or would fail on it later: a validator without a
    /// key.
    pub fn from_json(json: &[u8], defaults: &GenesisDefaults) -> Result<Self, GenesisError> {
        let form: GenesisForm<'_> = serde_json::from_slice(json)?;
        let validators = form
            .validators
            .unwrap_or_default()
            .into_iter()
            .map(GenesisValidatorForm::complete)
            .collect::<Result<_, _>>()?;
        let genesis = Self {
            genesis_time: if form.genesis_time.is_zero() {
                defaults.time
            } else {
                form.genesis_time
            },
            chain_id: form.chain_id.unwrap_or_default(),
            initial_height: match form.initial_height {
                0 => Height::new(1),
                height => Height::new(height),
            },
            consensus_params: form
                .consensus_params
                .unwrap_or_else(|| defaults.consensus_params.clone()),
            validators,
            app_hash: form.app_hash,
            app_state: form
                .app_state
                .map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()))
                .unwrap_or_default(),
        };
        genesis.validate_basic()?;
        Ok(genesis)
    }

    /// The document as CometBFT writes it to a file: indented, without a last newline.
    ///
    /// # Errors
    /// When `app_state` is no JSON.
    pub fn to_json(&self) -> Result<String, GenesisError> {
        Ok(crate::json::to_string_indented(self)?)
    }

    /// The stateless rules.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn validate_basic(&self) -> Result<(), InvalidError> {
        let length = self.chain_id.len();
        if !(1..=MAX_CHAIN_ID_BYTES).contains(&length) {
            return Err(invalid(format!(
                "chain_id has {length} bytes, must have 1 to {MAX_CHAIN_ID_BYTES}"
            )));
        }
        if !self.initial_height.is_positive() {
            let height = self.initial_height;
            return Err(invalid(format!("initial_height {height} is not positive")));
        }
        self.consensus_params.validate_basic()?;
        for validator in &self.validators {
            validator.validate_basic()?;
        }
        Ok(())
    }

    /// The validator set of the initial height; empty when the application gives the validators.
    ///
    /// # Errors
    /// When the validators are no valid set: a negative power, a key twice, too large a total.
    pub fn validator_set(&self) -> Result<ValidatorSet, InvalidError> {
        let validators = self.validators.iter();
        ValidatorSet::new(
            validators
                .map(|validator| Validator::new(validator.pub_key.clone(), validator.power))
                .collect(),
        )
    }
}

impl GenesisValidator {
    fn validate_basic(&self) -> Result<(), InvalidError> {
        if self.power == 0 {
            return Err(invalid(format!("validator {} has no power", self.address)));
        }
        let address = self.pub_key.address();
        if self.address != address {
            return Err(invalid(format!(
                "validator {} has the key of {address}",
                self.address
            )));
        }
        Ok(())
    }
}

fn invalid(reason: impl Into<String>) -> InvalidError {
    InvalidError::new("genesis", reason)
}

#[derive(Deserialize)]
struct GenesisForm<'a> {
    #[serde(default = "crate::json::no_time")]
    genesis_time: Time,
    chain_id: Option<String>,
    #[serde(default, deserialize_with = "deserialize_int64")]
    initial_height: i64,
    consensus_params: Option<ConsensusParams>,
    validators: Option<Vec<GenesisValidatorForm>>,
    #[serde(default, deserialize_with = "deserialize_hex")]
    app_hash: Bytes,
    #[serde(borrow)]
    app_state: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GenesisValidatorForm {
    #[serde(default, deserialize_with = "deserialize_hex")]
    address: Bytes,
    pub_key: PublicKey,
    #[serde(default, deserialize_with = "deserialize_int64")]
    power: i64,
    name: Option<String>,
}

impl GenesisValidatorForm {
    /// Fills in the address; one of another length cannot be the key's.
    fn complete(self) -> Result<GenesisValidator, InvalidError> {
        let address = if self.address.is_empty() {
            self.pub_key.address()
        } else {
            Address::try_from(&self.address[..]).map_err(|_| {
                invalid(format!(
                    "a validator's address has {} bytes",
                    self.address.len()
                ))
            })?
        };
        Ok(GenesisValidator {
            address,
            pub_key: self.pub_key,
            power: self.power,
            name: self.name.unwrap_or_default(),
        })
    }
}

impl Serialize for Genesis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("genesis_time", &self.genesis_time)?;
        map.serialize_entry("chain_id", &self.chain_id)?;
        map.serialize_entry("initial_height", &self.initial_height)?;
        map.serialize_entry("consensus_params", &self.consensus_params)?;
        if !self.validators.is_empty() {
            map.serialize_entry("validators", &self.validators)?;
        }
        map.serialize_entry("app_hash", &Hex(&self.app_hash))?;
        if !self.app_state.is_empty() {
            let raw: &RawValue =
                serde_json::from_slice(&self.app_state).map_err(S::Error::custom)?;
            map.serialize_entry("app_state", raw)?;
        }
        map.end()
    }
}

impl Serialize for GenesisValidator {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("address", &Hex(self.address.as_bytes()))?;
        map.serialize_entry("pub_key", &self.pub_key)?;
        map.serialize_entry("power", &Text(self.power))?;
        map.serialize_entry("name", &self.name)?;
        map.end()
    }
}
