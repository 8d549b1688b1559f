use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use memchr::memchr;

use crate::types::{PublicKey, ValidatorUpdate, public_key::Sum};

/// What a transaction that changes a validator begins with.
pub(super) const VALIDATOR_PREFIX: &[u8] = b"val=";

/// Padded, with spare bits ignored, as Go's standard encoding reads it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A change of a validator, `val=type!key!power`, whose key type is still a name.
pub(super) struct ValidatorTx {
    key_type: Vec<u8>,
    key: Bytes,
    power: i64,
}

pub(super) fn is_validator_tx(tx: &[u8]) -> bool {
    tx.starts_with(VALIDATOR_PREFIX)
}

/// Whether `tx` is exactly one key and one value, parted by `=` or by `:`.
pub(super) fn is_pair(tx: &[u8]) -> bool {
    let count = |byte: u8| tx.iter().filter(|other| **other == byte).count();
    let separator = match (count(b':'), count(b'=')) {
        (1, 0) => b':',
        (0, 1) => b'=',
        _ => return false,
    };
    tx.first() != Some(&separator) && tx.last() != Some(&separator)
}

/// Whether the application takes `tx`.
pub(super) fn is_valid(tx: &[u8]) -> bool {
    if is_validator_tx(tx) {
        ValidatorTx::parse(tx).is_ok()
    } else {
        is_pair(tx)
    }
}

/// Key and value where `tx` holds exactly one `=`.
pub(super) fn split_pair(tx: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, value) = tx.split_at(memchr(b'=', tx)?);
    let value = &value[1..];
    memchr(b'=', value).is_none().then_some((key, value))
}

impl ValidatorTx {
    /// Reads a transaction that begins with [`VALIDATOR_PREFIX`].
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn parse(tx: &[u8]) -> Result<Self, String> {
        let fields: Vec<&[u8]> = tx[VALIDATOR_PREFIX.len()..]
            .split(|byte| *byte == b'!')
            .collect();
        let [key_type, key, power] = fields[..] else {
            return Err(format!(
                "a validator's change has {} fields, not the three of type!key!power",
                fields.len()
            ));
        };
        let key: Vec<u8> = key
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'\r' | b'\n'))
            .collect();
        let key = BASE64
            .decode(key)
            .map_err(|error| format!("a validator's key is not base64: {error}"))?;
        let power: i64 = std::str::from_utf8(power)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or("a validator's power is not a number of 64 bits")?;
        if power < 0 {
            return Err(format!("a validator's power is negative: {power}"));
        }
        Ok(Self {
            key_type: key_type.to_vec(),
            key: key.into(),
            power,
        })
    }

    /// The change in the schema's form.
    ///
    /// # Errors
    /// When validators cannot have keys of this type.
    pub(super) fn into_update(self) -> Result<ValidatorUpdate, String> {
        let sum = match &self.key_type[..] {
            b"" | b"ed25519" => Sum::Ed25519(self.key),
            b"secp256k1" => Sum::Secp256k1(self.key),
            other => {
                return Err(format!(
                    "keys of type {:?} are not supported",
                    String::from_utf8_lossy(other)
                ));
            }
        };
        Ok(ValidatorUpdate {
            pub_key: Some(PublicKey { sum: Some(sum) }),
            power: self.power,
        })
    }
}
