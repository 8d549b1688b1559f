use ed25519_zebra::batch::{Item, Verifier};

use crate::{PublicKey, key::ed25519_signature};

/// Below this many signatures a failed batch is searched one by one: another batch of so few costs
/// as much as checking each. Larger wastes single checks, smaller wastes set-up of batches.
const SEARCH_SINGLY_BELOW: usize = 24;

/// Verifies many signatures at once, over one commit or many: signatures of one key share that
/// key's share of the work, so a batch over 100 commits of the same validators costs about a fifth
/// of single verification. The verdicts are exactly those of [`PublicKey::verify`] (ZIP-215).
///
/// A batch keeps 128 bytes a signature and no messages.
#[derive(Default)]
pub struct BatchVerifier {
    /// Ed25519 signatures of the right length, with the index of each in the order of adding.
    items: Vec<(usize, Item)>,
    /// Indexes of signatures that were judged when they were added, and do not hold.
    bad: Vec<usize>,
    len: usize,
}

impl BatchVerifier {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `capacity` signatures.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            items: Vec::with_capacity(capacity),
            ..Self::default()
        }
    }

    /// Adds one signature. Ed25519 signatures wait for [`verify`](Self::verify); those of other
    /// key types, which have no batches, are verified at once. A signature of another length than
    /// its key's type has is wrong, and said so by `verify`.
    pub fn push(&mut self, key: &PublicKey, message: impl AsRef<[u8]>, signature: &[u8]) {
        let index = self.len;
        self.len += 1;
        match key {
            PublicKey::Ed25519(bytes) => match ed25519_signature(signature) {
                Some(signature) => {
                    let item = Item::from(((*bytes).into(), signature, message.as_ref()));
                    self.items.push((index, item));
                }
                None => self.bad.push(index),
            },
            PublicKey::Secp256k1(_) | PublicKey::Other(..) => {
                if key.verify(message.as_ref(), signature).is_err() {
                    self.bad.push(index);
                }
            }
        }
    }

    /// How many signatures were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Verifies all.
    ///
    /// When the batch fails it is halved until the wrong signatures are found, so that few wrong
    /// ones among many cost a few times the batch, not a check of each.
    ///
    /// # Errors
    /// The indexes, in the order of adding, of the signatures that do not hold.
    pub fn verify(self) -> Result<(), Vec<usize>> {
        let Self { items, mut bad, .. } = self;
        search(&items, false, &mut bad);
        if bad.is_empty() {
            return Ok(());
        }
        bad.sort_unstable();
        Err(bad)
    }
}

/// Adds the indexes of the wrong signatures among `items` to `bad`. `fails` says that there is one.
fn search(items: &[(usize, Item)], fails: bool, bad: &mut Vec<usize>) {
    if let [(index, item)] = items {
        if item.clone().verify_single().is_err() {
            bad.push(*index);
        }
        return;
    }
    if items.is_empty() || (!fails && holds(items)) {
        return;
    }
    if items.len() < SEARCH_SINGLY_BELOW {
        for one in items {
            search(std::slice::from_ref(one), false, bad);
        }
        return;
    }
    let (left, right) = items.split_at(items.len() / 2);
    let before = bad.len();
    search(left, false, bad);
    // Where the left half holds it is the right one that made the whole fail.
    search(right, bad.len() == before, bad);
}

/// Whether all of `items` hold, by one multi-scalar multiplication.
fn holds(items: &[(usize, Item)]) -> bool {
    let mut batch = Verifier::new();
    for (_, item) in items {
        batch.queue(item.clone());
    }
    batch.verify(rand::rng()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PrivateKey;

    fn batch_of(count: usize, wrong: &[usize]) -> BatchVerifier {
        let keys: Vec<_> = (0..7)
            .map(|key: u8| PrivateKey::ed25519_from_secret(&[key]))
            .collect();
        let mut batch = BatchVerifier::new();
        for index in 0..count {
            let key = &keys[index % keys.len()];
            let message = index.to_be_bytes();
            let mut signature = key.sign(&message).to_vec();
            if wrong.contains(&index) {
                signature[index % 64] ^= 1;
            }
            batch.push(&key.public_key(), message, &signature);
        }
        batch
    }

    #[test]
    fn an_empty_batch_holds() {
        assert!(BatchVerifier::new().is_empty());
        assert_eq!(BatchVerifier::new().verify(), Ok(()));
    }

    #[test]
    fn a_batch_over_shared_keys_holds() {
        for count in [1, 2, 23, 24, 100] {
            let batch = batch_of(count, &[]);
            assert_eq!(batch.len(), count);
            assert_eq!(batch.verify(), Ok(()));
        }
    }

    #[test]
    fn a_failed_batch_names_every_wrong_signature() {
        for (count, wrong) in [
            (1, vec![0]),
            (10, vec![3, 9]),
            (60, vec![0, 29, 30, 59]),
            (100, (0..100).collect()),
        ] {
            assert_eq!(batch_of(count, &wrong).verify(), Err(wrong));
        }
    }

    #[test]
    fn key_types_mix() {
        let ed25519 = PrivateKey::ed25519_from_secret(b"a");
        let secp256k1 = PrivateKey::secp256k1_from_secret(b"b");
        let mut batch = BatchVerifier::new();
        for (key, message) in [
            (&ed25519, "1"),
            (&secp256k1, "2"),
            (&secp256k1, "3"),
            (&ed25519, "4"),
        ] {
            let signed = if message == "3" { "other" } else { message };
            batch.push(&key.public_key(), message, &key.sign(signed.as_bytes()));
        }
        batch.push(&ed25519.public_key(), "5", &[0; 63]);
        assert_eq!(batch.verify(), Err(vec![2, 4]));
    }
}
