//! Decisions as they lie in the journal: bytes that are none are an error, all others keep their meaning when they are written
//! again, and make the same entries of the same input every time.
//!
//! The data is the payload of a decision's record. It is applied to an input of each sort.

use std::sync::Arc;

use bytes::Bytes;
use jackfield::config::{self, StreamFormat};
use jackfield::event::{Event, Format};
use jackfield::journal::{EPOCH, Head, Kind, Record};
use jackfield::pipeline::{Became, Decision, decode, encode};
use jackfield::route::{Delivery, Outcome, Routes, Target};

use crate::object::Object;

/// An input of each sort: events in both encodings, a dead letter that was no event, a tick.
const INPUTS: [(Kind, &str); 5] = [
    (
        Kind::Json,
        r#"{"Event-Name":"CUSTOM","A":"1","A":"2","List":["x","y"],"Content-Length":"3","_body":"abc"}"#,
    ),
    (
        Kind::Plain,
        "Event-Name: DTMF\nA: %22\nContent-Length: 3\n\na\nb",
    ),
    (Kind::Internal, r#"{"Event-Name":"JACKFIELD"}"#),
    (Kind::Replay, "no event"),
    (Kind::Tick, "10-filter"),
];

/// A stream whose entries have a field for each header; all others hold JSON.
const FIELDS: &str = "fields";
const DEAD: &str = "dead";

/// Checks the bytes of one decision.
pub fn run(data: &[u8]) {
    let Ok(decided) = decode(data) else {
        return;
    };
    let bytes = encode(&decided, Vec::new()).expect("what was decoded is encoded");
    let again = decode(&bytes).expect("what was encoded is decoded");
    assert_eq!(again, decided, "written again");
    let json = serde_json::to_string(&decided).expect("a decision is shown as JSON");
    let shown: Vec<Became> = serde_json::from_str(&json).expect("and read from it");
    assert_eq!(shown, decided, "shown as {json}");

    let routes = routes();
    for (kind, payload) in INPUTS {
        let input = record(kind, Bytes::from_static(payload.as_bytes()));
        let decision = record(Kind::Decision, Bytes::copy_from_slice(data));
        let made = Decision::again(&input, &decision, &routes).expect("it was decoded before");
        check(&input, &decided, made.as_ref());
        let again = Decision::again(&input, &decision, &routes).expect("it was decoded before");
        assert_eq!(format!("{again:?}"), format!("{made:?}"), "made twice");
    }
}

fn check(input: &Record, decided: &[Became], made: Option<&Decision>) {
    let mut deliveries = made.map_or(&[][..], |made| &made.events).iter();
    for became in decided {
        let event = event(input, became);
        match (&became.outcome, event) {
            (Outcome::Malformed(reason), _) => {
                let delivery = deliveries
                    .next()
                    .expect("a frame that is no event is a dead letter");
                check_dead(delivery, "frame", &input.payload, reason);
            }
            (Outcome::Dead { reason, .. }, Some(event)) => {
                let delivery = deliveries.next().expect("a dead letter is one");
                check_dead(delivery, "event", &json(&event), reason);
            }
            (Outcome::Streams(targets), Some(event)) if !targets.is_empty() => {
                let delivery = deliveries
                    .next()
                    .expect("an event with streams goes to them");
                assert!(!delivery.dead);
                let written = delivery.entries.iter().map(|entry| Target {
                    stream: Arc::clone(&entry.stream.name),
                    format: entry.stream.format,
                });
                let written: Vec<Target> = written.collect();
                assert_eq!(
                    &written, targets,
                    "each has an entry, written as was decided"
                );
                for entry in &delivery.entries {
                    match entry.stream.format {
                        StreamFormat::Json => {
                            assert_eq!(entry.fields, [("event".into(), json(&event))]);
                        }
                        StreamFormat::Fields => assert_eq!(entry.fields, event.fields()),
                    }
                }
            }
            _ => {}
        }
    }
    assert!(deliveries.next().is_none(), "nothing else is delivered");
    if let Some(made) = made {
        assert!(
            !made.events.is_empty(),
            "a decision without entries is none"
        );
        let entries = made.events.iter().flat_map(|delivery| &delivery.entries);
        let fields = entries.flat_map(|entry| &entry.fields);
        let bytes: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
        assert_eq!(made.bytes(), bytes);
    }
}

fn check_dead(delivery: &Delivery, name: &str, payload: &Bytes, reason: &str) {
    assert!(delivery.dead);
    let [entry] = delivery.entries.as_slice() else {
        panic!("a dead letter is one entry, not {:?}", delivery.entries);
    };
    assert_eq!(&*entry.stream.name, DEAD);
    let field = |name: &str| {
        entry
            .fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value)
    };
    assert_eq!(field(name), Some(payload));
    assert_eq!(
        field("reason").map(|bytes| &bytes[..]),
        Some(reason.as_bytes())
    );
    assert_eq!(
        field("lsn").map(|bytes| &bytes[..]),
        Some(EPOCH.to_string().as_bytes())
    );
}

/// The event that the decision is about, with its edits.
fn event(input: &Record, became: &Became) -> Option<Event> {
    let mut event = match &became.derived {
        Some(derived) => derived.event(),
        None => {
            let format = match input.head.kind {
                Kind::Json | Kind::Internal | Kind::Replay => Format::Json,
                Kind::Plain => Format::Plain,
                _ => return None,
            };
            Event::parse(format, input.payload.clone()).ok()?
        }
    };
    let edits = became.steps.iter().flat_map(|step| &step.edits);
    edits.for_each(|edit| edit.apply(&mut event));
    Some(event)
}

/// The event as it is written, which is an object with each name once.
fn json(event: &Event) -> Bytes {
    let mut text = Vec::new();
    event.write_json(&mut text);
    let text = String::from_utf8(text).expect("what is written is UTF-8");
    Object::read(&text)
        .expect("what is written is an object")
        .distinct();
    Bytes::from(text)
}

fn record(kind: Kind, payload: Bytes) -> Record {
    let head = Head {
        lsn: EPOCH,
        kind,
        at_us: 1,
        connection: 0,
        offset: 0,
    };
    Record { head, payload }
}

fn routes() -> Routes {
    let stream = config::Stream {
        name: FIELDS.to_owned(),
        max_len: 0,
        expire: None,
        format: StreamFormat::Fields,
    };
    let dead_letter = config::DeadLetter {
        stream: DEAD.to_owned(),
        max_len: 0,
    };
    Routes::new(&[stream], &[], &dead_letter)
}
