//! Counts on raw bytes, before anything is decoded: a few bytes a signature on the wire become
//! hundreds in memory, so the counts are bounded first.

use crate::DecodeError;

/// Signatures in one commit, and validators in one set. CometBFT allows no larger set.
pub const MAX_SIGNATURES: usize = 10_000;
/// Largest block in bytes (CometBFT's `MaxBlockSizeBytes`).
pub const MAX_BLOCK_BYTES: usize = 104_857_600;

/// Checks a `tendermint.types.Block` (no length prefix) with an optional number of nested
/// messages: signatures of the last commit, of every commit inside evidence, members of validator
/// sets and of byzantine lists, even when a field is split over several occurrences.
///
/// # Errors
/// When the bytes are no protobuf, or a count is above its bound.
pub fn check_block(_raw: &[u8]) -> Result<(), DecodeError> {
    todo!()
}

/// The same for a `tendermint.types.ExtendedCommit`.
///
/// # Errors
/// As [`check_block`].
pub fn check_extended_commit(_raw: &[u8]) -> Result<(), DecodeError> {
    todo!()
}
