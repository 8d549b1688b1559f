use std::sync::{Mutex, MutexGuard, PoisonError};

use perihelion_consensus::Verify;
use perihelion_types::PublicKey;

/// Signatures that are remembered: those of one vote and of its extension, which are looked at
/// before the vote is logged and again when it is taken.
const REMEMBERED: usize = 2;

/// Verifies each signature once, though it is asked for twice in a row.
#[derive(Debug, Default)]
pub(super) struct RememberLast {
    last: Mutex<Vec<Verdict>>,
}

#[derive(Debug)]
struct Verdict {
    key: PublicKey,
    message: Vec<u8>,
    signature: Vec<u8>,
    holds: bool,
}

impl Verify for RememberLast {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        let known = self.lock().iter().find_map(|verdict| {
            let is_same =
                verdict.signature == signature && verdict.message == message && verdict.key == *key;
            is_same.then_some(verdict.holds)
        });
        if let Some(holds) = known {
            return holds;
        }
        let holds = key.verify(message, signature).is_ok();
        let mut last = self.lock();
        if last.len() >= REMEMBERED {
            last.remove(0);
        }
        last.push(Verdict {
            key: key.clone(),
            message: message.to_vec(),
            signature: signature.to_vec(),
            holds,
        });
        holds
    }
}

impl RememberLast {
    fn lock(&self) -> MutexGuard<'_, Vec<Verdict>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use perihelion_crypto::PrivateKey;

    use super::*;

    #[test]
    fn verdicts_are_those_of_the_key_whatever_was_asked_before() {
        let key = PrivateKey::ed25519_from_secret(b"one");
        let other = PrivateKey::ed25519_from_secret(b"two");
        let verify = RememberLast::default();
        let good = key.sign(b"message");
        for _ in 0..3 {
            assert!(verify.verify(&key.public_key(), b"message", &good));
            assert!(!verify.verify(&key.public_key(), b"another", &good));
            assert!(!verify.verify(&other.public_key(), b"message", &good));
            assert!(!verify.verify(&key.public_key(), b"message", &other.sign(b"message")));
        }
        assert_eq!(verify.lock().len(), REMEMBERED);
    }
}
