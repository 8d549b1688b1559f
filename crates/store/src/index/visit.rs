//! Reading the index of events: one entry after the other, as long as the reader wants more.

use std::ops::{ControlFlow, RangeInclusive};

use perihelion_types::{Hash, Height};

use super::{
    TxLocation,
    keys::{self, Kind},
    posting::{Posting, hash_at},
};
use crate::{
    Store, StoreError,
    columns::{Column, height_key, key_height},
    store::prefix_end,
};

const HASH_BYTES: usize = 32;

/// An indexed attribute of a transaction's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxAttribute<'a> {
    /// The attribute's value.
    pub value: &'a [u8],
    /// The transaction.
    pub place: TxLocation,
    /// Tells the events of one transaction apart; from 1.
    pub event: u32,
    /// The transaction's hash.
    pub hash: Hash,
}

/// An indexed attribute of a block's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockAttribute<'a> {
    /// The attribute's value.
    pub value: &'a [u8],
    /// The block.
    pub height: Height,
    /// Tells the events of one block apart; from 1.
    pub event: u32,
}

/// Which values are visited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values<'a> {
    /// All, in no order that means anything.
    All,
    /// This one, of blocks of these heights, in order.
    One(&'a [u8], RangeInclusive<Height>),
}

impl Store {
    /// Visits transactions' attributes `key` (`type.attribute`) until `visit` breaks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn visit_tx_attributes(
        &self,
        key: &str,
        values: &Values<'_>,
        mut visit: impl FnMut(TxAttribute<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut is_over = false;
        // All of the earlier form are of lower heights.
        self.visit_attributes(Kind::EarlierTx, key, values, |given, rest, entry| {
            let (place, event) = keys::read_tx_suffix(rest)?;
            let (hash, long) = entry.split_at_checked(HASH_BYTES)?;
            let visited = visit(TxAttribute {
                value: given.unwrap_or(long),
                place,
                event,
                hash: Hash::try_from(hash).ok()?,
            });
            is_over = visited.is_break();
            Some(visited)
        })?;
        if is_over {
            return Ok(());
        }
        let mut unreadable = None;
        self.visit_attributes(Kind::Txs, key, values, |given, rest, entry| {
            let height = key_height(rest)?;
            let (places, hash, long) = Posting::decode(entry)?;
            let hashes = match hash {
                Some(_) => None,
                None => match self.db.get(Column::IndexEvents, &keys::hashes_key(height)) {
                    Ok(hashes) => Some(hashes?),
                    Err(error) => {
                        unreadable = Some(error);
                        return Some(ControlFlow::Break(()));
                    }
                },
            };
            for (index, event) in places {
                let hash = match &hashes {
                    None => hash?,
                    Some(hashes) => hash_at(hashes, index)?,
                };
                let visited = visit(TxAttribute {
                    value: given.unwrap_or(long),
                    place: TxLocation { height, index },
                    event,
                    hash,
                });
                if visited.is_break() {
                    return Some(ControlFlow::Break(()));
                }
            }
            Some(ControlFlow::Continue(()))
        })?;
        unreadable.map_or(Ok(()), Err)
    }

    /// Visits blocks' attributes `key` (`type.attribute`) until `visit` breaks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn visit_block_attributes(
        &self,
        key: &str,
        values: &Values<'_>,
        mut visit: impl FnMut(BlockAttribute<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.visit_attributes(Kind::Block, key, values, |given, rest, entry| {
            let (height, event) = keys::read_block_suffix(rest)?;
            Some(visit(BlockAttribute {
                value: given.unwrap_or(entry),
                height,
                event,
            }))
        })
    }

    /// Visits the transactions of blocks of these heights in order, until `visit` breaks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn visit_txs(
        &self,
        heights: &RangeInclusive<Height>,
        mut visit: impl FnMut(TxLocation, Hash) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut is_over = false;
        // All of the earlier form are of lower heights.
        if let Some((from, to)) = bounds(&[Kind::EarlierPlace as u8], heights) {
            self.visit_entries(&from, &to, |key, entry| {
                let place = TxLocation::decode(key.get(1..)?)?;
                let visited = visit(place, Hash::try_from(entry).ok()?);
                is_over = visited.is_break();
                Some(visited)
            })?;
        }
        let Some((from, to)) = bounds(&[Kind::Hashes as u8], heights).filter(|_| !is_over) else {
            return Ok(());
        };
        self.visit_entries(&from, &to, |key, entry| {
            let height = key_height(key.get(1..)?)?;
            for (index, hash) in (0_u32..).zip(entry.chunks(HASH_BYTES)) {
                let visited = visit(TxLocation { height, index }, Hash::try_from(hash).ok()?);
                if visited.is_break() {
                    return Some(ControlFlow::Break(()));
                }
            }
            Some(ControlFlow::Continue(()))
        })
    }

    /// `visit` is given the value where it stands in the key, what stands behind it, and the entry's
    /// own value; it gives nothing where that is no entry.
    fn visit_attributes(
        &self,
        kind: Kind,
        key: &str,
        values: &Values<'_>,
        mut visit: impl FnMut(Option<&[u8]>, &[u8], &[u8]) -> Option<ControlFlow<()>>,
    ) -> Result<(), StoreError> {
        let front = keys::attribute_prefix(kind, key.as_bytes());
        let (from, to) = match values {
            Values::All => (front.clone(), prefix_end(&front)),
            Values::One(value, heights) => {
                let (prefix, _) = keys::value_prefix(kind, key.as_bytes(), value);
                let Some(bounds) = bounds(&prefix, heights) else {
                    return Ok(());
                };
                bounds
            }
        };
        self.visit_entries(&from, &to, |key, entry| {
            let (value, rest) = keys::take_value(key.get(front.len()..)?)?;
            visit(value, rest, entry)
        })
    }

    /// `visit` gives nothing where key and value are no entry.
    fn visit_entries(
        &self,
        from: &[u8],
        to: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Option<ControlFlow<()>>,
    ) -> Result<(), StoreError> {
        let column = Column::IndexEvents;
        let mut broken = None;
        self.db.visit(column, from, to, |key, value| {
            visit(key, value).unwrap_or_else(|| {
                broken = Some(self.db.corrupt(column, key, "no entry of the index"));
                ControlFlow::Break(())
            })
        })?;
        broken.map_or(Ok(()), Err)
    }
}

/// The keys that begin with `prefix` and one of these heights; `None` where there is no height.
fn bounds(prefix: &[u8], heights: &RangeInclusive<Height>) -> Option<(Vec<u8>, Vec<u8>)> {
    if heights.is_empty() || !heights.end().is_positive() {
        return None;
    }
    let first = (*heights.start()).max(Height::ZERO);
    let from = [prefix, &height_key(first)].concat();
    let last = [prefix, &height_key(*heights.end())].concat();
    Some((from, prefix_end(&last)))
}
