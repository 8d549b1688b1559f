//! ChaCha20 of sixteen blocks, one in each 32-bit lane of AVX-512's registers (RFC 8439,
//! section 2.3): the sixteen whole blocks of a message, or the first and the last of each message.

use core::{
    arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_add_epi64, _mm512_castsi256_si512,
        _mm512_castsi512_si256, _mm512_cvtepi64_epi32, _mm512_cvtepu32_epi64, _mm512_inserti64x4,
        _mm512_mask_set1_epi32, _mm512_or_si512, _mm512_rol_epi32, _mm512_set_epi32,
        _mm512_set_epi64, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512,
        _mm512_slli_epi64, _mm512_srli_epi64, _mm512_xor_si512,
    },
    hint::black_box,
};

use zeroize::Zeroizing;

use super::{AEAD_GROUP, AEAD_MESSAGE, AeadGroup, poly::Poly};
use crate::registers::{bytes, load, transpose_words};

/// Whole blocks of a message.
pub(super) const WHOLE: usize = AEAD_MESSAGE / 64;
/// What is left of a message behind them.
pub(super) const REST: usize = AEAD_MESSAGE % 64;
/// The words that each block's state begins with.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

const _: () = assert!(
    WHOLE == 16 && REST == 4,
    "as many blocks as lanes, and a word"
);

/// Seals all; `false` where that cannot be.
#[allow(unsafe_code, reason = "the compiler does not know the processor")]
pub(super) fn seal(key: &[u8; 32], first: u64, group: &mut AeadGroup) -> bool {
    if !is_available(first) {
        return false;
    }
    // SAFETY: the processor has what the function needs, as was just asked.
    unsafe { seal_at_once(key, first, group) };
    true
}

/// Opens all; `false` where that cannot be.
#[allow(unsafe_code, reason = "the compiler does not know the processor")]
pub(super) fn open(key: &[u8; 32], first: u64, group: &mut AeadGroup) -> bool {
    // SAFETY: the processor has what the function needs, as is asked before.
    is_available(first) && unsafe { open_at_once(key, first, group) }
}

fn is_available(first: u64) -> bool {
    first.checked_add(AEAD_GROUP as u64 - 1).is_some()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512ifma")
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn seal_at_once(key: &[u8; 32], first: u64, group: &mut AeadGroup) {
    let cipher = Cipher::new(key, first);
    let (poly, rests) = cipher.firsts_and_lasts();
    cipher.apply(group, &rests);
    let tags = poly.tags(group);
    for (sealed, tag) in group.iter_mut().zip(tags) {
        sealed[AEAD_MESSAGE..].copy_from_slice(&tag);
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn open_at_once(key: &[u8; 32], first: u64, group: &mut AeadGroup) -> bool {
    let cipher = Cipher::new(key, first);
    let (poly, rests) = cipher.firsts_and_lasts();
    // All bytes are compared, whichever differ, and the compiler is told nothing of why.
    let mut different = 0;
    for (sealed, tag) in group.iter().zip(poly.tags(group)) {
        for (had, made) in sealed[AEAD_MESSAGE..].iter().zip(tag) {
            different |= had ^ made;
        }
    }
    if black_box(different) != 0 {
        return false;
    }
    cipher.apply(group, &rests);
    true
}

/// The key, and the nonce of the first message.
struct Cipher {
    /// The constants and the key.
    words: Zeroizing<[u32; 12]>,
    first: u64,
}

impl Cipher {
    fn new(key: &[u8; 32], first: u64) -> Self {
        let words = Zeroizing::new([0; 12]);
        let mut cipher = Self { words, first };
        cipher.words[..4].copy_from_slice(&CONSTANTS);
        for (word, bytes) in cipher.words[4..].iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        cipher
    }

    /// Sixteen blocks' words: their counters and the halves of their nonces are given.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn blocks(&self, counters: __m512i, low: __m512i, high: __m512i) -> [__m512i; 16] {
        let mut state = [_mm512_setzero_si512(); 16];
        for (lanes, word) in state.iter_mut().zip(self.words.iter()) {
            *lanes = _mm512_set1_epi32(word.cast_signed());
        }
        state[12] = counters;
        state[14] = low;
        state[15] = high;
        rounds(&state)
    }

    /// What each message's first block keys, and what its last block gives for the message's rest.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn firsts_and_lasts(&self) -> (Poly, [[u8; REST]; AEAD_GROUP]) {
        let lanes = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
        let nonces = _mm512_add_epi64(_mm512_set1_epi64(self.first.cast_signed()), lanes);
        let twice = |longs| {
            let words = _mm512_cvtepi64_epi32(longs);
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(words), words)
        };
        let last = const { (WHOLE + 1) as i32 };
        let counters = _mm512_mask_set1_epi32(_mm512_setzero_si512(), 0xff00, last);
        let high = _mm512_srli_epi64::<32>(nonces);
        let words = self.blocks(counters, twice(nonces), twice(high));

        let wide = |word: usize| _mm512_cvtepu32_epi64(_mm512_castsi512_si256(words[word]));
        let long = |at| _mm512_or_si512(wide(at), _mm512_slli_epi64::<32>(wide(at + 1)));
        let poly = Poly::new([long(0), long(2)], [long(4), long(6)]);
        let mut rests = [[0; REST]; AEAD_GROUP];
        let firsts_and_lasts = bytes(words[0]);
        rests.copy_from_slice(&firsts_and_lasts.as_chunks().0[AEAD_GROUP..]);
        (poly, rests)
    }

    /// Adds the key stream to all messages, which encrypts or decrypts them.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn apply(&self, group: &mut AeadGroup, rests: &[[u8; REST]; AEAD_GROUP]) {
        let counters = _mm512_set_epi32(16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1);
        for ((nonce, message), rest) in (self.first..=u64::MAX).zip(group).zip(rests) {
            let low = _mm512_set1_epi32(nonce as i32);
            let high = _mm512_set1_epi32((nonce >> 32) as i32);
            let stream = transpose_words(&self.blocks(counters, low, high));
            let (whole, behind) = message.as_chunks_mut();
            for (block, key) in whole.iter_mut().zip(stream) {
                *block = bytes(_mm512_xor_si512(load(block), key));
            }
            for (byte, key) in behind.iter_mut().zip(rest) {
                *byte ^= key;
            }
        }
    }
}

/// The twenty rounds, and the state that they began with added (RFC 8439, section 2.3.1).
#[inline]
#[target_feature(enable = "avx512f")]
fn rounds(start: &[__m512i; 16]) -> [__m512i; 16] {
    let mut x = *start;
    // Four quarter rounds (section 2.1), of which none waits for another.
    macro_rules! half {
        ($left:literal $right:literal: $($a:literal $b:literal $c:literal $d:literal),+) => {
            $(x[$a] = _mm512_add_epi32(x[$a], x[$b]);)+
            $(x[$d] = _mm512_rol_epi32::<$left>(_mm512_xor_si512(x[$d], x[$a]));)+
            $(x[$c] = _mm512_add_epi32(x[$c], x[$d]);)+
            $(x[$b] = _mm512_rol_epi32::<$right>(_mm512_xor_si512(x[$b], x[$c]));)+
        };
    }
    for _ in 0..10 {
        half!(16 12: 0 4 8 12, 1 5 9 13, 2 6 10 14, 3 7 11 15);
        half!(8 7: 0 4 8 12, 1 5 9 13, 2 6 10 14, 3 7 11 15);
        half!(16 12: 0 5 10 15, 1 6 11 12, 2 7 8 13, 3 4 9 14);
        half!(8 7: 0 5 10 15, 1 6 11 12, 2 7 8 13, 3 4 9 14);
    }
    for (word, start) in x.iter_mut().zip(start) {
        *word = _mm512_add_epi32(*word, *start);
    }
    x
}
