//! What Go says of JSON that it refuses. Clients match such texts, so they are part of the format.
//!
//! Pure. Nothing here recurses, so that deep input costs no stack.

/// Nesting that Go accepts at most.
const MAX_DEPTH: usize = 10_000;

/// What is wrong with a text as JSON, in Go's words.
pub(crate) type Complaint = String;

/// Where the scanner is inside of a list or an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    List,
    Object,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Inside>,
}

/// Checks that `text` is one JSON value with white space around it.
///
/// # Errors
/// What Go's `encoding/json` says of it.
pub(crate) fn check(text: &[u8]) -> Result<(), Complaint> {
    let mut scanner = Scanner {
        bytes: text,
        at: 0,
        stack: Vec::new(),
    };
    scanner.value_at_depth()?;
    scanner.skip_space();
    match scanner.bytes.get(scanner.at) {
        None => Ok(()),
        Some(&byte) => Err(invalid(byte, "after top-level value")),
    }
}

/// The first JSON value of a text, whatever follows.
///
/// # Errors
/// What Go's `encoding/json` says of it as a stream.
pub(crate) fn first(text: &[u8]) -> Result<&[u8], Complaint> {
    let mut scanner = Scanner {
        bytes: text,
        at: 0,
        stack: Vec::new(),
    };
    scanner.skip_space();
    if scanner.at == text.len() {
        return Err("EOF".to_owned());
    }
    match scanner.value_at_depth() {
        Ok(()) => Ok(&text[..scanner.at]),
        Err(complaint) if complaint == cut_short() => Err("unexpected EOF".to_owned()),
        Err(complaint) => Err(complaint),
    }
}

impl Scanner<'_> {
    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<u8, Complaint> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(cut_short)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next byte that is no white space.
    fn next_token(&mut self) -> Result<u8, Complaint> {
        self.skip_space();
        self.next()
    }

    /// One value, with all that is nested in it.
    fn value_at_depth(&mut self) -> Result<(), Complaint> {
        loop {
            // Here a value must begin.
            let opened = match self.next_token()? {
                b'{' => self.open(Inside::Object)?,
                b'[' => self.open(Inside::List)?,
                byte => {
                    self.scalar(byte)?;
                    false
                }
            };
            if opened {
                continue;
            }
            if !self.after_value()? {
                return Ok(());
            }
        }
    }

    /// Enters a list or an object; whether a value follows (it is not empty).
    fn open(&mut self, inside: Inside) -> Result<bool, Complaint> {
        if self.stack.len() >= MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        self.skip_space();
        let close = if inside == Inside::Object { b'}' } else { b']' };
        if self.bytes.get(self.at) == Some(&close) {
            self.at += 1;
            return Ok(false);
        }
        self.stack.push(inside);
        if inside == Inside::Object {
            self.key()?;
        }
        Ok(true)
    }

    /// An object's key and its colon.
    fn key(&mut self) -> Result<(), Complaint> {
        match self.next_token()? {
            b'"' => self.string()?,
            byte => return Err(invalid(byte, "looking for beginning of object key string")),
        }
        match self.next_token()? {
            b':' => Ok(()),
            byte => Err(invalid(byte, "after object key")),
        }
    }

    /// Behind a value: whether another one follows.
    fn after_value(&mut self) -> Result<bool, Complaint> {
        while let Some(inside) = self.stack.last().copied() {
            match (inside, self.next_token()?) {
                (Inside::List, b',') => return Ok(true),
                (Inside::Object, b',') => {
                    self.key()?;
                    return Ok(true);
                }
                (Inside::List, b']') | (Inside::Object, b'}') => {
                    self.stack.pop();
                }
                (Inside::List, byte) => return Err(invalid(byte, "after array element")),
                (Inside::Object, byte) => {
                    return Err(invalid(byte, "after object key:value pair"));
                }
            }
        }
        Ok(false)
    }

    fn scalar(&mut self, first: u8) -> Result<(), Complaint> {
        match first {
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => self.number(first),
            byte => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Complaint> {
        for expected in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                let expected = char::from(expected);
                let place = format!("in literal {word} (expecting '{expected}')");
                return Err(invalid(byte, &place));
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), Complaint> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.next()?;
                            if !byte.is_ascii_hexdigit() {
                                return Err(invalid(byte, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    byte => return Err(invalid(byte, "in string escape code")),
                },
                byte if byte < 0x20 => return Err(invalid(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Result<(), Complaint> {
        let mut first = first;
        if first == b'-' {
            first = self.next()?;
            if !first.is_ascii_digit() {
                return Err(invalid(first, "in numeric literal"));
            }
        }
        if first != b'0' {
            self.digits();
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, place: &str) -> Result<(), Complaint> {
        let byte = self.next()?;
        if byte.is_ascii_digit() {
            Ok(())
        } else {
            Err(invalid(byte, place))
        }
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn cut_short() -> Complaint {
    "unexpected end of JSON input".to_owned()
}

fn invalid(byte: u8, place: &str) -> Complaint {
    let shown = match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        _ => {
            let mut text = String::from("'");
            push_quoted(&mut text, char::from(byte));
            text.push('\'');
            text
        }
    };
    format!("invalid character {shown} {place}")
}

/// The kind of a valid JSON value, as Go names it in errors; `None` for null.
pub(crate) fn kind(value: &str) -> Option<&'static str> {
    match value.trim_start().as_bytes().first()? {
        b'{' => Some("object"),
        b'[' => Some("array"),
        b'"' => Some("string"),
        b't' | b'f' => Some("bool"),
        b'n' => None,
        _ => Some("number"),
    }
}

/// `bytes` in double quotes, as Go's `%q` writes them.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                c => push_quoted(&mut text, c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn push_quoted(text: &mut String, c: char) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\u{7}' => text.push_str("\\a"),
        '\u{8}' => text.push_str("\\b"),
        '\u{c}' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\u{b}' => text.push_str("\\v"),
        c if u32::from(c) < 0x20 || c == '\u{7f}' => {
            text.push_str(&format!("\\x{:02x}", u32::from(c)));
        }
        c if c.is_control() || c == '\u{a0}' => {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
        c => text.push(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_what_go_says() {
        let table = [
            (
                "hello",
                "invalid character 'h' looking for beginning of value",
            ),
            ("", "unexpected end of JSON input"),
            ("{} {}", "invalid character '{' after top-level value"),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "{1",
                "invalid character '1' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 2}",
                "invalid character '2' after object key:value pair",
            ),
            (
                "tru e",
                "invalid character ' ' in literal true (expecting 'e')",
            ),
            ("007", "invalid character '0' after top-level value"),
            ("-x", "invalid character 'x' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            (
                "1ex",
                "invalid character 'x' in exponent of numeric literal",
            ),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            (
                "\"\\u00g0\"",
                "invalid character 'g' in \\u hexadecimal character escape",
            ),
            (
                "'",
                "invalid character '\\'' looking for beginning of value",
            ),
        ];
        for (text, complaint) in table {
            assert_eq!(check(text.as_bytes()).unwrap_err(), complaint, "{text}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1);
        assert_eq!(check(deep.as_bytes()).unwrap_err(), "exceeded max depth");
    }

    #[test]
    fn quotes_as_go_does() {
        assert_eq!(quote(b"a\"\\\n\x00\xff\x7f"), r#""a\"\\\n\x00\xff\x7f""#);
    }

    proptest! {
        /// Whatever serde_json accepts is accepted, and nothing else is (but for unpaired
        /// surrogates and huge numbers, which only a reader of values refuses).
        #[test]
        fn agrees_with_serde(text in r#"[\[\]{}",:0-9truefalsn \\.eE+-]{0,40}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(check(text.as_bytes()).is_ok(), theirs, "{}", text);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&bytes);
            let _ = quote(&bytes);
        }
    }
}
