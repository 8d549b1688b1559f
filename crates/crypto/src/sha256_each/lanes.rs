//! Sixteen messages at once, one in each 32-bit lane of AVX-512's registers.

use core::arch::x86_64::{
    __m512i, _mm_set_epi64x, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_mask_add_epi32,
    _mm512_mask_loadu_epi8, _mm512_mask_mov_epi8, _mm512_mask_set1_epi64, _mm512_maskz_loadu_epi8,
    _mm512_ror_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_srli_epi32, _mm512_ternarylogic_epi32,
};

use sha2::block_api::compress256;

use super::SHA256_GROUP as LANES;
use crate::{
    hash::INITIAL,
    registers::{bytes, transpose_words},
};

/// With fewer messages left, the processor's own instructions for SHA-256 are as fast one by one.
const WORTHWHILE: usize = 8;

/// FIPS 180-4, section 4.2.2.
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Hashes at most [`LANES`] messages, each with `prefix` before it. `false` where the processor
/// cannot, or one by one is as good.
#[allow(unsafe_code, reason = "the compiler does not know the processor")]
pub(super) fn hash(prefix: &[u8], messages: &[&[u8]], hashes: &mut [[u8; 32]]) -> bool {
    if messages.len() < WORTHWHILE
        || !is_x86_feature_detected!("avx512f")
        || !is_x86_feature_detected!("avx512bw")
    {
        return false;
    }
    // SAFETY: the processor has what the function needs, as was just asked.
    unsafe { hash_at_once(prefix, messages, hashes) };
    true
}

/// A message, its prefix before it and the padding behind it, in blocks.
#[derive(Clone, Copy)]
struct Padded<'a> {
    prefix: &'a [u8],
    message: &'a [u8],
    blocks: usize,
}

impl<'a> Padded<'a> {
    const NONE: Self = Self {
        prefix: &[],
        message: &[],
        blocks: 0,
    };

    fn new(prefix: &'a [u8], message: &'a [u8]) -> Self {
        Self {
            prefix,
            message,
            blocks: (prefix.len() + message.len() + 9).div_ceil(64),
        }
    }

    /// A block, with what belongs to it of prefix and padding; zeros where there are no more.
    ///
    /// It is put together in a register: bytes that were just written are slow to read as one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    #[allow(unsafe_code, reason = "no safe load leaves bytes out")]
    fn block(&self, block: usize) -> __m512i {
        let mut bytes = _mm512_setzero_si512();
        if block >= self.blocks {
            return bytes;
        }
        let start = 64 * block;
        let all = self.prefix.len() + self.message.len();
        let prefix = first_bits(self.prefix.len().saturating_sub(start));
        let message = first_bits(all.saturating_sub(start)) & !prefix;
        // A load of no byte at all would take long where its address is none.
        if message != 0 {
            let at = self.message.as_ptr().wrapping_add(start);
            let at = at.wrapping_sub(self.prefix.len());
            // SAFETY: byte `i` of the block is byte `start + i - prefix.len()` of the message where
            // `start + i` is not below the prefix's length but below that of both: the bits that
            // are set. No other byte is read.
            bytes = unsafe { _mm512_maskz_loadu_epi8(message, at.cast()) };
        }
        if prefix != 0 {
            // SAFETY: it is shorter than a block, so this is the first one, and as many bits are
            // set as it has bytes. No other byte is read.
            bytes = unsafe { _mm512_mask_loadu_epi8(bytes, prefix, self.prefix.as_ptr().cast()) };
        }
        if all / 64 == block {
            bytes = _mm512_mask_mov_epi8(bytes, 1 << (all % 64), _mm512_set1_epi8(i8::MIN));
        }
        if block + 1 == self.blocks {
            bytes = _mm512_mask_set1_epi64(bytes, 1 << 7, (all as u64 * 8).to_be().cast_signed());
        }
        bytes
    }
}

/// A mask with the bits below `count` set, all where it has not so many.
fn first_bits(count: usize) -> u64 {
    if count < 64 {
        (1 << count) - 1
    } else {
        u64::MAX
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn hash_at_once(prefix: &[u8], messages: &[&[u8]], hashes: &mut [[u8; 32]]) {
    let mut lanes = [Padded::NONE; LANES];
    for (lane, message) in lanes.iter_mut().zip(messages) {
        *lane = Padded::new(prefix, message);
    }
    // As long as enough of them have blocks left.
    let mut lengths = lanes.map(|lane| lane.blocks);
    lengths.sort_unstable();
    let together = lengths[LANES - WORTHWHILE];

    let mut state = INITIAL.map(|word| _mm512_set1_epi32(word.cast_signed()));
    let mut rows = [_mm512_setzero_si512(); LANES];
    for block in 0..together {
        let mut live = 0;
        for (index, (lane, row)) in lanes.iter().zip(&mut rows).enumerate() {
            live |= u16::from(block < lane.blocks) << index;
            *row = lane.block(block);
        }
        compress(&mut state, words(&rows), live);
    }
    rows[..8].copy_from_slice(&state);
    let states = transpose_words(&rows);
    for ((lane, state), hash) in lanes.iter().zip(states).zip(hashes) {
        let [mut state, _] = halves(state);
        for block in together..lane.blocks {
            compress256(&mut state, &[bytes(lane.block(block))]);
        }
        *hash = crate::hash::bytes_of(state);
    }
}

/// The first eight words of a register, and the others.
#[allow(unsafe_code, reason = "the safe ways go lane by lane")]
fn halves(register: __m512i) -> [[u32; 8]; 2] {
    // SAFETY: both have 64 bytes, of which any content is valid.
    unsafe { std::mem::transmute::<__m512i, [[u32; 8]; 2]>(register) }
}

/// A block of each lane as words: register `i` holds word `i` of all of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(blocks: &[__m512i; LANES]) -> [__m512i; 16] {
    let big_endian =
        _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203));
    let mut rows = *blocks;
    for row in &mut rows {
        *row = _mm512_shuffle_epi8(*row, big_endian);
    }
    transpose_words(&rows)
}

/// Compresses a block of each lane whose bit is set in `live`, given as [`words`] (FIPS 180-4,
/// section 6.2.2).
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut [__m512i; 8], mut w: [__m512i; 16], live: u16) {
    // Truth tables of three bits: exclusive or, choice, majority.
    const XOR: i32 = 0x96;
    const CHOICE: i32 = 0xca;
    const MAJORITY: i32 = 0xe8;
    let mut s = *state;
    macro_rules! sum {
        ($x:expr, $a:literal $b:literal $c:literal) => {
            _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<$a>($x),
                _mm512_ror_epi32::<$b>($x),
                _mm512_ror_epi32::<$c>($x),
            )
        };
        ($x:expr, $a:literal $b:literal shifted $c:literal) => {
            _mm512_ternarylogic_epi32::<XOR>(
                _mm512_ror_epi32::<$a>($x),
                _mm512_ror_epi32::<$b>($x),
                _mm512_srli_epi32::<$c>($x),
            )
        };
    }
    macro_rules! add {
        ($first:expr $(, $more:expr)+) => {{
            let sum = $first;
            $(let sum = _mm512_add_epi32(sum, $more);)+
            sum
        }};
    }
    macro_rules! round {
        ($k:ident[$i:literal], $a:literal $b:literal $c:literal $d:literal
         $e:literal $f:literal $g:literal $h:literal) => {
            let k = _mm512_set1_epi32($k[$i].cast_signed());
            let choice = _mm512_ternarylogic_epi32::<CHOICE>(s[$e], s[$f], s[$g]);
            let t = add!(w[$i], k, s[$h], choice, sum!(s[$e], 6 11 25));
            let majority = _mm512_ternarylogic_epi32::<MAJORITY>(s[$a], s[$b], s[$c]);
            s[$d] = add!(s[$d], t);
            s[$h] = add!(majority, sum!(s[$a], 2 13 22), t);
        };
    }
    macro_rules! eight_rounds {
        ($k:ident, $i0:literal $i1:literal $i2:literal $i3:literal
         $i4:literal $i5:literal $i6:literal $i7:literal) => {
            round!($k[$i0], 0 1 2 3 4 5 6 7);
            round!($k[$i1], 7 0 1 2 3 4 5 6);
            round!($k[$i2], 6 7 0 1 2 3 4 5);
            round!($k[$i3], 5 6 7 0 1 2 3 4);
            round!($k[$i4], 4 5 6 7 0 1 2 3);
            round!($k[$i5], 3 4 5 6 7 0 1 2);
            round!($k[$i6], 2 3 4 5 6 7 0 1);
            round!($k[$i7], 1 2 3 4 5 6 7 0);
        };
    }
    // Registers have no numbers that a loop could count: each step is written out.
    macro_rules! expand {
        ($($i:literal: $near:literal $middle:literal $far:literal,)+) => {$(
            let sums = add!(sum!(w[$near], 7 18 shifted 3), sum!(w[$far], 17 19 shifted 10));
            w[$i] = add!(w[$i], w[$middle], sums);
        )+};
    }
    for (turn, k) in K.as_chunks::<16>().0.iter().enumerate() {
        if turn > 0 {
            expand!(
                0: 1 9 14, 1: 2 10 15, 2: 3 11 0, 3: 4 12 1,
                4: 5 13 2, 5: 6 14 3, 6: 7 15 4, 7: 8 0 5,
                8: 9 1 6, 9: 10 2 7, 10: 11 3 8, 11: 12 4 9,
                12: 13 5 10, 13: 14 6 11, 14: 15 7 12, 15: 0 8 13,
            );
        }
        eight_rounds!(k, 0 1 2 3 4 5 6 7);
        eight_rounds!(k, 8 9 10 11 12 13 14 15);
    }
    for (kept, new) in state.iter_mut().zip(s) {
        *kept = _mm512_mask_add_epi32(*kept, live, *kept, new);
    }
}
