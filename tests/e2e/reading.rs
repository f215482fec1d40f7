//! An independent reading of Event Socket bytes: simple, slow, and without a line of the router's or the simulator's code.
//!
//! What the tests compare with must not share the bugs of what they test. Frames are split by Content-Length; an event becomes a JSON
//! object in which the last of several headers of one name wins. Does no IO but to load the captures.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

/// The bytes that a server sent on one connection.
pub(crate) struct Capture {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// One frame: its header lines and its body.
pub(crate) struct Frame {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().rev().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn content_type(&self) -> &str {
        self.header("Content-Type").unwrap_or_default()
    }

    /// The event in the frame, if it is one in JSON or plain.
    pub(crate) fn event(&self) -> Option<Map<String, Value>> {
        match self.content_type() {
            "text/event-json" => Some(json_event(&self.body)),
            "text/event-plain" => Some(plain_event(&self.body)),
            _ => None,
        }
    }
}

/// Splits a stream into whole frames; the second value is what is left of a cut one.
pub(crate) fn frames(bytes: &[u8]) -> (Vec<Frame>, &[u8]) {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let Some(end) = find(rest, b"\n\n") {
        let headers = header_lines(&rest[..end]);
        let length = headers
            .iter()
            .rev()
            .find(|(name, _)| name == "Content-Length");
        let length = length.map_or(0, |(_, value)| value.parse().expect("a length in digits"));
        let Some(body) = rest.get(end + 2..end + 2 + length) else {
            break;
        };
        frames.push(Frame {
            headers,
            body: body.to_vec(),
        });
        rest = &rest[end + 2 + length..];
    }
    (frames, rest)
}

/// Every event of a stream.
pub(crate) fn events(bytes: &[u8]) -> Vec<Map<String, Value>> {
    let (frames, _) = frames(bytes);
    frames.iter().filter_map(Frame::event).collect()
}

/// A JSON event. Invalid UTF-8 is repaired first, as it is sent inside of strings.
pub(crate) fn json_event(body: &[u8]) -> Map<String, Value> {
    let text = String::from_utf8_lossy(body);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A plain event. A line without a separator belongs to a name with a newline in it, which cannot be repaired: it is skipped.
pub(crate) fn plain_event(body: &[u8]) -> Map<String, Value> {
    let end = find(body, b"\n\n").map_or(body.len().saturating_sub(1), |end| end);
    let mut event = Map::new();
    for line in body[..end].split(|byte| *byte == b'\n') {
        let Some(border) = find(line, b": ") else {
            continue;
        };
        let name = String::from_utf8_lossy(&line[..border]).into_owned();
        let held = percent_decoded(&line[border + 2..]);
        let held = String::from_utf8_lossy(&held);
        let value = match held.strip_prefix("ARRAY::") {
            Some(elements) => elements.split("|:").map(Value::from).collect(),
            None => Value::from(held),
        };
        event.insert(name, value);
    }
    let after = body.get(end + 2..).unwrap_or_default();
    if !after.is_empty() {
        let text = String::from_utf8_lossy(after).into_owned();
        event.insert("_body".to_owned(), Value::from(text));
    }
    event
}

/// Decodes every `%XX`; a plus is a plus.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::new();
    let mut place = 0;
    while place < text.len() {
        let pair = (digit(text.get(place + 1)), digit(text.get(place + 2)));
        if let (b'%', (Some(high), Some(low))) = (text[place], pair) {
            decoded.push(u8::try_from(high * 16 + low).expect("two digits are a byte"));
            place += 3;
        } else {
            decoded.push(text[place]);
            place += 1;
        }
    }
    decoded
}

/// What a real FreeSWITCH sent, where the shared captures are at hand, and always the corpus of the repository.
pub(crate) fn captures() -> Vec<Capture> {
    let mut captures = real_captures();
    captures.extend(load(&corpus_folder()));
    captures
}

/// What a real FreeSWITCH sent; nothing where the shared captures are not at hand.
pub(crate) fn real_captures() -> Vec<Capture> {
    load(&shared_folder())
}

fn shared_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures")
}

/// What the client of a real capture sent, all in one. Empty where the captures are not at hand.
pub(crate) fn sent_by_client(capture: &str) -> Vec<u8> {
    let path = shared_folder().join(format!("{capture}.tx.jsonl"));
    let lines = std::fs::read_to_string(path).unwrap_or_default();
    let mut sent = Vec::new();
    for line in lines.lines() {
        let entry: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = entry["sent"].as_str().expect("what was sent, as text");
        // Bytes were written as Latin-1 characters.
        sent.extend(
            text.chars()
                .map(|c| u8::try_from(u32::from(c)).expect("a byte")),
        );
    }
    sent
}

/// Where the corpus of the repository is.
pub(crate) fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The text of a gzip file; it must be there.
pub(crate) fn unpacked(path: &Path) -> String {
    let packed = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8(unpack(&packed)).expect("text")
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .expect("a whole gzip file");
    bytes
}

fn load(folder: &Path) -> Vec<Capture> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut captures = Vec::new();
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let file = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let read = |path| std::fs::read(path).expect("a readable capture");
        if let Some(name) = file.strip_suffix(".bin.gz") {
            let bytes = unpack(&read(&path));
            captures.push(Capture {
                name: name.to_owned(),
                bytes,
            });
        } else if let Some(name) = file.strip_suffix(".bin") {
            captures.push(Capture {
                name: name.to_owned(),
                bytes: read(&path),
            });
        }
    }
    captures.sort_by(|a, b| a.name.cmp(&b.name));
    captures
}

fn header_lines(block: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(block);
    let lines = text.split('\n').filter_map(|line| line.split_once(": "));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[test]
fn a_plain_event_reads_as_it_was_meant() {
    let event = plain_event(
        b"A: %C3%9F+%25\nA: ARRAY%3A%3Ap%7C%3Aq\nno separator\nContent-Length: 3\n\na\nb",
    );
    let expected = serde_json::json!({"A": ["p", "q"], "Content-Length": "3", "_body": "a\nb"});
    assert_eq!(Value::Object(event), expected);
    assert!(plain_event(b"\n").is_empty(), "an event without headers");
}

#[test]
fn a_json_event_with_invalid_utf8_and_duplicates_is_read() {
    let event = json_event(b"{\"A\":\"1\",\"A\":\"caf\xE9\"}");
    assert_eq!(
        Value::Object(event),
        serde_json::json!({"A": "caf\u{fffd}"})
    );
}

#[test]
fn a_cut_frame_is_left_over() {
    let (frames, rest) =
        frames(b"A: b\n\nContent-Length: 2\nContent-Type: x\n\nhiContent-Length: 9\n\ncut");
    assert_eq!(frames.len(), 2);
    assert_eq!(
        (frames[1].content_type(), frames[1].body.as_slice()),
        ("x", b"hi".as_slice())
    );
    assert_eq!(rest, b"Content-Length: 9\n\ncut");
}
