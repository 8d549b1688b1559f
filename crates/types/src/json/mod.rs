//! CometBFT's JSON forms: 64-bit integers as strings, hashes in upper-case hexadecimal, bytes in
//! base64 (`null` when empty), times in RFC 3339, keys with their type's name.
//!
//! The types of this crate implement serde's traits for these forms. Texts come out of
//! [`to_string`] byte for byte as CometBFT writes them; a plain `serde_json::to_string` differs
//! where a string holds `<`, `>`, `&`, U+2028 or U+2029, which Go escapes.
//!
//! Reading is as lenient as CometBFT's: unknown fields are passed over, a field that is missing or
//! `null` has its zero value. A field that is there twice is refused, where CometBFT takes the last.

mod format;
mod read;
mod write;

pub use format::{compact, indent, to_string, to_string_indented};
pub(crate) use read::no_time;
pub use read::{deserialize_base64, deserialize_hex, deserialize_int64};
pub use write::{Base64, Hex, Text};
