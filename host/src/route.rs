//! From an event and its fate to the entries that go to Redis: the route table, the streams, the dead letters.
//!
//! Pure, but for a bounded memory of the streams that filters named. Knows nothing of connections.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::{self, StreamFormat};
use crate::esl::Subscription;
use crate::event::{Event, Name};
use crate::filter::{Decided, Verdict};
use crate::journal::Lsn;

/// What a stream gets that no setting describes; the defaults of Telephony Event Sync's events stream.
const UNLISTED: (u64, Duration) = (10_000, Duration::from_secs(600));
/// Unlisted streams that are remembered for trimming.
const MAX_UNLISTED: usize = 1_000;

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

/// What becomes of an event: what is journaled, and all that its entries are made of beside the event itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It goes to these streams.
    Streams(Vec<Arc<str>>),
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
    names: HashSet<Box<str>>,
    subclasses: HashSet<Box<str>>,
    when: Vec<(Name, String)>,
}

impl Rule {
    fn matches(&self, event: &Event) -> bool {
        let name = event.name();
        let named = self.names.contains(name.as_ref())
            || (name == "CUSTOM"
                && event
                    .subclass()
                    .is_some_and(|subclass| self.subclasses.contains(subclass.as_ref())));
        named
            && self
                .when
                .iter()
                .all(|(header, value)| event.get(header).is_some_and(|found| found == *value))
    }
}

/// The route table; the first rule that matches decides.
#[derive(Debug)]
pub struct Routes {
    rules: Vec<Rule>,
    streams: HashMap<Arc<str>, Arc<Stream>>,
    unlisted: Mutex<HashMap<Arc<str>, Arc<Stream>>>,
    dead_letter: Arc<Stream>,
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
            let bare = route.events.iter().filter(|event| event.subclass.is_none());
            Some(Rule {
                stream: Arc::clone(made.get(route.stream)?),
                names: bare.map(|event| event.name.as_str().into()).collect(),
                subclasses: route
                    .events
                    .iter()
                    .filter_map(|event| Some(event.subclass.as_deref()?.into()))
                    .collect(),
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
            unlisted: Mutex::default(),
            dead_letter,
        }
    }

    /// Adds what the routes want to receive.
    pub fn subscribe(&self, subscription: &mut Subscription) {
        for rule in &self.rules {
            rule.names
                .iter()
                .for_each(|name| subscription.add(name, None));
            rule.subclasses
                .iter()
                .for_each(|subclass| subscription.add("CUSTOM", Some(subclass)));
        }
    }

    /// All streams that are known, those included that only filters named.
    pub fn known(&self) -> Vec<Arc<Stream>> {
        let unlisted = self.lock();
        let all = self.streams.values().chain(unlisted.values());
        all.cloned().collect()
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
            Some((_, Verdict::Route(streams))) => Outcome::Streams(streams.clone()),
            _ if !decided.streams.is_empty() => Outcome::Streams(decided.streams.clone()),
            _ => by_route().map_or(Outcome::Unrouted, |stream| Outcome::Streams(vec![stream])),
        }
    }

    /// The entries of an event, if it has any. What they hold follows from the arguments alone, so that a resend is the same.
    pub fn deliver(&self, event: &Event, outcome: &Outcome, origin: Origin) -> Option<Delivery> {
        match outcome {
            Outcome::Streams(names) if !names.is_empty() => {
                let mut written = None;
                let streams = names.iter().map(|name| self.stream(name));
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
    pub fn dead_letters(&self) -> &str {
        &self.dead_letter.name
    }

    /// Whether an entry is a dead letter already.
    pub fn is_dead(&self, entry: &Entry) -> bool {
        entry.stream.name == self.dead_letter.name
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

    fn stream(&self, name: &Arc<str>) -> Arc<Stream> {
        if let Some(stream) = self.streams.get(name) {
            return Arc::clone(stream);
        }
        let mut unlisted = self.lock();
        if let Some(stream) = unlisted.get(name) {
            return Arc::clone(stream);
        }
        let (max_len, expire) = UNLISTED;
        let format = StreamFormat::Json;
        let stream = Arc::new(Stream {
            name: Arc::clone(name),
            max_len,
            expire: Some(expire),
            format,
        });
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

    use super::{Origin, Outcome, Routes};
    use crate::config::{Sources, load};
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
            Outcome::Streams(vec![stream.into()])
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
