//! What is in Redis, and beside it in the local dead-letter file: the events by their keys. Entries that are somebody else's are
//! told apart by their field.

use serde_json::Value;

use super::tap::{Key, key};
use crate::harness::{Redis, Setup, field};

/// The field of the entries that a test adds to a stream as somebody else would.
pub(crate) const FOREIGN: &str = "foreign";

type Fields = Vec<(String, String)>;

/// The events of a stream, in its order.
pub(crate) fn of_stream(redis: &Redis, stream: &str) -> Vec<Key> {
    of_entries(&redis.entries(stream))
}

/// The events of these entries.
pub(crate) fn of_entries(entries: &[Fields]) -> Vec<Key> {
    let ours = entries.iter().filter(|fields| !is_foreign(fields));
    ours.map(|fields| key_in(field(fields, "event"))).collect()
}

/// What somebody else wrote to a stream.
pub(crate) fn foreign(redis: &Redis, stream: &str) -> Vec<String> {
    let entries = redis.entries(stream);
    let theirs = entries.iter().filter(|fields| is_foreign(fields));
    theirs
        .map(|fields| field(fields, FOREIGN).to_owned())
        .collect()
}

/// The events of all dead letters: those of the stream, then those of the local file.
pub(crate) fn letters(redis: &Redis, stream: &str, left: &Setup) -> Vec<Key> {
    let file = left.journal().join("dead-letters.jsonl");
    // There is none before the first letter that Redis does not take.
    let lines = std::fs::read_to_string(file).unwrap_or_default();
    let local = lines.lines().map(|line| {
        let letter: Value = serde_json::from_str(line).unwrap();
        key_in(letter["event"].as_str().unwrap())
    });
    of_stream(redis, stream).into_iter().chain(local).collect()
}

fn is_foreign(fields: &Fields) -> bool {
    fields.iter().any(|(name, _)| name == FOREIGN)
}

/// The key of an event's JSON. A dead letter that was too large is cut short, and its key stands near its beginning.
fn key_in(event: &str) -> Key {
    if let Ok(Value::Object(event)) = serde_json::from_str(event) {
        return key(&event);
    }
    let value = |name: &str| {
        let begins = format!("\"{name}\":\"");
        let at = event
            .find(&begins)
            .unwrap_or_else(|| panic!("{name} in {event:.300}"));
        let rest = &event[at + begins.len()..];
        &rest[..rest.find('"').unwrap()]
    };
    Key {
        core: value("Core-UUID").into(),
        sequence: value("Event-Sequence").parse().unwrap(),
    }
}
