use std::sync::Arc;

use perihelion_certify::{History, HistoryError};
use perihelion_store::{Store, StoreError};
use perihelion_types::{Evidence, Header, Height, SignedHeader, ValidatorSet};

/// The chain up to a height, as the store has it: what evidence is judged by. The store may hold
/// blocks above, which do not count.
#[derive(Clone, Copy)]
pub struct StoreHistory<'a> {
    store: &'a Store,
    height: Height,
}

impl<'a> StoreHistory<'a> {
    /// The chain up to `height`, inclusive: the state's.
    #[must_use]
    pub const fn new(store: &'a Store, height: Height) -> Self {
        Self { store, height }
    }
}

impl History for StoreHistory<'_> {
    fn header(&self, height: Height) -> Result<Option<Header>, HistoryError> {
        if height > self.height {
            return Ok(None);
        }
        self.store
            .load_header(height)
            .map_err(|error| unreadable("the header", height, &error))
    }

    /// The commit for the last height is in no block yet.
    fn signed_header(&self, height: Height) -> Result<Option<SignedHeader>, HistoryError> {
        if height >= self.height {
            return Ok(None);
        }
        let Some(header) = self.header(height)? else {
            return Ok(None);
        };
        let commit = self
            .store
            .load_commit(height)
            .map_err(|error| unreadable("the commit", height, &error))?;
        Ok(commit.map(|commit| SignedHeader { header, commit }))
    }

    fn validators(&self, height: Height) -> Result<Option<Arc<ValidatorSet>>, HistoryError> {
        let set = self
            .store
            .load_validators(height)
            .map_err(|error| unreadable("the validators", height, &error))?;
        Ok(set.map(Arc::new))
    }

    fn is_committed(&self, evidence: &Evidence) -> Result<bool, HistoryError> {
        let height = evidence.height();
        self.store
            .is_evidence_committed(height, &evidence.hash())
            .map_err(|error| unreadable("committed evidence", height, &error))
    }
}

fn unreadable(what: &'static str, height: Height, error: &StoreError) -> HistoryError {
    HistoryError {
        what,
        height,
        reason: error.to_string(),
    }
}
