//! ChaCha20-Poly1305 of several messages of one length at once.

#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod poly;

/// Messages that are sealed or opened at once.
pub const AEAD_GROUP: usize = 8;
/// Bytes of each of them.
pub const AEAD_MESSAGE: usize = 1028;
/// Bytes of each of them with its tag.
pub const AEAD_SEALED: usize = AEAD_MESSAGE + 16;

/// Messages, each with its tag behind it.
pub type AeadGroup = [[u8; AEAD_SEALED]; AEAD_GROUP];

/// Encrypts each message in place and writes its tag behind it (RFC 8439, section 2.8, nothing
/// authenticated besides). The nonces are four zero bytes and a counter, little endian: `first` and
/// the seven above it, of which none may ever have been used with this key.
///
/// `false`, with nothing changed, where the processor has not what it takes (AVX-512 with IFMA), or
/// the counter would wrap. The library's way, one by one, gives the same bytes in more than twice
/// the time. The time taken does not depend on the key or on what is sealed.
#[must_use = "nothing is sealed where it is `false`"]
pub fn seal_group(key: &[u8; 32], first: u64, group: &mut AeadGroup) -> bool {
    #[cfg(target_arch = "x86_64")]
    return lanes::seal(key, first, group);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (key, first, group);
        false
    }
}

/// Verifies the tags of all messages, then decrypts them in place; what [`seal_group`] gave.
///
/// `false`, with nothing changed, where the processor cannot, the counter would wrap, or any tag
/// does not fit: which one it is, opening one by one tells.
#[must_use = "nothing is opened where it is `false`"]
pub fn open_group(key: &[u8; 32], first: u64, group: &mut AeadGroup) -> bool {
    #[cfg(target_arch = "x86_64")]
    return lanes::open(key, first, group);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (key, first, group);
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::*;

    fn seal_one_by_one(key: &[u8; 32], first: u64, group: &mut AeadGroup) {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
        for (counter, sealed) in (first..=u64::MAX).zip(group) {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&counter.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let (message, tag) = sealed.split_at_mut(AEAD_MESSAGE);
            let made = key.seal_in_place_separate_tag(nonce, Aad::empty(), message);
            tag.copy_from_slice(made.unwrap().as_ref());
        }
    }

    /// Whether this processor seals groups; says so where not.
    fn is_available() -> bool {
        let is_available = seal_group(&[0; 32], 0, &mut [[0; AEAD_SEALED]; AEAD_GROUP]);
        if !is_available {
            #[allow(clippy::print_stderr, reason = "who runs the tests is told")]
            {
                eprintln!("NOT TESTED: this processor does not seal messages in groups");
            }
        }
        is_available
    }

    fn check(key: &[u8; 32], first: u64, messages: &AeadGroup) {
        let (mut sealed, mut expected) = (*messages, *messages);
        assert!(seal_group(key, first, &mut sealed));
        seal_one_by_one(key, first, &mut expected);
        assert_eq!(sealed, expected);
        assert!(open_group(key, first, &mut sealed));
        for (opened, message) in sealed.iter().zip(messages) {
            assert_eq!(opened[..AEAD_MESSAGE], message[..AEAD_MESSAGE]);
        }
    }

    /// Linux tells what the processor has; where it says so, groups must be sealed.
    #[test]
    fn processors_that_can_do() {
        let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag| told.split_whitespace().any(|word| word == flag);
        if has("avx512f") && has("avx512ifma") {
            assert!(is_available());
        }
    }

    #[test]
    fn nonces_are_counted_in_64_bits_and_never_wrap() {
        let last = u64::MAX - AEAD_GROUP as u64 + 1;
        let half = u64::from(u32::MAX);
        let zeros = [[0; AEAD_SEALED]; AEAD_GROUP];
        if is_available() {
            for first in [0, 1, half - 4, half, half + 1, last] {
                check(&[9; 32], first, &zeros);
            }
        }
        let mut group = zeros;
        for first in [last + 1, u64::MAX] {
            assert!(!seal_group(&[9; 32], first, &mut group));
            assert!(!open_group(&[9; 32], first, &mut group));
        }
        assert_eq!(group, zeros);
    }

    #[test]
    fn nothing_is_opened_where_a_bit_was_flipped() {
        if !is_available() {
            return;
        }
        let mut group = [[5; AEAD_SEALED]; AEAD_GROUP];
        assert!(seal_group(&[9; 32], 7, &mut group));
        for message in 0..AEAD_GROUP {
            for byte in (0..AEAD_SEALED).step_by(3).chain(AEAD_MESSAGE..AEAD_SEALED) {
                let mut bent = group;
                bent[message][byte] ^= 1 << (byte % 8);
                let given = bent;
                assert!(!open_group(&[9; 32], 7, &mut bent), "{message}, {byte}");
                assert_eq!(bent, given);
            }
        }
        // What differs alike in two tags, or twice in one.
        for (message, byte) in [(1, AEAD_MESSAGE), (0, AEAD_SEALED - 1)] {
            let mut bent = group;
            bent[0][AEAD_MESSAGE] ^= 4;
            bent[message][byte] ^= 4;
            assert!(!open_group(&[9; 32], 7, &mut bent), "{message}, {byte}");
        }
        assert!(!open_group(&[9; 32], 8, &mut group));
        assert!(!open_group(&[8; 32], 7, &mut group));
        assert!(open_group(&[9; 32], 7, &mut group));
    }

    proptest! {
        #[test]
        fn a_group_is_sealed_as_one_by_one(
            key in any::<[u8; 32]>(),
            first in 0..=u64::MAX - 7,
            fill in any::<u8>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..2 * AEAD_SEALED * AEAD_GROUP),
        ) {
            let mut messages = [[fill; AEAD_SEALED]; AEAD_GROUP];
            for (to, byte) in messages.as_flattened_mut().iter_mut().zip(bytes) {
                *to = byte;
            }
            if is_available() {
                check(&key, first, &messages);
            }
        }
    }
}
