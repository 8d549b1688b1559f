//! Arguments of calls: how they are written in a URI and in JSON, and what is said of wrong ones.
//! Pure.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    evidence_argument::{self, Reported},
    go_json::{self, Complaint},
};

/// The type of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 64 bits with sign.
    Int64,
    /// The same where Go calls it `int`.
    Int,
    /// 64 bits without sign.
    Uint,
    Text,
    /// Bytes, in JSON as hexadecimal.
    Hex,
    /// Bytes, in JSON as base64.
    Base64,
    Bool,
    /// A list of texts.
    Texts,
    /// Evidence of misbehaviour.
    Evidence,
}

/// An argument that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Argument {
    Int(i64),
    Uint(u64),
    Text(String),
    Bytes(Bytes),
    Bool(bool),
    Texts(Vec<String>),
    Evidence(Reported),
}

impl Kind {
    /// Go's name of the type, for errors.
    const fn go_name(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Text => "string",
            Self::Hex | Self::Base64 => "[]uint8",
            Self::Bool => "bool",
            Self::Texts => "slice",
            Self::Evidence => "interface",
        }
    }

    const fn is_integer(self) -> bool {
        matches!(self, Self::Int64 | Self::Int | Self::Uint)
    }

    const fn is_bytes(self) -> bool {
        matches!(self, Self::Hex | Self::Base64)
    }

    /// Reads a value of a URI: a bare integer, `0x` and hexadecimal, text in quotes, or JSON.
    ///
    /// # Errors
    /// What CometBFT says of it.
    pub(crate) fn read_uri(self, value: &[u8]) -> Result<Option<Argument>, Complaint> {
        let digits = value.strip_prefix(b"-").unwrap_or(value);
        let bare_integer = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if bare_integer && self.is_integer() {
            return self.number(value).map(Some);
        }
        if value.len() >= 2 && value[..2].eq_ignore_ascii_case(b"0x") {
            if self != Self::Text && !self.is_bytes() {
                let name = self.go_name();
                return Err(format!("got a hex string arg, but expected '{name}'"));
            }
            let bytes = decode_hex(&value[2..])?;
            return Ok(Some(if self == Self::Text {
                Argument::Text(String::from_utf8_lossy(&bytes).into_owned())
            } else {
                Argument::Bytes(bytes.into())
            }));
        }
        let quoted = value.starts_with(b"\"") && value.ends_with(b"\"");
        if quoted && self.is_bytes() {
            let text = Self::Text.read_json(value)?;
            return Ok(text.map(|text| match text {
                Argument::Text(text) => Argument::Bytes(text.into()),
                other => other,
            }));
        }
        self.read_json(value)
    }

    /// Reads a value in JSON; `None` for null.
    ///
    /// # Errors
    /// What CometBFT says of it.
    pub(crate) fn read_json(self, json: &[u8]) -> Result<Option<Argument>, Complaint> {
        if json == b"null" {
            return Ok(None);
        }
        match self {
            Self::Int64 | Self::Int | Self::Uint => {
                let quoted = json.strip_prefix(b"\"").and_then(|j| j.strip_suffix(b"\""));
                let Some(inner) = quoted else {
                    let shown = go_json::quote(json);
                    return Err(format!(
                        "invalid 64-bit integer encoding {shown}, expected string"
                    ));
                };
                self.number(inner).map(Some)
            }
            Self::Hex => {
                let quoted = json.strip_prefix(b"\"").and_then(|j| j.strip_suffix(b"\""));
                let Some(inner) = quoted else {
                    let shown = String::from_utf8_lossy(json);
                    return Err(format!("invalid hex string: {shown}"));
                };
                Ok(Some(Argument::Bytes(decode_hex(inner)?.into())))
            }
            Self::Evidence => Ok(evidence_argument::read(json)?.map(Argument::Evidence)),
            Self::Texts => texts(json),
            Self::Text | Self::Base64 | Self::Bool => self.plain_json(json),
        }
    }

    fn plain_json(self, json: &[u8]) -> Result<Option<Argument>, Complaint> {
        go_json::check(json)?;
        let text = String::from_utf8_lossy(json);
        let wanted = if self == Self::Bool { "bool" } else { "string" };
        match go_json::kind(&text) {
            None => return Ok(None),
            Some(kind) if kind != wanted => return Err(self.misfit(kind)),
            Some(_) => {}
        }
        if self == Self::Bool {
            return Ok(Some(Argument::Bool(text.trim() == "true")));
        }
        let string: String = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if self == Self::Text {
            return Ok(Some(Argument::Text(string)));
        }
        decode_base64(&string).map(|bytes| Some(Argument::Bytes(bytes.into())))
    }

    fn misfit(self, what: &str) -> Complaint {
        let name = self.go_name();
        format!("json: cannot unmarshal {what} into Go value of type {name}")
    }

    /// Reads a JSON number without quotes.
    fn number(self, digits: &[u8]) -> Result<Argument, Complaint> {
        go_json::check(digits)?;
        let text = String::from_utf8_lossy(digits);
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        match go_json::kind(text) {
            None => Ok(if self == Self::Uint {
                Argument::Uint(0)
            } else {
                Argument::Int(0)
            }),
            Some("number") => {
                let parsed = if self == Self::Uint {
                    text.parse().ok().map(Argument::Uint)
                } else {
                    text.parse().ok().map(Argument::Int)
                };
                parsed.ok_or_else(|| self.misfit(&format!("number {text}")))
            }
            Some(kind) => Err(self.misfit(kind)),
        }
    }
}

/// Reads a list of texts; a null in it is an empty text.
fn texts(json: &[u8]) -> Result<Option<Argument>, Complaint> {
    go_json::check(json)?;
    let text = String::from_utf8_lossy(json);
    match go_json::kind(&text) {
        None => Ok(None),
        Some("array") => {
            let items: Vec<&RawValue> =
                serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let read = |item: &RawValue| {
                Ok(match Kind::Text.read_json(item.get().as_bytes())? {
                    Some(Argument::Text(text)) => text,
                    _ => String::new(),
                })
            };
            let texts: Result<_, Complaint> = items.into_iter().map(read).collect();
            Ok(Some(Argument::Texts(texts?)))
        }
        Some(kind) => Err(format!(
            "json: cannot unmarshal {kind} into Go value of type []json.RawMessage"
        )),
    }
}

/// Reads hexadecimal of any case.
///
/// # Errors
/// What Go says of it.
pub(crate) fn decode_hex(text: &[u8]) -> Result<Vec<u8>, Complaint> {
    if let Some(&byte) = text.iter().find(|byte| !byte.is_ascii_hexdigit()) {
        let c = char::from(byte);
        let shown = if c.is_control() || c == '\u{a0}' {
            String::new()
        } else {
            format!(" '{c}'")
        };
        return Err(format!("encoding/hex: invalid byte: U+{byte:04X}{shown}"));
    }
    hex::decode(text).map_err(|_| "encoding/hex: odd length hex string".to_owned())
}

/// Line breaks are passed over, as Go does.
fn decode_base64(text: &str) -> Result<Vec<u8>, Complaint> {
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    BASE64_STANDARD.decode(&plain).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol { offset: at, .. } => at,
            // Four letters belong together: Go names the first of those that are not four.
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding
                if !plain.contains('=') =>
            {
                plain.len() - plain.len() % 4
            }
            _ => plain.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// The arguments of one call, in the order of its route; `None` where one was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Arguments(pub(crate) Vec<Option<Argument>>);

impl Arguments {
    pub(crate) fn is_given(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(Option::is_some)
    }

    pub(crate) fn integer(&self, index: usize) -> Option<i64> {
        match self.0.get(index) {
            Some(Some(Argument::Int(value))) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn unsigned(&self, index: usize) -> u64 {
        match self.0.get(index) {
            Some(Some(Argument::Uint(value))) => *value,
            _ => 0,
        }
    }

    pub(crate) fn text(&self, index: usize) -> &str {
        match self.0.get(index) {
            Some(Some(Argument::Text(text))) => text,
            _ => "",
        }
    }

    pub(crate) fn texts(&self, index: usize) -> &[String] {
        match self.0.get(index) {
            Some(Some(Argument::Texts(texts))) => texts,
            _ => &[],
        }
    }

    pub(crate) fn bytes(&self, index: usize) -> Option<&Bytes> {
        match self.0.get(index) {
            Some(Some(Argument::Bytes(bytes))) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn evidence(&self, index: usize) -> Option<&Reported> {
        match self.0.get(index) {
            Some(Some(Argument::Evidence(evidence))) => Some(evidence),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, index: usize) -> bool {
        matches!(self.0.get(index), Some(Some(Argument::Bool(true))))
    }
}

/// The first value of each name in a query or a form, as Go reads them: what is not well-formed
/// and what holds a semicolon is passed over.
pub(crate) fn form_value(form: &str, name: &str) -> Option<Vec<u8>> {
    form.split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key)? == name.as_bytes())
                .then(|| unescape(value))
                .flatten()
        })
        .filter(|value| !value.is_empty())
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let pair = [bytes.next()?, bytes.next()?];
                out.extend(hex::decode(pair).ok()?);
            }
            byte => out.push(byte),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 9] = [
        Kind::Int64,
        Kind::Int,
        Kind::Uint,
        Kind::Text,
        Kind::Hex,
        Kind::Base64,
        Kind::Bool,
        Kind::Texts,
        Kind::Evidence,
    ];

    #[test]
    fn reads_what_a_uri_may_hold() {
        let int = |n| Ok(Some(Argument::Int(n)));
        assert_eq!(Kind::Int64.read_uri(b"-7"), int(-7));
        assert_eq!(Kind::Int64.read_uri(b"\"7\""), int(7));
        assert_eq!(Kind::Int64.read_uri(b"null"), Ok(None));
        let bytes = |b: &'static [u8]| Ok(Some(Argument::Bytes(Bytes::from_static(b))));
        assert_eq!(Kind::Hex.read_uri(b"0X6a"), bytes(b"j"));
        assert_eq!(Kind::Hex.read_uri(b"\"6a\""), bytes(b"6a"));
        assert_eq!(Kind::Base64.read_uri(b"\"\""), bytes(b""));
        assert_eq!(
            Kind::Text.read_uri(b"0x6a"),
            Ok(Some(Argument::Text("j".to_owned())))
        );
        assert_eq!(Kind::Bool.read_uri(b"true"), Ok(Some(Argument::Bool(true))));
        let texts = |list: &[&str]| {
            let list = list.iter().map(|&text| text.to_owned());
            Ok(Some(Argument::Texts(list.collect())))
        };
        assert_eq!(Kind::Texts.read_uri(b"[]"), texts(&[]));
        assert_eq!(Kind::Texts.read_uri(b"[\"a\", null]"), texts(&["a", ""]));
        assert_eq!(Kind::Texts.read_uri(b" null"), Ok(None));
    }

    #[test]
    fn complains_as_cometbft_does() {
        let table: [(Kind, &[u8], &str); 14] = [
            (
                Kind::Int64,
                b"\"",
                "invalid 64-bit integer encoding \"\\\"\", expected string",
            ),
            (Kind::Int64, b"\"\"", "unexpected end of JSON input"),
            (
                Kind::Int64,
                b"007",
                "invalid character '0' after top-level value",
            ),
            (
                Kind::Int64,
                b"\"true\"",
                "json: cannot unmarshal bool into Go value of type int64",
            ),
            (
                Kind::Int,
                b"\"1.5\"",
                "json: cannot unmarshal number 1.5 into Go value of type int",
            ),
            (
                Kind::Bool,
                b"0x00",
                "got a hex string arg, but expected 'bool'",
            ),
            (
                Kind::Texts,
                b"0x00",
                "got a hex string arg, but expected 'slice'",
            ),
            (
                Kind::Texts,
                b"\"a,b\"",
                "json: cannot unmarshal string into Go value of type []json.RawMessage",
            ),
            (
                Kind::Texts,
                b"[\"a\",1]",
                "json: cannot unmarshal number into Go value of type string",
            ),
            (Kind::Texts, b"[\"a\"", "unexpected end of JSON input"),
            (Kind::Hex, b"0x0", "encoding/hex: odd length hex string"),
            (Kind::Hex, b"\"\xff", "invalid hex string: \"\u{fffd}"),
            (
                Kind::Text,
                b"12",
                "json: cannot unmarshal number into Go value of type string",
            ),
            (
                Kind::Text,
                b"abc",
                "invalid character 'a' looking for beginning of value",
            ),
        ];
        for (kind, value, complaint) in table {
            assert_eq!(kind.read_uri(value), Err(complaint.to_owned()));
        }
    }

    #[test]
    fn base64_that_is_cut_is_wrong_where_its_last_letters_begin() {
        for (json, at) in [
            ("\"a\"", 0),
            ("\"ab\"", 0),
            ("\"YWJja\"", 4),
            ("\"YWJjYWI\"", 4),
        ] {
            let complaint = format!("illegal base64 data at input byte {at}");
            assert_eq!(Kind::Base64.read_json(json.as_bytes()), Err(complaint));
        }
    }

    #[test]
    fn a_form_is_read_as_go_reads_it() {
        let form = "a=&b=%zz&c=1;d=2&e=x+y%22&e=second&%66=6";
        assert_eq!(form_value(form, "a"), None);
        assert_eq!(form_value(form, "b"), None);
        assert_eq!(form_value(form, "c"), None);
        assert_eq!(form_value(form, "e"), Some(b"x y\"".to_vec()));
        assert_eq!(form_value(form, "f"), Some(b"6".to_vec()));
    }

    proptest! {
        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..60), text in ".{0,60}") {
            for kind in KINDS {
                let _ = kind.read_uri(&value);
                let _ = kind.read_json(&value);
                let _ = kind.read_uri(text.as_bytes());
                let _ = kind.read_json(text.as_bytes());
            }
            let _ = form_value(&text, "a");
        }

        #[test]
        fn integers_come_through(n in any::<i64>()) {
            let int = Ok(Some(Argument::Int(n)));
            prop_assert_eq!(&Kind::Int64.read_uri(n.to_string().as_bytes()), &int);
            prop_assert_eq!(&Kind::Int64.read_json(format!("\"{n}\"").as_bytes()), &int);
            prop_assert!(Kind::Int64.read_json(n.to_string().as_bytes()).is_err());
        }

        #[test]
        fn bytes_come_through(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let expected = Ok(Some(Argument::Bytes(bytes.clone().into())));
            let hex = hex::encode(&bytes);
            prop_assert_eq!(&Kind::Hex.read_uri(format!("0x{hex}").as_bytes()), &expected);
            prop_assert_eq!(&Kind::Hex.read_json(format!("\"{hex}\"").as_bytes()), &expected);
            let base64 = format!("\"{}\"", BASE64_STANDARD.encode(&bytes));
            prop_assert_eq!(&Kind::Base64.read_json(base64.as_bytes()), &expected);
        }
    }
}
