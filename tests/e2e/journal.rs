//! `jackfield journal`: what is on disk can be looked at while the host runs, taken out, played again, and checked for damage.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use jackfield::simulator::{Event, Simulator};
use serde_json::{Value, json};

use crate::harness::{Redis, Setup, jackfield, wait_for};
use crate::numbered::{self, Firing};
use crate::reading;
use crate::scene::{EVENTS, Scene, quiet_switch};

/// Runs `jackfield journal`: exit code, standard output, standard error.
fn journal(words: &[&str], dir: &Path) -> (i32, Vec<u8>, String) {
    let mut command = Command::new(jackfield());
    let output = command.arg("journal").args(words).arg(dir).output();
    let output = output.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), output.stdout, error)
}

/// What it answers, which must be all that it says.
#[track_caller]
fn answer(words: &[&str], dir: &Path) -> String {
    let (code, out, error) = journal(words, dir);
    assert_eq!((code, error.as_str()), (0, ""), "journal {words:?}");
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[track_caller]
fn exported(words: &[&str], dir: &Path) -> Vec<Value> {
    lines(&answer(&[&["export"], words].concat(), dir))
}

/// The first segment that has these bytes, and where.
fn find(dir: &Path, needle: &[u8]) -> (String, u64) {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jnl"))
        .collect();
    names.sort();
    let found = names.into_iter().find_map(|name| {
        let bytes = fs::read(dir.join(&name)).unwrap();
        let at = bytes.windows(needle.len()).position(|part| part == needle);
        Some((name, at? as u64))
    });
    found.expect("these bytes are in the journal")
}

fn flip(path: &Path, position: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = file.unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 1], position).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_tells_what_came_and_what_became_of_it() {
    let rule = "[[rule]]\nevent = \"CHANNEL_ANSWER\"\nstreams = [\"freeswitch:routed\"]\n";
    let scene = Scene::start(|setup| {
        setup
            .filter("10-redact", "redact", "mask = [\"Caller-ANI\"]\nkeep = 2\n")
            .filter("20-route", "route", rule)
    })
    .await;
    for number in 0..20 {
        let event = Event::new("CHANNEL_ANSWER").header("Number", number.to_string());
        scene.switch.fire(event.header("Caller-ANI", "0301234567"));
    }
    scene.switch.fire(numbered::event(20).body("and a body\n"));
    let malformed = b"{\"Event-Name\":\"\xff";
    let frame = format!(
        "Content-Length: {}\nContent-Type: text/event-json\n\n",
        malformed.len()
    );
    let frame = [frame.as_bytes(), malformed].concat();
    scene.switch.write_raw(Bytes::from(frame)).await;
    scene.host.wait_settled(22);

    let mut records = exported(&[], &scene.host.journal());
    let lsns: Vec<u64> = records
        .iter()
        .map(|record| record["lsn"].as_u64().unwrap())
        .collect();
    let begin = lsns[0];
    assert!(
        lsns.iter().copied().eq((begin..).take(lsns.len())),
        "each input is a line, in order"
    );
    // The host may have asked which calls are alive.
    records.retain(|record| record["kind"] != "roll-call");
    assert_eq!(records.len(), 22);
    for record in &records {
        assert_eq!(
            (&record["kind"], &record["connection"]),
            (&json!("json"), &json!(1))
        );
        let received = record["received"].as_str().unwrap();
        let millis = record["received_us"].as_u64().unwrap() / 1_000 % 1_000;
        assert!(received.ends_with(&format!(".{millis:03}Z")), "{record:#}");
    }
    let offset = |record: &Value| record["offset"].as_u64().unwrap();
    assert!(
        records.is_sorted_by(|one, next| offset(one) < offset(next)),
        "each begins further on in the connection's bytes"
    );

    let routed = scene.redis.events("freeswitch:routed");
    assert_eq!(routed.len(), 20);
    let version = |file| {
        let filter = scene.host.wait_filter(file, |_| true);
        let digest = &filter["digest"].as_str().unwrap()[..12];
        (filter["version"].clone(), json!(digest))
    };
    let (redact, route) = (version("10-redact"), version("20-route"));
    for (record, mut written) in records.iter().zip(routed) {
        assert_eq!(written["Caller-ANI"], "********67", "as it was redacted");
        written["Caller-ANI"] = json!("0301234567");
        assert_eq!(record["event"], written, "the event is as it came");
        let edit = json!({ "set": { "name": "Caller-ANI", "value": "********67" } });
        let routes = json!({ "route": ["freeswitch:routed"] });
        let expected = json!([{
            "derived": null,
            "steps": [
                { "by": "10-redact", "version": redact.0, "digest": redact.1, "verdict": "pass", "edits": [edit], "failure": null },
                { "by": "20-route", "version": route.0, "digest": route.1, "verdict": routes, "edits": [], "failure": null },
            ],
            "outcome": { "streams": [{ "stream": "freeswitch:routed", "format": "json" }] },
        }]);
        let mut decision = record["decision"].clone();
        for step in decision[0]["steps"].as_array_mut().unwrap() {
            let took_ns = step.as_object_mut().unwrap().remove("took_ns");
            assert!(took_ns.unwrap().as_u64() > Some(0), "{record:#}");
        }
        assert_eq!(decision, expected);
    }
    let with_body = &records[20];
    assert_eq!(with_body["event"], scene.redis.events(EVENTS)[0]);
    assert_eq!(with_body["event"]["_body"], "and a body\n");
    let malformed = &records[21];
    assert_eq!(malformed["frame"], "{\"Event-Name\":\"\u{fffd}");
    assert_eq!(malformed["event"], Value::Null, "it is none: {malformed:#}");
    let outcome = &malformed["decision"][0]["outcome"]["malformed"];
    assert!(outcome.is_string(), "and why is said: {malformed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_the_journal_goes_to_a_file_of_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let mut scene = Scene::start(|setup| setup).await;
    scene.fire(30);
    scene.settle();
    let dir = scene.host.journal();
    let all = exported(&["--json"], &dir);
    let lsn = |place: usize| all[place]["lsn"].to_string();
    let (after, through) = (lsn(9), lsn(19));
    let words = ["--after", &after, "--through", &through];
    assert_eq!(exported(&words, &dir), all[10..20]);
    assert_eq!(exported(&words[..2], &dir), all[10..]);
    assert_eq!(exported(&words[2..], &dir), all[..20]);
    let file = scene.host.dir().join("events.json");
    let to_file = ["--output", file.to_str().unwrap()];
    assert_eq!(
        exported(&to_file, &dir),
        [] as [Value; 0],
        "nothing is printed"
    );
    assert_eq!(lines(&fs::read_to_string(&file).unwrap()), all);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "events carry numbers and digits");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_were_exported_make_the_same_entries_in_another_host() {
    for format in ["json", "plain"] {
        let with_format = |setup: Setup| setup.env("JACKFIELD_ESL_FORMAT", format);
        let first = Scene::start(with_format).await;
        for number in 0..200 {
            let event = numbered::event(number).header("Caller-ID", "Müller, 100 %");
            first
                .switch
                .fire(event.body(format!("Event-Name: X\n\n{number}\n")));
        }
        first.settle();
        let dir = first.host.journal();
        let (code, frames, error) = journal(&["export", "--raw"], &dir);
        assert_eq!((code, error.as_str()), (0, ""));
        let sent = reading::events(&frames);
        assert_eq!(sent.len(), 200, "whole frames, and nothing between them");

        let second = Scene::start(with_format).await;
        second.switch.write_raw(Bytes::from(frames)).await;
        second.host.wait_settled(200);
        let expected = first.redis.entries(EVENTS);
        assert_eq!(expected.len(), 200);
        assert_eq!(second.redis.entries(EVENTS), expected, "{format}");
        let again = journal(&["export", "--raw"], &second.host.journal());
        assert_eq!(reading::events(&again.1), sent, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_of_a_running_host_is_listed_and_verified() {
    let (switch, redis) = (Arc::new(quiet_switch().await), Redis::start());
    let host = Setup::new(switch.addr(), &redis).start();
    host.wait_ready();
    numbered::fire(&switch, 0..1_000);
    host.wait_settled(1_000);
    let router = host.status()["router"].clone();
    // A second segment, and the first one is as the kill left it.
    let host = host.kill().start();
    host.wait_ready();
    let firing = Firing::start(&switch);
    let dir = host.journal();
    for _ in 0..10 {
        let out = answer(&["verify"], &dir);
        assert!(
            out.ends_with("undecided: sound\n"),
            "while it is written: {out}"
        );
    }
    let fired = firing.stop().await;
    host.wait_settled(fired);

    let listed = answer(&["ls", "--json"], &dir);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let segments = listed["segments"].as_array().unwrap();
    assert_eq!(
        (&listed["router"], segments.len()),
        (&router, 2),
        "{listed:#}"
    );
    assert_eq!(segments[0]["inputs"], 1_000, "{listed:#}");
    assert_eq!(segments[0]["decisions"], 1_000, "{listed:#}");
    assert_eq!(segments[1]["inputs"], fired, "{listed:#}");
    assert_eq!(listed["inputs"], 1_000 + fired, "{listed:#}");
    let all = exported(&[], &dir);
    let (first, last) = (&all[0], &all[all.len() - 1]);
    assert_eq!(segments[0]["first_lsn"], first["lsn"], "{listed:#}");
    assert_eq!(segments[0]["from"], first["received"], "{listed:#}");
    assert_eq!(segments[1]["to"], last["received"], "{listed:#}");
    assert_eq!(listed["last_lsn"], last["lsn"], "{listed:#}");
    assert_eq!(listed["newest_decision"], last["lsn"], "{listed:#}");
    assert_eq!(listed["quarantined"], 0, "{listed:#}");
    let text = answer(&["ls"], &dir);
    let row = text.lines().nth(3).unwrap();
    let name = segments[0]["file"].as_str().unwrap();
    assert!(row.starts_with(name) && row.contains(" 1000 "), "{text}");

    let summary = lines(&answer(&["verify", "--json"], &dir)).remove(0);
    assert_eq!(
        (&summary["sound"], &summary["inputs"], &summary["undecided"]),
        (&json!(true), &json!(1_000 + fired), &json!(0)),
        "{summary:#}"
    );
}

/// A journal with 100 events that were decided while Redis was away, and its host killed.
async fn decided_without_redis() -> (Simulator, Redis, Setup) {
    let (switch, mut redis) = (
        quiet_switch().await,
        Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]),
    );
    let setup = Setup::new(switch.addr(), &redis).env("ESL_RECONNECT_DELAY", "50ms");
    let host = setup.env("REDIS_REMOTE_WRITE_TIMEOUT", "300ms").start();
    host.wait_ready();
    redis.kill();
    numbered::fire(&switch, 0..100);
    wait_for("all is decided", || {
        let listed = answer(&["ls", "--json"], &host.journal());
        let listed: Value = serde_json::from_str(&listed).unwrap();
        (listed["decisions"] == 100).then_some(())
    });
    (switch, redis, host.kill())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found_and_costs_the_event_that_it_hit_alone() {
    let (switch, mut redis, setup) = decided_without_redis().await;
    let dir = setup.journal();
    let (segment, position) = find(&dir, b"\"Number\":\"57\"");
    flip(&dir.join(&segment), position);

    let (code, out, error) = journal(&["verify"], &dir);
    let out = String::from_utf8(out).unwrap();
    assert_eq!((code, error.as_str()), (1, ""), "{out}");
    let told: Vec<&str> = out.lines().collect();
    assert!(
        told[0].starts_with(&format!("{segment}: at byte ")) && told[0].ends_with(" damaged bytes"),
        "{out}"
    );
    assert!(
        told[1].contains("a decision about input ") && told[1].ends_with(", which is not there"),
        "{out}"
    );
    assert!(
        told.len() == 3 && told[2].ends_with(": 2 problems"),
        "{out}"
    );
    let (code, out, _) = journal(&["verify", "--json"], &dir);
    let found = lines(&String::from_utf8(out).unwrap());
    let place = found[0]["position"].as_u64().unwrap();
    assert!(
        code == 1 && found[0]["segment"] == segment && (place..place + 4_096).contains(&position),
        "{found:#?}"
    );
    let (code, out, error) = journal(&["export"], &dir);
    assert_eq!(lines(&String::from_utf8(out).unwrap()).len(), 99);
    assert!(code == 0 && error.contains("1 damaged places"), "{error}");

    redis.up();
    let host = setup.start();
    host.wait_ready();
    numbered::fire(&switch, 100..110);
    let expected = (0..110).filter(|number| *number != 57);
    let status = host.wait_status("all others are delivered", |status| {
        status["counts"]["delivered"] == 109 && status["counts"]["pending"] == 0
    });
    assert_eq!(status["counts"]["balanced"], true, "{status:#}");
    numbered::check(&redis, numbered::STREAM, expected);
    assert_eq!(
        host.metric("jackfield_unhealable_total"),
        Some(1.0),
        "and it is counted"
    );
    let listed: Value = serde_json::from_str(&answer(&["ls", "--json"], &dir)).unwrap();
    assert_eq!(listed["quarantined"], 1, "{listed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_write_at_the_end_is_no_damage_and_before_it_is() {
    let (_switch, _redis, setup) = decided_without_redis().await;
    let dir = setup.journal();
    let sound = answer(&["verify"], &dir);
    let listed: Value = serde_json::from_str(&answer(&["ls", "--json"], &dir)).unwrap();
    let segment = &listed["segments"][0];
    let file = dir.join(segment["file"].as_str().unwrap());
    let opened = fs::OpenOptions::new().write(true).open(&file).unwrap();
    let end = segment["used_bytes"].as_u64().unwrap();
    opened.write_all_at(b"\xF5JR\0torn here", end).unwrap();
    assert_eq!(
        answer(&["verify"], &dir),
        format!("13 bytes of an unfinished write at the end, which is no damage\n{sound}")
    );
    // Another segment behind it, with copies of the same records.
    let records = fs::read(&file).unwrap();
    let records = &records[..usize::try_from(end).unwrap()];
    fs::write(dir.join("0000020000000000.jnl"), records).unwrap();
    let (code, out, _) = journal(&["verify"], &dir);
    let out = String::from_utf8(out).unwrap();
    let expected = format!("at byte {end}: 13 bytes at the end that are no record");
    assert!(code == 1 && out.contains(&expected), "{out}");
}

#[test]
fn a_folder_without_a_journal_ends_with_1_and_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for folder in [dir.path(), &missing] {
        for command in ["ls", "export", "verify"] {
            let (code, out, error) = journal(&[command], folder);
            let expected = format!("jackfield: no journal in {}\n", folder.display());
            assert_eq!((code, out.len(), error), (1, 0, expected), "{command}");
        }
    }
    let setup = Setup::default().config("[journal]\ndir = \"elsewhere\"\n");
    let (code, _, error) = setup.instead(&["journal", "ls"]).run();
    let expected = "jackfield: no journal in elsewhere\n";
    assert_eq!(
        (code, error.as_str()),
        (1, expected),
        "the settings' folder"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_help_has_examples() {
    for words in [
        &["export", "--raw", "--json"][..],
        &["export", "--after", "x"],
        &["ls", "--config", "jackfield.toml"],
        &["lst"],
    ] {
        let (code, out, error) = journal(words, Path::new("."));
        assert_eq!((code, out.len()), (2, 0), "{words:?}: {error}");
    }
    for command in ["ls", "export", "verify"] {
        let example = format!("  jackfield journal {command}");
        for words in [&["journal", "--help"][..], &["journal", command, "--help"]] {
            let (code, out, _) = Setup::default().instead(words).run();
            assert!(code == 0 && out.contains(&example), "{words:?}: {out}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_ends_the_export_quietly() {
    let mut scene = Scene::start(|setup| setup).await;
    scene.fire(2_000);
    scene.settle();
    let mut export = Command::new(jackfield())
        .args(["journal", "export"])
        .arg(scene.host.journal())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(export.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    drop(out);
    let mut error = String::new();
    export
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    let ended = export.wait().unwrap();
    assert_eq!((ended.code(), error.as_str()), (Some(0), ""));
    assert_eq!(lines(&line)[0]["event"]["Number"], "0");
}
