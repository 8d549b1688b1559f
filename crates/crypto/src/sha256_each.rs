//! SHA-256 of many messages.

#[cfg(target_arch = "x86_64")]
mod lanes;

use crate::sha256_pair;

/// Messages that are hashed at once at most; numbers of them that it divides are hashed best.
pub const SHA256_GROUP: usize = 16;

/// SHA-256 of `prefix` (less than 64 bytes) followed by each of `messages`, into `hashes`.
///
/// Where the processor has AVX-512, sixteen messages are hashed at once, which is more than twice
/// as fast as its instructions for SHA-256, of which each waits for the one before. Messages of
/// about one length gain most; what is left of longer ones is hashed by itself.
///
/// # Panics
/// When there are not as many hashes as messages, or the prefix is too long.
pub fn sha256_each(prefix: &[u8], messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
    assert_eq!(messages.len(), hashes.len(), "a hash for each message");
    assert!(prefix.len() < 64, "a prefix is shorter than a block");
    let groups = messages.chunks(SHA256_GROUP);
    for (messages, hashes) in groups.zip(hashes.chunks_mut(SHA256_GROUP)) {
        #[cfg(target_arch = "x86_64")]
        if lanes::hash(prefix, messages, hashes) {
            continue;
        }
        for (message, hash) in messages.iter().zip(hashes) {
            *hash = sha256_pair(prefix, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn check(prefix: &[u8], messages: &[&[u8]]) {
        let mut hashes = vec![[0; 32]; messages.len()];
        sha256_each(prefix, messages, &mut hashes);
        for (place, (message, hash)) in messages.iter().zip(&hashes).enumerate() {
            let expected = sha256_pair(prefix, message);
            let (count, length) = (messages.len(), message.len());
            assert_eq!(*hash, expected, "{place} of {count}, {length} bytes");
        }
    }

    #[test]
    fn each_message_hashes_as_by_itself() {
        let data: Vec<u8> = (0..3000_u32).map(|i| (i * 7) as u8).collect();
        for prefix in [&[][..], &[1], &[9; 55], &[8; 63]] {
            for length in 0..200 {
                let messages: Vec<_> = (0..16).map(|at| &data[at..at + length]).collect();
                check(prefix, &messages);
            }
            for count in 0..40 {
                let all = (0..count).map(|at| &data[at..at + 64]);
                check(prefix, &all.collect::<Vec<_>>());
                let all = (0..count).map(|at| &data[at..at + at * 977 % 2900]);
                check(prefix, &all.collect::<Vec<_>>());
            }
        }
    }

    /// Messages each in memory of their own, with nothing known before and behind it; and none at
    /// all, whose address is none.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(Vec::new()),
            vec(any::<u8>(), 0..140),
            vec(any::<u8>(), 0..700)
        ]
    }

    proptest! {
        #[test]
        fn any_messages_hash_as_by_themselves(
            prefix in vec(any::<u8>(), 0..64),
            messages in vec(message(), 0..40),
        ) {
            check(&prefix, &messages.iter().map(|message| &message[..]).collect::<Vec<_>>());
        }
    }
}
