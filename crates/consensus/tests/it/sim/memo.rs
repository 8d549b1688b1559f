//! Real signatures, each verified once for all nodes of a simulation, and in most of the runs not
//! even once: whoever signs knows that the signature holds.

use std::{collections::HashMap, sync::Mutex};

use perihelion_consensus::{Message, Verify};
use perihelion_types::{Hash, PublicKey};

use crate::chain::CHAIN_ID;

#[derive(Debug)]
pub(crate) struct Memo {
    known: Mutex<HashMap<Hash, bool>>,
    /// Whether signatures that were just made are taken for good.
    trusts: bool,
}

impl Memo {
    pub(crate) fn new(trusts: bool) -> Self {
        Self {
            known: Mutex::default(),
            trusts,
        }
    }

    /// `key` has just made the signatures of `message`.
    pub(crate) fn made(&self, key: &PublicKey, message: &Message) {
        match message {
            Message::Vote(vote) => {
                self.good(key, &vote.sign_bytes(CHAIN_ID), &vote.signature);
                if !vote.extension_signature.is_empty() {
                    let message = vote.extension_sign_bytes(CHAIN_ID);
                    self.good(key, &message, &vote.extension_signature);
                }
            }
            Message::Proposal(proposal) => {
                self.good(key, &proposal.sign_bytes(CHAIN_ID), &proposal.signature);
            }
            Message::Part { .. } => {}
        }
    }

    fn good(&self, key: &PublicKey, message: &[u8], signature: &[u8]) {
        if self.trusts {
            let mut known = self.known.lock().unwrap();
            known.insert(name(key, message, signature), true);
        }
    }
}

impl Verify for Memo {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let mut known = self.known.lock().unwrap();
        *known
            .entry(name(key, message, signature))
            .or_insert_with(|| key.verify(message, signature).is_ok())
    }
}

fn name(key: &PublicKey, message: &[u8], signature: &[u8]) -> Hash {
    let key = match key {
        PublicKey::Ed25519(bytes) => &bytes[..],
        _ => panic!("the simulation has one type of key"),
    };
    Hash::of(&[key, signature, message].concat())
}
