//! Numbers as CometBFT compares them: integers exactly, whatever their length; all others rounded
//! to 125 bits, as Go's `big.Float` of that precision.

use std::cmp::Ordering;

use num_bigint::BigUint;

/// Bits that a number with a fraction is rounded to.
const PRECISION: u64 = 125;
/// Digits of a number with a fraction at most; one with more is no number. More would let an
/// application's event cost time that grows with the square of its length.
const MAX_DIGITS: usize = 2_048;
/// Powers of ten behind `e` at most, up or down.
const MAX_EXPONENT: i64 = 2_048;

/// A number of a query, or of an attribute that is compared with one.
#[derive(Debug, Clone)]
pub struct Number {
    negative: bool,
    size: Size,
}

/// A number without its sign. Zero is always an integer without digits.
#[derive(Debug, Clone)]
enum Size {
    /// Decimal digits, the first of which is not 0.
    Integer(String),
    /// A mantissa of exactly [`PRECISION`] bits, times a power of 2.
    Rounded { mantissa: u128, exponent: i64 },
}

impl Number {
    /// A number in a query: digits, maybe with a fraction.
    #[must_use]
    pub fn of_argument(text: &str) -> Option<Self> {
        integer(text).or_else(|| rounded(text))
    }

    /// The value of an attribute, as conditions of subscriptions see it: the number that it begins
    /// with. Never negative.
    #[must_use]
    pub fn of_attribute(value: &[u8]) -> Option<Self> {
        let digits = |from: usize| {
            let rest = value.get(from..).unwrap_or_default();
            rest.iter().take_while(|b| b.is_ascii_digit()).count()
        };
        let whole = digits(0);
        if whole == 0 {
            return None;
        }
        let mut end = whole;
        if value.get(whole) == Some(&b'.') {
            let fraction = digits(whole + 1);
            if fraction > 0 {
                end = whole + 1 + fraction;
            }
        }
        let text = std::str::from_utf8(&value[..end]).ok()?;
        if end == value.len() {
            return Self::of_argument(text);
        }
        rounded(text)
    }

    /// The value of an attribute, as ranges of searches see it: all of it is the number, which may
    /// have a sign and an exponent.
    #[must_use]
    pub fn of_indexed(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (negative, size) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let number = Self::of_argument(size)?;
        let negative = negative && !number.is_zero();
        Some(Self { negative, ..number })
    }

    /// A height.
    #[must_use]
    pub fn of_height(height: i64) -> Self {
        Self {
            negative: height < 0,
            size: Size::Integer(digits_of(&height.unsigned_abs().to_string())),
        }
    }

    /// The integer, its fraction cut off; the nearest that there is where it is out of range.
    #[must_use]
    pub fn to_i64(&self) -> i64 {
        let size: i64 = match &self.size {
            Size::Integer(digits) if digits.is_empty() => 0,
            Size::Integer(digits) => digits.parse().unwrap_or(i64::MAX),
            Size::Rounded { mantissa, exponent } => match u32::try_from(-exponent) {
                Ok(shift) => {
                    let whole = mantissa.checked_shr(shift).unwrap_or(0);
                    i64::try_from(whole).unwrap_or(i64::MAX)
                }
                Err(_) if *exponent < 0 => 0,
                Err(_) => i64::MAX,
            },
        };
        if self.negative { -size } else { size }
    }

    fn is_zero(&self) -> bool {
        matches!(&self.size, Size::Integer(digits) if digits.is_empty())
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.size.compare(&other.size),
            (true, true) => other.size.compare(&self.size),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Size {
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (
                Self::Rounded {
                    mantissa: a,
                    exponent: a_exponent,
                },
                Self::Rounded {
                    mantissa: b,
                    exponent: b_exponent,
                },
            ) => a_exponent.cmp(b_exponent).then_with(|| a.cmp(b)),
            (Self::Integer(digits), Self::Rounded { mantissa, exponent }) => {
                with_rounded(digits, *mantissa, *exponent)
            }
            (Self::Rounded { mantissa, exponent }, Self::Integer(digits)) => {
                with_rounded(digits, *mantissa, *exponent).reverse()
            }
        }
    }
}

/// Compares an integer with a number that has been rounded.
fn with_rounded(digits: &str, mantissa: u128, exponent: i64) -> Ordering {
    let mantissa = BigUint::from(mantissa);
    let (whole, has_fraction) = if exponent >= 0 {
        (mantissa << exponent.unsigned_abs(), false)
    } else {
        let shift = exponent.unsigned_abs();
        let whole = &mantissa >> shift;
        let has_fraction = (&whole << shift) != mantissa;
        (whole, has_fraction)
    };
    let whole = digits_of(&whole.to_string());
    let by_whole = digits.len().cmp(&whole.len());
    let by_whole = by_whole.then_with(|| digits.cmp(whole.as_str()));
    if has_fraction {
        by_whole.then(Ordering::Less)
    } else {
        by_whole
    }
}

/// Digits without leading zeros.
fn digits_of(text: &str) -> String {
    text.trim_start_matches('0').to_owned()
}

/// Nothing but digits.
fn integer(text: &str) -> Option<Number> {
    let is_integer = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_integer.then(|| Number {
        negative: false,
        size: Size::Integer(digits_of(text)),
    })
}

/// Digits, a fraction, an exponent; rounded.
fn rounded(text: &str) -> Option<Number> {
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = String::with_capacity(mantissa.len());
    digits.push_str(whole);
    digits.push_str(fraction);
    let sound = !digits.is_empty()
        && digits.len() <= MAX_DIGITS
        && (-MAX_EXPONENT..=MAX_EXPONENT).contains(&power)
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !sound {
        return None;
    }
    let value = BigUint::parse_bytes(digits.as_bytes(), 10)?;
    let power = power - i64::try_from(fraction.len()).ok()?;
    Some(Number {
        negative: false,
        size: round(value, power),
    })
}

/// `value` times ten to the `power`, to the nearest of [`PRECISION`] bits, an even one of two.
fn round(value: BigUint, power: i64) -> Size {
    if value == BigUint::ZERO {
        return Size::Integer(String::new());
    }
    let ten = BigUint::from(10_u8);
    let scale = ten.pow(u32::try_from(power.unsigned_abs()).unwrap_or(u32::MAX));
    let (top, bottom) = if power >= 0 {
        (value * scale, BigUint::from(1_u8))
    } else {
        (value, scale)
    };
    // So many bits up that the quotient has at least two more than are kept.
    let up = (PRECISION + 2 + bottom.bits()).saturating_sub(top.bits());
    let top = top << up;
    let quotient = &top / &bottom;
    let is_exact = &quotient * &bottom == top;
    let extra = quotient.bits() - PRECISION;
    let mut kept = &quotient >> extra;
    let cut = &quotient - (&kept << extra);
    let half = BigUint::from(1_u8) << (extra - 1);
    let goes_up = match cut.cmp(&half) {
        Ordering::Less => false,
        Ordering::Equal => !is_exact || kept.bit(0),
        Ordering::Greater => true,
    };
    if goes_up {
        kept += 1_u8;
    }
    let mut exponent =
        i64::try_from(extra).unwrap_or(i64::MAX) - i64::try_from(up).unwrap_or(i64::MAX);
    if kept.bits() > PRECISION {
        kept >>= 1_u8;
        exponent += 1;
    }
    let mantissa = u128::try_from(&kept).unwrap_or(u128::MAX);
    Size::Rounded { mantissa, exponent }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn argument(text: &str) -> Number {
        Number::of_argument(text).unwrap()
    }

    fn attribute(text: &str) -> Option<Number> {
        Number::of_attribute(text.as_bytes())
    }

    fn indexed(text: &str) -> Option<Number> {
        Number::of_indexed(text.as_bytes())
    }

    #[test]
    fn what_begins_with_a_number_is_one_to_a_subscription() {
        assert_eq!(attribute("100stake"), attribute("100.0"));
        assert_eq!(attribute("8.045stake"), attribute("8.045"));
        assert_eq!(attribute("8."), attribute("8.0"));
        for text in ["", "stake", "-5", "+5", ".5", " 5"] {
            assert_eq!(attribute(text), None, "{text}");
        }
        assert_eq!(attribute("5").unwrap().cmp(&argument("5")), Ordering::Equal);
        assert_eq!(
            attribute("5x").unwrap().cmp(&argument("5")),
            Ordering::Equal
        );
        assert_eq!(
            attribute("00").unwrap().cmp(&argument("0.00")),
            Ordering::Equal
        );
    }

    #[test]
    fn a_search_takes_signs_and_exponents_but_no_text_behind() {
        assert!(indexed("-5").unwrap() < argument("0"));
        assert!(indexed("-5.5").unwrap() < indexed("-5").unwrap());
        assert_eq!(indexed("+5"), Some(argument("5")));
        assert_eq!(
            indexed("-0").unwrap().cmp(&argument("0.0")),
            Ordering::Equal
        );
        assert_eq!(
            indexed("1.5e3").unwrap().cmp(&argument("1500")),
            Ordering::Equal
        );
        assert_eq!(
            indexed(".5").unwrap().cmp(&argument("0.5")),
            Ordering::Equal
        );
        for text in ["", "-", "5x", "1e", "1e99999", "--5", "1_000", "e5", "."] {
            assert_eq!(indexed(text), None, "{text}");
        }
    }

    #[test]
    fn integers_are_exact_and_the_rest_is_rounded() {
        let large = "1".repeat(200);
        let next = format!("{}2", "1".repeat(199));
        assert!(argument(&large) < argument(&next));
        // 2^125 + 1 has one bit more than is kept of a number with a fraction.
        let exact = "42535295865117307932921825928971026433";
        assert!(argument(exact) > argument("42535295865117307932921825928971026432"));
        assert_eq!(
            argument(&format!("{exact}.0"))
                .cmp(&argument("42535295865117307932921825928971026432")),
            Ordering::Equal
        );
        assert!(argument("100") < argument("100.2"));
        assert!(argument("101") > argument("100.2"));
        assert_eq!(
            Number::of_argument(&format!("0.{}", "3".repeat(5_000))),
            None
        );
    }

    #[test]
    fn a_height_is_told_with_its_fraction_cut_off() {
        assert_eq!(argument("3.9").to_i64(), 3);
        assert_eq!(argument("0.9").to_i64(), 0);
        assert_eq!(argument("0").to_i64(), 0);
        assert_eq!(argument("99999999999999999999").to_i64(), i64::MAX);
        assert_eq!(argument("99999999999999999999.5").to_i64(), i64::MAX);
        assert_eq!(
            argument(&format!("{}.5", "9".repeat(100))).to_i64(),
            i64::MAX
        );
        assert_eq!(argument(&format!("0.{}1", "0".repeat(100))).to_i64(), 0);
        assert_eq!(indexed("-3.9").unwrap().to_i64(), -3);
    }

    proptest! {
        #[test]
        fn compares_as_numbers_do(a in any::<i64>(), b in any::<i64>(), part in 1..1000_u32) {
            let (x, y) = (Number::of_height(a), Number::of_height(b));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.to_i64(), if a == i64::MIN { -i64::MAX } else { a });
            let size = a.unsigned_abs();
            let part = argument(&format!("{size}.{part:03}"));
            prop_assert!(part > argument(&size.to_string()));
            prop_assert!(part < argument(&(u128::from(size) + 1).to_string()));
            let whole = argument(&format!("{size}.000"));
            prop_assert_eq!(whole.cmp(&argument(&size.to_string())), Ordering::Equal);
        }

        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..60), text in "[0-9.eE+-]{0,20}") {
            let _ = Number::of_attribute(&value);
            let _ = Number::of_indexed(&value);
            if let Some(number) = Number::of_indexed(text.as_bytes()) {
                let _ = number.to_i64();
                prop_assert_eq!(number.cmp(&number), Ordering::Equal);
            }
        }
    }
}
