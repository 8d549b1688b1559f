//! The two indexes as searches see them.

use std::ops::ControlFlow;

use perihelion_events::{BLOCK_HEIGHT_KEY, TX_HEIGHT_KEY};
use perihelion_store::{Store, StoreError, TxLocation, index::Values};
use perihelion_types::{Hash, Height};

/// One value of an attribute.
pub(super) struct Entry<'a, Id> {
    /// Of attributes of transactions without white space around it, as CometBFT sees it.
    pub(super) value: &'a [u8],
    pub(super) height: Height,
    /// What the attribute is of.
    pub(super) id: Id,
    /// Tells events of the same apart; 0 for what is no event.
    pub(super) event: u32,
}

/// An index of attributes.
pub(super) trait Index {
    /// What has attributes.
    type Id: Ord;
    /// The attribute that everything has.
    const HEIGHT_KEY: &'static str;

    /// Visits an attribute's values until `visit` breaks. Of the height's, [`Values::One`] bounds
    /// the heights alone.
    fn visit(
        &self,
        tag: &str,
        values: &Values<'_>,
        visit: impl FnMut(Entry<'_, Self::Id>) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;
}

/// Transactions by place: one that is in two blocks has events in each, which no two conditions may
/// meet together. Its hash is behind it.
pub(super) struct Txs<'a>(pub(super) &'a Store);

impl Index for Txs<'_> {
    type Id = (TxLocation, Hash);
    const HEIGHT_KEY: &'static str = TX_HEIGHT_KEY;

    fn visit(
        &self,
        tag: &str,
        values: &Values<'_>,
        mut visit: impl FnMut(Entry<'_, Self::Id>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if tag != Self::HEIGHT_KEY {
            return self.0.visit_tx_attributes(tag, values, |attribute| {
                visit(Entry {
                    value: attribute.value.trim_ascii(),
                    height: attribute.place.height,
                    id: (attribute.place, attribute.hash),
                    event: attribute.event,
                })
            });
        }
        let heights = match values {
            Values::All => Height::ZERO..=Height::MAX,
            Values::One(_, heights) => heights.clone(),
        };
        self.0.visit_txs(&heights, |place, hash| {
            let value = place.height.to_string();
            if matches!(values, Values::One(wanted, _) if !wanted.is_empty() && *wanted != value.as_bytes())
            {
                return ControlFlow::Continue(());
            }
            visit(Entry {
                value: value.as_bytes(),
                height: place.height,
                id: (place, hash),
                event: 0,
            })
        })
    }
}

/// Blocks by height.
pub(super) struct Blocks<'a>(pub(super) &'a Store);

impl Index for Blocks<'_> {
    type Id = Height;
    const HEIGHT_KEY: &'static str = BLOCK_HEIGHT_KEY;

    fn visit(
        &self,
        tag: &str,
        values: &Values<'_>,
        mut visit: impl FnMut(Entry<'_, Height>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        // Of the height alone there are no entries: searches for it are answered without a walk.
        if tag == Self::HEIGHT_KEY {
            return Ok(());
        }
        self.0.visit_block_attributes(tag, values, |attribute| {
            visit(Entry {
                value: attribute.value,
                height: attribute.height,
                id: attribute.height,
                event: attribute.event,
            })
        })
    }
}
