//! Evidence that waits for a block. It stands beside the committed evidence, behind all heights.

use bytes::Bytes;
use perihelion_types::{Hash, Height};

use crate::{
    Store, StoreError, Sync,
    columns::{Column, height_key, key_height},
    database::Batch,
};

/// Above the first byte of every height's key.
const PENDING: u8 = 0xff;

/// Evidence that waits for a block, as it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEvidence {
    /// The height of the misbehaviour.
    pub height: Height,
    /// Its hash.
    pub hash: Hash,
    /// The encoded evidence.
    pub bytes: Bytes,
}

impl Store {
    /// Keeps evidence until [`Self::remove_pending_evidence`]; durably, since nobody else may have
    /// it.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn save_pending_evidence(&self, evidence: &PendingEvidence) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let key = key(evidence.height, &evidence.hash);
        batch.put_large(Column::Evidence, key, &evidence.bytes);
        self.db.write(batch, Sync::Yes, evidence.height)
    }

    /// Forgets pieces of evidence, by height and hash.
    ///
    /// # Errors
    /// When the disk fails; the store takes no more writes then.
    pub fn remove_pending_evidence(&self, gone: &[(Height, Hash)]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (height, hash) in gone {
            batch.delete(Column::Evidence, key(*height, hash));
        }
        self.db.write(batch, Sync::No, self.height())
    }

    /// The evidence that waits, by height and hash; at most `limit` pieces.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load_pending_evidence(&self, limit: usize) -> Result<Vec<PendingEvidence>, StoreError> {
        let entries = self.db.prefix(Column::Evidence, &[PENDING], limit)?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, bytes)| {
                let key = key.get(1..)?;
                Some(PendingEvidence {
                    height: key_height(key)?,
                    hash: Hash::try_from(key.get(8..)?).ok()?,
                    bytes: bytes.into(),
                })
            })
            .collect())
    }
}

fn key(height: Height, hash: &Hash) -> Vec<u8> {
    [&[PENDING][..], &height_key(height), hash.as_bytes()].concat()
}
