//! Durations as Go writes them: `168h0m0s`, `1.5s`, `100ms`.

use std::time::Duration;

/// Nanoseconds of each unit, longest names first so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration in Go's syntax: numbers with units, with no space between, such as `1h30m` or
/// `1.5s`; `0` needs no unit. A leading `+` is allowed. `None` for anything else, for negative
/// durations, and for more than 2^63 - 1 nanoseconds (about 292 years).
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u128 = 0;
    loop {
        let number = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (digits, tail) = rest.split_at(number);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (name, next) = tail.split_at(unit);
        let (_, nanos) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        total = total.checked_add(scale(digits, *nanos)?)?;
        if total > i64::MAX as u128 {
            return None;
        }
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
    (!negative || total == 0)
        .then(|| u64::try_from(total).ok())
        .flatten()
        .map(Duration::from_nanos)
}

/// `digits` (with at most one point) times `nanos`, rounded down.
fn scale(digits: &str, nanos: u64) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u128 = match whole {
        "" => 0,
        _ => u128::from(whole.parse::<u64>().ok()?),
    };
    let mut sum = whole.checked_mul(u128::from(nanos))?;
    // No unit is finer than a nanosecond, so 13 digits decide even hours.
    let fraction = &fraction[..fraction.len().min(13)];
    if !fraction.is_empty() {
        let parts: u128 = fraction.parse().ok()?;
        let of = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        sum += parts * u128::from(nanos) / of;
    }
    Some(sum)
}

/// Writes a duration as Go prints it: hours, minutes and seconds from one second on, a single unit
/// below it.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000_000_000 {
        let (unit, size) = match nanos {
            ..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{}{unit}", decimal(nanos, size));
    }
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    let minutes = nanos / 60_000_000_000;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `nanos / size` in decimal, without trailing zeros.
fn decimal(nanos: u128, size: u128) -> String {
    let (whole, rest) = (nanos / size, nanos % size);
    if rest == 0 {
        return whole.to_string();
    }
    let width = size.ilog10() as usize;
    let fraction = format!("{rest:0width$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_written() {
        for (text, nanos, canonical) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("-0s", 0, "0s"),
            ("168h0m0s", 604_800_000_000_000, "168h0m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("1m", 60_000_000_000, "1m0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            (".5h", 1_800_000_000_000, "30m0s"),
            ("+3us", 3_000, "3µs"),
            ("2500µs", 2_500_000, "2.5ms"),
            ("1ns", 1, "1ns"),
            ("61.000000001s", 61_000_000_001, "1m1.000000001s"),
        ] {
            let duration = parse_duration(text);
            assert_eq!(duration, Some(Duration::from_nanos(nanos)), "{text}");
            assert_eq!(format_duration(duration.unwrap_or_default()), canonical);
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "1",
            "s",
            "1.s.",
            "1x",
            "-1s",
            "1 s",
            "1,5s",
            "..5s",
            ".s",
            "300000h0m0.5.1s",
            "9223372036854775808ns",
            "10000000h",
            "１s",
            "1h-1m",
            "nan",
            "1e3s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
