//! Every event of every capture of a real FreeSWITCH (and of the corpus) through the drop-in configuration: what is in Redis is compared
//! with an independent reading, field by field and in order.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use jackfield::simulator::{Settings, Simulator};
use serde_json::{Map, Value};

use crate::harness::{DEADLINE, Host, Redis, Setup, field};
use crate::reading::{self, Capture, Frame};

const EVENTS: &str = "freeswitch:telephony:events";
const JOBS: &str = "freeswitch:telephony:background-jobs";

pub(crate) type Event = Map<String, Value>;

/// A host between a FreeSWITCH that says nothing by itself and a Redis.
struct Replay {
    switch: Simulator,
    redis: Redis,
    host: Host,
}

impl Replay {
    async fn start(configure: impl FnOnce(Setup) -> Setup) -> Replay {
        let settings = Settings {
            heartbeat: Duration::ZERO,
            // A command of the host's own is an API event, and it would come in between the pieces.
            has_commands: false,
            ..Settings::default()
        };
        let switch = Simulator::start(settings).await.unwrap();
        let redis = Redis::start();
        let setup = Setup::new(switch.addr(), &redis).env("EVENTS_MAX_LEN", "0");
        let setup = setup
            .env("JOBS_MAX_LEN", "0")
            .env("ESL_RECONNECT_DELAY", "50ms");
        let host = configure(setup).start();
        host.wait_ready();
        Replay {
            switch,
            redis,
            host,
        }
    }

    /// All of these events go to the events stream.
    async fn of_all(events: &[Event]) -> Replay {
        let names: BTreeSet<&str> = events
            .iter()
            .map(|event| text(event, "Event-Name"))
            .collect();
        let names = Vec::from_iter(names).join(",");
        let setup = |setup: Setup| setup.env("EVENTS_TO_PUBLISH", "NONE_OF_THEM");
        Replay::start(|host| setup(host).env("EVENTS_TO_PUSH", &names)).await
    }

    /// Writes bytes to the host in pieces of odd sizes, down to a single byte.
    async fn write(&self, bytes: &[u8]) {
        let sizes = [1, 65_537, 2, 300_007, 19, 1_048_583, 4_099, 3];
        let mut rest = bytes;
        for size in sizes.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*size));
            self.switch.write_raw(Bytes::copy_from_slice(piece)).await;
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// The events stream must hold these events, in this order, and nothing else.
    fn check(&self, expected: &[Event]) {
        let status = self.host.wait_settled(expected.len() as u64);
        assert_eq!(
            status["counts"]["delivered"],
            expected.len(),
            "all are delivered: {status:#}"
        );
        check_stream(&self.redis, EVENTS, expected.iter());
    }
}

#[track_caller]
fn check_stream<'a>(redis: &Redis, stream: &str, expected: impl Iterator<Item = &'a Event>) {
    let mut entries = redis.entries(stream).into_iter();
    for (place, expected) in expected.enumerate() {
        let entry = entries.next();
        let entry =
            entry.unwrap_or_else(|| panic!("{stream} ends before entry {place}: {expected:?}"));
        assert_eq!(entry.len(), 1, "an entry has the field `event` alone");
        let written: Event = serde_json::from_str(field(&entry, "event")).unwrap();
        assert_eq!(
            written.len(),
            expected.len(),
            "{stream}, entry {place}: as many headers: {written:?}"
        );
        for (name, value) in expected {
            assert_eq!(
                written.get(name),
                Some(value),
                "{stream}, entry {place}: header {name}"
            );
        }
    }
    assert_eq!(entries.next(), None, "{stream} has nothing else");
}

fn text<'a>(event: &'a Event, name: &str) -> &'a str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What a server sends of its own accord, as it was sent: no greeting, no replies, no notice of the end.
fn unasked(capture: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in reading::frames(capture).0 {
        let kind = frame.content_type();
        if kind.starts_with("text/event-") || kind == "log/data" || kind == "api/response" {
            bytes.extend(as_sent(&frame));
        }
    }
    bytes
}

fn as_sent(frame: &Frame) -> Vec<u8> {
    let lines = frame.headers.iter();
    let mut bytes: Vec<u8> = lines
        .flat_map(|(name, value)| format!("{name}: {value}\n").into_bytes())
        .collect();
    bytes.push(b'\n');
    bytes.extend(&frame.body);
    bytes
}

/// A capture of the real FreeSWITCH; where those are not at hand, what stands in for it.
fn capture_or(name: &str, stand_in: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let real = reading::real_captures()
        .into_iter()
        .find(|capture| capture.name == name);
    real.map_or_else(stand_in, |capture| capture.bytes)
}

/// A session of the corpus, which is always at hand.
fn corpus(name: &str) -> Vec<u8> {
    let found = reading::captures()
        .into_iter()
        .find(|capture| capture.name == name);
    found.expect("the corpus is in the repository").bytes
}

/// Replays the captures that `choose` wants in one connection, and compares all of their events.
async fn replay_and_check(choose: impl Fn(&Capture) -> bool) {
    let captures: Vec<Capture> = reading::captures().into_iter().filter(choose).collect();
    let expected: Vec<Event> = captures
        .iter()
        .flat_map(|capture| reading::events(&capture.bytes))
        .collect();
    let replay = Replay::of_all(&expected).await;
    for capture in &captures {
        replay.write(&unasked(&capture.bytes)).await;
    }
    replay.check(&expected);
    assert_eq!(
        replay.host.status()["links"]["esl"]["connects"],
        1,
        "one connection took everything"
    );
}

fn has_json(capture: &Capture) -> bool {
    let (frames, _) = reading::frames(&capture.bytes);
    frames
        .iter()
        .any(|frame| frame.content_type() == "text/event-json")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_the_json_captures_arrives_as_it_was_sent() {
    replay_and_check(has_json).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_the_small_plain_captures_arrives_as_it_was_sent() {
    replay_and_check(|capture| !has_json(capture) && capture.bytes.len() < 3_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_the_large_plain_captures_arrives_as_it_was_sent() {
    replay_and_check(|capture| !has_json(capture) && capture.bytes.len() >= 3_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_is_written_twice() {
    let bytes = capture_or("events_json_all", || corpus("session_json"));
    let expected = reading::events(&bytes);
    let replay = Replay::of_all(&expected).await;
    replay.write(&unasked(&bytes)).await;
    replay.host.wait_settled(expected.len() as u64);
    for entry in replay.redis.entries(EVENTS) {
        let written = field(&entry, "event");
        let names: Vec<String> = names(written);
        let unique: BTreeSet<&String> = names.iter().collect();
        assert_eq!(
            unique.len(),
            names.len(),
            "a reader that takes the first of two is not fooled: {written}"
        );
    }
}

/// The names of a JSON object as they stand in its text: what is before a colon, outside of values.
fn names(object: &str) -> Vec<String> {
    let mut rest = object.strip_prefix('{').unwrap();
    let mut names = Vec::new();
    loop {
        let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        names.push(strings.next().unwrap().unwrap());
        rest = rest[strings.byte_offset()..].strip_prefix(':').unwrap();
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        values.next().unwrap().unwrap();
        rest = &rest[values.byte_offset()..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return names,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_in_xml_are_passed_over() {
    let one = "Content-Length: 9\nContent-Type: text/event-xml\n\n<event/>\n";
    let xml = capture_or("events_xml_all", || one.as_bytes().to_vec());
    let after = corpus("session_json");
    let expected = reading::events(&after);
    let replay = Replay::of_all(&expected).await;
    replay.write(&unasked(&xml)).await;
    replay.write(&unasked(&after)).await;
    replay.check(&expected);
    assert_eq!(
        replay.host.count("inputs"),
        expected.len() as u64,
        "what was never asked for is no input"
    );
    assert_eq!(
        replay.host.status()["links"]["esl"]["connects"],
        1,
        "the connection is kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_cut_by_kill_9_makes_no_event_and_the_next_connection_is_whole() {
    let session = corpus("session_plain");
    let cut = capture_or("kill9_cut", || session[..session.len() / 2].to_vec());
    let (frames, left) = reading::frames(&cut);
    assert!(!left.is_empty(), "the capture ends inside a frame");
    let whole: Vec<&Frame> = frames
        .iter()
        .filter(|frame| frame.event().is_some())
        .collect();
    let last = &whole[whole.len() - 20..];
    let mut expected: Vec<Event> = last.iter().filter_map(|frame| frame.event()).collect();
    let replay = Replay::of_all(&expected).await;
    let bytes: Vec<u8> = last
        .iter()
        .flat_map(|frame| as_sent(frame))
        .chain(left.iter().copied())
        .collect();
    replay.write(&bytes).await;
    replay.host.wait_settled(20);
    replay.switch.cut();
    assert!(
        replay.switch.wait_for_subscribers(1, DEADLINE).await,
        "it connects again"
    );
    replay.write(&as_sent(last[0])).await;
    expected.extend(last[0].event());
    replay.check(&expected);
    let log = replay.host.log();
    assert!(
        log.contains("closed by FreeSWITCH inside a frame"),
        "the log says how it ended"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_after_the_notice_of_a_killed_listener_is_kept() {
    let killed = capture_or("slow_consumer_killed", || {
        let session = corpus("session_plain");
        let (frames, _) = reading::frames(&session);
        let events: Vec<Vec<u8>> = frames
            .iter()
            .filter(|frame| frame.event().is_some())
            .map(as_sent)
            .collect();
        let text = "killed listener because of lost events\n";
        let notice = format!("Content-Type: text/disconnect-notice\nContent-Length: 39\n\n{text}");
        [
            events[..10].concat(),
            notice.into_bytes(),
            events[10].clone(),
        ]
        .concat()
    });
    let (frames, _) = reading::frames(&killed);
    let notice = frames
        .iter()
        .position(|frame| frame.content_type() == "text/disconnect-notice")
        .unwrap();
    let end = &frames[notice - 3..];
    let expected: Vec<Event> = end.iter().filter_map(Frame::event).collect();
    assert_eq!(
        expected.len(),
        end.len() - 1,
        "all but the notice are events"
    );
    assert!(expected.len() > 3, "one comes after the notice");
    let replay = Replay::of_all(&expected).await;
    replay
        .write(&end.iter().flat_map(as_sent).collect::<Vec<u8>>())
        .await;
    replay.check(&expected);
    replay.switch.cut();
    replay.host.wait_status("the loss is noticed", |status| {
        status["links"]["esl"]["losses"].as_u64() >= Some(1)
    });
    let said = "disconnected by FreeSWITCH: killed listener because of lost events";
    replay.host.wait_log(said);
}

/// The stream of the Go service for an event, by its documentation.
pub(crate) fn stream_of(event: &Event) -> Option<&'static str> {
    match text(event, "Event-Name") {
        "BACKGROUND_JOB" if text(event, "Event-Calling-Function") == "api_exec" => Some(JOBS),
        "CHANNEL_EXECUTE" | "CHANNEL_EXECUTE_COMPLETE" | "DTMF" | "DETECTED_SPEECH" => Some(JOBS),
        "CHANNEL_ANSWER" | "CHANNEL_HANGUP" | "CUSTOM" => Some(EVENTS),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_settings_the_streams_get_what_telephony_event_sync_put_there() {
    let small = |capture: &Capture| capture.bytes.len() < 3_000_000;
    let captures: Vec<Capture> = reading::captures().into_iter().filter(small).collect();
    let events: Vec<Event> = captures
        .iter()
        .flat_map(|capture| reading::events(&capture.bytes))
        .collect();
    let to = |stream| {
        events
            .iter()
            .filter(move |event| stream_of(event) == stream)
    };
    let replay = Replay::start(|setup| setup).await;
    for capture in &captures {
        replay.write(&unasked(&capture.bytes)).await;
    }
    let status = replay.host.wait_settled(events.len() as u64);
    check_stream(&replay.redis, EVENTS, to(Some(EVENTS)));
    check_stream(&replay.redis, JOBS, to(Some(JOBS)));
    assert!(
        to(Some(EVENTS)).count() > 20 && to(Some(JOBS)).count() > 20,
        "both streams have some"
    );
    assert_eq!(
        status["counts"]["dropped"],
        to(None).count(),
        "the rest is dropped as unrouted: {status:#}"
    );
}
