//! Redis restarts, crashes, hangs, refuses: every event is in its stream once and in order, or a dead letter, or counted as lost.

use std::sync::Arc;

use bytes::Bytes;
use jackfield::simulator::{Event, Settings, Simulator};
use serde_json::Value;

use crate::harness::{DURABLE, Host, Redis, Setup, field};
use crate::numbered::{self, Firing, STREAM};
use crate::proxy::{self, Proxy};

const JOBS: &str = "freeswitch:telephony:background-jobs";
const DEAD: &str = "freeswitch:telephony:dead";

async fn switch() -> Arc<Simulator> {
    Arc::new(Simulator::start(Settings::default()).await.unwrap())
}

/// A host that gives up on Redis soon, and tries again soon.
fn setup(switch: &Simulator, redis: &Redis) -> Setup {
    let setup = Setup::new(switch.addr(), redis).env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms");
    setup.env("EVENTS_MAX_LEN", "0")
}

#[track_caller]
fn wait_not_ready(host: &Host, error: &str) {
    // Of Redis alone: what is fired from now on is received.
    let status = host.wait_status(error, |_| {
        let trouble = host.get("/readyz").1;
        trouble.contains(error) && !trouble.contains("esl:")
    });
    assert_eq!(host.get("/readyz").0, 503, "{status:#}");
}

/// All numbers up to `count` are in the stream, and nothing was lost.
#[track_caller]
fn check_all(host: &Host, redis: &Redis, count: u64) {
    let status = host.wait_settled(count);
    numbered::check(redis, STREAM, 0..count);
    assert_eq!(
        status["counts"]["delivered"], count,
        "and each is counted once: {status:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_redis_under_load_loses_and_repeats_nothing() {
    let (switch, mut redis) = (switch().await, Redis::start_with(&DURABLE));
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    numbered::wait_growth(&redis, 100);
    redis.shut_down();
    host.wait_status("the loss is noticed", |status| {
        status["links"]["redis"]["losses"] == 1
    });
    redis.up();
    numbered::wait_growth(&redis, 100);
    check_all(&host, &redis, firing.stop().await);
    assert_eq!(
        host.metric("telephony_redis_reconnections_total"),
        Some(1.0),
        "it is counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_redis_under_load_lose_and_repeat_nothing() {
    let (switch, mut redis) = (switch().await, Redis::start_with(&DURABLE));
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    for _ in 0..3 {
        numbered::wait_growth(&redis, 100);
        redis.kill();
        redis.up();
    }
    numbered::wait_growth(&redis, 100);
    check_all(&host, &redis, firing.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_at_start_gets_what_came_meanwhile() {
    let (switch, mut redis) = (switch().await, Redis::start());
    redis.kill();
    let host = setup(&switch, &redis).start();
    wait_not_ready(
        &host,
        "redis: cannot connect: Connection refused (os error 111)",
    );
    host.wait_status("FreeSWITCH is there", |status| {
        status["links"]["esl"]["state"] == "ready"
    });
    numbered::fire(&switch, 0..3_000);
    redis.up();
    check_all(&host, &redis, 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_executes_after_redis_hung_is_not_repeated() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..100);
    host.wait_settled(100);
    redis.signal("STOP");
    numbered::fire(&switch, 100..1_000);
    wait_not_ready(&host, "redis: no reply within 300 ms");
    redis.signal("CONT");
    check_all(&host, &redis, 1_000);
}

/// A host whose Redis is behind a proxy, after its first ten events.
async fn behind_proxy() -> (Arc<Simulator>, Redis, Proxy, Host) {
    let (switch, redis) = (switch().await, Redis::start());
    let (proxy, host) = proxy::start_behind(setup(&switch, &redis), &switch, &redis);
    (switch, redis, proxy, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_arrives_after_it_was_sent_again_does_nothing() {
    let (switch, redis, proxy, host) = behind_proxy().await;
    proxy.hold_batches();
    numbered::fire(&switch, 10..20);
    proxy.wait_held(0);
    proxy.let_go(1);
    check_all(&host, &redis, 20);
    proxy.let_go(0);
    proxy.wait_over(0);
    check_all(&host, &redis, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_arrives_while_it_is_sent_again_fences_the_second_one() {
    let (switch, redis, proxy, host) = behind_proxy().await;
    proxy.hold_batches();
    numbered::fire(&switch, 10..11);
    proxy.wait_held(0);
    proxy.wait_held(1);
    proxy.let_go(0);
    proxy.wait_over(0);
    proxy.let_go(1);
    proxy.let_go(2);
    check_all(&host, &redis, 11);
    // The second one found the cursor moved.
    host.wait_log("batch fenced by the cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_reply_is_lost_is_not_sent_again() {
    let (switch, redis, proxy, host) = behind_proxy().await;
    proxy.hold_replies(true);
    numbered::fire(&switch, 10..20);
    wait_not_ready(&host, "redis: no reply within 300 ms");
    proxy.hold_replies(false);
    check_all(&host, &redis, 20);
    assert!(
        host.log()
            .contains("batch was executed before the connection broke"),
        "the cursor told"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_redis_password_is_named_and_never_shown() {
    let (switch, redis) = (switch().await, Redis::start());
    let user = [
        "ACL", "SETUSER", "jack", "on", "~*", "&*", "+@all", ">right",
    ];
    redis.ask::<()>(&user);
    let url = format!("redis://jack:s3cret-but-wrong@127.0.0.1:{}/2", redis.port);
    let host = setup(&switch, &redis)
        .env("JACKFIELD_REDIS_URL", &url)
        .start();
    let advice =
        "check redis.user and redis.password, or those in redis.url (REDIS_REMOTE_PASSWORD)";
    wait_not_ready(&host, &format!("redis: password rejected: {advice}"));
    numbered::fire(&switch, 0..10);
    let seen = ["/health", "/status", "/metrics", "/readyz"]
        .map(|path| host.get(path).1)
        .concat();
    assert!(
        !(seen + &host.log()).contains("s3cret"),
        "the password is shown nowhere"
    );
    redis.ask::<()>(&["ACL", "SETUSER", "jack", ">s3cret-but-wrong"]);
    check_all(&host, &redis, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_waited_for() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    numbered::fire(&switch, 10..500);
    wait_not_ready(&host, "redis: refuses to write: OOM command not allowed");
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    check_all(&host, &redis, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_full_again_and_again_under_load_gets_each_event_once() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    for _ in 0..4 {
        numbered::wait_growth(&redis, 100);
        // In the middle of whatever batch is on its way.
        redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
        wait_not_ready(&host, "redis: refuses to write: OOM command not allowed");
        redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    }
    numbered::wait_growth(&redis, 100);
    check_all(&host, &redis, firing.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_becomes_a_replica_is_not_ready_until_it_is_a_master_again() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    wait_not_ready(&host, "redis: is a slave, not a master");
    numbered::fire(&switch, 10..500);
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    check_all(&host, &redis, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_to_a_replica_is_never_taken_for_success() {
    let (switch, redis) = (switch().await, Redis::start());
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    numbered::wait_growth(&redis, 100);
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    wait_not_ready(&host, "redis: ");
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    numbered::wait_growth(&redis, 100);
    check_all(&host, &redis, firing.stop().await);
}

/// Fires events for both streams in turn, `count` of each.
fn fire_both(switch: &Simulator, count: u64) {
    for number in 0..count {
        switch.fire(numbered::event(number));
        switch.fire(Event::new("DTMF").header("Number", number.to_string()));
    }
}

/// The dead letters must be these numbers in order, meant for `stream`, with a reason that begins so.
#[track_caller]
fn check_dead(redis: &Redis, stream: &str, reason: &str, numbers: std::ops::Range<u64>) {
    numbered::check(redis, DEAD, numbers);
    for letter in redis.entries(DEAD) {
        assert_eq!(field(&letter, "streams"), stream, "where it was to go");
        assert!(
            field(&letter, "reason").starts_with(reason),
            "why it is here: {letter:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_makes_dead_letters_and_delays_no_neighbour() {
    let (switch, redis) = (switch().await, Redis::start());
    redis.ask::<()>(&["SET", STREAM, "somebody else's"]);
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    fire_both(&switch, 200);
    let status = host.wait_settled(400);
    let counts = &status["counts"];
    assert_eq!(
        (&counts["delivered"], &counts["dead_lettered"]),
        (&200.into(), &200.into()),
        "{status:#}"
    );
    check_dead(&redis, STREAM, "WRONGTYPE", 0..200);
    numbered::check(&redis, JOBS, 0..200);
    redis.ask::<()>(&["DEL", STREAM]);
    numbered::fire(&switch, 0..10);
    host.wait_settled(410);
    numbered::check(&redis, STREAM, 0..10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_key_makes_dead_letters_and_stops_no_neighbour() {
    let (switch, redis) = (switch().await, Redis::start());
    let keys = ["~jackfield:*", &format!("~{STREAM}"), &format!("~{DEAD}")];
    redis.ask::<()>(
        &[
            &["ACL", "SETUSER", "jack", "on", ">right", "+@all"],
            keys.as_slice(),
        ]
        .concat(),
    );
    let url = format!("redis://jack:right@127.0.0.1:{}/2", redis.port);
    let host = setup(&switch, &redis)
        .env("JACKFIELD_REDIS_URL", &url)
        .start();
    host.wait_ready();
    fire_both(&switch, 100);
    let status = host.wait_settled(200);
    let counts = &status["counts"];
    assert_eq!(
        (&counts["delivered"], &counts["dead_lettered"]),
        (&100.into(), &100.into()),
        "{status:#}"
    );
    check_dead(&redis, JOBS, "NOPERM", 0..100);
    numbered::check(&redis, STREAM, 0..100);
    assert_eq!(
        status["links"]["redis"]["losses"], 0,
        "the connection is kept: {status:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_even_the_dead_letters_of_redis_do_not_take_is_kept_on_disk() {
    let (switch, redis) = (switch().await, Redis::start());
    redis.ask::<()>(&["MSET", STREAM, "somebody else's", DEAD, "this too"]);
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    fire_both(&switch, 50);
    let malformed = "Content-Length: 1\nContent-Type: text/event-json\n\nx";
    switch.write_raw(Bytes::from(malformed)).await;
    let status = host.wait_settled(101);
    let counts = &status["counts"];
    assert_eq!(
        (&counts["dead_lettered"], &counts["lost"]),
        (&51.into(), &0.into()),
        "{status:#}"
    );
    assert_eq!(
        counts["delivered"], 50,
        "the neighbors are delivered: {status:#}"
    );
    numbered::check(&redis, JOBS, 0..50);
    let letters = std::fs::read_to_string(host.journal().join("dead-letters.jsonl")).unwrap();
    let letters: Vec<Value> = letters
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(letters.len(), 51, "one a line");
    let (frames, events): (Vec<Value>, Vec<Value>) = letters
        .into_iter()
        .partition(|letter| letter["frame"].is_string());
    for (number, letter) in events.iter().enumerate() {
        let event: Value = serde_json::from_str(letter["event"].as_str().unwrap()).unwrap();
        assert_eq!(event["Number"], number.to_string(), "in order: {letter:#}");
        assert_eq!(letter["streams"], STREAM, "where it was to go");
    }
    assert_eq!(frames[0]["frame"], "x", "as it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_redis_would_not_take_is_a_dead_letter_cut_short() {
    let (switch, redis) = (
        switch().await,
        Redis::start_with(&["--proto-max-bulk-len", "1mb"]),
    );
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..1);
    switch.fire(Event::new("DTMF").body("x".repeat(2 << 20)));
    numbered::fire(&switch, 1..2);
    let status = host.wait_settled(3);
    assert_eq!(status["counts"]["dead_lettered"], 1, "{status:#}");
    let letter = &redis.entries(DEAD)[0];
    let reason = field(letter, "reason");
    assert!(reason.starts_with("too large: "), "{reason}");
    assert!(
        reason.ends_with(" bytes; Redis takes 1048576 (proto-max-bulk-len)"),
        "{reason}"
    );
    assert_eq!(field(letter, "streams"), JOBS);
    assert!(
        field(letter, "event").starts_with("{\"Event-Name\":\"DTMF\""),
        "its beginning is kept"
    );
    numbered::check(&redis, STREAM, 0..2);
    assert_eq!(
        status["links"]["redis"]["losses"], 0,
        "the connection is kept: {status:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_kills_its_connection_is_found_and_kept_on_disk() {
    let bulk = ["--proto-max-bulk-len", "1mb"];
    let (switch, redis) = (switch().await, Redis::start_with(&bulk));
    // Who may not ask for the limit finds it out the hard way: Redis closes the connection.
    let user = [
        "ACL", "SETUSER", "jack", "on", ">right", "~*", "+@all", "-config",
    ];
    redis.ask::<()>(&user);
    let url = format!("redis://jack:right@127.0.0.1:{}/2", redis.port);
    let host = setup(&switch, &redis)
        .env("JACKFIELD_REDIS_URL", &url)
        .start();
    host.wait_ready();
    numbered::fire(&switch, 0..3);
    switch.fire(Event::new("DTMF").body("x".repeat(2 << 20)));
    numbered::fire(&switch, 3..6);
    let status = host.wait_settled(7);
    let counts = &status["counts"];
    assert_eq!(
        (&counts["delivered"], &counts["dead_lettered"]),
        (&6.into(), &1.into()),
        "{status:#}"
    );
    numbered::check(&redis, STREAM, 0..6);
    let letters = std::fs::read_to_string(host.journal().join("dead-letters.jsonl")).unwrap();
    let letter: Value = serde_json::from_str(letters.trim()).unwrap();
    assert_eq!(letter["streams"], JOBS, "where it was to go");
    assert_eq!(letter["reason"], "connection closed by Redis three times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_stream_of_fields_has_the_whole_event() {
    let (switch, redis) = (switch().await, Redis::start());
    redis.ask::<()>(&["SET", "fields", "somebody else's"]);
    let stream = "[[stream]]\nname = \"fields\"\nevents = [\"CUSTOM\"]\nformat = \"fields\"\n";
    let host = setup(&switch, &redis).config(stream).start();
    host.wait_ready();
    switch.fire(numbered::event(0).body("hello"));
    host.wait_settled(1);
    check_dead(&redis, "fields", "WRONGTYPE", 0..1);
    let event: Value = redis.events(DEAD).remove(0);
    assert_eq!(
        (&event["Event-Name"], &event["_body"]),
        (&"CUSTOM".into(), &"hello".into()),
        "{event:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_too_large_itself_is_cut_short() {
    let (switch, redis) = (
        switch().await,
        Redis::start_with(&["--proto-max-bulk-len", "1mb"]),
    );
    let host = setup(&switch, &redis).start();
    host.wait_ready();
    let malformed = format!(
        "Content-Length: {}\nContent-Type: text/event-json\n\n",
        2 << 20
    );
    let malformed = malformed + &"x".repeat(2 << 20);
    switch.write_raw(Bytes::from(malformed)).await;
    numbered::fire(&switch, 0..10);
    let status = host.wait_settled(11);
    numbered::check(&redis, STREAM, 0..10);
    assert_eq!(status["counts"]["dead_lettered"], 1, "{status:#}");
    assert_eq!(
        field(&redis.entries(DEAD)[0], "frame").len(),
        64 << 10,
        "its beginning is kept"
    );
    assert_eq!(
        status["links"]["redis"]["losses"], 0,
        "the connection is kept: {status:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_two_streams_is_in_the_one_that_takes_it() {
    let (switch, redis) = (switch().await, Redis::start());
    redis.ask::<()>(&["SET", "freeswitch:a", "somebody else's"]);
    let rule = "[[rule]]\nevent = \"CUSTOM\"\nstreams = [\"freeswitch:a\", \"freeswitch:b\"]\n";
    let host = setup(&switch, &redis)
        .filter("10-route", "route", rule)
        .start();
    host.wait_ready();
    numbered::fire(&switch, 0..50);
    let status = host.wait_settled(50);
    assert_eq!(
        status["counts"]["dead_lettered"], 50,
        "an event with a dead entry is one: {status:#}"
    );
    check_dead(&redis, "freeswitch:a", "WRONGTYPE", 0..50);
    numbered::check(&redis, "freeswitch:b", 0..50);
}
