//! Moments as queries and attributes write them, read as Go reads RFC 3339 times and dates.

use std::ops::RangeInclusive;

/// What a time looks like to Go: part of the texts of errors.
const TIME_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const DATE_LAYOUT: &str = "2006-01-02";

/// A moment of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Since 1970, negative before.
    seconds: i64,
    nanos: u32,
}

impl Moment {
    /// Reads an RFC 3339 time.
    #[must_use]
    pub fn of_time(text: &[u8]) -> Option<Self> {
        parse_time(text).ok().map(|(moment, _)| moment)
    }

    /// Reads a date: the moment at which that day begins.
    #[must_use]
    pub fn of_date(text: &[u8]) -> Option<Self> {
        parse_date(text).ok().map(|(moment, _)| moment)
    }
}

/// Reads an RFC 3339 time; the moment, and its year where it was written.
pub(super) fn parse_time(text: &[u8]) -> Result<(Moment, i32), String> {
    let mut reader = Reader::new(text, TIME_LAYOUT);
    let (days, year) = reader.date()?;
    reader.literal(b'T')?;
    let hour = reader.number("15", 1, 0..=23, "hour")?;
    reader.literal(b':')?;
    let minute = reader.number("04", 2, 0..=59, "minute")?;
    reader.literal(b':')?;
    let second = reader.number("05", 2, 0..=59, "second")?;
    let nanos = reader.fraction();
    let offset = reader.offset()?;
    reader.end()?;
    let days = days.ok_or_else(|| reader.refuse(": day out of range"))?;
    let of_day = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    let seconds = days * 86_400 + of_day - offset;
    Ok((Moment { seconds, nanos }, year))
}

/// Reads a date; the beginning of its day, and its year.
pub(super) fn parse_date(text: &[u8]) -> Result<(Moment, i32), String> {
    let mut reader = Reader::new(text, DATE_LAYOUT);
    let (days, year) = reader.date()?;
    reader.end()?;
    let days = days.ok_or_else(|| reader.refuse(": day out of range"))?;
    let seconds = days * 86_400;
    Ok((Moment { seconds, nanos: 0 }, year))
}

struct Reader<'a> {
    all: &'a [u8],
    rest: &'a [u8],
    layout: &'static str,
}

impl<'a> Reader<'a> {
    const fn new(all: &'a [u8], layout: &'static str) -> Self {
        let rest = all;
        Self { all, rest, layout }
    }

    /// What Go says of a time that is no moment.
    fn refuse(&self, why: &str) -> String {
        format!("parsing time {:?}{why}", String::from_utf8_lossy(self.all))
    }

    /// What Go says where `found` is not what the layout has there.
    fn misfit(&self, found: &[u8], element: &str) -> String {
        let (layout, found) = (self.layout, String::from_utf8_lossy(found));
        self.refuse(&format!(
            " as {layout:?}: cannot parse {found:?} as {element:?}"
        ))
    }

    fn digit(&self, index: usize) -> Option<u32> {
        let byte = self.rest.get(index).filter(|byte| byte.is_ascii_digit())?;
        Some(u32::from(byte - b'0'))
    }

    fn literal(&mut self, byte: u8) -> Result<(), String> {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                Ok(())
            }
            _ => Err(self.misfit(self.rest, &char::from(byte).to_string())),
        }
    }

    /// Two digits, or one where that is enough.
    fn number(
        &mut self,
        element: &str,
        least: usize,
        range: RangeInclusive<u32>,
        name: &str,
    ) -> Result<u32, String> {
        let (value, length) = match (self.digit(0), self.digit(1)) {
            (Some(tens), Some(ones)) => (tens * 10 + ones, 2),
            (Some(ones), None) if least == 1 => (ones, 1),
            _ => return Err(self.misfit(self.rest, element)),
        };
        if !range.contains(&value) {
            return Err(self.refuse(&format!(": {name} out of range")));
        }
        self.rest = &self.rest[length..];
        Ok(value)
    }

    /// Year, month and day as days since 1970, `None` where the month has no such day; and the year.
    fn date(&mut self) -> Result<(Option<i64>, i32), String> {
        let digits: Option<Vec<u32>> = (0..4).map(|index| self.digit(index)).collect();
        let Some(digits) = digits else {
            return Err(self.misfit(self.rest, "2006"));
        };
        let year = digits.iter().fold(0, |year, digit| year * 10 + digit);
        let year = i32::try_from(year).unwrap_or(i32::MAX);
        self.rest = &self.rest[4..];
        self.literal(b'-')?;
        let month = self.number("01", 2, 1..=12, "month")?;
        self.literal(b'-')?;
        let day = self.number("02", 2, 0..=99, "day")?;
        Ok((days_since_epoch(year, month, day), year))
    }

    /// A fraction of a second, which Go takes even where its layout has none: up to nine digits
    /// count.
    fn fraction(&mut self) -> u32 {
        let begins = matches!(self.rest.first(), Some(b'.' | b','));
        if !begins || self.digit(1).is_none() {
            return 0;
        }
        let mut nanos = 0;
        let mut length = 1;
        while let Some(digit) = self.digit(length) {
            if length <= 9 {
                nanos = nanos * 10 + digit;
            }
            length += 1;
        }
        self.rest = &self.rest[length..];
        (length..10).fold(nanos, |nanos, _| nanos * 10)
    }

    /// `Z`, or what local time is ahead of UTC by, in seconds.
    fn offset(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix(b"Z") {
            self.rest = rest;
            return Ok(0);
        }
        let misfit = self.misfit(self.rest, "Z07:00");
        let pair = |tens: usize| Some(self.digit(tens)? * 10 + self.digit(tens + 1)?);
        if self.rest.len() < 6 || self.rest[3] != b':' {
            return Err(misfit);
        }
        let hours = pair(1);
        if hours.is_some_and(|hours| hours > 24) {
            return Err(self.refuse(": time zone offset hour out of range"));
        }
        // Go looks at the minutes only behind an hour.
        let minutes = hours.and_then(|_| pair(4));
        if minutes.is_some_and(|minutes| minutes > 60) {
            return Err(self.refuse(": time zone offset minute out of range"));
        }
        let (Some(hours), Some(minutes)) = (hours, minutes) else {
            return Err(misfit);
        };
        let seconds = i64::from(hours * 60 + minutes) * 60;
        let seconds = match self.rest[0] {
            b'+' => seconds,
            b'-' => -seconds,
            _ => return Err(misfit),
        };
        self.rest = &self.rest[6..];
        Ok(seconds)
    }

    fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let rest = String::from_utf8_lossy(self.rest);
        Err(self.refuse(&format!(": extra text: {rest:?}")))
    }
}

/// Days since 1970 of a day of the Gregorian calendar; `None` where there is none.
fn days_since_epoch(year: i32, month: u32, day: u32) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [
        31,
        if is_leap { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    let length = *lengths.get(before)?;
    if !(1..=length).contains(&day) {
        return None;
    }
    let years = i64::from(year);
    // Leap days before the first of January, counted from year 0, which was one.
    let leaps = |year: i64| match year - 1 {
        last @ 0.. => last / 4 - last / 100 + last / 400 + 1,
        _ => 0,
    };
    let days = years * 365 + leaps(years) - (1970 * 365 + leaps(1970));
    let of_year: u32 = lengths[..before].iter().sum();
    Some(days + i64::from(of_year + day - 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn seconds(text: &str) -> i64 {
        parse_time(text.as_bytes()).unwrap().0.seconds
    }

    #[test]
    fn moments_are_told_from_the_calendar() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), 0);
        assert_eq!(seconds("2000-02-29T12:34:56Z"), 951_827_696);
        assert_eq!(seconds("1900-03-01T00:00:00Z"), -2_203_891_200);
        assert_eq!(seconds("2999-12-31T23:59:59Z"), 32_503_679_999);
        assert_eq!(seconds("1970-01-01T02:00:00+01:30"), 1_800);
        assert_eq!(seconds("1969-12-31T9:00:00-24:60"), -54_000 + 25 * 3_600);
        assert_eq!(seconds("0000-01-01T00:00:00Z"), -62_167_219_200);
    }

    #[test]
    fn a_fraction_counts_up_to_nine_digits() {
        let nanos = |text: &str| parse_time(text.as_bytes()).unwrap().0.nanos;
        assert_eq!(nanos("1970-01-01T00:00:00.5Z"), 500_000_000);
        assert_eq!(nanos("1970-01-01T00:00:00,000000001999Z"), 1);
        assert!(parse_time(b"1970-01-01T00:00:00.Z").is_err());
    }

    #[test]
    fn complains_as_go_does() {
        let layout = "as \"2006-01-02T15:04:05Z07:00\": cannot parse";
        let table = [
            ("", format!(" {layout} \"\" as \"2006\"")),
            ("2013", format!(" {layout} \"\" as \"-\"")),
            ("2013-5-03", format!(" {layout} \"5-03\" as \"01\"")),
            ("2013-05-03T14:45", format!(" {layout} \"\" as \":\"")),
            (
                "2013-05-03T14:45:00",
                format!(" {layout} \"\" as \"Z07:00\""),
            ),
            (
                "2013-05-03T14:45:00-0700",
                format!(" {layout} \"-0700\" as \"Z07:00\""),
            ),
            ("2013-13-03T14:45:00Z", ": month out of range".to_owned()),
            ("2013-02-29T14:45:00Z", ": day out of range".to_owned()),
            ("2013-02-00T14:45:00Z", ": day out of range".to_owned()),
            ("2013-02-01T24:45:00Z", ": hour out of range".to_owned()),
            ("2013-02-01T14:60:00Z", ": minute out of range".to_owned()),
            ("2013-02-01T14:45:60Z", ": second out of range".to_owned()),
            ("2013-02-01T14:45:00Zx", ": extra text: \"x\"".to_owned()),
            (
                "2013-02-01T14:45:00+25:00",
                ": time zone offset hour out of range".to_owned(),
            ),
        ];
        for (text, complaint) in table {
            let expected = format!("parsing time {text:?}{complaint}");
            assert_eq!(parse_time(text.as_bytes()).unwrap_err(), expected);
        }
        let error = parse_date(b"2013-02-01T").unwrap_err();
        assert_eq!(error, "parsing time \"2013-02-01T\": extra text: \"T\"");
    }
}
