use std::{fmt, str::FromStr};

use thiserror::Error;

/// A text is not the 40 hexadecimal digits of an address or a node id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected 40 hexadecimal digits, got {0:?}")]
pub struct ParseIdError(pub String);

/// A validator's address: the first 20 bytes of SHA-256 over an ed25519 key, or
/// RIPEMD-160 of SHA-256 over a secp256k1 key. Printed in upper-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 20]);

/// A node's identity: the address of its ed25519 node key. Printed in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 20]);

macro_rules! twenty_bytes {
    ($name:ident, $encode:path) => {
        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = 20;

            /// Wraps 20 bytes.
            #[must_use]
            pub const fn new(bytes: [u8; 20]) -> Self {
                Self(bytes)
            }

            /// The 20 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 20] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = std::array::TryFromSliceError;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                bytes.try_into().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; 20];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseIdError(text.chars().take(64).collect()))?;
                Ok(Self(bytes))
            }
        }
    };
}

twenty_bytes!(Address, hex::encode_upper);
twenty_bytes!(NodeId, hex::encode);
