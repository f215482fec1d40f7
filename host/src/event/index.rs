//! The index of an event: which headers it has, where their values stand, and what edits made of them.
//!
//! Reading a header is one hash look-up and, for values without escapes, no copy. Edits never touch the frame's bytes:
//! new text goes to a side buffer that the index points into.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use thiserror::Error;

use super::{Format, json, plain, text};

/// The key under which the body stands, as in FreeSWITCH's own JSON.
pub(super) const BODY: &str = "_body";

/// What an [`Indexer`] keeps for the next event: a real one has some hundred headers, and edits of a few hundred bytes.
const KEPT_HEADERS: usize = 4_096;
const KEPT_EDITED: usize = 64 << 10;

/// What is no event: the frame's body does not read as one.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed event: {what} at byte {at}")]
pub struct Malformed {
    /// What was expected there.
    pub what: &'static str,
    /// Where in the frame's body.
    pub at: usize,
}

/// A header's name with its hash, made once for names that are asked for often.
#[derive(Clone, Debug)]
pub struct Name {
    text: Box<str>,
    hash: u32,
}

impl Name {
    /// `text` as FreeSWITCH spells it; names that differ in case are different headers.
    pub fn new(text: &str) -> Name {
        Name {
            text: text.into(),
            hash: hash(text.as_bytes()),
        }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Names that the host itself asks every event for.
struct Known {
    event_name: Name,
    subclass: Name,
    timestamp: Name,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| Known {
    event_name: Name::new("Event-Name"),
    subclass: Name::new("Event-Subclass"),
    timestamp: Name::new("Event-Date-Timestamp"),
});

/// Where a piece of text stands: in the frame, or in the side buffer of edits.
pub(super) type Span = Range<u32>;

/// A larger event is refused, so nothing is cut off here.
pub(super) fn span(start: usize, end: usize) -> Span {
    u32::try_from(start).unwrap_or(u32::MAX)..u32::try_from(end).unwrap_or(u32::MAX)
}

/// How the bytes of a value are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A JSON string's inside, without a backslash: it is its own text.
    Json,
    /// A JSON string's inside with escapes.
    JsonEscaped,
    /// A JSON array of strings, with its brackets.
    JsonArray,
    /// A plain value without `%`.
    Plain,
    /// A percent-encoded plain value.
    PlainEncoded,
    /// The raw body of a plain event.
    PlainBody,
    /// Text in the side buffer.
    Edited,
}

#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) hash: u32,
    pub(super) encoding: Encoding,
    /// How the name is to be read; only `Json`, `JsonEscaped`, `Plain` and `Edited` occur.
    pub(super) name_encoding: Encoding,
    /// Not repeated further on, and not removed.
    pub(super) live: bool,
}

/// One event: bytes, index, edits.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub(super) bytes: Bytes,
    pub(super) headers: Vec<Header>,
    /// Open addressing over `headers`, by name: `headers` index + 1, 0 for an empty slot. A power of two long.
    slots: Vec<u32>,
    pub(super) edited: String,
    /// The bytes were no UTF-8 and have been repaired with U+FFFD.
    repaired: bool,
    /// Something differs from the frame: an edit, a repeated name, a repair in a value. Such an event is rewritten.
    pub(super) rewrite: bool,
}

/// Makes events of frames, each in the memory of the one before it: nothing is allocated an event once it has seen one as large.
#[derive(Debug, Default)]
pub struct Indexer(Option<Event>);

impl Indexer {
    /// Indexes the body of an event frame.
    pub fn parse(&mut self, format: Format, bytes: Bytes) -> Result<Event, Malformed> {
        let mut event = self.0.take().unwrap_or_default();
        event.bytes = bytes;
        match event.read(format) {
            Ok(()) => Ok(event),
            Err(malformed) => {
                self.take_back(event);
                Err(malformed)
            }
        }
    }

    /// The event is done with.
    pub fn take_back(&mut self, event: Event) {
        let Event {
            mut headers,
            slots,
            mut edited,
            ..
        } = event;
        // A monster's memory is given back.
        if headers.capacity() <= KEPT_HEADERS && edited.capacity() <= KEPT_EDITED {
            headers.clear();
            edited.clear();
            self.0 = Some(Event {
                headers,
                slots,
                edited,
                ..Event::default()
            });
        }
    }
}

impl Event {
    /// Indexes the body of an event frame.
    pub fn parse(format: Format, bytes: Bytes) -> Result<Event, Malformed> {
        Indexer::default().parse(format, bytes)
    }

    fn read(&mut self, format: Format) -> Result<(), Malformed> {
        // A repair makes it three times as long at most.
        if self.bytes.len() > (u32::MAX / 3) as usize {
            return Err(Malformed {
                what: "an event over 1.4 GB",
                at: 0,
            });
        }
        match format {
            Format::Json => self.read_json()?,
            Format::Plain => self.read_plain()?,
        }
        self.build_slots();
        Ok(())
    }

    fn read_json(&mut self) -> Result<(), Malformed> {
        if simdutf8::basic::from_utf8(&self.bytes).is_err() {
            self.bytes = Bytes::from(String::from_utf8_lossy(&self.bytes).into_owned());
            self.repaired = true;
        }
        self.rewrite = json::index(&self.bytes, &mut self.headers)?;
        Ok(())
    }

    fn read_plain(&mut self) -> Result<(), Malformed> {
        let (mut head, mut body) = plain::split(&self.bytes)?;
        let text = self.bytes.get(head.clone()).unwrap_or_default();
        if simdutf8::basic::from_utf8(text).is_err() {
            (self.bytes, self.repaired) = (plain::repair(&self.bytes, &head), true);
            (head, body) = plain::split(&self.bytes)?;
        }
        plain::index(&self.bytes, head, &mut self.headers)?;
        self.rewrite = true;
        self.headers.extend(body.map(|body| Header {
            name: 0..0,
            value: body,
            hash: hash(BODY.as_bytes()),
            encoding: Encoding::PlainBody,
            name_encoding: Encoding::PlainBody,
            live: true,
        }));
        Ok(())
    }

    /// An event that a filter or the host itself makes.
    pub fn derived(name: &str, headers: &[(String, String)], body: Option<&str>) -> Event {
        let mut event = Event {
            headers: Vec::with_capacity(headers.len() + 2),
            slots: vec![0; 16],
            rewrite: true,
            ..Event::default()
        };
        event.set("Event-Name", name);
        for (name, value) in headers {
            event.set(name, value);
        }
        if let Some(body) = body {
            event.set(BODY, body);
        }
        event
    }

    /// `Event-Name`; empty where there is none.
    pub fn name(&self) -> Cow<'_, str> {
        self.get(&KNOWN.event_name).unwrap_or_default()
    }

    /// `Event-Subclass`, which tells one `CUSTOM` event from another.
    pub fn subclass(&self) -> Option<Cow<'_, str>> {
        self.get(&KNOWN.subclass)
    }

    /// `Event-Date-Timestamp`: microseconds since the epoch by FreeSWITCH's cached clock.
    pub fn timestamp(&self) -> Option<u64> {
        self.get(&KNOWN.timestamp)?.parse().ok()
    }

    /// Whether bytes that were no UTF-8 had to be replaced.
    pub fn repaired(&self) -> bool {
        self.repaired
    }

    /// The value of a header. Of an array, FreeSWITCH's own notation `ARRAY::a|:b`.
    pub fn get(&self, name: &Name) -> Option<Cow<'_, str>> {
        self.find(&name.text, name.hash)
            .map(|header| self.value(header))
    }

    /// [`Event::get`] for a name that is asked for once.
    pub fn get_str(&self, name: &str) -> Option<Cow<'_, str>> {
        self.find(name, hash(name.as_bytes()))
            .map(|header| self.value(header))
    }

    /// The body.
    pub fn body(&self) -> Option<Cow<'_, str>> {
        self.get_str(BODY)
    }

    /// All headers but the body, in the order of the wire, each name once.
    pub fn headers(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.headers
            .iter()
            .filter(|header| header.live)
            .map(|header| (self.name_of(header), self.value(header)))
            .filter(|(name, _)| name != BODY)
    }

    /// Adds a header, or replaces every occurrence of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        self.rewrite = true;
        let hash = hash(name.as_bytes());
        let value = self.push_edited(value);
        match self.slot(name, hash) {
            Slot::Of(at) => {
                if let Some(header) = self.headers.get_mut(at) {
                    header.value = value;
                    header.encoding = Encoding::Edited;
                    header.live = true;
                }
            }
            Slot::Free(slot) => {
                let name = self.push_edited(name);
                let (encoding, name_encoding) = (Encoding::Edited, Encoding::Edited);
                self.headers.push(Header {
                    name,
                    value,
                    hash,
                    encoding,
                    name_encoding,
                    live: true,
                });
                if let Some(free) = self.slots.get_mut(slot) {
                    *free = u32::try_from(self.headers.len()).unwrap_or(u32::MAX);
                }
                if self.headers.len() * 2 > self.slots.len() {
                    self.build_slots();
                }
            }
        }
    }

    /// Removes a header with all its occurrences.
    pub fn remove(&mut self, name: &str) {
        if let Slot::Of(at) = self.slot(name, hash(name.as_bytes()))
            && let Some(header) = self.headers.get_mut(at)
        {
            header.live = false;
            self.rewrite = true;
        }
    }

    /// Removes every header that `keep` does not want by its name. The body stays.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for at in 0..self.headers.len() {
            let gone = self.headers.get(at).is_some_and(|header| {
                let name = self.name_of(header);
                header.live && name != BODY && !keep(&name)
            });
            if gone && let Some(header) = self.headers.get_mut(at) {
                header.live = false;
                self.rewrite = true;
            }
        }
    }

    /// Replaces the body, and the `Content-Length` that speaks of it.
    pub fn set_body(&mut self, body: &str) {
        self.set("Content-Length", &body.len().to_string());
        self.set(BODY, body);
    }

    fn push_edited(&mut self, text: &str) -> Span {
        let start = u32::try_from(self.edited.len()).unwrap_or(u32::MAX);
        self.edited.push_str(text);
        start..u32::try_from(self.edited.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn raw(&self, span: &Span) -> &[u8] {
        self.bytes
            .get(span.start as usize..span.end as usize)
            .unwrap_or_default()
    }

    pub(super) fn name_of(&self, header: &Header) -> Cow<'_, str> {
        match header.name_encoding {
            Encoding::PlainBody => Cow::Borrowed(BODY),
            encoding => self.decode(&header.name, encoding),
        }
    }

    pub(super) fn value(&self, header: &Header) -> Cow<'_, str> {
        self.decode(&header.value, header.encoding)
    }

    fn decode(&self, span: &Span, encoding: Encoding) -> Cow<'_, str> {
        match encoding {
            Encoding::Json | Encoding::Plain | Encoding::PlainBody => text::lossy(self.raw(span)),
            Encoding::JsonEscaped => Cow::Owned(text::unescape(self.raw(span))),
            Encoding::JsonArray => Cow::Owned(text::join_array(self.raw(span))),
            Encoding::PlainEncoded => Cow::Owned(text::percent_decode(self.raw(span))),
            Encoding::Edited => Cow::Borrowed(
                self.edited
                    .get(span.start as usize..span.end as usize)
                    .unwrap_or_default(),
            ),
        }
    }

    pub(super) fn is_named(&self, header: &Header, name: &str) -> bool {
        match header.name_encoding {
            Encoding::Json | Encoding::Plain => self.raw(&header.name) == name.as_bytes(),
            _ => self.name_of(header) == name,
        }
    }

    fn find(&self, name: &str, hash: u32) -> Option<&Header> {
        match self.slot(name, hash) {
            Slot::Of(at) => self.headers.get(at).filter(|header| header.live),
            Slot::Free(_) => None,
        }
    }

    /// Where `name` is, or would be.
    fn slot(&self, name: &str, hash: u32) -> Slot {
        let mask = self.slots.len().wrapping_sub(1);
        let mut slot = hash as usize & mask;
        loop {
            let at = match self.slots.get(slot) {
                None | Some(0) => return Slot::Free(slot),
                Some(at) => *at as usize - 1,
            };
            match self.headers.get(at) {
                Some(header) if header.hash == hash && self.is_named(header, name) => {
                    return Slot::Of(at);
                }
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn build_slots(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        slots.clear();
        slots.resize((self.headers.len() * 2).next_power_of_two().max(16), 0);
        let mask = slots.len() - 1;
        for at in 0..self.headers.len() {
            let Some(header) = self.headers.get(at) else {
                break;
            };
            let mut slot = header.hash as usize & mask;
            let repeated = loop {
                let Some(taken) = slots.get(slot).and_then(|at| (*at as usize).checked_sub(1))
                else {
                    break None;
                };
                match self.headers.get(taken) {
                    Some(other)
                        if other.hash == header.hash
                            && self.is_named(other, &self.name_of(header)) =>
                    {
                        break Some(taken);
                    }
                    _ => slot = (slot + 1) & mask,
                }
            };
            if let Some(free) = slots.get_mut(slot) {
                *free = u32::try_from(at + 1).unwrap_or(u32::MAX);
            }
            if let Some(earlier) = repeated.and_then(|earlier| self.headers.get_mut(earlier)) {
                earlier.live = false;
                self.rewrite = true;
            }
        }
        self.slots = slots;
    }
}

enum Slot {
    Of(usize),
    Free(usize),
}

/// Random keys for every process: header names are user data, and nobody may aim at our hash.
static KEYS: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [0, 1].map(|one: u64| random.hash_one(one))
});

/// [`Hash::of`] of one name.
pub(super) fn hash(name: &[u8]) -> u32 {
    Hash::new().of(name)
}

/// The hash of names: folded multiplication over sixteen bytes at a time. Most names have 16 to 31 and take the same steps.
#[derive(Clone, Copy)]
pub(super) struct Hash {
    keys: [u64; 2],
}

impl Hash {
    pub(super) fn new() -> Hash {
        Hash { keys: *KEYS }
    }

    #[inline]
    pub(super) fn of(self, name: &[u8]) -> u32 {
        let [key, other_key] = self.keys;
        let mut state = key ^ (name.len() as u64);
        // The last bytes of a long name are read together with some that stand before them.
        let (one, other) = match (name.split_first_chunk(), name.last_chunk()) {
            (Some((first, mut rest)), Some(last)) => {
                let (one, other) = words(first);
                state = fold(state ^ one, other_key ^ other);
                while let Some((sixteen, after)) = rest.split_first_chunk() {
                    let (one, other) = words(sixteen);
                    state = fold(state ^ one, other_key ^ other);
                    rest = after;
                }
                words(last)
            }
            _ => match (name.first_chunk(), name.last_chunk()) {
                (Some(first), Some(last)) => {
                    (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
                }
                _ => (few(name), 0),
            },
        };
        state = fold(state ^ one, other_key ^ other);
        low(state >> 32) ^ low(state)
    }
}

/// Sixteen bytes as two words.
fn words(sixteen: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*sixteen);
    (low_word(both), low_word(both >> 64))
}

/// Fewer than eight bytes as a word.
fn few(bytes: &[u8]) -> u64 {
    let word = |word, byte: &u8| word << 8 | u64::from(*byte);
    bytes.iter().fold(0, word)
}

/// The product's two halves laid over each other.
fn fold(one: u64, other: u64) -> u64 {
    let (low, high) = one.carrying_mul(other, 0);
    low ^ high
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn low_word(both: u128) -> u64 {
    both as u64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn low(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use serde_json::{Map, Value};

    use super::{Event, Format, Malformed, Name};

    fn json(text: &str) -> Event {
        Event::parse(Format::Json, Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn plain(text: &str) -> Event {
        Event::parse(Format::Plain, Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    fn value(event: &Event, name: &str) -> Option<String> {
        event.get_str(name).map(std::borrow::Cow::into_owned)
    }

    fn check(event: &Event, expected: &str) {
        let mut entry = Vec::new();
        event.write_json(&mut entry);
        assert_eq!(String::from_utf8(entry).unwrap(), expected);
    }

    #[test]
    fn the_last_of_a_repeated_name_is_the_events_own() {
        let event = json(
            r#"{"Event-Name":"COMMAND","Event-Sequence":"959","A":"1","Event-Name":"PRIVATE_COMMAND","Event-Sequence":"1503"}"#,
        );
        assert_eq!(event.name(), "PRIVATE_COMMAND");
        assert_eq!(value(&event, "Event-Sequence").unwrap(), "1503");
        check(
            &event,
            r#"{"A":"1","Event-Name":"PRIVATE_COMMAND","Event-Sequence":"1503"}"#,
        );
        let event = plain("Event-Name: COMMAND\nA: 1\nEvent-Name: PRIVATE_COMMAND\n\n");
        check(&event, r#"{"A":"1","Event-Name":"PRIVATE_COMMAND"}"#);
    }

    #[test]
    fn names_that_differ_in_case_are_different_headers() {
        let event = json(r#"{"Channel-Read-Codec-Name":"L16","channel-read-codec-name":"PCMU"}"#);
        assert_eq!(value(&event, "channel-read-codec-name").unwrap(), "PCMU");
        assert_eq!(event.headers().count(), 2);
    }

    #[test]
    fn escapes_arrays_and_odd_names_are_read_and_written() {
        let text = r#"{"variable_a\nb":"tab\there \u0001 \"q\"","variable_idx":["x","y|z\n"],"variable_we ird:name":"50%25 \\"}"#;
        let event = json(text);
        assert_eq!(
            value(&event, "variable_a\nb").unwrap(),
            "tab\there \u{1} \"q\""
        );
        assert_eq!(value(&event, "variable_idx").unwrap(), "ARRAY::x|:y|z\n");
        assert_eq!(value(&event, "variable_we ird:name").unwrap(), "50%25 \\");
        check(&event, text);
    }

    #[test]
    fn a_name_spelled_with_and_without_escapes_is_one_name() {
        check(&json(r#"{"A\u0042":"1","AB":"2"}"#), r#"{"AB":"2"}"#);
        let event = json(r#"{"A\u0042\n":"1","AB\u000a":"2","\u0041B\n":"3"}"#);
        assert_eq!(value(&event, "AB\n").unwrap(), "3");
        check(&event, r#"{"AB\n":"3"}"#);
    }

    #[test]
    fn plain_values_are_percent_decoded_and_plus_stays() {
        let event = plain(
            "Event-Name: CUSTOM\nA b: x: 1: %2B49+7%20%E2%9C%93\nEmpty: \nno colon here\nARR: ARRAY%3A%3Aa%7C%3Ab\n\n",
        );
        assert_eq!(
            value(&event, "A b: x").as_deref(),
            None,
            "a line is split at its first colon and space"
        );
        assert_eq!(value(&event, "A b").unwrap(), "x: 1: +49+7 ✓");
        assert_eq!(value(&event, "Empty").unwrap(), "");
        check(
            &event,
            r#"{"Event-Name":"CUSTOM","A b":"x: 1: +49+7 ✓","Empty":"","ARR":["a","b"]}"#,
        );
    }

    #[test]
    fn a_plain_body_is_raw_and_may_look_like_headers() {
        let event = plain("Event-Name: CUSTOM\nContent-Length: 12\n\nA: %20\n\nB: 1");
        assert_eq!(event.body().unwrap(), "A: %20\n\nB: 1");
        check(
            &event,
            r#"{"Event-Name":"CUSTOM","Content-Length":"12","_body":"A: %20\n\nB: 1"}"#,
        );
        assert_eq!(event.headers().count(), 2, "the body is no header");
    }

    #[test]
    fn bytes_that_are_no_utf8_are_repaired() {
        let event = Event::parse(
            Format::Json,
            Bytes::from_static(b"{\"a\":\"caf\xe9 \xff\xfe\"}"),
        )
        .unwrap();
        assert!(event.repaired());
        check(&event, "{\"a\":\"caf\u{fffd} \u{fffd}\u{fffd}\"}");
        let event = plain("a: caf%E9 %FF%FE\n\n");
        check(&event, "{\"a\":\"caf\u{fffd} \u{fffd}\u{fffd}\"}");
        let event = Event::parse(
            Format::Plain,
            Bytes::from_static(b"n\xe9: 1\nContent-Length: 2\n\n\xff!"),
        )
        .unwrap();
        assert!(event.repaired());
        check(
            &event,
            "{\"n\u{fffd}\":\"1\",\"Content-Length\":\"2\",\"_body\":\"\u{fffd}!\"}",
        );
    }

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        let event = json(r#"{"a":"\ud83d\ude00 \ud800x"}"#);
        assert_eq!(value(&event, "a").unwrap(), "😀 \u{fffd}x");
        check(&event, "{\"a\":\"😀 \u{fffd}x\"}");
    }

    #[test]
    fn edits_replace_add_and_remove() {
        let mut event = json(r#"{"Event-Name":"A","x":"1","x":"2","y":"3","_body":"old"}"#);
        event.set("x", "new \"x\"");
        event.set("z", "ARRAY::p|:q");
        event.remove("y");
        event.remove("absent");
        event.set_body("body");
        assert_eq!(value(&event, "y"), None);
        assert_eq!(event.body().unwrap(), "body");
        check(
            &event,
            r#"{"Event-Name":"A","x":"new \"x\"","_body":"body","z":["p","q"],"Content-Length":"4"}"#,
        );
        event.remove("z");
        event.set("z", "again");
        assert_eq!(value(&event, "z").unwrap(), "again");
    }

    #[test]
    fn a_body_is_text_even_if_it_begins_like_an_array() {
        let mut event = json(r#"{"Event-Name":"A"}"#);
        event.set_body("ARRAY::x|:y");
        let written = r#"{"Event-Name":"A","Content-Length":"11","_body":"ARRAY::x|:y"}"#;
        check(&event, written);
        let event = plain("Event-Name: A\nContent-Length: 11\n\nARRAY::x|:y");
        check(&event, written);
    }

    #[test]
    fn many_edits_keep_every_name_readable() {
        let mut event = json(r#"{"Event-Name":"A"}"#);
        for number in 0..1_000 {
            event.set(&format!("h{number}"), &number.to_string());
        }
        for number in 0..1_000 {
            assert_eq!(
                value(&event, &format!("h{number}")).unwrap(),
                number.to_string()
            );
        }
    }

    #[test]
    fn a_derived_event_reads_and_writes_like_any_other() {
        let headers = [("Unique-ID".to_owned(), "u1".to_owned())];
        let event = Event::derived("READY", &headers, Some("b"));
        assert_eq!(
            (event.name().as_ref(), event.body().unwrap().as_ref()),
            ("READY", "b")
        );
        check(
            &event,
            r#"{"Event-Name":"READY","Unique-ID":"u1","_body":"b"}"#,
        );
    }

    #[test]
    fn what_is_no_event_says_where_and_why() {
        for (text, what, at) in [
            ("", "expected `{`", 0),
            (r#"{"a":1}"#, "expected a string or an array of strings", 5),
            (r#"{"a":"b""#, "expected `,` or `}`", 8),
            (r#"{"a":"b"#, "unterminated string", 7),
            (r#"{"a":"\x"}"#, "invalid escape", 6),
            (r#"{"a":"b"}x"#, "expected the end", 9),
            ("{\"a\":\"\n\"}", "control character in a string", 6),
        ] {
            let error =
                Event::parse(Format::Json, Bytes::copy_from_slice(text.as_bytes())).unwrap_err();
            assert_eq!(error, Malformed { what, at }, "{text}");
        }
        let error = Event::parse(Format::Plain, Bytes::from_static(b"A: b\nC: d")).unwrap_err();
        assert_eq!(error.what, "expected an empty line after the headers");
        let error = Event::parse(
            Format::Plain,
            Bytes::from_static(b"A: b\nContent-Length: 9\n\nshort"),
        )
        .unwrap_err();
        assert_eq!(error.what, "body is not as long as its Content-Length");
    }

    proptest! {
        #[test]
        fn json_events_read_as_serde_json_reads_them(
            pairs in prop::collection::vec((any::<String>(), prop::collection::vec(any::<String>(), 0..3), any::<String>()), 0..20),
        ) {
            let mut text = String::from("{");
            let mut expected = Map::new();
            for (at, (name, array, single)) in pairs.iter().enumerate() {
                let value = if at % 3 == 0 { Value::from(array.clone()) } else { Value::from(single.clone()) };
                if at > 0 { text.push(','); }
                text.push_str(&Value::from(name.clone()).to_string());
                text.push(':');
                text.push_str(&value.to_string());
                expected.insert(name.clone(), value);
            }
            text.push('}');
            let event = json(&text);
            let mut entry = Vec::new();
            event.write_json(&mut entry);
            let written: Map<String, Value> = serde_json::from_slice(&entry).unwrap();
            let sorted = |map: Map<String, Value>| { let mut pairs: Vec<_> = map.into_iter().collect(); pairs.sort_by(|a, b| a.0.cmp(&b.0)); pairs };
            prop_assert_eq!(sorted(written), sorted(expected.clone()));
            for (name, value) in &expected {
                if let Some(value) = value.as_str() {
                    prop_assert_eq!(event.get(&Name::new(name)).unwrap(), value);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_what_it_takes_it_writes_as_json(bytes in any::<Vec<u8>>(), wrap in any::<bool>()) {
            let mut text = bytes;
            if wrap { text.splice(0..0, *b"{\""); text.extend(b"\":\"x\"}"); } else { text.extend(b"\n\n"); }
            for format in [Format::Json, Format::Plain] {
                if let Ok(event) = Event::parse(format, Bytes::from(text.clone())) {
                    let mut entry = Vec::new();
                    event.write_json(&mut entry);
                    serde_json::from_slice::<Map<String, Value>>(&entry).unwrap();
                }
            }
        }
    }
}
