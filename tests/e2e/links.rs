//! The link to FreeSWITCH: lost and found again, refused with a reason, silent, and what is asked of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jackfield::simulator::{Settings, Simulator};
use serde_json::Value;

use crate::harness::{DEADLINE, Host, Redis, Setup, free_port, wait_for};
use crate::numbered::{self, Firing, STREAM};

/// A host that tries again soon.
fn setup(esl: SocketAddr, redis: &Redis) -> Setup {
    let setup = Setup::new(esl, redis).env("ESL_RECONNECT_DELAY", "50ms");
    setup.env("ESL_MAX_RECONNECT_DELAY", "200ms")
}

async fn switch(settings: Settings) -> Simulator {
    Simulator::start(settings).await.unwrap()
}

/// Code and `last_error` of `/health`.
fn health(host: &Host) -> (u16, Value) {
    let (code, body) = host.get("/health");
    let mut body: Value = serde_json::from_str(&body).unwrap();
    (code, body["data"]["last_error"].take())
}

/// Waits until `/health` is 503 with exactly this text.
#[track_caller]
fn wait_unhealthy(host: &Host, error: &str) {
    let started = Instant::now();
    while health(host) != (503, Value::from(error)) {
        assert!(
            started.elapsed() < DEADLINE,
            "/health says {:?}, not {error}",
            health(host)
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nothing that anybody may see has this in it.
#[track_caller]
fn check_secret(host: &Host, secret: &str) {
    let seen = ["/health", "/status", "/metrics", "/readyz"]
        .map(|path| host.get(path).1)
        .concat();
    assert!(!seen.contains(secret), "a secret is in what HTTP shows");
    assert!(
        !(host.log() + &host.out()).contains(secret),
        "a secret is in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_while_connected_arrives_around_a_cut_in_mid_frame() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let host = setup(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..100);
    host.wait_settled(100);
    let half = b"Content-Length: 900\nContent-Type: text/event-json\n\n{\"Event-Name\":\"CUSTOM\",";
    switch.write_raw(Bytes::from_static(half)).await;
    switch.set_refuse(true);
    switch.cut();
    wait_for("the loss is noticed", || {
        (host.get("/readyz").0 == 503).then_some(())
    });
    numbered::fire(&switch, 100..150);
    switch.set_refuse(false);
    assert!(
        switch.wait_for_subscribers(1, DEADLINE).await,
        "the subscription is made anew"
    );
    numbered::fire(&switch, 150..250);
    let status = host.wait_settled(200);
    assert_eq!(status["links"]["esl"]["losses"], 1, "one loss: {status:#}");
    numbered::check(&redis, STREAM, (0..100).chain(150..250));
    assert_eq!(health(&host), (200, Value::Null), "healthy again");
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_under_load_repeat_and_reorder_nothing() {
    let (switch, redis) = (Arc::new(switch(Settings::default()).await), Redis::start());
    let host = setup(switch.addr(), &redis)
        .env("EVENTS_MAX_LEN", "0")
        .start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    for cut in 1..=3 {
        let before = host.count("inputs");
        host.wait_status("the load arrives", |status| {
            status["counts"]["inputs"].as_u64() > Some(before + 100)
        });
        switch.cut();
        let noticed = |status: &Value| status["links"]["esl"]["losses"] == cut;
        host.wait_status("the loss is noticed", noticed);
        assert!(
            switch.wait_for_subscribers(1, DEADLINE).await,
            "it comes back"
        );
    }
    firing.stop().await;
    numbered::fire(&switch, 1_000_000..1_000_001);
    wait_for("the last is in Redis", || {
        numbered::in_stream(&redis, STREAM)
            .ends_with(&[1_000_000])
            .then_some(())
    });
    let status = host.wait_settled(0);
    let numbers = numbered::in_stream(&redis, STREAM);
    assert!(
        numbers.is_sorted_by(|one, next| one < next),
        "each once, in order"
    );
    assert_eq!(
        status["counts"]["inputs"],
        numbers.len(),
        "all that was read is there: {status:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_freeswitch_is_taken_up_again() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let host = setup(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    switch.restart();
    assert!(
        switch.wait_for_subscribers(1, DEADLINE).await,
        "it subscribes to the new one"
    );
    numbered::fire(&switch, 10..20);
    host.wait_settled(20);
    numbered::check(&redis, STREAM, 0..20);
    let events = redis.events(STREAM);
    assert_ne!(
        events[0]["Core-UUID"], events[19]["Core-UUID"],
        "these are two lives"
    );
    assert_eq!(
        events[0]["Event-Sequence"], events[10]["Event-Sequence"],
        "the numbers start again"
    );
    assert_eq!(
        host.metric("telephony_esl_reconnections_total"),
        Some(1.0),
        "and it is counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeswitch_that_closes_at_once_is_tried_until_it_accepts() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    switch.set_refuse(true);
    let host = setup(switch.addr(), &redis).start();
    wait_unhealthy(&host, "esl: connection closed by FreeSWITCH");
    switch.set_refuse(false);
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    numbered::check(&redis, STREAM, 0..10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeswitch_that_is_away_at_start_is_waited_for() {
    let (port, redis) = (free_port(), Redis::start());
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let host = setup(listen, &redis).start();
    wait_unhealthy(
        &host,
        "esl: cannot connect: Connection refused (os error 111)",
    );
    assert_eq!(host.get("/livez").0, 200, "not ready is not dead");
    let settings = Settings {
        listen,
        ..Settings::default()
    };
    let switch = switch(settings).await;
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    numbered::check(&redis, STREAM, 0..10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_never_shown() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let host = setup(switch.addr(), &redis)
        .env("ESL_PASSWORD", "s3cret-but-wrong")
        .start();
    let error = "password rejected (-ERR invalid): check esl.password and esl.user";
    wait_unhealthy(&host, &format!("esl: {error}"));
    host.wait_log(error);
    assert!(
        switch
            .commands()
            .contains(&"auth s3cret-but-wrong".to_owned()),
        "it was sent"
    );
    check_secret(&host, "s3cret-but-wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_list_that_keeps_us_out_is_named() {
    let settings = Settings {
        acl_reject: true,
        ..Settings::default()
    };
    let (switch, redis) = (switch(settings).await, Redis::start());
    let host = setup(switch.addr(), &redis)
        .env("ESL_PASSWORD", "s3cret")
        .start();
    let what = "refused by the access list of FreeSWITCH (text/rude-rejection)";
    let error = format!("{what}: allow this host in apply-inbound-acl");
    wait_unhealthy(&host, &format!("esl: {error}"));
    host.wait_log(&error);
    assert!(
        switch.commands().is_empty(),
        "no password is sent to who rejects us"
    );
    check_secret(&host, "s3cret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_logs_in_with_userauth() {
    let settings = Settings {
        user: Some(("events".to_owned(), "s3cret".to_owned())),
        ..Settings::default()
    };
    let (switch, redis) = (switch(settings).await, Redis::start());
    let user = |password: &str| {
        let setup = setup(switch.addr(), &redis).env("ESL_PASSWORD", password);
        setup
            .env("JACKFIELD_ESL_USER", "events@example.com")
            .start()
    };
    let host = user("s3cret");
    host.wait_ready();
    assert_eq!(switch.commands()[0], "userauth events@example.com:s3cret");
    numbered::fire(&switch, 0..1);
    host.wait_settled(1);
    check_secret(&host, "s3cret");
    let wrong = user("s3cret-but-wrong");
    wait_unhealthy(
        &wrong,
        "esl: password rejected (-ERR invalid): check esl.password and esl.user",
    );
    check_secret(&wrong, "s3cret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_freeswitch_is_unhealthy_until_it_speaks_again() {
    let settings = Settings {
        heartbeat: Duration::from_millis(300),
        ..Settings::default()
    };
    let (switch, redis) = (switch(settings).await, Redis::start());
    let host = setup(switch.addr(), &redis).start();
    host.wait_status("heartbeats come", |status| {
        status["counts"]["inputs"].as_u64() >= Some(3)
    });
    switch.set_silent(true);
    let since = Instant::now();
    let silent = |(code, error): (u16, Value)| {
        code == 503 && error.as_str().unwrap().starts_with("esl: silent for ")
    };
    wait_for("the silence is noticed", || {
        silent(health(&host)).then_some(())
    });
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "within a few heartbeats, not {:?}",
        since.elapsed()
    );
    let logins = switch.logins();
    wait_for("it logs in twice more", || {
        assert!(
            silent(health(&host)),
            "a login alone is no sign of life: {:?}",
            health(&host)
        );
        (switch.logins() >= logins + 2).then_some(())
    });
    switch.set_silent(false);
    wait_for("a heartbeat makes it healthy", || {
        (health(&host) == (200, Value::Null)).then_some(())
    });
    host.wait_settled(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_a_goodbye_are_the_error() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    switch.shut_down_notice().await;
    wait_unhealthy(
        &host,
        "esl: disconnected by FreeSWITCH: The system is being shut down.",
    );
    host.wait_settled(10);
    numbered::check(&redis, STREAM, 0..10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lingering_session_s_notice_is_not_the_end() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let host = setup(switch.addr(), &redis).start();
    host.wait_ready();
    let notice = "Content-Type: text/disconnect-notice\nContent-Disposition: linger\nLinger-Time: 5\nContent-Length: 0\n\n";
    switch.write_raw(Bytes::from(notice)).await;
    numbered::fire(&switch, 0..10);
    host.wait_settled(10);
    numbered::check(&redis, STREAM, 0..10);
    let status = host.status();
    assert_eq!(
        (&status["links"]["esl"]["losses"], &status["ready"]),
        (&Value::from(0), &Value::from(true)),
        "nothing was lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_custom_event_is_asked_for_with_filters() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let host = setup(switch.addr(), &redis).start();
    host.wait_ready();
    let names = [
        "BACKGROUND_JOB",
        "CHANNEL_ANSWER",
        "CHANNEL_EXECUTE",
        "CHANNEL_EXECUTE_COMPLETE",
        "CHANNEL_HANGUP",
    ];
    let names = names
        .into_iter()
        .chain(["CUSTOM", "DETECTED_SPEECH", "DTMF", "HEARTBEAT"]);
    let filters = names.map(|name| format!("filter Event-Name {name}"));
    let expected: Vec<String> = filters.chain(["event json ALL".to_owned()]).collect();
    assert_eq!(
        numbered::asked(&switch)[0][1..],
        expected,
        "the filters first, so that nothing else comes"
    );
    switch.cut();
    let again = wait_for("it subscribes again", || {
        let again = numbered::asked(&switch).get(1)?[1..].to_vec();
        (again.len() == expected.len()).then_some(again)
    });
    assert_eq!(again, expected, "the same again");
}

#[tokio::test(flavor = "multi_thread")]
async fn named_events_are_asked_for_by_name_in_the_format_set() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let setup = setup(switch.addr(), &redis).env("EVENTS_TO_PUBLISH", "DTMF");
    let setup = setup.env(
        "EVENTS_TO_PUSH",
        "CUSTOM sofia::register,CHANNEL_ANSWER,CUSTOM a::b",
    );
    let host = setup.env("JACKFIELD_ESL_FORMAT", "plain").start();
    host.wait_ready();
    let asked = "event plain CHANNEL_ANSWER DTMF HEARTBEAT CUSTOM a::b sofia::register";
    assert_eq!(
        numbered::asked(&switch)[0],
        ["auth ClueCon", asked],
        "subclasses last: FreeSWITCH takes what follows for one"
    );
}

/// A FreeSWITCH of one connection that answers each command with the bytes next in line, then waits for the end.
fn scripted(answers: Vec<String>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in answers {
            stream.write_all(answer.as_bytes()).unwrap();
            read_command(&mut stream);
        }
    };
    (address, std::thread::spawn(serve))
}

/// Reads to an empty line or to the end.
fn read_command(stream: &mut TcpStream) {
    let mut command = Vec::new();
    let mut byte = [0];
    while !command.ends_with(b"\n\n") && stream.read(&mut byte).unwrap() == 1 {
        command.extend(byte);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_may_come_before_the_reply_to_the_subscription() {
    let redis = Redis::start();
    let event = |number: u32| {
        let body = format!("{{\"Event-Name\":\"DTMF\",\"Number\":\"{number}\"}}");
        format!(
            "Content-Length: {}\nContent-Type: text/event-json\n\n{body}",
            body.len()
        )
    };
    let reply = |text: &str| format!("Content-Type: command/reply\nReply-Text: {text}\n\n");
    let (address, serving) = scripted(vec![
        "Content-Type: auth/request\n\n".to_owned(),
        reply("+OK accepted"),
        event(0) + &reply("+OK event listener enabled json") + &event(1),
    ]);
    let setup = setup(address, &redis).env("EVENTS_TO_PUBLISH", "NONE");
    let setup = setup.env("JACKFIELD_ROUTER_NAME", "no-event-tells-it");
    let host = setup.env("EVENTS_TO_PUSH", "DTMF").start();
    host.wait_settled(2);
    numbered::check(&redis, STREAM, 0..2);
    host.wait_status("the reply is seen behind the event", |status| {
        status["links"]["esl"]["state"] == "ready"
    });
    drop(host);
    serving.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_named() {
    let redis = Redis::start();
    let reply = |text: &str| format!("Content-Type: command/reply\nReply-Text: {text}\n\n");
    let greeting = "Content-Type: auth/request\n\n".to_owned();
    let (address, serving) = scripted(vec![
        greeting,
        reply("+OK accepted"),
        reply("-ERR permission denied"),
    ]);
    let setup = Setup::new(address, &redis).env("EVENTS_TO_PUBLISH", "DTMF");
    let host = setup.env("EVENTS_TO_PUSH", "DTMF").start();
    wait_unhealthy(
        &host,
        "esl: \"event json DTMF HEARTBEAT\" refused: -ERR permission denied",
    );
    serving.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeswitch_that_hangs_is_given_up_and_tried_again() {
    let redis = Redis::start();
    let frozen = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = setup(frozen.local_addr().unwrap(), &redis).env("ESL_HEALTH_CHECK_TIMEOUT", "200ms");
    let host = host.start();
    wait_unhealthy(&host, "esl: no auth/request within 200 ms");
    let greeting =
        "Content-Type: auth/request\n\nContent-Type: command/reply\nReply-Text: +OK accepted\n\n";
    let accepted = std::cell::RefCell::new(Vec::new());
    wait_for("one that logs in and hangs then is given up too", || {
        let (mut stream, _) = frozen.accept().unwrap();
        // It may be one that was given up while it waited.
        drop(stream.write_all(greeting.as_bytes()));
        accepted.borrow_mut().push(stream);
        health(&host)
            .1
            .as_str()
            .unwrap()
            .contains("no reply to")
            .then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_inside_a_cut_frame_is_understood() {
    let (switch, redis) = (switch(Settings::default()).await, Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..10);
    let half = "Content-Length: 900\nContent-Type: text/event-plain\n\nEvent-Name: CUSTOM\nE";
    let text = "killed listener because of lost events\n";
    let notice = format!("Content-Type: text/disconnect-notice\nContent-Length: 39\n\n{text}");
    switch
        .write_raw(Bytes::from(half.to_owned() + &notice))
        .await;
    host.wait_settled(10);
    switch.cut();
    wait_unhealthy(
        &host,
        "esl: disconnected by FreeSWITCH: killed listener because of lost events",
    );
    host.wait_settled(10);
    numbered::check(&redis, STREAM, 0..10);
}
