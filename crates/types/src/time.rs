/// A moment as the chain records it: UTC, nanoseconds.
///
/// Any pair can be read from the wire; JSON and sign bytes know the years 1 to 9999 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    seconds: i64,
    nanos: i32,
}

impl Time {
    /// Unix seconds (negative before 1970) and nanoseconds 0..=999,999,999.
    #[must_use]
    pub const fn new(seconds: i64, nanos: i32) -> Self {
        Self { seconds, nanos }
    }

    /// Go's zero time, 0001-01-01T00:00:00Z, which stands for "no time".
    pub const ZERO: Self = Self {
        seconds: -62_135_596_800,
        nanos: 0,
    };

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
}

impl From<Time> for prost_types::Timestamp {
    fn from(time: Time) -> Self {
        Self {
            seconds: time.seconds,
            nanos: time.nanos,
        }
    }
}

impl From<prost_types::Timestamp> for Time {
    fn from(time: prost_types::Timestamp) -> Self {
        Self {
            seconds: time.seconds,
            nanos: time.nanos,
        }
    }
}
// Also: RFC 3339 with nanoseconds as Go prints it, parsing, arithmetic with durations.
