//! Why bytes are refused on decoding, or a value by the stateless rules.

use thiserror::Error;

/// Bytes are not the message that they should be, or hold what CometBFT refuses on decoding.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not protobuf of this message.
    #[error("malformed protobuf: {0}")]
    Protobuf(String),
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a length, a value or a count that its type does not allow.
    #[error("{field}: {reason}")]
    Field {
        /// The field, by its protocol name.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// More of something than the bound allows.
    #[error("{count} {what}, at most {max} are allowed")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are (counting stops a little above `max`).
        count: usize,
        /// The bound.
        max: usize,
    },
    /// Decoded, but against the stateless rules.
    #[error(transparent)]
    Invalid(#[from] InvalidError),
}

/// A decoded value breaks a stateless rule (CometBFT's `ValidateBasic`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}: {reason}")]
pub struct InvalidError {
    /// The value, by its protocol name.
    pub what: &'static str,
    /// The rule that it breaks.
    pub reason: String,
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Protobuf(error.to_string())
    }
}

impl InvalidError {
    /// Names what is invalid and why.
    pub fn new(what: &'static str, reason: impl Into<String>) -> Self {
        Self {
            what,
            reason: reason.into(),
        }
    }
}
