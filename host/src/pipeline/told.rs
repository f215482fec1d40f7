//! An input and what became of it, as people and programs are told: by `jackfield why`, `jackfield tail` and `GET /events` alike.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::decision::{Became, decode, edited, event_of};
use crate::clock::rfc3339;
use crate::event::Event;
use crate::filter::{Derived, Step};
use crate::journal::{Lsn, Record};
use crate::route::Outcome;

/// One input with what became of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// The input's number.
    pub lsn: Lsn,
    /// When it was read.
    pub received: String,
    /// The same in microseconds since the epoch.
    pub received_us: u64,
    /// The name of the input's own event; `None` for a tick or a frame that was no event.
    pub event: Option<String>,
    /// The `Unique-ID` of its channel.
    pub unique_id: Option<String>,
    /// Its own event, and those that filters derived of it; `None` while it is not decided.
    pub became: Option<Vec<ToldEvent>>,
}

/// What became of one event.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToldEvent {
    /// What a filter derived it as; `None` for the input's own event.
    pub derived: Option<Derived>,
    /// What filters did to it, in order.
    pub steps: Vec<Step>,
    /// Where it went.
    pub outcome: Outcome,
    /// The event after all edits, as it was or would have been delivered: an object of all headers with the body under `_body`.
    /// `None`: the frame was no event.
    pub headers: Option<Box<RawValue>>,
}

impl Told {
    /// What there is to tell.
    pub fn of(input: &Record, decision: Option<&Record>) -> Told {
        Told::with_events(input, decision).0
    }

    /// The same, and the events after all edits.
    pub fn with_events(input: &Record, decision: Option<&Record>) -> (Told, Vec<Event>) {
        // One that does not read is as good as none.
        let became = decision.and_then(|decision| decode(&decision.payload).ok());
        let own = event_of(input.head.kind, input.payload.clone());
        let header = |name| Some(own.as_ref()?.get_str(name)?.into_owned());
        let (event, unique_id) = (header("Event-Name"), header("Unique-ID"));
        let mut events = Vec::new();
        let mut tell = |became: Became| {
            let event = edited(input, &became);
            let headers = event.as_ref().and_then(object);
            events.extend(event);
            ToldEvent {
                derived: became.derived,
                steps: became.steps,
                outcome: became.outcome,
                headers,
            }
        };
        let became = became.map(|became| became.into_iter().map(&mut tell).collect());
        let told = Told {
            lsn: input.head.lsn,
            received: rfc3339(input.head.at_us),
            received_us: input.head.at_us,
            event,
            unique_id,
            became,
        };
        (told, events)
    }
}

fn object(event: &Event) -> Option<Box<RawValue>> {
    let mut json = Vec::new();
    event.write_json(&mut json);
    // It is JSON, because that is what goes to Redis.
    RawValue::from_string(String::from_utf8(json).ok()?).ok()
}
