//! An event as FreeSWITCH sends it, prepared: a frame's bytes with a few places of fixed width that differ from event to event.
//!
//! Sending one costs a copy and a few digits. `Event-Date-Timestamp` is the time at which the event was to be sent, so that
//! whoever reads it later can tell how long it took; `Event-Sequence` is its number; the calls' ids change every few events.

use std::io::Write;

/// A channel event with 106 headers, 4,164 bytes of JSON.
pub const CHANNEL_ANSWER: &str = include_str!("../../corpus/channel_answer.json");

/// The least that a host needs of an event of a call, its own name included: where the number of events matters and not their size.
pub const SMALL: &str = concat!(
    r#"{"Event-Name":"CHANNEL_ANSWER","Core-UUID":"54fca8ef-6dd9-4cf6-afa0-88230a1afbea","#,
    r#""FreeSWITCH-Switchname":"sim1","Event-Date-Timestamp":"1795230409735312","Event-Sequence":"10000000","#,
    r#""Unique-ID":"e7aaae71-2899-4b81-a53d-3c15e8228742","variable_tenant":"acme-north"}"#
);

/// The number of the first event: as wide as the last one.
pub const FIRST: u64 = 10_000_000;
/// So many events in a row belong to one call.
const EVENTS_A_CALL: u64 = 16;
const TIMESTAMP: &str = "\"Event-Date-Timestamp\":\"";
const TIMESTAMP_DIGITS: usize = 16;
const SEQUENCE: &str = "\"Event-Sequence\":\"";
const SEQUENCE_DIGITS: usize = 8;
const CALL: &str = "\"Unique-ID\":\"";
const UUID_BYTES: usize = 36;
/// The last group of a UUID.
const NODE_BYTES: usize = 12;

/// A frame that is filled in for each event.
pub struct Prepared {
    frame: Vec<u8>,
    body_at: usize,
    timestamp: usize,
    sequence: usize,
    /// Wherever the call's id stands.
    calls: Vec<usize>,
}

impl Prepared {
    /// Of an event's JSON.
    pub fn new(json: &str) -> Prepared {
        let mut frame = format!(
            "Content-Length: {}\nContent-Type: text/event-json\n\n",
            json.len()
        );
        let body_at = frame.len();
        frame.push_str(json);
        let after = |name: &str| {
            let at = frame.find(name).expect("a prepared event has this header");
            at + name.len()
        };
        let (timestamp, sequence, call) = (after(TIMESTAMP), after(SEQUENCE), after(CALL));
        let calls = frame.match_indices(&frame[call..call + UUID_BYTES]);
        let calls = calls.map(|(at, _)| at + UUID_BYTES - NODE_BYTES).collect();
        Prepared {
            frame: frame.into_bytes(),
            body_at,
            timestamp,
            sequence,
            calls,
        }
    }

    /// The whole frame of an event with this number, due at this time in microseconds since the epoch.
    pub fn frame(&mut self, number: u64, due_us: u64) -> &[u8] {
        digits(&mut self.frame, self.timestamp, TIMESTAMP_DIGITS, due_us);
        digits(&mut self.frame, self.sequence, SEQUENCE_DIGITS, number);
        if number.is_multiple_of(EVENTS_A_CALL) || number == FIRST {
            for &at in &self.calls {
                let mut place = &mut self.frame[at..at + NODE_BYTES];
                write!(place, "{:012x}", number / EVENTS_A_CALL).expect("there is room");
            }
        }
        &self.frame
    }

    /// The bytes of the event alone.
    pub fn body(&self) -> &[u8] {
        &self.frame[self.body_at..]
    }
}

fn digits(frame: &mut [u8], at: usize, count: usize, mut value: u64) {
    for place in frame[at..at + count].iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).expect("a digit");
        value /= 10;
    }
}

/// The time at which an entry's event was to be sent, in microseconds since the epoch, wherever it stands in these bytes.
pub fn due_us(entry: &[u8]) -> Option<u64> {
    number_after(entry, TIMESTAMP, TIMESTAMP_DIGITS)
}

/// The number of an entry's event.
pub fn number(entry: &[u8]) -> Option<u64> {
    number_after(entry, SEQUENCE, SEQUENCE_DIGITS)
}

fn number_after(entry: &[u8], name: &str, count: usize) -> Option<u64> {
    let name = name.as_bytes();
    let at = entry
        .windows(name.len())
        .position(|window| window == name)?
        + name.len();
    let digits = entry.get(at..at + count)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{CHANNEL_ANSWER, FIRST, Prepared, SMALL, due_us, number};

    #[test]
    fn the_event_is_as_large_as_the_numbers_say() {
        let event: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(CHANNEL_ANSWER).unwrap();
        assert_eq!((event.len(), CHANNEL_ANSWER.len()), (106, 4164));
    }

    #[test]
    fn each_event_has_its_number_and_its_time_and_stays_whole() {
        for json in [CHANNEL_ANSWER, SMALL] {
            let mut prepared = Prepared::new(json);
            let whole = prepared.frame(FIRST, 1_795_230_409_735_312).len();
            let frame = prepared
                .frame(FIRST + 123_456, 1_800_000_000_000_001)
                .to_vec();
            assert_eq!(frame.len(), whole, "nothing moves");
            assert_eq!(number(&frame), Some(FIRST + 123_456));
            assert_eq!(due_us(&frame), Some(1_800_000_000_000_001));
            let event: serde_json::Value = serde_json::from_slice(prepared.body()).unwrap();
            assert_eq!(event["Event-Name"], "CHANNEL_ANSWER");
        }
    }

    #[test]
    fn a_call_has_one_id_in_all_its_headers_and_the_next_one_another() {
        let mut prepared = Prepared::new(CHANNEL_ANSWER);
        let mut ids = |number| {
            prepared.frame(number, 0);
            let event: serde_json::Value = serde_json::from_slice(prepared.body()).unwrap();
            ["Unique-ID", "Channel-Call-UUID", "variable_uuid"]
                .map(|name| event[name].as_str().unwrap().to_owned())
        };
        let (first, same, next) = (ids(FIRST), ids(FIRST + 1), ids(FIRST + 16));
        assert_eq!(first[0], first[1], "one id");
        assert_eq!(first[0], first[2], "one id");
        assert_eq!(first, same, "one call");
        assert_ne!(first, next, "another call");
    }
}
