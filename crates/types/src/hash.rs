//! Hashes: 32 bytes or none.

use std::fmt;

use bytes::Bytes;

use crate::DecodeError;

/// A hash on the chain: 32 bytes of SHA-256, or empty where the protocol allows "none".
/// Printed in upper-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(Option<[u8; 32]>);

impl Hash {
    /// No hash: zero bytes on the wire.
    pub const EMPTY: Self = Self(None);

    /// A hash of 32 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(Some(bytes))
    }

    /// SHA-256 of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self(Some(perihelion_crypto::sha256(data)))
    }

    /// Zero or 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| bytes)
    }

    /// Zero or 32 bytes, as messages hold them.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.as_bytes())
    }

    /// Whether it is the empty hash.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = DecodeError;

    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Ok(Self::EMPTY);
        }
        bytes
            .try_into()
            .map(Self::new)
            .map_err(|_| DecodeError::Field {
                field: "hash",
                reason: format!("expected 0 or 32 bytes, got {}", bytes.len()),
            })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.as_bytes()))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
