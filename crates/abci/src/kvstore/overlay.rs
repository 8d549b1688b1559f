use std::{collections::BTreeMap, sync::Arc};

use crate::{AppStore, AppStoreError, AppWrite, KeyValue};

type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

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
            Some(value) => Ok(value.clone()),
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
                    Some(value) => found.insert(key.clone(), value.clone()),
                    None => found.remove(key),
                };
            }
        }
        Ok(found.into_iter().collect())
    }

    pub(super) fn set(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.pending.insert(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.pending.insert(key, None);
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
