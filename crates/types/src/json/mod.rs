//! CometBFT's JSON forms: 64-bit integers as strings, hashes in upper-case hexadecimal, bytes in
//! base64, times in RFC 3339, keys with their type's name.
