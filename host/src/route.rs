//! From an event and its fate to the entries that go to Redis: the route table, the streams, the dead letters.
//!
//! Pure, but for a bounded memory of the streams that filters named. Knows nothing of connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::{self, EventsWanted, StreamFormat};
use crate::esl::Subscription;
use crate::event::{Event, Name, Selection};
use crate::filter::{Decided, Verdict};
use crate::journal::Lsn;

/// What a stream gets that no setting describes; the defaults of Telephony Event Sync's events stream.
const UNLISTED: Unlisted = Unlisted {
    max_len: 10_000,
    expire: Duration::from_secs(600),
    format: StreamFormat::Json,
};
/// Unlisted streams that are remembered for trimming.
const MAX_UNLISTED: usize = 1_000;

struct Unlisted {
    max_len: u64,
    expire: Duration,
    format: StreamFormat,
}

/// A Redis stream and its limits.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream {
    /// The key.
    pub name: Arc<str>,
    /// `MAXLEN ~`; 0 for none.
    pub max_len: u64,
    /// Entries older than this are trimmed; `None` for never.
    pub expire: Option<Duration>,
    /// How events are written.
    pub format: StreamFormat,
}

/// What will be written, and to which stream.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where to.
    pub stream: Arc<Stream>,
    /// The entry's fields and values.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// One event on its way to Redis.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Never empty.
    pub entries: Vec<Entry>,
    /// It goes to the dead letters, and nowhere else.
    pub dead: bool,
}

/// One stream that an event goes to, and how it is written there: a reload of the settings changes neither for what is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The stream's name.
    pub stream: Arc<str>,
    /// How the event is written.
    pub format: StreamFormat,
}

/// What becomes of an event: what is journaled, and all that its entries are made of beside the event itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It goes to these streams.
    Streams(Vec<Target>),
    /// It is kept as a dead letter.
    Dead {
        /// The filter's file.
        by: Arc<str>,
        /// Its words, or how it failed.
        reason: String,
        /// Where it would have gone.
        stream: Option<Arc<str>>,
    },
    /// The frame was no event; it is kept as a dead letter, as it came.
    Malformed(String),
    /// A filter dropped it.
    Dropped {
        /// The filter's file.
        by: Arc<str>,
        /// Its words.
        reason: String,
    },
    /// No route wants it.
    Unrouted,
}

/// The input that an entry comes from, and when it was decided.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The input's number.
    pub lsn: Lsn,
    /// In microseconds since the epoch.
    pub at_us: u64,
}

#[derive(Debug)]
struct Rule {
    stream: Arc<Stream>,
    events: Selection,
    when: Vec<(Name, String)>,
}

impl Rule {
    fn matches(&self, event: &Event) -> bool {
        self.events.matches(event)
            && self
                .when
                .iter()
                .all(|(header, value)| event.get(header).is_some_and(|found| found == *value))
    }
}

/// The route table; the first rule that matches decides. One table never changes: new settings are another one.
#[derive(Debug)]
pub struct Routes {
    rules: Vec<Rule>,
    streams: HashMap<Arc<str>, Arc<Stream>>,
    /// Streams that only filters named, by this table or those before it.
    unlisted: Arc<Mutex<HashMap<Arc<str>, Arc<Stream>>>>,
    dead_letter: Arc<Stream>,
    /// Where dead letters went by the tables before it, and no event goes now.
    dead_before: Vec<Arc<str>>,
    asked: EventsWanted,
}

impl Routes {
    /// The table of these settings.
    pub fn new(
        streams: &[config::Stream],
        routes: &[config::Route],
        dead_letter: &config::DeadLetter,
    ) -> Routes {
        let made: Vec<Arc<Stream>> = streams
            .iter()
            .map(|stream| {
                Arc::new(Stream {
                    name: stream.name.as_str().into(),
                    max_len: stream.max_len,
                    expire: stream.expire,
                    format: stream.format,
                })
            })
            .collect();
        let rule = |route: &config::Route| {
            let mut events = Selection::default();
            for event in &route.events {
                events.add(&event.name, event.subclass.as_deref());
            }
            Some(Rule {
                stream: Arc::clone(made.get(route.stream)?),
                events,
                when: route
                    .when
                    .iter()
                    .map(|(header, value)| (Name::new(header), value.clone()))
                    .collect(),
            })
        };
        let dead_letter = Arc::new(Stream {
            name: dead_letter.stream.as_str().into(),
            max_len: dead_letter.max_len,
            expire: None,
            format: StreamFormat::Json,
        });
        Routes {
            rules: routes.iter().filter_map(rule).collect(),
            streams: made
                .into_iter()
                .map(|stream| (stream.name.clone(), stream))
                .collect(),
            unlisted: Arc::default(),
            dead_letter,
            dead_before: Vec::new(),
            asked: EventsWanted::Auto,
        }
    }

    /// FreeSWITCH is asked for these events.
    #[must_use]
    pub fn asking(mut self, events: &EventsWanted) -> Routes {
        self.asked = events.clone();
        self
    }

    /// This table follows another one in the same host, and knows what that one knew.
    #[must_use]
    pub fn after(mut self, before: &Routes) -> Routes {
        self.unlisted = Arc::clone(&before.unlisted);
        self.lock()
            .retain(|name, _| !self.streams.contains_key(name));
        let dead = before
            .dead_letters()
            .filter(|name| **name != self.dead_letter.name && !self.streams.contains_key(*name));
        self.dead_before = dead.cloned().collect();
        self
    }

    /// Adds what the routes want to receive.
    pub fn subscribe(&self, subscription: &mut Subscription) {
        for rule in &self.rules {
            subscription.add_selection(&rule.events);
        }
    }

    /// What FreeSWITCH is asked for whatever routes and filters want, if `esl.events` lists it.
    pub fn asked_for(&self) -> Option<Subscription> {
        match &self.asked {
            EventsWanted::Auto => None,
            listed => Some(Subscription::of(listed)),
        }
    }

    /// All streams that are known, those included that only filters named.
    pub fn known(&self) -> Vec<Arc<Stream>> {
        let unlisted = self.lock();
        // A filter may have named one just before a setting described it.
        let unlisted = unlisted.values().filter(|stream| {
            !self.streams.contains_key(&stream.name) && stream.name != self.dead_letter.name
        });
        self.streams.values().chain(unlisted).cloned().collect()
    }

    /// Those with a limit on age.
    pub fn expiring(&self) -> Vec<(Arc<Stream>, Duration)> {
        let known = self.known().into_iter();
        known
            .filter_map(|stream| Some((Arc::clone(&stream), stream.expire?)))
            .collect()
    }

    /// What becomes of an event after the chain.
    pub fn decide(&self, decided: &Decided) -> Outcome {
        let by_route = || {
            self.matching(&decided.event)
                .map(|stream| Arc::clone(&stream.name))
        };
        match decided.verdict() {
            Some((by, Verdict::Drop(reason))) => Outcome::Dropped {
                by: Arc::clone(by),
                reason: reason.clone(),
            },
            Some((by, Verdict::DeadLetter(reason))) => Outcome::Dead {
                by: Arc::clone(by),
                reason: reason.clone(),
                stream: by_route(),
            },
            Some((_, Verdict::Route(streams))) => self.to(streams),
            _ if !decided.streams.is_empty() => self.to(&decided.streams),
            _ => by_route().map_or(Outcome::Unrouted, |stream| self.to(&[stream])),
        }
    }

    fn to(&self, streams: &[Arc<str>]) -> Outcome {
        let target = |stream: &Arc<str>| Target {
            stream: Arc::clone(stream),
            format: self
                .streams
                .get(stream)
                .map_or(UNLISTED.format, |listed| listed.format),
        };
        Outcome::Streams(streams.iter().map(target).collect())
    }

    /// The entries of an event that was decided now, if it has any.
    pub fn deliver(&self, event: &Event, outcome: &Outcome, origin: Origin) -> Option<Delivery> {
        self.entries(event, outcome, origin, |name| {
            self.known_as(name).unwrap_or_else(|| self.unlisted(name))
        })
    }

    /// The entries of an event that was decided before, by these settings or others. What they hold follows from the arguments
    /// alone, so that a resend is the same. A stream that nothing describes any more gets its entries, and nothing of it is trimmed.
    pub fn again(&self, event: &Event, outcome: &Outcome, origin: Origin) -> Option<Delivery> {
        self.entries(event, outcome, origin, |name| {
            self.known_as(name).unwrap_or_else(|| {
                Arc::new(Stream {
                    name: Arc::clone(name),
                    max_len: 0,
                    expire: None,
                    format: UNLISTED.format,
                })
            })
        })
    }

    fn entries(
        &self,
        event: &Event,
        outcome: &Outcome,
        origin: Origin,
        stream: impl Fn(&Arc<str>) -> Arc<Stream>,
    ) -> Option<Delivery> {
        match outcome {
            Outcome::Streams(targets) if !targets.is_empty() => {
                let mut written = None;
                let streams = targets
                    .iter()
                    .map(|target| written_as(stream(&target.stream), target.format));
                let entries = streams.map(|stream| entry(stream, event, &mut written));
                Some(Delivery {
                    entries: entries.collect(),
                    dead: false,
                })
            }
            Outcome::Dead { by, reason, stream } => {
                let event = ("event", json(event));
                let stream = stream.as_deref().unwrap_or_default();
                Some(self.dead(event, stream, by, reason, origin))
            }
            // No filter and no route decides for no stream at all, but a journal's bytes can say so.
            Outcome::Streams(_)
            | Outcome::Malformed(_)
            | Outcome::Dropped { .. }
            | Outcome::Unrouted => None,
        }
    }

    /// A frame that is no event, kept as it came.
    pub fn malformed(&self, frame: Bytes, reason: &str, origin: Origin) -> Delivery {
        self.dead(("frame", frame), "", "", reason, origin)
    }

    /// An entry that Redis refused, kept with the reason. What made it too large is cut off.
    pub fn refused(&self, entry: &Entry, lsn: Lsn, reason: &str, max_bytes: usize) -> Delivery {
        let payload = match entry.stream.format {
            StreamFormat::Json => entry.fields.first().cloned().unwrap_or_default().1,
            StreamFormat::Fields => object(&entry.fields),
        };
        let within_character = |end: &usize| {
            let byte = payload.get(*end);
            byte.is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000)
        };
        let longest = payload.len().min(max_bytes);
        let end = (0..=longest).rev().find(|end| !within_character(end));
        let payload = ("event", payload.slice(..end.unwrap_or(longest)));
        let at_us = clock::now_us();
        self.dead(
            payload,
            &entry.stream.name,
            "",
            reason,
            Origin { lsn, at_us },
        )
    }

    /// The stream of the dead letters.
    pub fn dead_letter(&self) -> Arc<Stream> {
        Arc::clone(&self.dead_letter)
    }

    /// The names of the stream of the dead letters, and of those that were it before.
    pub fn dead_letters(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::once(&self.dead_letter.name).chain(&self.dead_before)
    }

    /// Whether an entry of this stream is a dead letter already.
    pub fn is_dead(&self, stream: &str) -> bool {
        self.dead_letters().any(|dead| **dead == *stream)
    }

    fn dead(
        &self,
        (name, payload): (&'static str, Bytes),
        stream: &str,
        filter: &str,
        reason: &str,
        origin: Origin,
    ) -> Delivery {
        let field = |name: &'static str, value: Bytes| (Bytes::from_static(name.as_bytes()), value);
        let text = |value: &str| Bytes::copy_from_slice(value.as_bytes());
        let fields = vec![
            field(name, payload),
            field("streams", text(stream)),
            field("filter", text(filter)),
            field("reason", text(reason)),
            field("time", text(&clock::rfc3339(origin.at_us))),
            field("lsn", text(&origin.lsn.to_string())),
        ];
        Delivery {
            entries: vec![Entry {
                stream: Arc::clone(&self.dead_letter),
                fields,
            }],
            dead: true,
        }
    }

    fn matching(&self, event: &Event) -> Option<&Arc<Stream>> {
        self.rules
            .iter()
            .find(|rule| rule.matches(event))
            .map(|rule| &rule.stream)
    }

    fn known_as(&self, name: &Arc<str>) -> Option<Arc<Stream>> {
        let listed = self.streams.get(name).cloned();
        listed.or_else(|| self.lock().get(name).cloned())
    }

    /// A stream that a filter names and no setting describes.
    fn unlisted(&self, name: &Arc<str>) -> Arc<Stream> {
        let stream = Arc::new(Stream {
            name: Arc::clone(name),
            max_len: UNLISTED.max_len,
            expire: Some(UNLISTED.expire),
            format: UNLISTED.format,
        });
        let mut unlisted = self.lock();
        if unlisted.len() < MAX_UNLISTED {
            unlisted.insert(Arc::clone(name), Arc::clone(&stream));
        }
        stream
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Arc<Stream>>> {
        self.unlisted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The stream, though it is written otherwise by now.
fn written_as(stream: Arc<Stream>, format: StreamFormat) -> Arc<Stream> {
    if stream.format == format {
        return stream;
    }
    Arc::new(Stream {
        name: Arc::clone(&stream.name),
        format,
        ..*stream
    })
}

/// `written` is the event as JSON, once for all streams that want it so.
fn entry(stream: Arc<Stream>, event: &Event, written: &mut Option<Bytes>) -> Entry {
    let fields = match stream.format {
        StreamFormat::Json => {
            let json = written.get_or_insert_with(|| json(event)).clone();
            vec![(Bytes::from_static(b"event"), json)]
        }
        StreamFormat::Fields => event.fields(),
    };
    Entry { stream, fields }
}

/// The fields of an entry as one JSON object.
fn object(fields: &[(Bytes, Bytes)]) -> Bytes {
    let text = |bytes: &Bytes| serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string();
    let members = fields.iter();
    let members = members.map(|(name, value)| format!("{}:{}", text(name), text(value)));
    let members: Vec<String> = members.collect();
    Bytes::from(format!("{{{}}}", members.join(",")))
}

fn json(event: &Event) -> Bytes {
    let mut text = Vec::new();
    event.write_json(&mut text);
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Entry, Origin, Outcome, Routes, Target};
    use crate::config::{Sources, StreamFormat, load};
    use crate::event::{Event, Format};
    use crate::filter::{Decided, Step, Verdict};

    fn routes(env: &[(&str, &str)]) -> Routes {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let config = load(Sources {
            env,
            ..Sources::default()
        })
        .unwrap();
        Routes::new(&config.streams, &config.routes, &config.dead_letter)
    }

    fn of_file(text: &str) -> Routes {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config = load(Sources {
            file: Some(file.path().to_owned()),
            ..Sources::default()
        })
        .unwrap();
        Routes::new(&config.streams, &config.routes, &config.dead_letter)
    }

    fn decided(event: Event, steps: Vec<Step>) -> Decided {
        Decided {
            event,
            derived: None,
            steps,
            streams: Vec::new(),
        }
    }

    fn check(routes: &Routes, event: &str, expected: Option<&str>) {
        let parsed = Event::parse(Format::Json, Bytes::copy_from_slice(event.as_bytes())).unwrap();
        let outcome = routes.decide(&decided(parsed, Vec::new()));
        let expected = expected.map_or(Outcome::Unrouted, |stream| {
            Outcome::Streams(vec![Target {
                stream: stream.into(),
                format: StreamFormat::Json,
            }])
        });
        assert_eq!(outcome, expected, "{event}");
    }

    #[test]
    fn the_defaults_are_those_of_telephony_event_sync() {
        let routes = routes(&[]);
        let (events, jobs) = (
            "freeswitch:telephony:events",
            "freeswitch:telephony:background-jobs",
        );
        check(&routes, r#"{"Event-Name":"CHANNEL_ANSWER"}"#, Some(events));
        check(
            &routes,
            r#"{"Event-Name":"CUSTOM","Event-Subclass":"sofia::register"}"#,
            Some(events),
        );
        check(&routes, r#"{"Event-Name":"DTMF"}"#, Some(jobs));
        check(
            &routes,
            r#"{"Event-Name":"BACKGROUND_JOB","Event-Calling-Function":"api_exec"}"#,
            Some(jobs),
        );
        check(
            &routes,
            r#"{"Event-Name":"BACKGROUND_JOB","Event-Calling-Function":"bgapi_exec"}"#,
            None,
        );
        check(&routes, r#"{"Event-Name":"HEARTBEAT"}"#, None);
    }

    #[test]
    fn a_named_subclass_is_one_of_many() {
        let routes = routes(&[("EVENTS_TO_PUSH", "CUSTOM a::b")]);
        check(
            &routes,
            r#"{"Event-Name":"CUSTOM","Event-Subclass":"a::b"}"#,
            Some("freeswitch:telephony:events"),
        );
        check(
            &routes,
            r#"{"Event-Name":"CUSTOM","Event-Subclass":"c::d"}"#,
            None,
        );
        check(&routes, r#"{"Event-Name":"CUSTOM"}"#, None);
    }

    /// What the stream `s` gets of an event that was decided under `before` and is sent again under `after`.
    #[track_caller]
    fn again(before: &str, after: &str) -> Entry {
        let event = br#"{"Event-Name":"DTMF"}"#;
        let event = Event::parse(Format::Json, Bytes::from_static(event)).unwrap();
        let outcome = of_file(before).decide(&decided(event.clone(), Vec::new()));
        let origin = Origin { lsn: 7, at_us: 1 };
        let delivery = of_file(after).again(&event, &outcome, origin).unwrap();
        let [entry] = delivery.entries.try_into().unwrap();
        assert_eq!(&*entry.stream.name, "s");
        entry
    }

    const AS_FIELDS: &str = "[[stream]]\nname = \"s\"\nevents = [\"DTMF\"]\nformat = \"fields\"\n";

    #[test]
    fn what_is_sent_again_is_written_as_it_was_decided() {
        let entry = again(AS_FIELDS, "[[stream]]\nname = \"s\"\nmax_len = 5\n");
        assert_eq!(entry.fields[0].0, "Event-Name", "a field for each header");
        assert_eq!(entry.stream.format, StreamFormat::Fields);
        assert_eq!(entry.stream.max_len, 5, "the limit is that of now");
    }

    #[test]
    fn what_is_sent_again_to_a_stream_that_was_removed_removes_nothing_there() {
        let entry = again(AS_FIELDS, "[[stream]]\nname = \"other\"\n");
        assert_eq!(entry.fields[0].0, "Event-Name", "a field for each header");
        assert_eq!((entry.stream.max_len, entry.stream.expire), (0, None));
    }

    #[test]
    fn a_table_that_follows_another_knows_what_that_one_knew() {
        let named = |routes: &Routes, stream: &str| {
            let event = Event::parse(Format::Json, Bytes::from_static(b"{}")).unwrap();
            let target = Target {
                stream: stream.into(),
                format: StreamFormat::Json,
            };
            let origin = Origin { lsn: 7, at_us: 1 };
            routes.deliver(&event, &Outcome::Streams(vec![target]), origin);
        };
        let known = |routes: &Routes| {
            let known = routes.known().into_iter();
            let mut known: Vec<(String, u64)> = known
                .map(|stream| (stream.name.to_string(), stream.max_len))
                .collect();
            known.sort();
            known
        };
        let dead = |routes: &Routes| -> Vec<String> {
            let dead = routes.dead_letters();
            dead.map(ToString::to_string).collect()
        };
        let first = of_file("[dead_letter]\nstream = \"d1\"\n[[stream]]\nname = \"a\"\n");
        named(&first, "x");
        named(&first, "y");
        let second = "[dead_letter]\nstream = \"d2\"\n[[stream]]\nname = \"y\"\nmax_len = 5\n";
        let second = of_file(second).after(&first);
        let described = [("x".to_owned(), 10_000), ("y".to_owned(), 5)];
        assert_eq!(known(&second), described, "a is not ours any more");
        assert_eq!(dead(&second), ["d2", "d1"]);
        assert!(second.is_dead("d1") && !second.is_dead("x"));
        let third = "[dead_letter]\nstream = \"d3\"\n[[stream]]\nname = \"d1\"\nmax_len = 7\n";
        let third = of_file(third).after(&second);
        let described = [("d1".to_owned(), 7), ("x".to_owned(), 10_000)];
        assert_eq!(known(&third), described, "y is left alone");
        assert_eq!(dead(&third), ["d3", "d2"], "d1 is for events now");
    }

    #[test]
    fn a_dead_letter_says_what_where_who_and_why() {
        let routes = routes(&[]);
        let event = Event::parse(
            Format::Json,
            Bytes::from_static(br#"{"Event-Name":"DTMF"}"#),
        )
        .unwrap();
        let step = Step {
            by: "10-validate".into(),
            version: "0.1.0".into(),
            digest: "0123456789ab".into(),
            took_ns: 1_000,
            verdict: Verdict::DeadLetter("no digit".to_owned()),
            edits: Vec::new(),
            failure: None,
        };
        let decided = decided(event, vec![step]);
        let origin = Origin {
            lsn: 7,
            at_us: 951_782_400_000_000,
        };
        let outcome = routes.decide(&decided);
        let delivery = routes.deliver(&decided.event, &outcome, origin).unwrap();
        assert!(delivery.dead);
        let entry = &delivery.entries[0];
        assert_eq!(&*entry.stream.name, "freeswitch:telephony:dead");
        let field = |name: &str| {
            entry
                .fields
                .iter()
                .find(|(field, _)| field == name)
                .map(|(_, value)| value.clone())
        };
        assert_eq!(field("event").unwrap(), r#"{"Event-Name":"DTMF"}"#);
        assert_eq!(
            field("streams").unwrap(),
            "freeswitch:telephony:background-jobs"
        );
        assert_eq!(field("filter").unwrap(), "10-validate");
        assert_eq!(field("reason").unwrap(), "no digit");
        assert_eq!(field("time").unwrap(), "2000-02-29T00:00:00.000Z");
        assert_eq!(field("lsn").unwrap(), "7");
    }
}
