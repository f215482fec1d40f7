//! Indexes `text/event-json`: one flat object of strings and arrays of strings, which is all that FreeSWITCH writes.
//!
//! It validates as it goes (escapes, control characters, structure), so that what is copied to Redis is JSON. UTF-8 is
//! the caller's business.

use super::Malformed;
use super::index::{Encoding, Hash, Header, Span, hash, span};
use super::specials::Specials;
use super::text;

/// Appends the headers of `bytes`, which are below 4 GiB. True if some value cannot be copied as it stands and must be written anew.
pub(super) fn index(bytes: &[u8], headers: &mut Vec<Header>) -> Result<bool, Malformed> {
    let mut specials = Specials::new(bytes);
    let mut scan = Scan {
        bytes,
        at: 0,
        rewrite: false,
    };
    scan.expect(b'{', "expected `{`")?;
    if !scan.take(b'}') {
        loop {
            if !scan.simple_members(&mut specials, headers) {
                headers.push(scan.member()?);
                specials.pass(scan.at);
            }
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
    /// Members without escapes and without space, as nearly all are: four quotes in a row, with a colon in the middle. It ends
    /// after one that no comma follows, or else (false) before one that is not so simple, of which nothing is taken.
    fn simple_members(&mut self, specials: &mut Specials<'_>, headers: &mut Vec<Header>) -> bool {
        let hash = Hash::new();
        while let Some([open, name_end, value_open, end]) = specials.four() {
            let member = self.bytes.get(self.at..(end as usize).saturating_add(2));
            let Some([b'"', inside @ .., b'"', next]) = member else {
                return false;
            };
            let name_length = name_end.wrapping_sub(open).wrapping_sub(1);
            let Some((name, rest)) = inside.split_at_checked(name_length as usize) else {
                return false;
            };
            let is_simple = open as usize == self.at
                && rest.first_chunk() == Some(b"\":\"")
                && value_open == name_end.wrapping_add(2);
            if !is_simple {
                return false;
            }
            specials.pass_four();
            headers.push(Header {
                hash: hash.of(name),
                name: open.wrapping_add(1)..name_end,
                value: value_open.wrapping_add(1)..end,
                encoding: Encoding::Json,
                name_encoding: Encoding::Json,
                live: true,
            });
            self.at = end as usize + 1;
            if *next != b',' {
                return true;
            }
            self.at += 1;
        }
        false
    }

    /// Any name with its value.
    fn member(&mut self) -> Result<Header, Malformed> {
        let (name, escaped) = self.string("expected a name")?;
        self.expect(b':', "expected `:`")?;
        let (value, encoding) = self.value()?;
        let raw = self.bytes.get(name.start as usize..name.end as usize);
        let raw = raw.unwrap_or_default();
        let (hash, name_encoding) = if escaped {
            self.rewrite = true;
            (hash(text::unescape(raw).as_bytes()), Encoding::JsonEscaped)
        } else {
            (hash(raw), Encoding::Json)
        };
        Ok(Header {
            name,
            value,
            hash,
            encoding,
            name_encoding,
            live: true,
        })
    }

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
