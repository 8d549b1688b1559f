//! How the value of one key is read from TOML, from text (environment, flags), and written.
//!
//! CometBFT reads its file with weak types: a number may stand in quotes, a list may be a string
//! with commas, a duration may be an integer of nanoseconds. The same is accepted here.

use std::{ops::Range, time::Duration};

use toml_edit::{Item, TableLike, Value as Toml};

use super::duration::{format_duration, parse_duration};

/// A value that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What would have been accepted, in words.
    pub expected: String,
    /// Where exactly in the file, when it is more exact than the key.
    pub span: Option<Range<usize>>,
}

impl Refused {
    /// Refuses a value as a whole.
    #[must_use]
    pub fn expecting(expected: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            span: None,
        }
    }
}

/// A value that a key can have.
pub trait Value {
    /// Takes the value of a key in the file.
    ///
    /// # Errors
    /// Says what would have been accepted; the old value stays.
    fn set_item(&mut self, item: &Item) -> Result<(), Refused>;

    /// Takes the text of an environment variable or a flag.
    ///
    /// # Errors
    /// Says what would have been accepted; the old value stays.
    fn set_text(&mut self, text: &str) -> Result<(), Refused>;

    /// The value in TOML.
    fn to_toml(&self) -> String;
}

/// An enumeration whose values have names.
pub trait Choice: Copy + PartialEq + Sized + 'static {
    /// Every value, the accepted names of each; the first name is the one that is written.
    const NAMES: &'static [(Self, &'static str)];

    /// The name of the value.
    #[must_use]
    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(value, _)| *value == self)
            .map_or("", |(_, name)| name)
    }
}

/// A scalar of the file as text, as weak types allow.
fn scalar(item: &Item) -> Option<String> {
    match item.as_value()? {
        Toml::String(text) => Some(text.value().clone()),
        Toml::Integer(number) => Some(number.value().to_string()),
        Toml::Float(number) => Some(number.value().to_string()),
        Toml::Boolean(flag) => Some(flag.value().to_string()),
        Toml::Datetime(_) | Toml::Array(_) | Toml::InlineTable(_) => None,
    }
}

impl<C: Choice> Value for C {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        self.set_text(&scalar(item).unwrap_or_else(|| "\u{0}".to_owned()))
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        let found = C::NAMES.iter().find(|(_, name)| *name == text);
        let (value, _) = found.ok_or_else(|| {
            let names: Vec<_> = C::NAMES
                .iter()
                .filter(|(_, name)| !name.is_empty())
                .map(|(_, name)| format!("{name:?}"))
                .collect();
            Refused::expecting(format!("one of {}", names.join(", ")))
        })?;
        *self = *value;
        Ok(())
    }

    fn to_toml(&self) -> String {
        quoted(self.name())
    }
}

impl Value for String {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        *self = scalar(item).ok_or_else(|| Refused::expecting("a text in quotes"))?;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        text.clone_into(self);
        Ok(())
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl Value for bool {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        let text = scalar(item).ok_or_else(|| Refused::expecting("true or false"))?;
        self.set_text(&text)
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        *self = match text {
            "true" | "TRUE" | "True" | "t" | "T" | "1" => true,
            "false" | "FALSE" | "False" | "f" | "F" | "0" => false,
            _ => return Err(Refused::expecting("true or false")),
        };
        Ok(())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// Reads an integer that fits `T`.
fn integer<T: TryFrom<i64>>(text: Option<&str>, range: &str) -> Result<T, Refused> {
    text.and_then(|text| text.parse::<i64>().ok())
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| Refused::expecting(range))
}

const COUNT: &str = "a whole number, 0 or more";
const SMALL_COUNT: &str = "a whole number from 0 to 4294967295";
const WHOLE: &str = "a whole number";

impl Value for u64 {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        *self = integer(scalar(item).as_deref(), COUNT)?;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        *self = integer(Some(text), COUNT)?;
        Ok(())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        *self = integer(scalar(item).as_deref(), SMALL_COUNT)?;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        *self = integer(Some(text), SMALL_COUNT)?;
        Ok(())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Value for i64 {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        *self = integer(scalar(item).as_deref(), WHOLE)?;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        *self = integer(Some(text), WHOLE)?;
        Ok(())
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// An integer that CometBFT writes in quotes (`chunk_fetchers = "4"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted(pub u32);

impl Value for Quoted {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        self.0.set_item(item)
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        self.0.set_text(text)
    }

    fn to_toml(&self) -> String {
        quoted(&self.0.to_string())
    }
}

const DURATION: &str = "a duration such as \"1m30s\", \"1.5s\" or \"100ms\", not negative";

impl Value for Duration {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        if let Some(nanos) = item.as_integer() {
            let nanos = u64::try_from(nanos).map_err(|_| Refused::expecting(DURATION))?;
            *self = Self::from_nanos(nanos);
            return Ok(());
        }
        let text = item.as_str().ok_or_else(|| Refused::expecting(DURATION))?;
        self.set_text(text)
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        *self = parse_duration(text).ok_or_else(|| Refused::expecting(DURATION))?;
        Ok(())
    }

    fn to_toml(&self) -> String {
        quoted(&format_duration(*self))
    }
}

const TEXTS: &str = "a list of texts such as [\"a\", \"b\"]";

/// Cuts a text with commas; the empty text is the empty list.
fn split(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|part| part.trim().to_owned()).collect()
}

impl Value for Vec<String> {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        if let Some(text) = item.as_str() {
            return self.set_text(text);
        }
        let array = item.as_array().ok_or_else(|| Refused::expecting(TEXTS))?;
        let mut list = Self::new();
        for value in array {
            let text = value.as_str().ok_or_else(|| Refused {
                expected: TEXTS.to_owned(),
                span: value.span(),
            })?;
            list.push(text.to_owned());
        }
        *self = list;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        *self = split(text);
        Ok(())
    }

    fn to_toml(&self) -> String {
        let list: Vec<_> = self.iter().map(|text| quoted(text)).collect();
        format!("[{}]", list.join(", "))
    }
}

/// A list that is written as one text with commas between its entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommaList(pub Vec<String>);

impl Value for CommaList {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        self.0.set_item(item)
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        self.0.set_text(text)
    }

    fn to_toml(&self) -> String {
        quoted(&self.0.join(","))
    }
}

/// One entry of a list of tables.
pub trait Row: Default + PartialEq {
    /// What the list looks like, in words.
    const EXPECTED: &'static str;

    /// Sets the value of `key`; `None` when the row has no such key.
    fn field(&mut self, key: &str) -> Option<&mut dyn Value>;

    /// The rules of a row as a whole.
    ///
    /// # Errors
    /// Says what would have been accepted.
    fn check(&self) -> Result<(), Refused>;

    /// The row as an inline table.
    fn to_inline(&self) -> String;
}

impl<R: Row> Value for Vec<R> {
    fn set_item(&mut self, item: &Item) -> Result<(), Refused> {
        let refused = || Refused {
            expected: R::EXPECTED.to_owned(),
            span: item.span(),
        };
        let mut rows = Self::new();
        if let Some(tables) = item.as_array_of_tables() {
            for table in tables {
                rows.push(row(table)?);
            }
        } else {
            for value in item.as_array().ok_or_else(refused)? {
                rows.push(row(value.as_inline_table().ok_or_else(refused)?)?);
            }
        }
        *self = rows;
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), Refused> {
        let value: Toml = text.parse().map_err(|_| Refused::expecting(R::EXPECTED))?;
        self.set_item(&Item::Value(value))
            .map_err(|refused| Refused {
                span: None,
                ..refused
            })
    }

    fn to_toml(&self) -> String {
        let rows: Vec<_> = self.iter().map(Row::to_inline).collect();
        format!("[{}]", rows.join(", "))
    }
}

/// Reads one row, naming the exact place of what is wrong in it.
fn row<R: Row>(table: &dyn TableLike) -> Result<R, Refused> {
    let mut row = R::default();
    let mut first = None;
    for (name, item) in table.iter() {
        let span = table.key(name).and_then(toml_edit::Key::span);
        first = first.or_else(|| span.clone());
        let field = row.field(name).ok_or_else(|| Refused {
            expected: R::EXPECTED.to_owned(),
            span: span.clone(),
        })?;
        field.set_item(item).map_err(|refused| Refused {
            expected: format!("{name} to be {}", refused.expected),
            span: refused.span.or(span),
        })?;
    }
    row.check().map_err(|refused| Refused {
        span: refused.span.or(first),
        ..refused
    })?;
    Ok(row)
}

/// A basic string of TOML.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(text: &str) -> Item {
        Item::Value(text.parse().unwrap())
    }

    #[test]
    fn weak_types_of_the_file() {
        let mut number = 0_u64;
        number.set_item(&item("\"12\"")).unwrap();
        assert_eq!(number, 12);
        for wrong in ["-1", "1.5", "\"x\"", "[]", "{}"] {
            assert!(number.set_item(&item(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(number, 12, "a refused value changes nothing");

        let mut text = String::new();
        text.set_item(&item("12")).unwrap();
        assert_eq!(text, "12");
        assert!(text.set_item(&item("[]")).is_err());

        let mut flag = false;
        flag.set_item(&item("\"true\"")).unwrap();
        assert!(flag);
        assert!(flag.set_item(&item("2")).is_err());

        let mut duration = Duration::ZERO;
        duration.set_item(&item("1500")).unwrap();
        assert_eq!(duration, Duration::from_nanos(1500));
        assert!(duration.set_item(&item("1.5")).is_err());
        assert!(duration.set_item(&item("-1")).is_err());

        let mut list = Vec::<String>::new();
        list.set_item(&item("\"a, b\"")).unwrap();
        assert_eq!(list, ["a", "b"]);
        assert!(list.set_item(&item("[1]")).is_err());
    }

    #[test]
    fn texts_are_escaped() {
        for text in ["", "a\"b", "back\\slash", "line\nbreak", "'"] {
            let written = quoted(text);
            assert_eq!(item(&written).as_str(), Some(text), "{written}");
        }
    }
}
