//! Request targets as people type them: `curl 'node:26657/abci_query?data="x"'` sends the quotes as
//! they are, and Go's server takes them, but the grammar of URIs, which hyper keeps to, does not.
//! Pure.

/// Bytes of a header's line that are kept to find the two headers that matter.
const KEPT: usize = 64;

/// Follows the requests of one connection, and escapes in their first lines what a URI may not
/// hold. All other bytes pass unchanged.
#[derive(Debug)]
pub(crate) struct Targets {
    at: At,
    line: Vec<u8>,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    FirstLine,
    Header,
    /// So many bytes of a body are to come.
    Body(u64),
    /// It cannot be told where the body ends: nothing is escaped any more.
    Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(u64),
    Unknown,
}

impl Targets {
    pub(crate) const fn new() -> Self {
        Self {
            at: At::FirstLine,
            line: Vec::new(),
            body: Body::Length(0),
        }
    }

    /// Appends to `out` what is to be read in place of `input`: at most three times its length.
    pub(crate) fn pass(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while let Some((&byte, rest)) = input.split_first() {
            match self.at {
                At::Rest => {
                    out.extend_from_slice(input);
                    return;
                }
                At::Body(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let (body, behind) = input.split_at(here);
                    out.extend_from_slice(body);
                    input = behind;
                    self.enter_body(left - here as u64);
                    continue;
                }
                At::FirstLine => match byte {
                    b'"' | b'<' | b'>' => out.extend(format!("%{byte:02X}").bytes()),
                    byte => out.push(byte),
                },
                At::Header => out.push(byte),
            }
            self.note(byte);
            input = rest;
        }
    }

    fn enter_body(&mut self, left: u64) {
        self.at = if left == 0 {
            At::FirstLine
        } else {
            At::Body(left)
        };
    }

    /// A byte of the head.
    fn note(&mut self, byte: u8) {
        if byte != b'\n' {
            if byte != b'\r' && self.line.len() < KEPT {
                self.line.push(byte.to_ascii_lowercase());
            }
            return;
        }
        let line = std::mem::take(&mut self.line);
        match (self.at, line.is_empty()) {
            // Empty lines before a request mean nothing.
            (At::FirstLine, true) => {}
            (At::FirstLine, false) => {
                self.at = At::Header;
                self.body = Body::Length(0);
            }
            (_, true) => match self.body {
                Body::Length(length) => self.enter_body(length),
                Body::Unknown => self.at = At::Rest,
            },
            (_, false) => {
                if let Some(length) = line.strip_prefix(b"content-length:") {
                    let length = std::str::from_utf8(length.trim_ascii()).unwrap_or_default();
                    if self.body != Body::Unknown {
                        self.body = length.parse().map_or(Body::Unknown, Body::Length);
                    }
                } else if line.starts_with(b"transfer-encoding:") || line.starts_with(b"upgrade:") {
                    self.body = Body::Unknown;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(pieces: &[&[u8]]) -> String {
        let mut targets = Targets::new();
        let mut out = Vec::new();
        for piece in pieces {
            targets.pass(piece, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn only_first_lines_change() {
        let post = "POST /a?b=\"c\" HTTP/1.1\r\nX: \"y\"\r\nContent-Length: 25\r\n\r\n\
                    GET /\"<> HTTP/1.1\r\n{\"a\":1}";
        assert_eq!(post.split("\r\n\r\n").nth(1).map(str::len), Some(26));
        let post = post.replace("25", "26");
        let get = "\r\nGET /x?q=a>\"1\" HTTP/1.1\r\n\r\n";
        let both = format!("{post}{get}{post}");
        let expected = both
            .replace("/a?b=\"c\"", "/a?b=%22c%22")
            .replace("a>\"1\"", "a%3E%221%22");
        assert_eq!(passed(&[both.as_bytes()]), expected);
        let pieces: Vec<_> = both.as_bytes().chunks(1).collect();
        assert_eq!(passed(&pieces), expected);
    }

    #[test]
    fn nothing_changes_behind_a_body_of_unknown_length() {
        let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /\" HTTP/1.1\r\n\r\n";
        assert_eq!(passed(&[text.as_bytes()]), text);
    }

    proptest! {
        #[test]
        fn never_panics_nor_grows_without_bound(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8)
        ) {
            let mut targets = Targets::new();
            for piece in &pieces {
                let mut out = Vec::new();
                targets.pass(piece, &mut out);
                prop_assert!(out.len() >= piece.len() && out.len() <= 3 * piece.len());
                prop_assert!(targets.line.len() <= KEPT);
            }
        }
    }
}
