//! What FreeSWITCH sends is in Redis, once, in order; what cannot be is counted with its cause.

use std::collections::BTreeSet;

use bytes::Bytes;
use jackfield::simulator::{Event, Load, Settings, Simulator, Value as Held};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::captures::stream_of;
use crate::harness::{DEADLINE, Redis, Setup, field, wait_for};
use crate::numbered::{self, STREAM};
use crate::reading;

const JOBS: &str = "freeswitch:telephony:background-jobs";
const DEAD: &str = "freeswitch:telephony:dead";

async fn switch() -> Simulator {
    Simulator::start(Settings::default()).await.unwrap()
}

fn load(events: u64) -> Load {
    Load {
        rate: 0.0,
        events: Some(events),
        calls_at_once: 100,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_many_calls_reach_their_streams_once() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    switch.place_calls(load(5_000)).await;
    let status = host.wait_settled(switch.sent().queued);
    let written = redis.events(STREAM).len() + redis.events(JOBS).len();
    assert_eq!(
        status["counts"]["delivered"], written,
        "an entry an event: {status:#}"
    );
    assert_eq!(status["counts"]["lost"], 0, "nothing is lost: {status:#}");
}

/// Everything that the switch sends from now on until it says goodbye, read independently.
async fn tap(switch: &Simulator, format: &str) -> tokio::task::JoinHandle<Vec<Map<String, Value>>> {
    let mut stream = TcpStream::connect(switch.addr()).await.unwrap();
    let commands = format!("auth ClueCon\n\nevent {format} ALL\n\n");
    stream.write_all(commands.as_bytes()).await.unwrap();
    let read = tokio::spawn(async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        reading::events(&bytes)
    });
    assert!(
        switch.wait_for_subscribers(2, DEADLINE).await,
        "host and tap listen"
    );
    read
}

async fn check_order(format: &str) {
    let (switch, redis) = (switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis)
        .env("JACKFIELD_ESL_FORMAT", format)
        .start();
    host.wait_ready();
    let tap = tap(&switch, format).await;
    switch.place_calls(load(6_000)).await;
    switch.shut_down_notice().await;
    let sent = tap.await.unwrap();
    for stream in [JOBS, STREAM] {
        let expected: Vec<_> = sent
            .iter()
            .filter(|event| stream_of(event) == Some(stream))
            .collect();
        let calls: BTreeSet<&str> = expected
            .iter()
            .filter_map(|event| event.get("Unique-ID")?.as_str())
            .collect();
        assert!(
            calls.len() > 50,
            "{stream}: events of {} calls",
            calls.len()
        );
        wait_for("all are in Redis", || {
            (redis.ask::<usize>(&["XLEN", stream]) >= expected.len()).then_some(())
        });
        for (place, (written, sent)) in redis.events(stream).iter().zip(&expected).enumerate() {
            assert_eq!(
                written.as_object(),
                Some(*sent),
                "{stream}, entry {place}: in the order of the socket"
            );
        }
        assert_eq!(
            redis.ask::<usize>(&["XLEN", stream]),
            expected.len(),
            "{stream}: nothing else"
        );
    }
    host.wait_settled(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_calls_keep_the_order_of_the_socket_in_json() {
    check_order("json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interleaved_calls_keep_the_order_of_the_socket_in_plain() {
    check_order("plain").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_table_decides_by_name_and_headers_and_writes_fields() {
    let (switch, redis) = (switch().await, Redis::start());
    let streams = r#"
        [[stream]]
        name = "inbound"
        events = ["CHANNEL_ANSWER"]
        when = { "Call-Direction" = "inbound" }
        [[stream]]
        name = "rest"
        events = ["CHANNEL_ANSWER", "CUSTOM a::b"]
        format = "fields"
    "#;
    let host = Setup::new(switch.addr(), &redis).config(streams).start();
    host.wait_ready();
    let answer = |direction: &str| Event::new("CHANNEL_ANSWER").header("Call-Direction", direction);
    let custom = |subclass: &str| Event::new("CUSTOM").header("Event-Subclass", subclass);
    let codecs = Held::Array(vec![b"PCMU".to_vec(), b"PCMA".to_vec()]);
    switch.fire(answer("inbound"));
    switch.fire(custom("c::d"));
    switch.fire(answer("outbound"));
    switch.fire(custom("a::b").header("Codecs", codecs).body("hello"));
    host.wait_settled(3);
    let inbound = redis.events("inbound");
    assert_eq!(inbound.len(), 1, "the condition holds for one");
    assert_eq!(inbound[0]["Call-Direction"], "inbound");
    let rest = redis.entries("rest");
    assert_eq!(rest.len(), 2, "the next rule takes what the first did not");
    assert_eq!(field(&rest[0], "Call-Direction"), "outbound");
    assert_eq!(
        rest[0][0],
        ("Event-Name".to_owned(), "CHANNEL_ANSWER".to_owned()),
        "a field a header, in order"
    );
    assert_eq!(field(&rest[1], "Codecs"), "ARRAY::PCMU|:PCMA");
    assert_eq!(
        rest[1].last(),
        Some(&("_body".to_owned(), "hello".to_owned())),
        "the body is last"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_both_lists_goes_to_the_jobs_alone() {
    let (switch, redis) = (switch().await, Redis::start());
    let lists = Setup::new(switch.addr(), &redis).env("EVENTS_TO_PUBLISH", "DTMF,BACKGROUND_JOB");
    let host = lists
        .env("EVENTS_TO_PUSH", "DTMF,CHANNEL_ANSWER,BACKGROUND_JOB")
        .start();
    host.wait_ready();
    let job =
        |function: &str| Event::new("BACKGROUND_JOB").header("Event-Calling-Function", function);
    for event in [
        Event::new("DTMF"),
        Event::new("CHANNEL_ANSWER"),
        job("api_exec"),
        job("bgapi_exec"),
    ] {
        switch.fire(event);
    }
    host.wait_settled(4);
    let names = |stream| {
        redis
            .events(stream)
            .iter()
            .map(|event| event["Event-Name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(JOBS),
        ["DTMF", "BACKGROUND_JOB"],
        "the job of api_exec, and what is in both lists"
    );
    assert_eq!(
        names(STREAM),
        ["CHANNEL_ANSWER", "BACKGROUND_JOB"],
        "the job of another caller is only pushed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_looks_like_frames_stays_a_body() {
    let event = "Content-Length: 5\nContent-Type: text/event-json\n\n{}";
    let body = format!(
        "auth\n\n{event}Content-Type: text/disconnect-notice\n\n{}",
        "x".repeat(300_000)
    );
    for format in ["json", "plain"] {
        let (switch, redis) = (switch().await, Redis::start());
        let host = Setup::new(switch.addr(), &redis)
            .env("JACKFIELD_ESL_FORMAT", format)
            .start();
        host.wait_ready();
        switch.fire(numbered::event(0).body(&body));
        switch.fire(numbered::event(1));
        host.wait_settled(2);
        numbered::check(&redis, STREAM, 0..2);
        assert_eq!(
            redis.events(STREAM)[0]["_body"],
            *body,
            "{format}: the body to the byte"
        );
        assert_eq!(
            host.status()["links"]["esl"]["connects"],
            1,
            "{format}: no notice was seen"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_stays_near_its_maximum_length() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis)
        .env("EVENTS_MAX_LEN", "100")
        .start();
    host.wait_ready();
    numbered::fire(&switch, 0..1_000);
    host.wait_settled(1_000);
    let kept = redis.ask::<u64>(&["XLEN", STREAM]);
    assert!(
        (100..200).contains(&kept),
        "{kept} entries of 1,000 are kept"
    );
    numbered::check(&redis, STREAM, 1_000 - kept..1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_trimmed_by_age() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).env("EVENTS_EXPIRE_TIME", "300ms");
    let host = host.env("TRIM_INTERVAL", "50ms").start();
    host.wait_ready();
    numbered::fire(&switch, 0..50);
    switch.fire(Event::new("DTMF"));
    host.wait_settled(51);
    wait_for("the events are trimmed", || {
        (redis.ask::<u64>(&["XLEN", STREAM]) == 0).then_some(())
    });
    assert_eq!(
        redis.ask::<u64>(&["XLEN", JOBS]),
        1,
        "each stream has an age of its own"
    );
    assert_eq!(
        host.count("delivered"),
        51,
        "trimmed is delivered all the same"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_can_be_printed_instead() {
    let switch = switch().await;
    let setup = Setup::default().env("ESL_PORT", &switch.addr().port().to_string());
    let host = setup.arg("--stdout").start();
    host.wait_ready();
    numbered::fire(&switch, 0..100);
    let status = host.wait_settled(100);
    assert_eq!(
        status["counts"]["delivered"], 100,
        "printed is delivered: {status:#}"
    );
    wait_for("all lines are out", || {
        (host.out().lines().count() >= 100).then_some(())
    });
    for (number, line) in host.out().lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["stream"], STREAM);
        assert_eq!(line["event"]["Number"], number.to_string(), "in order");
    }
}

/// An event frame around any bytes.
fn frame(body: &[u8]) -> Bytes {
    let header = format!(
        "Content-Length: {}\nContent-Type: text/event-json\n\n",
        body.len()
    );
    Bytes::from([header.as_bytes(), body].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_over_16_mib_is_counted_as_lost_and_the_connection_kept() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..1);
    switch.write_raw(frame(&vec![b'x'; (16 << 20) + 1])).await;
    numbered::fire(&switch, 1..2);
    let status = host.wait_settled(3);
    assert_eq!(
        status["counts"]["lost_by"]["too_large"], 1,
        "with its cause: {status:#}"
    );
    numbered::check(&redis, STREAM, 0..2);
    assert_eq!(
        host.status()["links"]["esl"]["connects"],
        1,
        "the connection is kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_event_is_a_dead_letter_with_its_frame() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..1);
    let malformed: [&[u8]; 3] = [b"{\"Event-Name\":\"DTMF\"", b"{\"Number\":7}", b"\xff\xfe"];
    for body in malformed {
        switch.write_raw(frame(body)).await;
    }
    numbered::fire(&switch, 1..2);
    let status = host.wait_settled(5);
    assert_eq!(
        status["counts"]["dead_lettered"], 3,
        "each is kept: {status:#}"
    );
    numbered::check(&redis, STREAM, 0..2);
    let letters = redis.ask::<Vec<(String, Vec<(String, Vec<u8>)>)>>(&["XRANGE", DEAD, "-", "+"]);
    for ((_, letter), body) in letters.iter().zip(malformed) {
        let field = |name: &str| &letter.iter().find(|(field, _)| field == name).unwrap().1;
        assert_eq!(field("frame"), body, "the frame as it came");
        assert!(
            !field("reason").is_empty(),
            "and why it is here: {letter:?}"
        );
    }
    assert_eq!(letters.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_never_stops_the_intake() {
    let settings = Settings {
        max_queue: 2_000,
        ..Settings::default()
    };
    let (switch, redis) = (Simulator::start(settings).await.unwrap(), Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    redis.signal("STOP");
    switch.place_calls(load(20_000)).await;
    let sent = switch.sent();
    assert_eq!(sent.dropped, 0, "FreeSWITCH never had to drop an event");
    host.wait_status("all of it is read while Redis hangs", |status| {
        status["counts"]["inputs"] == sent.queued
    });
    redis.signal("CONT");
    let status = host.wait_settled(sent.queued);
    assert_eq!(status["counts"]["lost"], 0, "nothing is lost: {status:#}");
    let written = redis.ask::<u64>(&["XLEN", STREAM]) + redis.ask::<u64>(&["XLEN", JOBS]);
    assert_eq!(
        status["counts"]["delivered"], written,
        "each once: {status:#}"
    );
}
