//! A decision: what became of an input. It is journaled before anything of it is sent, and a resend is made from it and the
//! input's bytes alone: no filter runs again, no route is asked again.
//!
//! Written with postcard, after a version byte. What no filter saw takes the name of its stream and a few bytes; each call of a
//! filter adds some thirty, so that a decision alone says which versions an event met.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::event::{Event, Format};
use crate::filter::{Derived, Step};
use crate::journal::{Kind, Lsn, Record};
use crate::route::{Delivery, Origin, Outcome, Routes};

/// The version of the encoding; docs/journal.md describes it.
const VERSION: u8 = 3;

/// What became of one event of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Became {
    /// What a filter derived it as; `None` for the input's own event.
    pub derived: Option<Derived>,
    /// What filters did to it, in order.
    pub steps: Vec<Step>,
    /// Where it goes.
    pub outcome: Outcome,
}

/// A decision's bytes make no sense.
#[derive(Debug, Error)]
pub enum DecisionError {
    /// Of another version of this program.
    #[error("decision of version {0:?}; this program reads {VERSION}")]
    Version(Option<u8>),
    /// Not what postcard wrote.
    #[error("malformed decision")]
    Malformed(#[from] postcard::Error),
}

/// Decided, and to be written.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The input's number.
    pub lsn: Lsn,
    /// When the input was read, in microseconds since the epoch.
    pub received_us: u64,
    /// When it was decided.
    pub decided_us: u64,
    /// The event and those derived from it, in order, as far as they go to Redis; never empty.
    pub events: Vec<Delivery>,
}

impl Decision {
    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        let entries = self.events.iter().flat_map(|event| &event.entries);
        entries
            .flat_map(|entry| &entry.fields)
            .map(|(field, value)| field.len() + value.len())
            .sum()
    }

    /// Makes the entries again, from the input's record and the record of its decision. `None`: it has none.
    pub fn again(
        input: &Record,
        decision: &Record,
        routes: &Routes,
    ) -> Result<Option<Decision>, DecisionError> {
        let (lsn, at_us) = (decision.head.lsn, decision.head.at_us);
        let origin = Origin { lsn, at_us };
        let mut events = Vec::new();
        for became in decode(&decision.payload)? {
            events.extend(deliver(input, &became, routes, origin));
        }
        Ok((!events.is_empty()).then_some(Decision {
            lsn,
            received_us: input.head.at_us,
            decided_us: at_us,
            events,
        }))
    }
}

fn deliver(input: &Record, became: &Became, routes: &Routes, origin: Origin) -> Option<Delivery> {
    if let Outcome::Malformed(reason) = &became.outcome {
        return Some(routes.malformed(input.payload.clone(), reason, origin));
    }
    let event = edited(input, became)?;
    routes.again(&event, &became.outcome, origin)
}

/// The event as it was when all filters had seen it; `None`: the input was no event.
pub(super) fn edited(input: &Record, became: &Became) -> Option<Event> {
    let mut event = match &became.derived {
        Some(derived) => derived.event(),
        // What was an event when it was decided is one still.
        None => event_of(input.head.kind, input.payload.clone())?,
    };
    for edit in became.steps.iter().flat_map(|step| &step.edits) {
        edit.apply(&mut event);
    }
    Some(event)
}

pub(super) fn event_of(kind: Kind, bytes: Bytes) -> Option<Event> {
    Event::parse(format(kind)?, bytes).ok()
}

/// How an input's bytes are encoded; `None` for one that is no event.
pub fn format(kind: Kind) -> Option<Format> {
    match kind {
        Kind::Json | Kind::Internal | Kind::Replay => Some(Format::Json),
        Kind::Plain => Some(Format::Plain),
        _ => None,
    }
}

/// Appends the bytes of a decision.
pub fn encode(became: &[Became], to: Vec<u8>) -> Result<Vec<u8>, DecisionError> {
    let mut to = to;
    to.push(VERSION);
    Ok(postcard::to_extend(became, to)?)
}

/// Reads the bytes of a decision.
pub fn decode(bytes: &[u8]) -> Result<Vec<Became>, DecisionError> {
    match bytes.split_first() {
        Some((&VERSION, bytes)) => Ok(postcard::from_bytes(bytes)?),
        other => Err(DecisionError::Version(other.map(|(version, _)| *version))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    use super::{Became, Decision, decode, encode};
    use crate::config::StreamFormat;
    use crate::config::{Sources, load};
    use crate::event::Event;
    use crate::filter::{Decided, Derived, Edit, Step, Verdict};
    use crate::journal::{Head, Kind, Record};
    use crate::route::{Delivery, Origin, Outcome, Routes, Target};

    fn target(stream: &str) -> Target {
        Target {
            stream: stream.into(),
            format: StreamFormat::Json,
        }
    }

    fn routes() -> Routes {
        let env = vec![("EVENTS_TO_PUSH".into(), "CUSTOM,CHANNEL_ANSWER".into())];
        let sources = Sources {
            env,
            ..Sources::default()
        };
        let config = load(sources).unwrap();
        Routes::new(&config.streams, &config.routes, &config.dead_letter)
    }

    fn record(kind: Kind, at_us: u64, payload: impl Into<Bytes>) -> Record {
        let head = Head {
            lsn: 1 << 40,
            kind,
            at_us,
            connection: 1,
            offset: 0,
        };
        Record {
            head,
            payload: payload.into(),
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("Event-Name".to_owned()),
            Just("A".to_owned()),
            Just("_body".to_owned()),
            "[ -~]{0,12}",
            any::<String>().prop_map(|text| text.chars().take(20).collect()),
        ]
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            (text(), text()).prop_map(|(name, value)| Edit::Set { name, value }),
            text().prop_map(Edit::Remove),
            Just(Edit::Remove("A*".to_owned())),
            prop::collection::vec(text(), 0..3).prop_map(Edit::Keep),
            text().prop_map(Edit::Body),
        ]
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        let streams = prop::collection::vec("[a-z]{1,8}", 1..4);
        prop_oneof![
            Just(Verdict::Pass),
            streams
                .prop_map(|names| { Verdict::Route(names.into_iter().map(Arc::from).collect()) }),
            text().prop_map(Verdict::Drop),
            text().prop_map(Verdict::DeadLetter),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let edits = prop::collection::vec(edit(), 0..4);
        (verdict(), edits, prop::option::of(text())).prop_map(|(verdict, edits, failure)| Step {
            by: "10-filter".into(),
            version: "1.2.3".into(),
            digest: "0123456789ab".into(),
            took_ns: 1_100,
            verdict,
            edits,
            failure,
        })
    }

    fn derived() -> impl Strategy<Value = Derived> {
        let headers = prop::collection::vec((text(), text()), 0..4);
        ("[A-Z_]{1,8}", headers, prop::option::of(text())).prop_map(|(name, headers, body)| {
            Derived {
                by: "10-filter".into(),
                name,
                headers,
                body,
            }
        })
    }

    /// What the pipeline does with one event: its entries now, and what it journals.
    fn decide(
        routes: &Routes,
        origin: Origin,
        event: Event,
        derived: Option<Derived>,
        steps: Vec<Step>,
    ) -> (Option<Delivery>, Became) {
        let mut event = event;
        let edits = steps.iter().flat_map(|step| &step.edits);
        edits.for_each(|edit| edit.apply(&mut event));
        let decided = Decided {
            event,
            derived,
            steps,
            streams: Vec::new(),
        };
        let outcome = routes.decide(&decided);
        let delivery = routes.deliver(&decided.event, &outcome, origin);
        let became = Became {
            derived: decided.derived,
            steps: decided.steps,
            outcome,
        };
        (delivery, became)
    }

    type Written = (bool, String, Vec<(Bytes, Bytes)>);

    fn written(deliveries: &[Delivery]) -> Vec<Written> {
        let entries = deliveries.iter().flat_map(|delivery| {
            let entries = delivery.entries.iter();
            entries.map(|entry| {
                (
                    delivery.dead,
                    entry.stream.name.to_string(),
                    entry.fields.clone(),
                )
            })
        });
        entries.collect()
    }

    proptest! {
        #[test]
        fn a_resend_is_what_was_sent_whatever_filters_did(
            headers in prop::collection::vec((text(), text()), 0..8),
            steps in prop::collection::vec(step(), 0..4),
            made in prop::collection::vec((derived(), prop::collection::vec(step(), 0..3)), 0..3),
            at_us in 0..u64::from(u32::MAX),
        ) {
            let routes = routes();
            let members: Vec<String> = headers.iter()
                .map(|(name, value)| format!("{}:{}", serde_json::json!(name), serde_json::json!(value)))
                .collect();
            let frame = format!("{{\"Event-Name\":\"CUSTOM\"{}{}}}", if members.is_empty() { "" } else { "," }, members.join(","));
            let input = record(Kind::Json, 7, frame);
            let origin = Origin { lsn: input.head.lsn, at_us };
            let event = super::event_of(Kind::Json, input.payload.clone()).unwrap();
            let mut all = vec![(event, None, steps)];
            all.extend(made.into_iter().map(|(derived, steps)| (derived.event(), Some(derived), steps)));
            let (mut sent, mut became) = (Vec::new(), Vec::new());
            for (event, derived, steps) in all {
                let (delivery, one) = decide(&routes, origin, event, derived, steps);
                sent.extend(delivery);
                became.push(one);
            }
            let decision = record(Kind::Decision, at_us, encode(&became, Vec::new()).unwrap());
            prop_assert_eq!(&decode(&decision.payload).unwrap(), &became);
            let again = Decision::again(&input, &decision, &routes).unwrap();
            let again = again.map(|again| again.events).unwrap_or_default();
            prop_assert_eq!(written(&again), written(&sent));
        }

        #[test]
        fn bytes_that_are_no_decision_are_an_error_and_no_crash(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let decided = decode(&bytes);
            if bytes.first() != Some(&super::VERSION) {
                decided.unwrap_err();
            }
        }
    }

    #[test]
    fn an_event_that_passed_unchanged_takes_a_few_bytes() {
        let step = Step {
            by: "10-redact".into(),
            version: "0.1.0".into(),
            digest: "0123456789ab".into(),
            took_ns: 1_100,
            verdict: Verdict::Pass,
            edits: Vec::new(),
            failure: None,
        };
        let bytes = |calls| {
            let became = Became {
                derived: None,
                steps: vec![step.clone(); calls],
                outcome: Outcome::Streams(vec![target("freeswitch:telephony:events")]),
            };
            encode(&[became], Vec::new()).unwrap().len()
        };
        assert!(bytes(0) <= 35, "{} bytes without a filter", bytes(0));
        assert!(bytes(1) <= 35 + 34, "{} bytes with one", bytes(1));
    }

    #[test]
    fn a_malformed_frame_is_a_dead_letter_again() {
        let (routes, input) = (routes(), record(Kind::Json, 7, "no event"));
        let became = Became {
            derived: None,
            steps: Vec::new(),
            outcome: Outcome::Malformed("why".to_owned()),
        };
        let decision = record(Kind::Decision, 8, encode(&[became], Vec::new()).unwrap());
        let again = Decision::again(&input, &decision, &routes)
            .unwrap()
            .unwrap();
        let written = written(&again.events);
        assert!(written[0].0, "it is dead");
        assert_eq!(written[0].2[0].1, "no event", "as it came");
        assert_eq!((again.received_us, again.decided_us), (7, 8));
    }
}
