//! Streams and the rules that fill them: the `[[stream]]` tables of the file, or, without any, the two streams of
//! Telephony Event Sync as its variables describe them.
//!
//! A stream may be described more than once, each time with other rules; then its limits must agree or be given once.

use std::time::Duration;

use super::reader::{Given, Reader};
use super::stages::DEFAULT_MAX_LEN;
use super::types::{EventPattern, Route, Stream, StreamFormat};
use super::values;

/// Streams as they are described so far.
#[derive(Default)]
struct Draft {
    streams: Vec<DraftStream>,
    routes: Vec<Route>,
}

struct DraftStream {
    name: String,
    max_len: Option<Given<u64>>,
    expire: Option<Given<Duration>>,
    /// What `expire` is if nobody gives it.
    default_expire: Duration,
    format: Option<Given<StreamFormat>>,
}

/// The streams, the rules in order, and whether the file describes them.
pub(super) fn read_routes(reader: &mut Reader) -> (Vec<Stream>, Vec<Route>, bool) {
    let tables = reader.given_tables("stream");
    let in_file = tables.is_some();
    let mut draft = Draft::default();
    match tables {
        Some(tables) => {
            for mut table in tables {
                read_table(&mut table, &mut draft);
                reader.absorb(table);
            }
        }
        None => read_drop_in(reader, &mut draft),
    }
    let streams = draft.streams.into_iter().map(DraftStream::finish);
    (streams.collect(), draft.routes, in_file)
}

/// One `[[stream]]` table. Without `events` it only describes a stream that filters write to.
fn read_table(table: &mut Reader, draft: &mut Draft) {
    let name = table.given("name", &values::STREAM_NAME);
    let events = table.given_list("events", &values::EVENT);
    let when = table.given_pairs("when");
    let described = DraftStream {
        name: name
            .as_ref()
            .map_or(String::new(), |name| name.value.clone()),
        max_len: table.given("max_len", &values::COUNT),
        expire: table.given("expire", &values::DURATION),
        default_expire: Duration::from_secs(600),
        format: table.given("format", &values::STREAM_FORMAT),
    };
    if name.is_none() {
        // A name that is there and wrong has been refused already.
        if !table.is_in_file("name") {
            table.missing("name", values::STREAM_NAME.allowed);
        }
        return;
    }
    let has_events =
        table.is_in_file("events") && events.as_ref().is_none_or(|given| !given.value.is_empty());
    if let Some(when) = when.as_ref().filter(|_| !has_events) {
        table.refuse(when, "a condition beside events, to which it applies");
    }
    let stream = draft.add(table, described);
    let events = events.map_or_else(Vec::new, |given| given.value);
    let when = when.map_or_else(Vec::new, |given| given.value);
    draft.route(stream, events, when);
}

/// The Go service's rules: jobs first, so that an event of both lists goes there alone, and background jobs only if an
/// API call started them.
fn read_drop_in(reader: &mut Reader, draft: &mut Draft) {
    let jobs = DraftStream {
        name: variable(
            reader,
            "STREAM_JOBS",
            "freeswitch:telephony:background-jobs",
        ),
        max_len: reader.variable("JOBS_MAX_LEN", &values::COUNT),
        expire: reader.variable("JOBS_EXPIRE_TIME", &values::DURATION),
        default_expire: Duration::from_secs(60),
        format: None,
    };
    let events = DraftStream {
        name: variable(reader, "STREAM_EVENTS", "freeswitch:telephony:events"),
        max_len: reader.variable("EVENTS_MAX_LEN", &values::COUNT),
        expire: reader.variable("EVENTS_EXPIRE_TIME", &values::DURATION),
        default_expire: Duration::from_secs(600),
        format: None,
    };
    let to_publish = names(
        reader,
        "EVENTS_TO_PUBLISH",
        &[
            "BACKGROUND_JOB",
            "CHANNEL_EXECUTE",
            "CHANNEL_EXECUTE_COMPLETE",
            "DTMF",
            "DETECTED_SPEECH",
        ],
    );
    let to_push = names(
        reader,
        "EVENTS_TO_PUSH",
        &["CHANNEL_ANSWER", "CHANNEL_HANGUP", "DTMF", "CUSTOM"],
    );

    let (background_jobs, to_publish) = to_publish
        .into_iter()
        .partition(|event| event.name == "BACKGROUND_JOB");
    let started_by_api = ("Event-Calling-Function".to_owned(), "api_exec".to_owned());
    let jobs = draft.add(reader, jobs);
    draft.route(jobs, background_jobs, vec![started_by_api]);
    draft.route(jobs, to_publish, Vec::new());
    let events = draft.add(reader, events);
    draft.route(events, to_push, Vec::new());
}

fn variable(reader: &mut Reader, name: &str, default: &str) -> String {
    reader
        .variable(name, &values::STREAM_NAME)
        .map_or_else(|| default.to_owned(), |given| given.value)
}

fn names(reader: &mut Reader, name: &str, default: &[&str]) -> Vec<EventPattern> {
    let pattern = |name: &&str| EventPattern {
        name: (*name).to_owned(),
        subclass: None,
    };
    reader.variable_list(name, &values::EVENT).map_or_else(
        || default.iter().map(pattern).collect(),
        |given| given.value,
    )
}

impl Draft {
    /// The place of the stream, which is new or gains what `described` says of it.
    fn add(&mut self, reader: &mut Reader, described: DraftStream) -> usize {
        let mut known = self.streams.iter_mut().enumerate();
        if let Some((place, stream)) = known.find(|(_, stream)| stream.name == described.name) {
            agree(reader, &mut stream.max_len, described.max_len);
            agree(reader, &mut stream.expire, described.expire);
            agree(reader, &mut stream.format, described.format);
            return place;
        }
        self.streams.push(described);
        self.streams.len() - 1
    }

    fn route(&mut self, stream: usize, events: Vec<EventPattern>, when: Vec<(String, String)>) {
        if !events.is_empty() {
            self.routes.push(Route {
                stream,
                events,
                when,
            });
        }
    }
}

fn agree<T: PartialEq>(
    reader: &mut Reader,
    first: &mut Option<Given<T>>,
    second: Option<Given<T>>,
) {
    match (first.as_ref(), second) {
        (Some(first), Some(second)) if first.value != second.value => {
            let Given { place, shown, .. } = first;
            reader.refuse(
                &second,
                format!("{shown}, as {place} says of the same stream"),
            );
        }
        (None, second) => *first = second,
        _ => {}
    }
}

impl DraftStream {
    fn finish(self) -> Stream {
        let expire = self.expire.map_or(self.default_expire, |given| given.value);
        Stream {
            name: self.name,
            max_len: self.max_len.map_or(DEFAULT_MAX_LEN, |given| given.value),
            expire: Some(expire).filter(|age| !age.is_zero()),
            format: self.format.map_or(StreamFormat::Json, |given| given.value),
        }
    }
}

/// A reader that was asked for every key of a `[[stream]]` table.
#[cfg(test)]
pub(super) fn keys_of_table(table: toml::Table) -> Reader {
    let mut reader = Reader::of_table(String::new(), table);
    read_table(&mut reader, &mut Draft::default());
    reader
}
