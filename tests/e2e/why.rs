//! `jackfield why` and `jackfield tail`: of every event it can be said which filter did what to it, in which version, what that
//! cost, and where it went; while the host runs and when it is gone.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use jackfield::simulator::Event;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Host, Redis, Setup, jackfield, place_filter, wait_for};
use crate::numbered;
use crate::scene::{Scene, quiet_switch, versioned};

/// Runs `jackfield why`: exit code, standard output, standard error.
fn asked(words: &[&str], dir: &Path) -> (i32, String, String) {
    let mut command = Command::new(jackfield());
    let output = command.arg("why").args(words).arg(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, error) = (text(output.stdout), text(output.stderr));
    (output.status.code().unwrap(), out, error)
}

#[track_caller]
pub(crate) fn why(words: &[&str], dir: &Path) -> String {
    let (code, out, error) = asked(words, dir);
    assert_eq!((code, error.as_str()), (0, ""), "why {words:?}: {out}");
    out
}

#[track_caller]
pub(crate) fn why_json(words: &[&str], dir: &Path) -> Vec<Value> {
    let out = why(&[words, &["--json"]].concat(), dir);
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Without what differs from run to run: the time of receipt, and of each call.
fn steady(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| match line.split_once(" µs: ") {
        Some((call, what)) => {
            let (call, took) = call.rsplit_once(' ').unwrap();
            assert!(took.parse::<f64>().unwrap() > 0.0, "it took time: {line}");
            format!("{call}: {what}")
        }
        None => match line.split("  ").collect::<Vec<_>>()[..] {
            [lsn, received, ref rest @ ..] if received.ends_with('Z') => {
                format!("{lsn}  {}", rest.join("  "))
            }
            _ => line.to_owned(),
        },
    });
    lines.collect()
}

fn call(name: &str, id: &str) -> Event {
    Event::new(name)
        .header("Unique-ID", id)
        .header("Caller-ANI", "0301234567")
}

/// Filters that do all that a filter can do to an event.
pub(crate) fn filters(setup: Setup) -> Setup {
    let rules = "[[rule]]\nevent = \"CHANNEL_ANSWER\"\nstreams = [\"freeswitch:routed\"]\n\
        [[rule]]\nevent = \"DTMF\"\ndrop = \"noise\"\n";
    let trap =
        "attack = \"trap\"\nwants = [\"CHANNEL_HOLD\"]\n[jackfield]\non_error = \"dead-letter\"\n";
    setup
        .filter("10-redact", "redact", "mask = [\"Caller-ANI\"]\nkeep = 2\n")
        .filter("20-route", "route", rules)
        .filter(
            "30-derive",
            "hostile",
            "attack = \"derive\"\nwants = [\"CHANNEL_ANSWER\"]\n",
        )
        .filter("40-trap", "hostile", trap)
}

/// A frame that is no event.
pub(crate) fn malformed() -> Bytes {
    let body = b"{\"Event-Name\":\"\xff";
    let head = format!(
        "Content-Length: {}\nContent-Type: text/event-json\n\n",
        body.len()
    );
    Bytes::from([head.as_bytes(), body].concat())
}

/// How `why` names the version of a filter that runs.
fn version(host: &Host, file: &str) -> String {
    let filter = host.wait_filter(file, |filter| filter["state"] == "running");
    let text = |name: &str| filter[name].as_str().unwrap().to_owned();
    format!("{file} {} ({})", text("version"), &text("digest")[..12])
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_each_filter_did_to_an_event_and_where_it_went() {
    let scene = Scene::start(filters).await;
    scene.switch.fire(call("CHANNEL_ANSWER", "call-1"));
    scene.settle();
    let [redact, route, derive] =
        ["10-redact", "20-route", "30-derive"].map(|file| version(&scene.host, file));
    let dir = scene.host.journal();
    let told = why_json(&["call-1"], &dir).remove(0);
    let lsn = told["lsn"].to_string();
    let text = why(&[&lsn], &dir);
    assert_eq!(
        steady(&text),
        [
            format!("{lsn}  CHANNEL_ANSWER  call-1"),
            format!("  {redact}: pass; set Caller-ANI = \"********67\""),
            format!("  {route}: route to freeswitch:routed"),
            format!("  {derive}: pass"),
            "  → freeswitch:routed".to_owned(),
            "  30-derive derived HOSTILE_DERIVED".to_owned(),
            "    → dropped: no route wants it".to_owned(),
        ]
    );
    assert!(text.contains(told["received"].as_str().unwrap()), "{text}");
    assert_eq!(why(&["call-1"], &dir), text, "by its Unique-ID");
    assert_eq!(
        (&told["event"], &told["unique_id"]),
        (&json!("CHANNEL_ANSWER"), &json!("call-1"))
    );
    let [answered, derived] = &told["became"].as_array().unwrap()[..] else {
        panic!("the event, and what was made of it: {told:#}");
    };
    assert_eq!(
        answered["outcome"],
        json!({ "streams": [{ "stream": "freeswitch:routed", "format": "json" }] })
    );
    let steps = answered["steps"].as_array().unwrap();
    let by: Vec<&Value> = steps.iter().map(|step| &step["by"]).collect();
    assert_eq!(by, ["10-redact", "20-route", "30-derive"]);
    assert!(
        steps.iter().all(|step| step["took_ns"].as_u64() > Some(0)),
        "what each call cost: {told:#}"
    );
    assert_eq!(
        (&derived["derived"]["by"], &derived["derived"]["name"]),
        (&json!("30-derive"), &json!("HOSTILE_DERIVED"))
    );
    assert_eq!(scene.host.stop().journal(), dir, "the host is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_why_an_event_went_nowhere_also_when_the_host_is_gone() {
    let scene = Scene::start(filters).await;
    for (name, id) in [
        ("DTMF", "dropped"),
        ("CHANNEL_HOLD", "dead"),
        ("CODEC", "unrouted"),
    ] {
        scene.switch.fire(call(name, id));
    }
    scene.switch.write_raw(malformed()).await;
    scene.host.wait_settled(4);
    let [redact, route, trap] =
        ["10-redact", "20-route", "40-trap"].map(|file| version(&scene.host, file));
    let setup = scene.host.stop();
    let dir = setup.journal();

    let first = why_json(&["dropped"], &dir)[0]["lsn"].as_u64().unwrap();
    let told = |place: u64| steady(&why(&[&(first + place).to_string()], &dir));
    let masked = format!("  {redact}: pass; set Caller-ANI = \"********67\"");
    assert_eq!(
        told(0),
        [
            format!("{first}  DTMF  dropped"),
            masked.clone(),
            format!("  {route}: drop (noise)"),
            "  → dropped by 20-route: noise".to_owned(),
        ]
    );
    let dead = told(1);
    assert_eq!(dead[1], masked);
    let reason = dead[3].strip_prefix("  → dead-lettered by 40-trap: ");
    let reason = reason.expect("it is a dead letter, for a reason");
    assert!(reason.contains("unreachable"), "{reason}");
    assert_eq!(
        dead[2],
        format!("  {trap}: dead-letter ({reason}); failed: {reason}")
    );
    assert_eq!(
        told(2)[1..],
        [masked, "  → dropped: no route wants it".to_owned()]
    );
    let malformed = told(3);
    assert_eq!(malformed[0], format!("{}  (no event)", first + 3));
    assert!(
        malformed[1].starts_with("  → dead-lettered: no event ("),
        "{malformed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_call_are_told_in_order_within_the_times_that_are_asked_for() {
    let scene = Scene::start(|setup| setup).await;
    let dir = scene.host.journal();
    let ids = || why_json(&["call-1"], &dir);
    for number in 0..3 {
        let event = call("CHANNEL_ANSWER", "call-1").header("Event-UUID", format!("uuid-{number}"));
        scene.switch.fire(event);
        scene.switch.fire(call("CHANNEL_ANSWER", "call-2"));
        scene.settle();
        let received = ids()[number]["received_us"].as_u64().unwrap() / 1_000;
        wait_for("the next millisecond", || {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
            (now.as_millis() > u128::from(received)).then_some(())
        });
    }
    let all = ids();
    assert_eq!(all.len(), 3, "{all:#?}");
    let lsn = |told: &Value| told["lsn"].as_u64().unwrap();
    assert!(all.is_sorted_by(|one, next| lsn(one) < lsn(next)));
    let received: Vec<&str> = all
        .iter()
        .map(|told| told["received"].as_str().unwrap())
        .collect();
    let within = |words: &[&str]| why_json(&[&["call-1"], words].concat(), &dir);
    assert_eq!(within(&["--from", received[1]]), all[1..]);
    assert_eq!(within(&["--to", received[1]]), all[..1]);
    let second = ["--from", received[1], "--to", received[2]];
    assert_eq!(within(&second), all[1..2]);
    assert_eq!(why_json(&["uuid-2"], &dir), all[2..], "by its Event-UUID");
    let (code, out, _) = asked(&["call-1", "--to", received[0]], &dir);
    assert_eq!((code, out.as_str()), (1, ""), "none was before the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_found_however_it_is_written_on_the_wire() {
    for format in ["json", "plain"] {
        let scene = Scene::start(|setup| setup.env("JACKFIELD_ESL_FORMAT", format)).await;
        for id in ["4711", "müller 1@example.net/\"x\"", "100%"] {
            scene.switch.fire(call("CHANNEL_ANSWER", id));
            scene.settle();
            let told = why_json(&[id], &scene.host.journal());
            assert_eq!(told.len(), 1, "{format}: {id}");
            assert_eq!(told[0]["unique_id"], id, "{format}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_decided_yet_says_so_and_is_told_after_a_restart() {
    let hanging =
        "attack = \"loop\"\nwants = [\"CHANNEL_ANSWER\"]\n[jackfield]\ndeadline = \"1h\"\n";
    let scene = Scene::start(|setup| setup.filter("10-hanging", "hostile", hanging)).await;
    scene.switch.fire(call("CHANNEL_ANSWER", "call-1"));
    let dir = scene.host.journal();
    let text = wait_for("it is in the journal", || {
        let (code, out, _) = asked(&["call-1"], &dir);
        (code == 0).then_some(out)
    });
    let lsn = why_json(&["call-1"], &dir)[0]["lsn"].clone();
    let expected = [
        format!("{lsn}  CHANNEL_ANSWER  call-1"),
        "  not decided yet".to_owned(),
    ];
    assert_eq!(steady(&text), expected);
    assert_eq!(why_json(&["call-1"], &dir)[0]["became"], Value::Null);

    let setup = scene.host.kill();
    std::fs::remove_file(setup.filters().join("10-hanging.wasm")).unwrap();
    let host = setup.start();
    host.wait_settled(0);
    wait_for("it is decided", || {
        let told = why_json(&["call-1"], &dir).remove(0);
        assert_eq!(told["lsn"], lsn, "it keeps its number");
        (!told["became"].is_null()).then_some(())
    });
    assert!(
        why(&["call-1"], &dir).ends_with("\n  → freeswitch:telephony:events\n"),
        "without the filter the routes decide"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_swaps_it_names_the_version_that_each_event_met() {
    let mut scene =
        Scene::start(|setup| setup.filter("10-version", "hostile", &versioned("0"))).await;
    let mut expected = Vec::new();
    for build in 0..3 {
        let id = format!("call-{build}");
        scene.switch.fire(call("CHANNEL_ANSWER", &id));
        scene.settle();
        expected.push((id, version(&scene.host, "10-version")));
        let digest = scene.host.wait_filter("10-version", |_| true)["digest"].clone();
        let next = scene.build(build);
        place_filter(&scene.host.filters, "10-version", &next, "");
        scene
            .host
            .wait_filter("10-version", |filter| filter["digest"] != digest);
    }
    scene.fire(1);
    scene.settle();
    for (id, version) in expected {
        let told = steady(&why(&[&id], &scene.host.journal()));
        assert_eq!(told[1], format!("  {version}: pass; set X-Version = \"0\""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_ends_with_1_and_what_is_no_time_with_2() {
    let mut scene = Scene::start(|setup| setup).await;
    scene.fire(1);
    scene.settle();
    let dir = scene.host.journal();
    for event in ["call-9", "1", "1099511627999"] {
        let (code, out, error) = asked(&[event], &dir);
        let expected = format!(
            "jackfield: no event {event:?} in the journal {}; an event is asked for by its LSN, Event-UUID or Unique-ID\n",
            dir.display()
        );
        assert_eq!((code, out.as_str(), error), (1, "", expected));
    }
    for time in ["yesterday", "2026-11-27", "2026-02-30T00:00:00Z"] {
        let (code, out, error) = asked(&["call-9", "--from", time], &dir);
        assert_eq!((code, out.as_str()), (2, ""), "{error}");
        let allowed = "allowed is a time in UTC such as 2026-11-27T15:04:05Z";
        assert!(error.contains(allowed), "{error}");
    }
    let missing = dir.join("missing");
    let (code, _, error) = asked(&["call-9"], &missing);
    let expected = format!("jackfield: no journal in {}\n", missing.display());
    assert_eq!((code, error), (1, expected));
}

/// `jackfield tail --decisions` with further words.
fn tail(words: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(jackfield());
    command.args(["tail", "--decisions"]).args(words).arg(dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// One that goes on.
struct Tail {
    process: Child,
    lines: Receiver<String>,
}

impl Tail {
    fn start(dir: &Path) -> Tail {
        let mut process = tail(&["--json"], dir).spawn().unwrap();
        let (told, lines) = channel();
        let out = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.for_each(|line| drop(told.send(line)));
        });
        Tail { process, lines }
    }

    fn next(&self) -> Value {
        let line = self.lines.recv_timeout(DEADLINE);
        serde_json::from_str(&line.expect("it goes on")).unwrap()
    }

    /// The LSNs up to this one.
    fn through(&self, lsn: u64) -> Vec<u64> {
        let mut told = Vec::new();
        while told.last() != Some(&lsn) {
            told.push(self.next()["lsn"].as_u64().unwrap());
        }
        told
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The LSNs in the journal, in order.
fn lsns(dir: &Path) -> Vec<u64> {
    let output = Command::new(jackfield())
        .args(["journal", "export"])
        .arg(dir)
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lsn = |line: &str| serde_json::from_str::<Value>(line).unwrap()["lsn"].as_u64();
    lines.lines().filter_map(lsn).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_tells_each_event_once_and_in_order_over_segments_and_restarts() {
    let (switch, redis) = (Arc::new(quiet_switch().await), Redis::start());
    let setup = Setup::new(switch.addr(), &redis)
        .env("JACKFIELD_JOURNAL_MAX_SIZE", "16MiB")
        .env("ESL_RECONNECT_DELAY", "50ms");
    let mut host = setup.start();
    host.wait_ready();
    let dir = host.journal();
    let large = |number| numbered::event(number).body("x".repeat(200 << 10));
    switch.fire(large(0));
    host.wait_settled(1);
    let tail = Tail::start(&dir);
    // It begins with what is decided after it has looked.
    let first = wait_for("it tells of one", || {
        switch.fire(numbered::event(1));
        tail.lines
            .recv_timeout(std::time::Duration::from_millis(50))
            .ok()
    });
    let first: Value = serde_json::from_str(&first).unwrap();
    let first = first["lsn"].as_u64().unwrap();
    host.wait_settled(switch.sent().queued);
    let mut told = vec![first];
    for _ in 0..3 {
        let before = lsns(&dir).len();
        // More than a segment of 2 MiB.
        for number in 2..14 {
            switch.fire(large(number));
        }
        let last = wait_for("they are in the journal", || {
            lsns(&dir).get(before + 11).copied()
        });
        told.extend(tail.through(last));
        host = host.kill().start();
        host.wait_ready();
    }
    let all = lsns(&dir);
    let from = all.iter().position(|lsn| *lsn == first).unwrap();
    assert!(from > 0, "it did not begin with the oldest");
    assert_eq!(told, all[from..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_begins_after_a_number_ends_after_so_many_and_says_what_why_says() {
    let mut scene = Scene::start(filters).await;
    scene.fire(10);
    scene.settle();
    let dir = scene.host.journal();
    let all = lsns(&dir);
    let after = all[3].to_string();
    let ended = |words: &[&str]| {
        let output = tail(words, &dir).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let told = ended(&["--since", &after, "--limit", "3"]);
    let each = all[4..7].iter().map(|lsn| why(&[&lsn.to_string()], &dir));
    assert_eq!(told, each.collect::<String>());
    let told = ended(&["--since", "0", "--limit", "10", "--json"]);
    let told = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let each = all
        .iter()
        .take(10)
        .flat_map(|lsn| why_json(&[&lsn.to_string()], &dir));
    assert!(told.eq(each), "in JSON, too");

    let mut without = Command::new(jackfield());
    let output = without.arg("tail").arg(&dir).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "what it follows is said");
    let missing = dir.join("missing");
    let output = tail(&[], &missing).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = format!("jackfield: no journal in {}\n", missing.display());
    assert_eq!((output.status.code(), error), (Some(1), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_ends_the_tail_quietly() {
    let mut scene = Scene::start(|setup| setup).await;
    scene.fire(1);
    scene.settle();
    let mut process = tail(&["--since", "0"], &scene.host.journal())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    let ended = wait_for("it ends with the next event", || {
        scene.fire(1);
        process.try_wait().unwrap()
    });
    let mut error = String::new();
    let stderr = process.stderr.as_mut().unwrap();
    stderr.read_to_string(&mut error).unwrap();
    assert_eq!((ended.code(), error.as_str()), (Some(0), ""));
}
