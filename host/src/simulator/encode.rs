//! The two wire formats of an event, JSON and plain, written as FreeSWITCH writes them.
//!
//! Both are odd in places on purpose: plain leaves a `%` alone that two upper-case hex digits follow, so that it cannot be decoded
//! exactly; JSON passes invalid UTF-8 on as it is; names are never encoded in plain; duplicates stay.

use bytes::{BufMut, Bytes, BytesMut};

use super::event::Value;

/// The format of a connection's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    #[default]
    Plain,
    Json,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Plain => "plain",
            Format::Json => "json",
        }
    }
}

/// Bytes for the socket. A reader usually gets the first `head` bytes in one read and the rest in the next.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) head: usize,
}

impl Frame {
    /// An event frame; the length comes first, unlike in every other frame.
    pub(super) fn event(format: Format, body: &[u8]) -> Frame {
        let head = format!(
            "Content-Length: {}\nContent-Type: text/event-{}\n\n",
            body.len(),
            format.name()
        );
        let mut bytes = BytesMut::with_capacity(head.len() + body.len());
        bytes.put_slice(head.as_bytes());
        bytes.put_slice(body);
        Frame {
            bytes: bytes.freeze(),
            head: head.len(),
        }
    }

    /// Bytes that are sent as they are.
    pub(super) fn raw(bytes: Bytes) -> Frame {
        Frame { bytes, head: 0 }
    }
}

/// A whole event in one format.
pub(super) fn event(format: Format, headers: &[(Vec<u8>, Value)], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    open(format, &mut out);
    for (name, value) in headers {
        header(format, &mut out, name, value);
    }
    close(format, &mut out, body);
    out
}

/// What stands before the first header.
pub(super) fn open(format: Format, out: &mut Vec<u8>) {
    if format == Format::Json {
        out.push(b'{');
    }
}

/// What stands after the last header: the body with its length, and the end. An empty body is no body.
pub(super) fn close(format: Format, out: &mut Vec<u8>, body: &[u8]) {
    if !body.is_empty() {
        let length = Value::from(body.len().to_string());
        header(format, out, b"Content-Length", &length);
    }
    match format {
        Format::Plain => {
            out.push(b'\n');
            out.extend_from_slice(body);
        }
        Format::Json => {
            if !body.is_empty() {
                out.extend_from_slice(b"\"_body\":\"");
                json_text(out, body);
                out.extend_from_slice(b"\",");
            }
            // Every header ends with a comma; the last one is the object's end instead.
            match out.last_mut() {
                Some(last) if *last == b',' => *last = b'}',
                _ => out.push(b'}'),
            }
        }
    }
}

/// One header with what separates it from the next.
pub(super) fn header(format: Format, out: &mut Vec<u8>, name: &[u8], value: &Value) {
    start(format, out, name);
    let held = value.held();
    match format {
        Format::Plain if held.is_empty() => out.extend_from_slice(b"_undef_"),
        Format::Plain => plain_text(out, &held),
        Format::Json if held.starts_with(b"ARRAY::") => {
            out.extend_from_slice(b"[\"");
            json_elements(out, &held);
            out.extend_from_slice(b"\"]");
        }
        Format::Json => {
            out.push(b'"');
            json_text(out, &held);
            out.push(b'"');
        }
    }
    end(format, out);
}

/// A header's name and what follows it.
pub(super) fn start(format: Format, out: &mut Vec<u8>, name: &[u8]) {
    match format {
        Format::Plain => {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
        }
        Format::Json => {
            out.push(b'"');
            json_text(out, name);
            out.extend_from_slice(b"\":");
        }
    }
}

/// What follows a header's value.
pub(super) fn end(format: Format, out: &mut Vec<u8>) {
    out.push(match format {
        Format::Plain => b'\n',
        Format::Json => b',',
    });
}

/// What is held of an array, with or without its prefix, as the inside of a JSON array.
pub(super) fn json_elements(out: &mut Vec<u8>, held: &[u8]) {
    let mut rest = held.strip_prefix(b"ARRAY::").unwrap_or(held);
    while let Some(border) = rest.windows(2).position(|pair| pair == b"|:") {
        let (element, after) = rest.split_at(border);
        json_text(out, element);
        out.extend_from_slice(b"\",\"");
        rest = after.get(2..).unwrap_or_default();
    }
    json_text(out, rest);
}

/// The inside of a JSON string. Bytes above ASCII go out as they are, whether they are UTF-8 or not.
pub(super) fn json_text(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

/// A value of the plain format: percent-encoded, but for a `%` that already looks like the start of an encoded byte.
pub(super) fn plain_text(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let is_hex = |byte: Option<&u8>| byte.is_some_and(|byte| HEX.contains(byte));
    for (place, &byte) in text.iter().enumerate() {
        let encoded_already =
            byte == b'%' && is_hex(text.get(place + 1)) && is_hex(text.get(place + 2));
        if encoded_already || is_unreserved(byte) {
            out.push(byte);
        } else {
            let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xF)]);
        }
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~!$'()*,/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::{Format, Frame, Value, event, json_text, plain_text};

    fn plain(text: &[u8]) -> String {
        let mut out = Vec::new();
        plain_text(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_values_are_encoded_as_the_captures_show() {
        assert_eq!(
            plain(b"Sat, 21 Nov 2026 00:41:13 GMT"),
            "Sat,%2021%20Nov%202026%2000%3A41%3A13%20GMT"
        );
        assert_eq!(
            plain(b"%41%42%0A%25"),
            "%41%42%0A%25",
            "looks encoded: left alone"
        );
        assert_eq!(
            plain(b"%3d 100%"),
            "%253d%20100%25",
            "lower-case digits do not count"
        );
        assert_eq!(plain("Zo\u{eb}+\n".as_bytes()), "Zo%C3%AB%2B%0A");
        assert_eq!(plain(b"caf\xE9"), "caf%E9");
        let kept = "AZaz09-_.~!$'()*,/";
        assert_eq!(plain(kept.as_bytes()), kept);
        let encoded: String = " \"#&+:;<=>?@[\\]^`{|}\r\u{7f}"
            .chars()
            .map(|c| format!("%{:02X}", u32::from(c)))
            .collect();
        assert_eq!(plain(b" \"#&+:;<=>?@[\\]^`{|}\r\x7f"), encoded);
    }

    #[test]
    fn json_strings_are_escaped_and_nothing_else() {
        let mut out = Vec::new();
        json_text(&mut out, b"a\"b\\/\x01\x1f\n\t\x7f\xE9");
        assert_eq!(out, b"a\\\"b\\\\/\\u0001\\u001f\\n\\t\x7f\xE9");
    }

    #[test]
    fn an_event_with_array_duplicates_and_body_reads_as_captured() {
        let headers = [
            (b"ARR".to_vec(), Value::from("ARRAY::p|:q|:r")),
            (b"Dup".to_vec(), Value::from("1")),
            (b"Dup".to_vec(), Value::Array(vec![b"2".to_vec()])),
        ];
        assert_eq!(
            event(Format::Json, &headers, b"hello"),
            br#"{"ARR":["p","q","r"],"Dup":"1","Dup":["2"],"Content-Length":"5","_body":"hello"}"#
        );
        assert_eq!(
            event(Format::Plain, &headers, b"hello"),
            b"ARR: ARRAY%3A%3Ap%7C%3Aq%7C%3Ar\nDup: 1\nDup: ARRAY%3A%3A2\nContent-Length: 5\n\nhello"
        );
        assert_eq!(event(Format::Plain, &[], b""), b"\n");
        assert_eq!(event(Format::Json, &[], b""), b"{}");
        assert_eq!(
            event(Format::Plain, &[(b"A".to_vec(), Value::from(""))], b""),
            b"A: _undef_\n\n"
        );
    }

    #[test]
    fn an_event_frame_begins_with_its_length() {
        let frame = Frame::event(Format::Json, b"{}");
        assert_eq!(
            frame.bytes,
            "Content-Length: 2\nContent-Type: text/event-json\n\n{}"
        );
        assert_eq!(frame.bytes.len() - frame.head, 2);
    }
}
