//! Indexes `text/event-json`: one flat object of strings and arrays of strings, which is all that FreeSWITCH writes.
//!
//! It validates as it goes (escapes, control characters, structure), so that what is copied to Redis is JSON. UTF-8 is
//! the caller's business.

use super::Malformed;
use super::index::{Encoding, Header, Span, hash, span};
use super::text;

/// Appends the headers of `bytes`. True if some value cannot be copied as it stands and must be written anew.
pub(super) fn index(bytes: &[u8], headers: &mut Vec<Header>) -> Result<bool, Malformed> {
    let mut scan = Scan {
        bytes,
        at: 0,
        rewrite: false,
    };
    scan.expect(b'{', "expected `{`")?;
    if !scan.take(b'}') {
        loop {
            let (name, escaped) = scan.string("expected a name")?;
            scan.expect(b':', "expected `:`")?;
            let (value, encoding) = scan.value()?;
            let raw = bytes
                .get(name.start as usize..name.end as usize)
                .unwrap_or_default();
            let (hash, name_encoding) = if escaped {
                scan.rewrite = true;
                (hash(text::unescape(raw).as_bytes()), Encoding::JsonEscaped)
            } else {
                (hash(raw), Encoding::Json)
            };
            headers.push(Header {
                name,
                value,
                hash,
                encoding,
                name_encoding,
                live: true,
            });
            if scan.take(b',') {
                continue;
            }
            scan.expect(b'}', "expected `,` or `}`")?;
            break;
        }
    }
    scan.space();
    if scan.at < bytes.len() {
        return Err(Malformed {
            what: "expected the end",
            at: scan.at,
        });
    }
    Ok(scan.rewrite)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    rewrite: bool,
}

impl Scan<'_> {
    /// FreeSWITCH writes none; what passed through other hands may have some.
    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
            self.rewrite = true;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        if self.bytes.get(self.at) != Some(&byte) {
            self.space();
        }
        let there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(Malformed { what, at: self.at })
        }
    }

    fn value(&mut self) -> Result<(Span, Encoding), Malformed> {
        const WHAT: &str = "expected a string or an array of strings";
        if !self.take(b'[') {
            let (span, escaped) = self.string(WHAT)?;
            return Ok((
                span,
                if escaped {
                    Encoding::JsonEscaped
                } else {
                    Encoding::Json
                },
            ));
        }
        let start = self.at - 1;
        if !self.take(b']') {
            loop {
                self.string(WHAT)?;
                if self.take(b',') {
                    continue;
                }
                self.expect(b']', "expected `,` or `]`")?;
                break;
            }
        }
        Ok((span(start, self.at), Encoding::JsonArray))
    }

    /// The inside of a string, and whether it has escapes.
    fn string(&mut self, what: &'static str) -> Result<(Span, bool), Malformed> {
        self.expect(b'"', what)?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = text::next_special(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((span(start, self.at - 1), escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => {
                    return Err(Malformed {
                        what: "control character in a string",
                        at: self.at,
                    });
                }
                None => {
                    return Err(Malformed {
                        what: "unterminated string",
                        at: self.bytes.len(),
                    });
                }
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let length = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(Malformed {
                        what: "invalid escape",
                        at: self.at,
                    });
                }
                // A surrogate may be a lone one, which no JSON reader likes.
                self.rewrite |= matches!(
                    digits,
                    [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]
                );
                6
            }
            _ => {
                return Err(Malformed {
                    what: "invalid escape",
                    at: self.at,
                });
            }
        };
        self.at += length;
        Ok(())
    }
}
