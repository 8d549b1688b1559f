//! The query language: conditions on the attributes of events, joined by `AND`.
//!
//! ```text
//! tm.event = 'Tx' AND transfer.amount >= 100 AND message.sender CONTAINS 'cosmos1' AND fee.payer EXISTS
//! block.time > TIME 2026-01-02T15:04:05Z AND day.begin = DATE 2026-01-02
//! ```
//!
//! What is accepted, what it means and what is said of bad queries is CometBFT's, text for text.
//! Pure; the work is linear in the length of the query and of the values.

mod number;
mod scanner;
mod time;

use std::fmt;

use bytes::Bytes;
use memchr::memmem;
use thiserror::Error;

pub use number::Number;
use scanner::{Scanner, Token};
pub use time::Moment;

use crate::Attributes;

/// Bytes of a query that clients may give at most, as in CometBFT.
pub const MAX_QUERY_BYTES: usize = 512;

/// Bytes of a value that cost as much to compare as another value.
const BYTES_OF_WORK: usize = 64;

/// A query that cannot be read, in CometBFT's words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct QueryError(String);

/// Conditions that must all hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    conditions: Vec<Condition>,
}

/// One condition on the values of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    tag: String,
    op: Op,
    arg: Option<Arg>,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `CONTAINS`
    Contains,
    /// `EXISTS`
    Exists,
}

/// What a value is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// Text in single quotes.
    Text(String),
    /// A number, and as it was written.
    Number(String, Number),
    /// `TIME` and a moment, and as it was written.
    Time(String, Moment),
    /// `DATE` and the beginning of a day, and as it was written.
    Date(String, Moment),
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// What CometBFT says of it.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let mut scanner = Scanner::new(text);
        let mut conditions = vec![condition(&mut scanner)?];
        // What cannot be told from the end, such as text whose quote is not closed, is the end.
        while let Some(token) = scanner.next_or_end() {
            if token != Token::And {
                let at = scanner.position();
                let got = token.label();
                // In place of what it wants, `AND`, CometBFT prints that token's number.
                return Err(QueryError(format!("offset {at}: got {got}, want 6")));
            }
            conditions.push(condition(&mut scanner)?);
        }
        Ok(Self { conditions })
    }

    /// The query `tm.event = 'NAME'`.
    #[must_use]
    pub fn for_event(name: &str) -> Self {
        let text = |tag: &str, value: &str| Condition {
            tag: tag.to_owned(),
            op: Op::Equal,
            arg: Some(Arg::Text(value.to_owned())),
        };
        Self {
            conditions: vec![text(crate::EVENT_KEY, name)],
        }
    }

    /// The query for the transaction with such a hash, in upper-case hexadecimal.
    #[must_use]
    pub fn for_tx(hash: &str) -> Self {
        let mut query = Self::for_event("Tx");
        query.conditions.push(Condition {
            tag: crate::TX_HASH_KEY.to_owned(),
            op: Op::Equal,
            arg: Some(Arg::Text(hash.to_owned())),
        });
        query
    }

    /// The conditions in order; at least one.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Whether an event with these attributes is asked for. Each condition may be met by another
    /// value.
    #[must_use]
    pub fn matches(&self, attributes: &Attributes) -> bool {
        self.compare(attributes, &mut 0)
    }

    /// The same; `work` rises by what it cost: one for each look for an attribute and for each value,
    /// and more for long values.
    pub(crate) fn compare(&self, attributes: &Attributes, work: &mut u64) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.is_met_by(attributes, work))
    }
}

/// One form for all that mean the same: subscriptions are told apart by it.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, condition) in self.conditions.iter().enumerate() {
            let and = if index == 0 { "" } else { " AND " };
            write!(f, "{and}{condition}")?;
        }
        Ok(())
    }
}

impl Condition {
    /// The attribute: `type.key`.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// How it is compared.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// With what; `None` for `EXISTS` alone.
    #[must_use]
    pub const fn arg(&self) -> Option<&Arg> {
        self.arg.as_ref()
    }

    fn is_met_by(&self, attributes: &Attributes, work: &mut u64) -> bool {
        let values = attributes.values(self.tag.as_bytes());
        *work += 1;
        let mut accepts = |value: &Bytes| {
            *work += 1 + (value.len() / BYTES_OF_WORK) as u64;
            self.accepts(value)
        };
        values.iter().any(&mut accepts)
            // A tag that is the type of an event is compared with the empty text.
            || (self.accepts(b"") && attributes.has_type(self.tag.as_bytes()))
    }

    /// Whether one value meets the condition.
    #[must_use]
    pub fn accepts(&self, value: &[u8]) -> bool {
        match (self.op, &self.arg) {
            (Op::Exists, _) => true,
            (_, None) => false,
            (Op::Contains, Some(Arg::Text(part))) => memmem::find(value, part.as_bytes()).is_some(),
            (Op::Equal, Some(Arg::Text(text))) => value == text.as_bytes(),
            (op, Some(Arg::Number(_, number))) => {
                Number::of_attribute(value).is_some_and(|value| op.holds(value.cmp(number)))
            }
            (op, Some(Arg::Time(_, moment))) => {
                Moment::of_time(value).is_some_and(|value| op.holds(value.cmp(moment)))
            }
            (op, Some(Arg::Date(_, moment))) => {
                Moment::of_date(value).is_some_and(|value| op.holds(value.cmp(moment)))
            }
            (_, Some(Arg::Text(_))) => false,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tag, self.op.symbol())?;
        match &self.arg {
            None => Ok(()),
            Some(Arg::Text(text)) => write!(f, " '{text}'"),
            Some(Arg::Number(text, _)) => write!(f, " {text}"),
            Some(Arg::Time(text, _)) => write!(f, " TIME {text}"),
            Some(Arg::Date(text, _)) => write!(f, " DATE {text}"),
        }
    }
}

impl Op {
    const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Contains => "CONTAINS",
            Self::Exists => "EXISTS",
        }
    }

    /// Whether it is one of `<`, `<=`, `>`, `>=`.
    #[must_use]
    pub const fn is_range(self) -> bool {
        matches!(
            self,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual
        )
    }

    /// Whether a value that compares so with the argument is asked for.
    fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Contains | Self::Exists => false,
        }
    }
}

impl Arg {
    /// As it was written, without quotes and without `TIME` or `DATE`.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text)
            | Self::Number(text, _)
            | Self::Time(text, _)
            | Self::Date(text, _) => text,
        }
    }
}

/// Reads one condition.
fn condition(scanner: &mut Scanner<'_>) -> Result<Condition, QueryError> {
    const OPERATORS: [Token; 7] = [
        Token::LessOrEqual,
        Token::GreaterOrEqual,
        Token::Less,
        Token::Greater,
        Token::Equal,
        Token::Contains,
        Token::Exists,
    ];
    const ORDERED: [Token; 3] = [Token::Number, Token::Time, Token::Date];
    const EQUATED: [Token; 4] = [Token::Number, Token::Time, Token::Date, Token::Text];
    let (_, tag) = require(scanner, &[Token::Tag])?;
    let (token, _) = require(scanner, &OPERATORS)?;
    let (op, wanted): (Op, &[Token]) = match token {
        Token::Less => (Op::Less, &ORDERED),
        Token::LessOrEqual => (Op::LessOrEqual, &ORDERED),
        Token::Greater => (Op::Greater, &ORDERED),
        Token::GreaterOrEqual => (Op::GreaterOrEqual, &ORDERED),
        Token::Equal => (Op::Equal, &EQUATED),
        Token::Contains => (Op::Contains, &[Token::Text]),
        _ => {
            let (op, arg) = (Op::Exists, None);
            return Ok(Condition { tag, op, arg });
        }
    };
    let (kind, text) = require(scanner, wanted)?;
    let broken = || {
        QueryError(format!(
            "offset {}: {text:?} is no value",
            scanner.position()
        ))
    };
    let arg = match kind {
        Token::Number => {
            let number = Number::of_argument(&text).ok_or_else(broken)?;
            Arg::Number(text, number)
        }
        Token::Time => {
            let moment = Moment::of_time(text.as_bytes()).ok_or_else(broken)?;
            Arg::Time(text, moment)
        }
        Token::Date => {
            let moment = Moment::of_date(text.as_bytes()).ok_or_else(broken)?;
            Arg::Date(text, moment)
        }
        _ => Arg::Text(text),
    };
    let arg = Some(arg);
    Ok(Condition { tag, op, arg })
}

/// The next token, which must be one of these, and its text.
fn require(scanner: &mut Scanner<'_>, wanted: &[Token]) -> Result<(Token, String), QueryError> {
    let scanned = scanner.next();
    let at = scanner.position();
    let token = scanned.map_err(|error| QueryError(format!("offset {at}: {error}")))?;
    if wanted.contains(&token) {
        return Ok((token, scanner.take_text()));
    }
    let labels: Vec<_> = wanted.iter().map(|token| token.label()).collect();
    let wanted = match labels.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    };
    let got = token.label();
    Err(QueryError(format!(
        "offset {at}: got {got}, wanted {wanted}"
    )))
}

#[cfg(test)]
mod tests;
