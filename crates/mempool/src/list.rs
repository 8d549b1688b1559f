//! The transactions in the order in which they came.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::{Bound, RangeInclusive},
};

use bytes::Bytes;
use perihelion_types::{Height, PeerId};

use crate::{TxKey, wire};

/// A transaction that waits.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: TxKey,
    /// The message that passes it on; the transaction is a part of it.
    message: Bytes,
    pub(crate) tx: Bytes,
    /// The last block when it was accepted.
    height: Height,
    pub(crate) gas_wanted: i64,
    /// Peers that sent it, as long as they are connected.
    senders: HashSet<PeerId>,
}

/// What is to be passed on to a peer.
#[derive(Debug)]
pub(crate) struct Next {
    /// Its place in the order.
    pub(crate) place: u64,
    pub(crate) message: Bytes,
    /// The last block when it was accepted.
    pub(crate) height: Height,
    /// Whether that peer sent it itself.
    pub(crate) from_peer: bool,
    /// Whether a peer sent it, and no client alone.
    pub(crate) is_relayed: bool,
}

/// Transactions by their place, which is counted up and never used again.
#[derive(Debug, Default)]
pub(crate) struct List {
    entries: BTreeMap<u64, Entry>,
    places: HashMap<TxKey, u64>,
    bytes: u64,
    last_place: u64,
    /// Places of those that there was no time to check again behind the last block.
    unchecked: Option<RangeInclusive<u64>>,
}

impl List {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all transactions.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn has(&self, key: &TxKey) -> bool {
        self.places.contains_key(key)
    }

    /// Adds one that is not there yet.
    pub(crate) fn push(
        &mut self,
        key: TxKey,
        tx: &Bytes,
        height: Height,
        gas_wanted: i64,
        sender: Option<PeerId>,
    ) {
        let (message, tx) = wire::encode(tx);
        self.last_place += 1;
        self.bytes += tx.len() as u64;
        self.places.insert(key, self.last_place);
        let entry = Entry {
            key,
            message,
            tx,
            height,
            gas_wanted,
            senders: sender.into_iter().collect(),
        };
        self.entries.insert(self.last_place, entry);
    }

    /// Removes one; whether it was there.
    pub(crate) fn remove(&mut self, key: &TxKey) -> bool {
        let Some(place) = self.places.remove(key) else {
            return false;
        };
        if let Some(entry) = self.entries.remove(&place) {
            self.bytes -= entry.tx.len() as u64;
        }
        true
    }

    /// Notes that a peer has sent one that is there.
    pub(crate) fn add_sender(&mut self, key: &TxKey, sender: PeerId) {
        if let Some(entry) = self
            .places
            .get(key)
            .and_then(|place| self.entries.get_mut(place))
        {
            entry.senders.insert(sender);
        }
    }

    /// Forgets what a peer has sent: it is gone.
    pub(crate) fn remove_sender(&mut self, sender: &PeerId) {
        for entry in self.entries.values_mut() {
            entry.senders.remove(sender);
        }
    }

    /// Of these, in order, the first that is there and all behind it were not checked again behind the
    /// last block; what comes later was.
    pub(crate) fn leave_unchecked<'a>(&mut self, left: impl IntoIterator<Item = &'a TxKey>) {
        let place = left.into_iter().find_map(|key| self.places.get(key));
        self.unchecked = place.map(|place| *place..=self.last_place);
    }

    /// Those in front of the first one that was not checked again: order is kept.
    pub(crate) fn checked(&self) -> impl Iterator<Item = &Entry> {
        let is_checked =
            |place: &u64| !self.unchecked.as_ref().is_some_and(|it| it.contains(place));
        let checked = self
            .entries
            .iter()
            .take_while(move |(place, _)| is_checked(place));
        checked.map(|(_, entry)| entry)
    }

    /// The first one, where it was not checked again and so nothing may be proposed.
    pub(crate) fn first_left(&self) -> Option<&Entry> {
        let (place, entry) = self.entries.first_key_value()?;
        let left = self.unchecked.as_ref()?;
        left.contains(place).then_some(entry)
    }

    /// The first one was checked again.
    pub(crate) fn first_checked(&mut self) {
        if let Some((place, left)) = self.entries.keys().next().zip(self.unchecked.as_ref()) {
            self.unchecked = Some(place + 1..=*left.end()).filter(|left| !left.is_empty());
        }
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The first one behind a place that may be passed on: peers disconnect for an empty one.
    pub(crate) fn next(&self, place: u64, peer: &PeerId) -> Option<Next> {
        let behind = (Bound::Excluded(place), Bound::Unbounded);
        let (place, entry) = self
            .entries
            .range(behind)
            .find(|(_, entry)| !entry.tx.is_empty())?;
        Some(Next {
            place: *place,
            message: entry.message.clone(),
            height: entry.height,
            from_peer: entry.senders.contains(peer),
            is_relayed: !entry.senders.is_empty(),
        })
    }

    /// Removes all. Places go on from where they were.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.places.clear();
        self.bytes = 0;
    }
}
