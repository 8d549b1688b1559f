//! Real signatures, each verified once for all nodes of a simulation.

use std::{collections::HashMap, sync::Mutex};

use perihelion_consensus::Verify;
use perihelion_types::{Hash, PublicKey};

#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<HashMap<Hash, bool>>);

impl Verify for Memo {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let address = key.address();
        let text = [&address.as_bytes()[..], signature, message].concat();
        let name = Hash::of(&text);
        let mut known = self.0.lock().unwrap();
        *known
            .entry(name)
            .or_insert_with(|| key.verify(message, signature).is_ok())
    }
}
