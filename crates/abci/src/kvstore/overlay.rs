use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use crate::{AppStore, AppStoreError, AppWrite, KeyValue};

type Changes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// A store with the changes that have not reached it yet: those since they were last taken, and
/// those taken last, which their taker may still be writing. So a read sees every change from the
/// moment it is made, and only the changes of two blocks are in memory.
pub(super) struct Overlay {
    store: Arc<dyn AppStore>,
    pending: Changes,
    taken: Changes,
}

impl Overlay {
    pub(super) fn new(store: Arc<dyn AppStore>) -> Self {
        Self {
            store,
            pending: Changes::new(),
            taken: Changes::new(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, AppStoreError> {
        match self.pending.get(key).or_else(|| self.taken.get(key)) {
            Some(value) => Ok(value.as_ref().map(|value| value.to_vec())),
            None => self.store.get(key),
        }
    }

    /// As [`AppStore::scan_prefix`].
    pub(super) fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, AppStoreError> {
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> =
            self.store.scan_prefix(prefix)?.into_iter().collect();
        for changes in [&self.taken, &self.pending] {
            let changed = changes
                .range(prefix.to_vec()..)
                .take_while(|(key, _)| key.starts_with(prefix));
            for (key, value) in changed {
                match value {
                    Some(value) => found.insert(key.clone(), value.to_vec()),
                    None => found.remove(key),
                };
            }
        }
        Ok(found.into_iter().collect())
    }

    pub(super) fn set(&mut self, key: Vec<u8>, value: Bytes) {
        self.pending.insert(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.pending.insert(key, None);
    }

    /// The pending changes, in the order of their keys, for a store that has them at once.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = AppWrite> {
        std::mem::take(&mut self.pending)
            .into_iter()
            .map(|(key, value)| AppWrite { key, value })
    }

    /// The pending changes, in the order of their keys. Those taken before are in the store now.
    pub(super) fn take(&mut self) -> Vec<AppWrite> {
        self.taken = std::mem::take(&mut self.pending);
        self.taken
            .iter()
            .map(|(key, value)| AppWrite {
                key: key.clone(),
                value: value.clone(),
            })
            .collect()
    }
}
