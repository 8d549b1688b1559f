//! Moments in UTC.

use std::{fmt, str::FromStr};

use thiserror::Error;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, UtcOffset};

use crate::DecodeError;

/// A moment as the chain records it: UTC, nanoseconds.
///
/// The wire and JSON know the years 1 to 9999; a time computed from such times may lie outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    seconds: i64,
    nanos: i32,
}

/// Nanoseconds in a second.
const NANOS: i64 = 1_000_000_000;
/// Unix seconds of 10000-01-01T00:00:00Z, the first moment that the wire cannot carry.
const END_SECONDS: i64 = 253_402_300_800;

/// A text is no time in the format of RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a time such as 2006-01-02T15:04:05.999999999Z, got {0:?}")]
pub struct ParseTimeError(String);

impl Time {
    /// Go's zero time, 0001-01-01T00:00:00Z, which stands for "no time". The earliest time that the
    /// wire can carry.
    pub const ZERO: Self = Self {
        seconds: -62_135_596_800,
        nanos: 0,
    };

    /// Unix seconds (negative before 1970) and nanoseconds 0..=999,999,999.
    #[must_use]
    pub const fn new(seconds: i64, nanos: i32) -> Self {
        Self { seconds, nanos }
    }

    /// The moment `nanos` nanoseconds after 1970 (before it when negative); `None` when its seconds
    /// overflow.
    #[must_use]
    pub fn from_unix_nanos(nanos: i128) -> Option<Self> {
        Some(Self {
            seconds: i64::try_from(nanos.div_euclid(i128::from(NANOS))).ok()?,
            nanos: i32::try_from(nanos.rem_euclid(i128::from(NANOS))).ok()?,
        })
    }

    /// Unix seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    #[must_use]
    pub const fn nanos(self) -> i32 {
        self.nanos
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub fn unix_nanos(self) -> i128 {
        i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos)
    }

    /// Nanoseconds from `earlier` to this time; negative when `earlier` is later.
    #[must_use]
    pub fn nanos_since(self, earlier: Self) -> i128 {
        self.unix_nanos() - earlier.unix_nanos()
    }

    /// The moment `nanos` nanoseconds later (earlier when negative); `None` when it overflows.
    #[must_use]
    pub fn checked_add_nanos(self, nanos: i64) -> Option<Self> {
        Self::from_unix_nanos(self.unix_nanos() + i128::from(nanos))
    }

    /// Whether it is the zero time.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl From<Time> for prost_types::Timestamp {
    fn from(time: Time) -> Self {
        Self {
            seconds: time.seconds,
            nanos: time.nanos,
        }
    }
}

impl TryFrom<prost_types::Timestamp> for Time {
    type Error = DecodeError;

    /// Refuses what CometBFT refuses on the wire: years outside of 1 to 9999, and nanoseconds
    /// outside of a second.
    fn try_from(time: prost_types::Timestamp) -> Result<Self, DecodeError> {
        let seconds = Self::ZERO.seconds..END_SECONDS;
        if seconds.contains(&time.seconds) && (0..NANOS).contains(&i64::from(time.nanos)) {
            Ok(Self::new(time.seconds, time.nanos))
        } else {
            Err(DecodeError::Field {
                field: "timestamp",
                reason: format!(
                    "{} seconds and {} nanoseconds are outside of the years 1 to 9999",
                    time.seconds, time.nanos
                ),
            })
        }
    }
}

impl TryFrom<Option<prost_types::Timestamp>> for Time {
    type Error = DecodeError;

    /// As for a timestamp; one that is missing on the wire is the zero time.
    fn try_from(time: Option<prost_types::Timestamp>) -> Result<Self, DecodeError> {
        time.map_or(Ok(Self::ZERO), Self::try_from)
    }
}

/// RFC 3339 in UTC, with as many digits of the second's fraction as are needed.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(date_time) = OffsetDateTime::from_unix_timestamp(self.seconds) else {
            return write!(f, "{}.{:09}s", self.seconds, self.nanos);
        };
        let (hour, minute, second) = date_time.to_hms();
        write!(
            f,
            "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}",
            date_time.year(),
            u8::from(date_time.month()),
            date_time.day(),
        )?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Reads RFC 3339 as Go does: any offset is turned into UTC, an hour may have one digit, a comma
/// may stand for the point, digits beyond nanoseconds are cut off.
impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        parse(text).ok_or_else(|| ParseTimeError(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<Time> {
    let mut rest = text;
    let year = take_digits(&mut rest, 4)?;
    take(&mut rest, "-")?;
    let month = take_digits(&mut rest, 2)?;
    take(&mut rest, "-")?;
    let day = take_digits(&mut rest, 2)?;
    take(&mut rest, "T")?;
    let hour = take_digits(&mut rest, 2).or_else(|| take_digits(&mut rest, 1))?;
    take(&mut rest, ":")?;
    let minute = take_digits(&mut rest, 2)?;
    take(&mut rest, ":")?;
    let second = take_digits(&mut rest, 2)?;
    let nanos = take_fraction(&mut rest);
    let offset = take_offset(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, small(day)?).ok()?;
    let clock = time::Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, clock)
        .assume_offset(UtcOffset::UTC)
        .unix_timestamp();
    Some(Time::new(seconds - offset, nanos))
}

fn small(number: u32) -> Option<u8> {
    u8::try_from(number).ok()
}

fn take(rest: &mut &str, expected: &str) -> Option<()> {
    *rest = rest.strip_prefix(expected)?;
    Some(())
}

/// Exactly `count` digits; leaves `rest` as it is when they are not there.
fn take_digits(rest: &mut &str, count: usize) -> Option<u32> {
    let (digits, behind) = rest.split_at_checked(count)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    *rest = behind;
    digits.parse().ok()
}

/// The fraction of the second in nanoseconds; 0 where there is none.
fn take_fraction(rest: &mut &str) -> i32 {
    let Some(behind) = rest.strip_prefix(['.', ',']) else {
        return 0;
    };
    let end = behind
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(behind.len());
    if end == 0 {
        return 0;
    }
    let (digits, behind) = behind.split_at(end);
    *rest = behind;
    digits
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |nanos, digit| nanos * 10 + i32::from(digit - b'0'))
}

/// `Z`, or an offset from UTC in seconds.
fn take_offset(rest: &mut &str) -> Option<i64> {
    if take(rest, "Z").is_some() {
        return Some(0);
    }
    let sign = match rest.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    *rest = &rest[1..];
    let hours = take_digits(rest, 2).filter(|hours| *hours <= 24)?;
    take(rest, ":")?;
    let minutes = take_digits(rest, 2).filter(|minutes| *minutes <= 60)?;
    Some(sign * i64::from(hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_go_does() {
        let cases = [
            (Time::ZERO, "0001-01-01T00:00:00Z"),
            (Time::new(0, 0), "1970-01-01T00:00:00Z"),
            (Time::new(-1, 999_999_999), "1969-12-31T23:59:59.999999999Z"),
            (
                Time::new(1_709_251_199, 438_471_880),
                "2024-02-29T23:59:59.43847188Z",
            ),
            (
                Time::new(253_402_300_799, 100_000_000),
                "9999-12-31T23:59:59.1Z",
            ),
        ];
        for (time, text) in cases {
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse::<Time>().unwrap(), time);
        }
    }

    #[test]
    fn reads_what_go_reads() {
        let cases = [
            (
                "2024-03-01T01:00:00.5+01:00",
                Time::new(1_709_251_200, 500_000_000),
            ),
            ("2024-02-29T23:30:00-00:30", Time::new(1_709_251_200, 0)),
            ("2024-03-01T0:00:00Z", Time::new(1_709_251_200, 0)),
            (
                "2024-03-01T00:00:00,25Z",
                Time::new(1_709_251_200, 250_000_000),
            ),
            (
                "2024-03-01T00:00:00.1234567891Z",
                Time::new(1_709_251_200, 123_456_789),
            ),
        ];
        for (text, time) in cases {
            assert_eq!(text.parse::<Time>().unwrap(), time, "{text}");
        }
        let refused = [
            "",
            "2024",
            "2023-02-29T00:00:00Z",
            "2024-03-01 00:00:00Z",
            "2024-03-01T24:00:00Z",
            "2024-03-01T00:00:60Z",
            "2024-03-01T00:00:00",
            "2024-03-01T00:00:00z",
            "2024-03-01T00:00:00.Z",
            "2024-03-01T00:00:00+25:00",
            "2024-03-01T00:00:00+1:00",
            "2024-3-01T00:00:00Z",
            "2024-03-01T00:00:00ZZ",
            "2024-03-01T00:00:00é",
        ];
        for text in refused {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    #[test]
    fn wire_carries_the_years_1_to_9999() {
        let wire = |seconds, nanos| Time::try_from(prost_types::Timestamp { seconds, nanos });
        assert_eq!(wire(Time::ZERO.seconds(), 0), Ok(Time::ZERO));
        assert!(wire(Time::ZERO.seconds() - 1, 0).is_err());
        assert!(wire(END_SECONDS - 1, 999_999_999).is_ok());
        assert!(wire(END_SECONDS, 0).is_err());
        assert!(wire(0, -1).is_err());
        assert!(wire(0, 1_000_000_000).is_err());
    }

    #[test]
    fn arithmetic_carries_and_refuses_overflow() {
        let time = Time::new(10, 999_999_999);
        assert_eq!(time.checked_add_nanos(1), Some(Time::new(11, 0)));
        assert_eq!(
            time.checked_add_nanos(-11_000_000_000),
            Some(Time::new(-1, 999_999_999))
        );
        assert_eq!(Time::new(i64::MAX, 999_999_999).checked_add_nanos(1), None);
        assert_eq!(Time::new(11, 0).nanos_since(time), 1);
        assert_eq!(time.nanos_since(Time::new(11, 0)), -1);
    }
}
