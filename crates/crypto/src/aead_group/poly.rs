//! Poly1305 of eight messages, one in each 64-bit lane of AVX-512's registers (RFC 8439,
//! section 2.5).
//!
//! A number below 2^130 is three limbs of 44, 44 and 42 bits. Limbs may be larger between steps, as
//! far as their functions say; the processor multiplies 52 bits by 52 and adds the low or the high
//! 52 bits of that.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmplt_epu64_mask, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_mask_add_epi64, _mm512_mask_mov_epi64, _mm512_or_si512,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srli_epi64,
    _mm512_test_epi64_mask,
};

use super::{
    AEAD_GROUP, AEAD_MESSAGE, AeadGroup,
    lanes::{REST, WHOLE},
};
use crate::registers::{bytes, load, transpose_longs};

const LOW_44: i64 = (1 << 44) - 1;
const LOW_42: i64 = (1 << 42) - 1;

/// A number of each lane, the lowest limb first.
type Limbs = [__m512i; 3];
/// Sixteen bytes of each lane, little endian: the low long and the high one.
type Longs = [__m512i; 2];

/// The one-time keys of eight messages.
pub(super) struct Poly {
    r: Factor,
    /// The square of `r`: two blocks are taken in at once.
    square: Factor,
    s: Longs,
}

impl Poly {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn new([low, high]: Longs, s: Longs) -> Self {
        let low = and(low, _mm512_set1_epi64(0x0fff_fffc_0fff_ffff));
        let high = and(high, _mm512_set1_epi64(0x0fff_fffc_0fff_fffc));
        let limbs = limbs([low, high]);
        let r = Factor::new(limbs);
        let square = Factor::new(Sums::default().add(limbs, &r).reduce());
        Self { r, square, s }
    }

    /// The tags of messages that are sealed: over their bytes, zeros up to a block, and their
    /// length behind that of nothing (section 2.8).
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn tags(&self, group: &AeadGroup) -> [[u8; 16]; AEAD_GROUP] {
        let zero = _mm512_setzero_si512();
        let mut h = [zero; 3];
        for at in 0..WHOLE {
            let rows = group
                .each_ref()
                .map(|sealed| load(&sealed.as_chunks().0[at]));
            let [a, b, c, d, e, f, g, i] = transpose_longs(&rows);
            h = self.take(h, [a, b], [c, d]);
            h = self.take(h, [e, f], [g, i]);
        }
        let mut rests = [0; 64];
        for (rest, sealed) in rests.as_chunks_mut::<8>().0.iter_mut().zip(group) {
            rest[..REST].copy_from_slice(&sealed[64 * WHOLE..AEAD_MESSAGE]);
        }
        let length = _mm512_set1_epi64(AEAD_MESSAGE as i64);
        h = self.take(h, [load(&rests), zero], [zero, length]);
        self.finish(h)
    }

    /// Takes two blocks in: `(h + first) * r^2 + second * r`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn take(&self, mut h: Limbs, first: Longs, second: Longs) -> Limbs {
        for (limb, more) in h.iter_mut().zip(block(first)) {
            *limb = add(*limb, more);
        }
        let second = Sums::default().add(block(second), &self.r);
        second.add(h, &self.square).reduce()
    }

    /// Reduces fully, and adds `s` modulo 2^128.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn finish(&self, h: Limbs) -> [[u8; 16]; AEAD_GROUP] {
        let low_44 = _mm512_set1_epi64(LOW_44);
        // The first time leaves less than 2^130 + 20, the second less than 2^130.
        let [h0, h1, h2] = fold(fold(h));
        // Above 2^130 with five more: not less than 2^130 - 5, which is taken off.
        let g0 = add(h0, _mm512_set1_epi64(5));
        let g1 = add(h1, _mm512_srli_epi64::<44>(g0));
        let g2 = add(h2, _mm512_srli_epi64::<44>(g1));
        let over = _mm512_test_epi64_mask(g2, _mm512_set1_epi64(1 << 42));
        let pick = |h, g| and(_mm512_mask_mov_epi64(h, over, g), low_44);
        let (h0, h1, h2) = (pick(h0, g0), pick(h1, g1), pick(h2, g2));

        let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
        let low = add(low, self.s[0]);
        let carried = _mm512_cmplt_epu64_mask(low, self.s[0]);
        let high = add(high, self.s[1]);
        let high = _mm512_mask_add_epi64(high, carried, high, _mm512_set1_epi64(1));

        let (lows, highs) = (bytes(low), bytes(high));
        let mut tags = [[0; 16]; AEAD_GROUP];
        let halves = lows.as_chunks::<8>().0.iter().zip(highs.as_chunks::<8>().0);
        for (tag, (low, high)) in tags.iter_mut().zip(halves) {
            tag[..8].copy_from_slice(low);
            tag[8..].copy_from_slice(high);
        }
        tags
    }
}

/// What numbers are multiplied by; its limbs are below 2^44 + 2^18.
struct Factor {
    limbs: Limbs,
    /// Twenty times the two upper limbs, for products of 2^132 and more: 2^130 is 5.
    twenties: [__m512i; 2],
}

impl Factor {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn new(limbs: Limbs) -> Self {
        let twenties = [twenty(limbs[1]), twenty(limbs[2])];
        Self { limbs, twenties }
    }
}

/// Sums of the low halves of products for each limb, and of the high halves, 52 bits above.
struct Sums {
    low: Limbs,
    high: Limbs,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn default() -> Self {
        let zero = [_mm512_setzero_si512(); 3];
        let (low, high) = (zero, zero);
        Self { low, high }
    }

    /// Adds a product: at most two, of numbers with limbs below 2^46.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add(mut self, [h0, h1, h2]: Limbs, factor: &Factor) -> Self {
        let [r0, r1, r2] = factor.limbs;
        let [s1, s2] = factor.twenties;
        let terms = [
            [(h0, r0), (h1, s2), (h2, s1)],
            [(h0, r1), (h1, r0), (h2, s2)],
            [(h0, r2), (h1, r1), (h2, r0)],
        ];
        for (limb, terms) in terms.into_iter().enumerate() {
            for (a, b) in terms {
                self.low[limb] = _mm512_madd52lo_epu64(self.low[limb], a, b);
                self.high[limb] = _mm512_madd52hi_epu64(self.high[limb], a, b);
            }
        }
        self
    }

    /// Brings the sums, below 2^55 the low and 2^45 the high ones, to limbs below 2^44, the lowest
    /// below 2^44 + 2^18.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn reduce(self) -> Limbs {
        // A high half is worth 2^8 of the next limb, that of the highest limb 20 * 2^8 of the lowest.
        let up = |high| _mm512_slli_epi64::<8>(high);
        let h0 = add(self.low[0], up(twenty(self.high[2])));
        let h1 = add(self.low[1], up(self.high[0]));
        let h2 = add(self.low[2], up(self.high[1]));
        let low_44 = _mm512_set1_epi64(LOW_44);
        let h1 = add(h1, _mm512_srli_epi64::<44>(h0));
        let h2 = add(h2, _mm512_srli_epi64::<44>(h1));
        let over = _mm512_srli_epi64::<44>(h2);
        let h0 = add(and(h0, low_44), twenty(over));
        [h0, and(h1, low_44), and(h2, low_44)]
    }
}

/// Carries limbs on, and what is above 2^130 to the lowest, times five.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold([h0, h1, h2]: Limbs) -> Limbs {
    let low_44 = _mm512_set1_epi64(LOW_44);
    let h1 = add(h1, _mm512_srli_epi64::<44>(h0));
    let h2 = add(h2, _mm512_srli_epi64::<44>(h1));
    let over = _mm512_srli_epi64::<42>(h2);
    let five = add(over, _mm512_slli_epi64::<2>(over));
    let h2 = and(h2, _mm512_set1_epi64(LOW_42));
    [add(and(h0, low_44), five), and(h1, low_44), h2]
}

/// A block of a message: its bytes and a one behind them.
#[inline]
#[target_feature(enable = "avx512f")]
fn block(longs: Longs) -> Limbs {
    let [m0, m1, m2] = limbs(longs);
    [m0, m1, _mm512_or_si512(m2, _mm512_set1_epi64(1 << 40))]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn limbs([low, high]: Longs) -> Limbs {
    let low_44 = _mm512_set1_epi64(LOW_44);
    let above = _mm512_slli_epi64::<20>(high);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), above);
    [
        and(low, low_44),
        and(middle, low_44),
        _mm512_srli_epi64::<24>(high),
    ]
}

/// Twenty times a number below 2^47.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn twenty(x: __m512i) -> __m512i {
    // Of shifts and a sum the compiler would make two multiplications and more.
    _mm512_madd52lo_epu64(_mm512_setzero_si512(), x, _mm512_set1_epi64(20))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn and(a: __m512i, b: __m512i) -> __m512i {
    _mm512_and_si512(a, b)
}

#[cfg(test)]
mod tests {
    use proptest::{array::uniform8, prelude::*};

    use super::*;
    use crate::aead_group::AEAD_SEALED;

    /// 2^130 - 5, the lowest long first, as all numbers here.
    const P: Number = [u64::MAX - 4, u64::MAX, 3];
    const CLAMP: [u64; 2] = [0x0fff_fffc_0fff_ffff, 0x0fff_fffc_0fff_fffc];

    type Number = [u64; 3];
    /// Two longs for each lane.
    type Keys = [[u64; 2]; AEAD_GROUP];

    enum Work {
        Group(Box<AeadGroup>),
        /// Limbs for each lane.
        Sums([[u64; 3]; AEAD_GROUP]),
    }

    fn sum(a: Number, b: Number) -> Number {
        let mut carry = 0;
        std::array::from_fn(|i| {
            let sum = u128::from(a[i]) + u128::from(b[i]) + carry;
            carry = sum >> 64;
            sum as u64
        })
    }

    /// The sum of numbers below 2^131, reduced.
    fn sum_mod_p(a: Number, b: Number) -> Number {
        let mut number = sum(a, b);
        while number.iter().rev().ge(P.iter().rev()) {
            let mut borrow = false;
            for (long, p) in number.iter_mut().zip(P) {
                let (without, below) = long.overflowing_sub(p);
                let (without, again) = without.overflowing_sub(u64::from(borrow));
                (*long, borrow) = (without, below || again);
            }
        }
        number
    }

    fn product_mod_p(a: Number, r: [u64; 2]) -> Number {
        (0..128).rev().fold([0; 3], |product, bit| {
            let product = sum_mod_p(product, product);
            if r[bit / 64] >> (bit % 64) & 1 == 1 {
                sum_mod_p(product, a)
            } else {
                product
            }
        })
    }

    /// RFC 8439, section 2.5.1, by the letter, over what section 2.8 says.
    fn tag(r: [u64; 2], s: [u64; 2], message: &[u8]) -> [u8; 16] {
        let mut bytes = message.to_vec();
        bytes.resize(message.len().next_multiple_of(16), 0);
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend((message.len() as u64).to_le_bytes());
        let mut h = [0; 3];
        for block in bytes.as_chunks::<16>().0 {
            let block = u128::from_le_bytes(*block);
            let block = [block as u64, (block >> 64) as u64, 1];
            let r = [r[0] & CLAMP[0], r[1] & CLAMP[1]];
            h = product_mod_p(sum_mod_p(h, block), r);
        }
        let [low, high, _] = sum(h, [s[0], s[1], 0]);
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    }

    /// The tags of a group with these keys, and those of sums that come to these limbs.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn tags_at_once(r: &Keys, s: &Keys, of: &Work) -> [[u8; 16]; AEAD_GROUP] {
        let lanes = |of: [u64; AEAD_GROUP]| {
            let mut bytes = [0; 64];
            bytes.copy_from_slice(of.map(u64::to_le_bytes).as_flattened());
            load(&bytes)
        };
        let longs = |keys: &Keys| [0, 1].map(|at| lanes(keys.map(|key| key[at])));
        let poly = Poly::new(longs(r), longs(s));
        match of {
            Work::Group(group) => poly.tags(group),
            Work::Sums(sums) => poly.finish([0, 1, 2].map(|at| lanes(sums.map(|sum| sum[at])))),
        }
    }

    #[allow(unsafe_code, reason = "the compiler does not know the processor")]
    fn check(r: &Keys, s: &Keys, of: &Work, expected: [[u8; 16]; AEAD_GROUP]) {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma") {
            // SAFETY: the processor has what the function needs, as was just asked.
            assert_eq!(unsafe { tags_at_once(r, s, of) }, expected);
        } else {
            #[allow(clippy::print_stderr, reason = "who runs the tests is told")]
            {
                eprintln!("NOT TESTED: this processor does not multiply numbers of 52 bits");
            }
        }
    }

    /// Sums near all multiples of 2^130 - 5 that come, and near those with which the lowest limb
    /// overflows, in limbs as reducing leaves them.
    #[test]
    fn sums_near_the_modulus_are_reduced() {
        const BELOW: u64 = 30;
        let low_44 = LOW_44.cast_unsigned();
        let s = [[u64::MAX - 2, u64::MAX], [0, 0], [7, u64::MAX]];
        let s: Keys = std::array::from_fn(|lane| s[lane % 3]);
        let minus = [BELOW.wrapping_neg(), u64::MAX, u64::MAX];
        let mut times = P;
        for _ in 0..4 {
            let steps = (0..2 * BELOW).flat_map(|step| [step, step + (1 << 44)]);
            for step in steps {
                let number @ [low, high, above] = sum(sum(times, minus), [step, 0, 0]);
                let middle = (low >> 44 | high << 20) & low_44;
                let limbs = [low & low_44, middle, high >> 24 | above << 40];
                let [low, high, _] = sum_mod_p(number, [0; 3]);
                let tags = s.map(|[s_low, s_high]| {
                    let [low, high, _] = sum([low, high, 0], [s_low, s_high, 0]);
                    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
                });
                check(&[[1, 0]; 8], &s, &Work::Sums([limbs; 8]), tags);
                // The lowest limb may have a bit more, of the next one.
                if limbs[0] < 1 << 18 && middle > 0 {
                    let limbs = [limbs[0] + (1 << 44), middle - 1, limbs[2]];
                    check(&[[1, 0]; 8], &s, &Work::Sums([limbs; 8]), tags);
                }
            }
            times = sum(times, P);
        }
    }

    fn long() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), Just(0), Just(1), Just(2), Just(u64::MAX)]
    }

    fn keys() -> impl Strategy<Value = Keys> {
        uniform8([long(), long()])
    }

    proptest! {
        #[test]
        fn tags_are_as_by_the_letter(
            r in keys(),
            s in keys(),
            fills in uniform8(any::<u8>().prop_flat_map(|byte| {
                prop_oneof![Just([0; 4]), Just([u8::MAX; 4]), Just([0, 255, 255, 255]), Just([byte; 4])]
            })),
            starts in uniform8(any::<[u8; 48]>()),
            is_started in any::<u8>(),
        ) {
            let mut group = [[0; AEAD_SEALED]; AEAD_GROUP];
            for (lane, sealed) in group.iter_mut().enumerate() {
                for (at, byte) in sealed.iter_mut().enumerate() {
                    *byte = fills[lane][at % 4];
                }
                if is_started >> lane & 1 == 1 {
                    sealed[..48].copy_from_slice(&starts[lane]);
                }
            }
            let tags = |lane: usize| tag(r[lane], s[lane], &group[lane][..AEAD_MESSAGE]);
            check(&r, &s, &Work::Group(Box::new(group)), std::array::from_fn(tags));
        }
    }
}
