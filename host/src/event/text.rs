//! Decoding of values: JSON escapes, percent-encoding, arrays. And their encoding as JSON.

use std::borrow::Cow;

/// What FreeSWITCH puts before an array that it writes as one value.
pub(super) const ARRAY: &str = "ARRAY::";
/// What stands between its elements.
pub(super) const SEPARATOR: &str = "|:";

/// The position at or after `at` of the next byte that ends or interrupts a JSON string: a quote, a backslash or a
/// control character. Eight bytes at a time: the scan of an event is mostly this loop.
pub(super) fn next_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = zeros(word ^ (ONES * b'"' as u64));
        let backslash = zeros(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        // The lowest hit is exact in all three; higher ones may be artefacts of its borrow.
        let hits = quote | backslash | control;
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
        .unwrap_or(rest.len())
}

/// Bytes as text. Nearly all are UTF-8, for which the standard library's check is faster than its repair.
pub(super) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// The text of a JSON string's inside. A lone surrogate becomes U+FFFD.
pub(super) fn unescape(inside: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before);
        rest = escape.get(2..).unwrap_or_default();
        let single = match escape.get(1) {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => {
                let (decoded, length) = unicode(rest);
                rest = rest.get(length..).unwrap_or_default();
                decoded
            }
            Some(other) => char::from(*other),
            None => char::REPLACEMENT_CHARACTER,
        };
        bytes.extend_from_slice(single.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes.extend_from_slice(rest);
    into_string(bytes)
}

/// The character of `XXXX` or `XXXX\uXXXX`, and how many bytes it took.
fn unicode(digits: &[u8]) -> (char, usize) {
    let unit = |at: usize| hex(digits.get(at..at + 4)?);
    let high = unit(0).unwrap_or(0xfffd);
    let low = if digits.get(4..6) == Some(b"\\u") {
        unit(6)
    } else {
        None
    };
    match (high, low) {
        (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) => {
            let point = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            (
                char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER),
                10,
            )
        }
        _ => (
            char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER),
            4,
        ),
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        Some(value << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Percent-decoding of a value; `+` is a plus sign. What is no escape stays as it is.
pub(super) fn percent_decode(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before);
        match escape.get(1..3).and_then(hex) {
            Some(byte) => {
                bytes.push(u8::try_from(byte).unwrap_or(b'?'));
                rest = escape.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = escape.get(1..).unwrap_or_default();
            }
        }
    }
    bytes.extend_from_slice(rest);
    into_string(bytes)
}

fn into_string(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Where the string ends whose inside begins `bytes`: the position of its closing quote.
fn string_end(bytes: &[u8]) -> usize {
    let mut end = 0;
    loop {
        end = next_special(bytes, end);
        match bytes.get(end) {
            Some(b'\\') => end += 2,
            _ => return end,
        }
    }
}

/// The elements of a JSON array of strings.
pub(super) fn elements(array: &[u8]) -> impl Iterator<Item = String> {
    let mut rest = array;
    std::iter::from_fn(move || {
        let open = memchr::memchr(b'"', rest)?;
        rest = rest.get(open + 1..).unwrap_or_default();
        let end = string_end(rest);
        let element = unescape(rest.get(..end).unwrap_or_default());
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(element)
    })
}

/// A JSON array of strings as `ARRAY::a|:b`.
pub(super) fn join_array(array: &[u8]) -> String {
    let mut joined = String::from(ARRAY);
    for (at, element) in elements(array).enumerate() {
        if at > 0 {
            joined.push_str(SEPARATOR);
        }
        joined.push_str(&element);
    }
    joined
}

/// Appends `text` as a JSON string with its quotes.
pub(super) fn write_string(text: &str, to: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    to.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let at = next_special(rest, 0);
        let (before, special) = rest.split_at(at);
        to.extend_from_slice(before);
        let Some(byte) = special.first() else { break };
        match byte {
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            b'\n' => to.extend_from_slice(b"\\n"),
            b'\r' => to.extend_from_slice(b"\\r"),
            b'\t' => to.extend_from_slice(b"\\t"),
            control => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                to.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    digit(control >> 4),
                    digit(control & 15),
                ]);
            }
        }
        rest = special.get(1..).unwrap_or_default();
    }
    to.push(b'"');
}

/// Appends a decoded value: an array if it is FreeSWITCH's notation of one, else a string.
pub(super) fn write_value(value: &str, to: &mut Vec<u8>) {
    let Some(elements) = value.strip_prefix(ARRAY) else {
        write_string(value, to);
        return;
    };
    write_array(elements.split(SEPARATOR), to);
}

/// Appends a JSON array of strings.
pub(super) fn write_array<T: AsRef<str>>(elements: impl Iterator<Item = T>, to: &mut Vec<u8>) {
    to.push(b'[');
    for (at, element) in elements.enumerate() {
        if at > 0 {
            to.push(b',');
        }
        write_string(element.as_ref(), to);
    }
    to.push(b']');
}
