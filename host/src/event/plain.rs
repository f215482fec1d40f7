//! Indexes `text/event-plain`: lines of `Name: value`, an empty line, and a body if the last header says how long it is.
//!
//! Names are raw user data (spaces, colons, any bytes, even newlines), values are percent-encoded. A line is split at its
//! first colon and space; a name that contains those cannot be told apart. A line without a colon, the tail of a name with a newline,
//! is passed over.

use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memmem};

use super::Malformed;
use super::index::{Encoding, Header, Span, hash, span};

/// Where the header lines and the body stand.
pub(super) fn split(bytes: &[u8]) -> Result<(Range<usize>, Option<Span>), Malformed> {
    let Some(end) = memmem::find(bytes, b"\n\n") else {
        return Err(Malformed {
            what: "expected an empty line after the headers",
            at: bytes.len(),
        });
    };
    let head = 0..end + 1;
    let start = end + 2;
    let length = last_content_length(bytes.get(head.clone()).unwrap_or_default());
    let rest = bytes.len() - start;
    match length {
        // Without a body there is no inner length, and the empty line is the end.
        None | Some(0) if rest == 0 => Ok((head, None)),
        Some(length) if length == rest => Ok((head, Some(span(start, bytes.len())))),
        _ => Err(Malformed {
            what: "body is not as long as its Content-Length",
            at: start,
        }),
    }
}

/// The inner length stands in the last header line, and only where there is a body.
fn last_content_length(head: &[u8]) -> Option<usize> {
    let lines = head.strip_suffix(b"\n")?;
    let last = lines.rsplit(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(last.strip_prefix(b"Content-Length: ")?)
        .ok()?
        .parse()
        .ok()
}

/// The event with its head made UTF-8; the body, which may be binary, keeps its length.
pub(super) fn repair(bytes: &[u8], head: &Range<usize>) -> Bytes {
    let mut repaired = String::from_utf8_lossy(bytes.get(head.clone()).unwrap_or_default())
        .into_owned()
        .into_bytes();
    repaired.extend_from_slice(bytes.get(head.end..).unwrap_or_default());
    Bytes::from(repaired)
}

/// Appends the headers in `head`.
pub(super) fn index(
    bytes: &[u8],
    head: Range<usize>,
    headers: &mut Vec<Header>,
) -> Result<(), Malformed> {
    let mut at = head.start;
    while at < head.end {
        let rest = bytes.get(at..head.end).unwrap_or_default();
        let end = at + memchr(b'\n', rest).unwrap_or(rest.len());
        let line = bytes.get(at..end).unwrap_or_default();
        if let Some(colon) = colon(line) {
            let name = line.get(..colon).unwrap_or_default();
            let value = (at + colon + 2).min(end)..end;
            let encoded = memchr(b'%', bytes.get(value.clone()).unwrap_or_default()).is_some();
            headers.push(Header {
                name: span(at, at + colon),
                value: span(value.start, value.end),
                hash: hash(name),
                encoding: if encoded {
                    Encoding::PlainEncoded
                } else {
                    Encoding::Plain
                },
                name_encoding: Encoding::Plain,
                live: true,
            });
        }
        at = end + 1;
    }
    if headers.is_empty() {
        return Err(Malformed {
            what: "expected a header",
            at: head.start,
        });
    }
    Ok(())
}

/// Where the name ends: at the first colon that a space or the end of the line follows.
fn colon(line: &[u8]) -> Option<usize> {
    memchr_iter(b':', line).find(|at| matches!(line.get(at + 1), Some(b' ') | None))
}
