//! The tokens of a query.

use std::fmt;

use super::time;

/// What a piece of a query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Invalid,
    Tag,
    Text,
    Number,
    Time,
    Date,
    And,
    Contains,
    Exists,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Token {
    /// CometBFT's name for it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid token",
            Self::Tag => "tag",
            Self::Text => "string",
            Self::Number => "number",
            Self::Time => "timestamp",
            Self::Date => "datestamp",
            Self::And => "AND operator",
            Self::Contains => "CONTAINS operator",
            Self::Exists => "EXISTS operator",
            Self::Equal => "= operator",
            Self::Less => "< operator",
            Self::LessOrEqual => "<= operator",
            Self::Greater => "> operator",
            Self::GreaterOrEqual => ">= operator",
        }
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScanError {
    /// The text has ended.
    End,
    Character {
        found: char,
        behind: usize,
    },
    Time(String),
    TimeYear(i32),
    Date(String),
    DateYear(i32),
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("EOF"),
            Self::Character { found, behind } => {
                write!(f, "invalid input {found} at offset {behind}")
            }
            Self::Time(why) => write!(f, "invalid TIME value: {why}"),
            Self::TimeYear(year) => write!(f, "timestamp year {year} out of range"),
            Self::Date(why) => write!(f, "invalid DATE value: {why}"),
            Self::DateYear(year) => write!(f, "datestamp year {year} out of range"),
        }
    }
}

/// Cuts a query into tokens. Positions are in bytes.
pub(super) struct Scanner<'a> {
    query: &'a str,
    /// Where the last token began.
    begin: usize,
    /// Behind the last character read.
    end: usize,
    text: String,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(query: &'a str) -> Self {
        Self {
            query,
            begin: 0,
            end: 0,
            text: String::new(),
        }
    }

    /// Where the last token, or what should have been one, began.
    pub(super) const fn position(&self) -> usize {
        self.begin
    }

    /// The last token's text: of a string without its quotes, of a time without its label.
    pub(super) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// The next token; `Invalid` for what is none, `None` at the end.
    pub(super) fn next_or_end(&mut self) -> Option<Token> {
        match self.next() {
            Ok(token) => Some(token),
            Err(ScanError::End) => None,
            Err(_) => Some(Token::Invalid),
        }
    }

    pub(super) fn next(&mut self) -> Result<Token, ScanError> {
        self.text.clear();
        self.begin = self.end;
        while self.peek().is_some_and(char::is_whitespace) {
            self.step();
            self.begin = self.end;
        }
        let first = self.step().ok_or(ScanError::End)?;
        match first {
            '0'..='9' => {
                self.text.push(first);
                Ok(self.number())
            }
            _ if first == '_' || first.is_alphanumeric() => {
                self.text.push(first);
                self.word()
            }
            '\'' => self.string(),
            '=' => Ok(Token::Equal),
            '<' => Ok(self.or_equal(Token::Less, Token::LessOrEqual)),
            '>' => Ok(self.or_equal(Token::Greater, Token::GreaterOrEqual)),
            found => {
                let behind = self.end;
                Err(ScanError::Character { found, behind })
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.query[self.end..].chars().next()
    }

    fn step(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.end += next.len_utf8();
        Some(next)
    }

    /// Takes characters as long as they fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) {
        while let Some(next) = self.peek().filter(|next| fits(*next)) {
            self.text.push(next);
            self.step();
        }
    }

    fn number(&mut self) -> Token {
        self.take_while(|c| c.is_ascii_digit());
        if self.peek() == Some('.') {
            self.text.push('.');
            self.step();
            self.take_while(|c| c.is_ascii_digit());
        }
        Token::Number
    }

    fn string(&mut self) -> Result<Token, ScanError> {
        loop {
            match self.step().ok_or(ScanError::End)? {
                '\'' => return Ok(Token::Text),
                other => self.text.push(other),
            }
        }
    }

    fn or_equal(&mut self, without: Token, with: Token) -> Token {
        if self.peek() == Some('=') {
            self.step();
            return with;
        }
        without
    }

    /// A tag or a word with a meaning.
    fn word(&mut self) -> Result<Token, ScanError> {
        self.take_while(|c| matches!(c, '.' | '_' | '-') || c.is_alphanumeric());
        let labels = self.peek() == Some(' ');
        match self.text.as_str() {
            "TIME" if labels => {
                self.value(|c| matches!(c, '-' | 'T' | ':' | '+' | 'Z') || c.is_ascii_digit());
                match time::parse_time(self.text.as_bytes()) {
                    Err(why) => Err(ScanError::Time(why)),
                    Ok((_, year)) if !YEARS.contains(&year) => Err(ScanError::TimeYear(year)),
                    Ok(_) => Ok(Token::Time),
                }
            }
            "DATE" if labels => {
                self.value(|c| c == '-' || c.is_ascii_digit());
                match time::parse_date(self.text.as_bytes()) {
                    Err(why) => Err(ScanError::Date(why)),
                    Ok((_, year)) if !YEARS.contains(&year) => Err(ScanError::DateYear(year)),
                    Ok(_) => Ok(Token::Date),
                }
            }
            "AND" => Ok(Token::And),
            "EXISTS" => Ok(Token::Exists),
            "CONTAINS" => Ok(Token::Contains),
            _ => Ok(Token::Tag),
        }
    }

    /// The value behind a label and one space.
    fn value(&mut self, fits: impl Fn(char) -> bool) {
        self.text.clear();
        self.step();
        self.take_while(fits);
    }
}

/// Years that a query may name.
const YEARS: std::ops::RangeInclusive<i32> = 1900..=2999;
