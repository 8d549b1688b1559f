//! AVX-512's registers: their bytes, and rows of them made columns.

use core::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_shuffle_i32x4, _mm512_shuffle_i64x2, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Makes rows of words columns: words of two rows are paired, pairs of two pairs, then quarters.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_words(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut twos = *rows;
    for i in 0..8 {
        twos[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        twos[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = twos;
    for i in (0..16).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(twos[i], twos[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(twos[i], twos[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(twos[i + 1], twos[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(twos[i + 1], twos[i + 3]);
    }
    let mut columns = fours;
    for i in 0..4 {
        let a = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0x88);
        let b = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0x88);
        let c = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0xdd);
        let d = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0xdd);
        columns[i] = _mm512_shuffle_i32x4(a, b, 0x88);
        columns[i + 4] = _mm512_shuffle_i32x4(c, d, 0x88);
        columns[i + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
        columns[i + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
    columns
}

/// Makes rows of longs (64 bits) columns: longs of two rows are paired, then quarters.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose_longs(rows: &[__m512i; 8]) -> [__m512i; 8] {
    let mut twos = *rows;
    for i in (0..8).step_by(2) {
        twos[i] = _mm512_unpacklo_epi64(rows[i], rows[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi64(rows[i], rows[i + 1]);
    }
    let mut columns = twos;
    for i in 0..2 {
        let a = _mm512_shuffle_i64x2(twos[i], twos[i + 2], 0x88);
        let b = _mm512_shuffle_i64x2(twos[i + 4], twos[i + 6], 0x88);
        let c = _mm512_shuffle_i64x2(twos[i], twos[i + 2], 0xdd);
        let d = _mm512_shuffle_i64x2(twos[i + 4], twos[i + 6], 0xdd);
        columns[i] = _mm512_shuffle_i64x2(a, b, 0x88);
        columns[i + 2] = _mm512_shuffle_i64x2(c, d, 0x88);
        columns[i + 4] = _mm512_shuffle_i64x2(a, b, 0xdd);
        columns[i + 6] = _mm512_shuffle_i64x2(c, d, 0xdd);
    }
    columns
}

/// The register with these bytes.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "no safe function loads bytes")]
pub(crate) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: it reads 64 bytes, anywhere.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The register's bytes.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code, reason = "no safe function stores bytes")]
pub(crate) fn bytes(register: __m512i) -> [u8; 64] {
    let mut bytes = [0; 64];
    // SAFETY: it writes 64 bytes, anywhere.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), register) };
    bytes
}
