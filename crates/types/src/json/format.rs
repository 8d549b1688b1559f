//! Go's ways of writing JSON.

use std::io;

use serde::Serialize;
use serde_json::{Serializer, ser::CharEscape, ser::Formatter};

/// Writes `value` as CometBFT writes it: compact, with the characters that matter in HTML escaped.
///
/// # Errors
/// When the value cannot be represented in JSON.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter))?;
    Ok(String::from_utf8(bytes).expect("JSON is written from strings"))
}

/// Writes `value` as CometBFT writes its files: indented by two spaces, without a last newline.
///
/// # Errors
/// As [`to_string`].
pub fn to_string_indented<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    to_string(value).map(|text| indent(&text))
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_escaped) {
            let (before, behind) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut chars = behind.chars();
            if let Some(special) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(special))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let short = match escape {
            CharEscape::Quote => "\\\"",
            CharEscape::ReverseSolidus => "\\\\",
            CharEscape::Solidus => "\\/",
            CharEscape::Backspace => "\\b",
            CharEscape::FormFeed => "\\f",
            CharEscape::LineFeed => "\\n",
            CharEscape::CarriageReturn => "\\r",
            CharEscape::Tab => "\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(short.as_bytes())
    }

    /// Raw JSON is compacted and escaped like everything else.
    fn write_raw_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        writer.write_all(compact(fragment).as_bytes())
    }
}

/// Characters that Go writes as `\uXXXX` although JSON does not demand it.
fn is_escaped(c: char) -> bool {
    matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

/// `json`, which must be valid, without white space outside of strings, and with the characters
/// escaped that Go escapes.
#[must_use]
pub fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            if is_escaped(c) {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                out.push(c);
            }
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if !c.is_ascii_whitespace() {
            out.push(c);
            in_string = c == '"';
        }
    }
    out
}

/// `json`, which must be valid and compact, indented by two spaces a level; empty lists and objects
/// stay on their line.
#[must_use]
pub fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut opened = false;
    for c in json.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        let closes = matches!(c, ']' | '}');
        if opened && !closes {
            new_line(&mut out, depth);
        }
        if closes {
            depth = depth.saturating_sub(1);
            if !opened {
                new_line(&mut out, depth);
            }
        }
        opened = matches!(c, '[' | '{');
        out.push(c);
        match c {
            '[' | '{' => depth += 1,
            ',' => new_line(&mut out, depth),
            ':' => out.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;

    #[test]
    fn escapes_what_go_escapes() {
        let text = "a<b>&\u{2028}\u{2029}\u{7f}é\"\\\u{1}\n\t\u{8}\u{c}";
        assert_eq!(
            to_string(text).unwrap(),
            r#""a\u003cb\u003e\u0026\u2028\u2029"#.to_owned()
                + "\u{7f}é"
                + r#"\"\\\u0001\n\t\b\f""#
        );
    }

    #[test]
    fn compacts_raw_json_outside_of_strings() {
        let raw = RawValue::from_string("{ \"a <\\\" b\" : [ 1 ,\n2 ] }".to_owned()).unwrap();
        assert_eq!(to_string(&raw).unwrap(), r#"{"a \u003c\" b":[1,2]}"#);
    }

    #[test]
    fn indents_as_go_does() {
        let value = json!({"a": [], "b": {}, "c": [1, {"d": "x,[{:\\\""}]});
        let expected = "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": \
                        \"x,[{:\\\\\\\"\"\n    }\n  ]\n}";
        assert_eq!(to_string_indented(&value).unwrap(), expected);
    }
}
