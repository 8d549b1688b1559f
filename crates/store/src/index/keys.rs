//! The keys of the index of events.
//!
//! ```text
//! 4, key, value, height, event           (nothing)              attributes of blocks
//! 6, key, value, height                  places in the block    attributes of transactions
//! 7, height                              transactions' hashes   all transactions
//! ```
//! Key and value stand behind their lengths, so that no text can run into the next one. The event
//! tells attributes of one event from those of others of the same transaction or block. Texts that
//! are too long for a key stand there as their hash; such a value stands behind the entry's own.
//!
//! What all transactions of a block say alike is one entry: entries are what an index costs. Its
//! places (`posting.rs`) are index and event of each; the hashes are those of the block.
//!
//! Heights that were indexed by an earlier form of this program have instead
//! ```text
//! 3, key, value, height, index, event    transaction's hash     attributes of transactions
//! 5, height, index                       transaction's hash     all transactions
//! ```
//! They are read as well, and lie below all others: what was pruned cannot be indexed again. (1 and 2
//! were used before the event was part of the key.)

use bytes::Buf as _;
use perihelion_types::{Hash, Height};

use super::TxLocation;
use crate::columns::{height_key, key_height};

/// Longest text of an event's key or value that stands in a key as it is; longer ones stand there
/// as their hash.
const MAX_TEXT: usize = 512;
/// In place of a length: a hash follows.
const HASHED: u16 = u16::MAX;
const HASH_BYTES: usize = 32;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    EarlierTx = 3,
    Block = 4,
    EarlierPlace = 5,
    Txs = 6,
    Hashes = 7,
}

/// All entries of forms that are not read any more.
pub(super) const OUTDATED: ([u8; 1], [u8; 1]) = ([0], [Kind::EarlierTx as u8]);

/// Appends a text behind its length; whether it stands there as its hash.
fn put_text(out: &mut Vec<u8>, text: &[u8]) -> bool {
    match u16::try_from(text.len()) {
        Ok(length) if text.len() <= MAX_TEXT => {
            out.extend(length.to_be_bytes());
            out.extend(text);
            false
        }
        _ => {
            out.extend(HASHED.to_be_bytes());
            out.extend(Hash::of(text).as_bytes());
            true
        }
    }
}

/// What the keys of all values of an attribute begin with.
pub(super) fn attribute_prefix(kind: Kind, key: &[u8]) -> Vec<u8> {
    let mut prefix = vec![kind as u8];
    put_text(&mut prefix, key);
    prefix
}

/// What the keys of one value of an attribute begin with, and whether the value itself must stand
/// in the entry.
pub(super) fn value_prefix(kind: Kind, key: &[u8], value: &[u8]) -> (Vec<u8>, bool) {
    let mut prefix = attribute_prefix(kind, key);
    let hashed = put_text(&mut prefix, value);
    (prefix, hashed)
}

/// Takes a value off the front of what follows an attribute's prefix: the value where it stands
/// there, and the rest.
pub(super) fn take_value(mut rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let length = rest.try_get_u16().ok()?;
    if length == HASHED {
        return Some((None, rest.get(HASH_BYTES..)?));
    }
    let (value, rest) = rest.split_at_checked(usize::from(length))?;
    Some((Some(value), rest))
}

/// The end of an earlier key of a transaction's attribute.
pub(super) fn read_tx_suffix(bytes: &[u8]) -> Option<(TxLocation, u32)> {
    let place = TxLocation::decode(bytes)?;
    let mut event = bytes.get(TxLocation::LEN..)?;
    Some((place, event.try_get_u32().ok()?))
}

/// The end of a key of a block's attribute.
pub(super) fn block_suffix(height: Height, event: u32) -> Vec<u8> {
    [&height_key(height)[..], &event.to_be_bytes()].concat()
}

/// Reads what [`block_suffix`] has written.
pub(super) fn read_block_suffix(bytes: &[u8]) -> Option<(Height, u32)> {
    let height = key_height(bytes)?;
    let mut event = bytes.get(8..)?;
    Some((height, event.try_get_u32().ok()?))
}

/// The key of the hashes of a block's transactions.
pub(super) fn hashes_key(height: Height) -> Vec<u8> {
    [&[Kind::Hashes as u8][..], &height_key(height)].concat()
}
