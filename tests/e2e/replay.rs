//! `jackfield filter replay` and `jackfield filter bench`: a filter is tried on past traffic without a running host, and what it would
//! have done otherwise is a number that can be counted by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jackfield::simulator::Event;
use serde_json::{Map, Value, json};

use crate::harness::{Setup, component, jackfield};
use crate::reading;
use crate::scene::Scene;

/// Answered calls, which have a number, and digits, which have none.
const CALLS: u64 = 30;
const DIGITS: u64 = 20;
const ALL: u64 = CALLS + DIGITS;

const MASK: &str = "mask = [\"Caller-ANI\"]\nkeep = 2\n";

fn rule(event: &str, action: &str) -> String {
    format!("[[rule]]\nevent = \"{event}\"\n{action}\n")
}

/// A folder with past traffic: calls whose number was redacted before they were routed, and digits.
struct Desk {
    setup: Setup,
}

impl Desk {
    async fn new(prepare: impl FnOnce(Setup) -> Setup) -> Desk {
        let route = rule("CHANNEL_ANSWER", "streams = [\"freeswitch:routed\"]");
        let scene = Scene::start(|setup| {
            prepare(setup)
                .filter("10-redact", "redact", MASK)
                .filter("20-route", "route", &route)
        })
        .await;
        for number in 0..ALL {
            let event = match number % 5 {
                0..3 => Event::new("CHANNEL_ANSWER").header("Caller-ANI", "0301234567"),
                _ => Event::new("DTMF").header("DTMF-Digit", "5"),
            };
            scene.switch.fire(event);
        }
        scene.settle();
        let setup = scene.host.stop();
        Desk { setup }
    }

    /// A component beside its settings, named as in the folder of a host.
    fn filter(&self, file: &str, name: &str, settings: &str) -> PathBuf {
        place(self.setup.dir(), file, name, settings)
    }

    #[track_caller]
    fn replay(&self, file: &Path, words: &[&str]) -> Value {
        let journal = self.setup.journal();
        answer(
            "replay",
            file,
            &[&["--journal", text(&journal)], words].concat(),
        )
    }
}

fn place(dir: &Path, file: &str, name: &str, settings: &str) -> PathBuf {
    let path = dir.join(format!("{file}.wasm"));
    fs::copy(component(name), &path).unwrap();
    fs::write(path.with_extension("toml"), settings).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `jackfield filter`: exit code, standard output, standard error.
fn run(command: &str, file: &Path, words: &[&str]) -> (i32, String, String) {
    let mut process = Command::new(jackfield());
    process.args(["filter", command]).arg(file).args(words);
    process.current_dir(file.parent().unwrap());
    let output = process.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, error) = (text(output.stdout), text(output.stderr));
    (output.status.code().unwrap(), out, error)
}

/// What it says in JSON.
#[track_caller]
fn answer(command: &str, file: &Path, words: &[&str]) -> Value {
    let (code, out, error) = run(command, file, &[words, &["--json"]].concat());
    assert_eq!((code, error.as_str()), (0, ""), "{command} {words:?}");
    serde_json::from_str(&out).unwrap()
}

/// The counts of a report: events, compared, differ, failed.
fn counts(report: &Value) -> [u64; 4] {
    ["events", "compared", "differ", "failed"].map(|name| report[name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_differ_in_the_events_that_they_concern() {
    let desk = Desk::new(|setup| setup).await;
    let same = desk.filter("10-redact", "redact", MASK);
    let report = desk.replay(&same, &[]);
    assert_eq!(counts(&report), [ALL, ALL, 0, 0], "{report:#}");
    assert_eq!(report["filter"], "10-redact");

    let other = same.with_file_name("other.toml");
    fs::write(&other, "mask = [\"Caller-ANI\"]\nkeep = 4\n").unwrap();
    let words = ["--settings", text(&other), "--samples", "3"];
    let report = desk.replay(&same, &words);
    assert_eq!(counts(&report), [ALL, ALL, CALLS, 0], "{report:#}");
    let differ = "headers differ: Caller-ANI";
    assert_eq!(report["differences"], json!({ differ: CALLS }));
    let samples = report["samples"].as_array().unwrap();
    let first = samples[0]["lsn"].as_u64().unwrap();
    let expected: Vec<Value> = (first..first + 3)
        .map(|lsn| json!({ "lsn": lsn, "event": "CHANNEL_ANSWER", "difference": differ }))
        .collect();
    assert_eq!(samples, &expected);

    let journal = desk.setup.journal();
    let words = [&["--journal", text(&journal)][..], &words].concat();
    let (code, out, _) = run("replay", &same, &words);
    let told: Vec<&str> = out.lines().collect();
    assert_eq!(
        (code, told[0]),
        (
            0,
            "50 events, 50 compared, 30 differ from what filter 10-redact did"
        )
    );
    for line in [
        "differences:",
        "       30 headers differ: Caller-ANI",
        "samples:",
    ] {
        assert!(told.contains(&line), "{line}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_way_and_a_drop_are_told_beside_what_was_done() {
    let desk = Desk::new(|setup| setup).await;
    let elsewhere = rule("CHANNEL_ANSWER", "streams = [\"freeswitch:elsewhere\"]");
    let drop = rule("DTMF", "drop = \"noise\"");
    let route = desk.filter("20-route", "route", &(elsewhere + &drop));
    let report = desk.replay(&route, &[]);
    assert_eq!(counts(&report), [ALL, ALL, ALL, 0], "{report:#}");
    assert_eq!(report["rerouted"], json!({ "before": CALLS, "now": CALLS }));
    assert_eq!(report["dropped"], json!({ "before": 0, "now": DIGITS }));
    let expected = json!({
        "pass became drop (noise)": DIGITS,
        "route to freeswitch:routed became route to freeswitch:elsewhere": CALLS,
    });
    assert_eq!(report["differences"], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_sees_what_it_would_have_seen_in_its_place() {
    let desk = Desk::new(|setup| setup).await;
    let by_number = "[[rule]]\nheader = \"Caller-ANI\"\npattern = \"0301234567\"\nstreams = [\"freeswitch:x\"]\n";
    let route = desk.filter("new", "route", by_number);
    // Before the number was redacted, and after it was.
    for (name, routed) in [("05-new", CALLS), ("15-new", 0), ("new", 0)] {
        let report = desk.replay(&route, &["--as", name]);
        assert_eq!(report["filter"], name);
        assert_eq!(
            report["rerouted"],
            json!({ "before": 0, "now": routed }),
            "as {name}: no filter of this name did anything"
        );
        assert_eq!(counts(&report), [ALL, ALL, routed, 0], "as {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_are_counted_and_compared_with_nothing() {
    let desk = Desk::new(|setup| setup).await;
    let trap = "attack = \"trap\"\nwants = [\"DTMF\"]\n";
    let trap = desk.filter("20-route", "hostile", trap);
    let report = desk.replay(&trap, &[]);
    assert_eq!(counts(&report), [ALL, CALLS, CALLS, DIGITS], "{report:#}");
    let failures = report["failures"].as_object().unwrap();
    let (failure, count) = failures.iter().next().unwrap();
    assert!(failure.starts_with("trap: "), "{report:#}");
    assert_eq!((failures.len(), count), (1, &json!(DIGITS)));
    assert_eq!(
        report["differences"],
        json!({ "route to freeswitch:routed became pass": CALLS })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_were_exported_are_a_recording() {
    for format in ["json", "plain"] {
        let desk = Desk::new(|setup| setup.env("JACKFIELD_ESL_FORMAT", format)).await;
        let frames = desk.setup.dir().join("events.esl");
        let (code, _, error) = Setup::default()
            .instead(&[
                "journal",
                "export",
                text(&desk.setup.journal()),
                "--raw",
                "--output",
                text(&frames),
            ])
            .run();
        assert_eq!((code, error.as_str()), (0, ""));
        let drop = rule("DTMF", "drop = \"noise\"");
        let route = desk.filter("20-route", "route", &drop);
        let report = answer("replay", &route, &["--capture", text(&frames)]);
        assert_eq!(counts(&report), [ALL, ALL, DIGITS, 0], "{format}");
        assert_eq!(
            report["dropped"],
            json!({ "before": 0, "now": DIGITS }),
            "{format}: beside a filter that does nothing"
        );
        let (_, out, _) = run("replay", &route, &["--capture", text(&frames)]);
        let first = "50 events, 50 compared, 20 differ from what no filter does\n";
        assert!(out.starts_with(first), "{out}");
    }
}

/// Whether this header has a value that is no array and not empty.
fn has(event: &Map<String, Value>, header: &str) -> bool {
    event
        .get(header)
        .and_then(Value::as_str)
        .is_some_and(|value| !value.is_empty())
}

#[test]
fn a_filter_meets_every_event_of_the_real_recordings() {
    const HEADER: &str = "Caller-Caller-ID-Number";
    let dir = tempfile::tempdir().unwrap();
    let settings = format!("mask = [\"{HEADER}\"]\nkeep = 0\n");
    let redact = place(dir.path(), "10-redact", "redact", &settings);
    let small = |capture: &reading::Capture| capture.bytes.len() < 4 << 20;
    for capture in reading::captures().into_iter().filter(small) {
        let events = reading::events(&capture.bytes);
        if events.is_empty() {
            continue;
        }
        let file = dir.path().join("capture.esl");
        fs::write(&file, &capture.bytes).unwrap();
        let report = answer("replay", &redact, &["--capture", text(&file)]);
        let (all, numbers) = (
            events.len() as u64,
            events.iter().filter(|event| has(event, HEADER)).count() as u64,
        );
        assert_eq!(
            counts(&report),
            [all, all, numbers, 0],
            "{}: as an independent reading counts",
            capture.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_past_traffic_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let redact = place(dir.path(), "redact", "redact", MASK);
    let note = dir.path().join("note.txt");
    fs::write(&note, "this is no recording\n").unwrap();
    let stream = dir.path().join("stream.bin");
    fs::write(&stream, "HTTP/1.1 200 OK\nServer: x\n\nbody\n").unwrap();
    for (words, code, why) in [
        (
            &["--capture", "note.txt"][..],
            1,
            "note.txt has no frame of an Event Socket",
        ),
        (
            &["--capture", "stream.bin"],
            1,
            "stream.bin is no recording of an Event Socket: ",
        ),
        (&["--capture", "gone"], 1, "cannot read gone: "),
        (&["--journal", "gone"], 1, "no journal in gone"),
        (
            &["--capture", "note.txt", "--settings", "gone.toml"],
            2,
            "--settings gone.toml: no such file",
        ),
        (
            &["--capture", "note.txt", "--journal", "."],
            2,
            "cannot be used with",
        ),
        (&[], 2, "--capture"),
    ] {
        let (ended, out, error) = run("replay", &redact, words);
        assert_eq!((ended, out.as_str()), (code, ""), "{words:?}: {error}");
        assert!(error.contains(why), "{words:?}: {error}");
    }
    let (code, _, error) = run("replay", &note, &["--capture", "note.txt"]);
    assert!(
        code == 1 && error.contains("note.txt: is not WebAssembly"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_measured_beside_one_of_an_empty_filter() {
    let desk = Desk::new(|setup| setup).await;
    let journal = desk.setup.journal();
    let redact = desk.filter("10-redact", "redact", MASK);
    for (source, events) in [(&["--journal", text(&journal)][..], ALL), (&[], 4)] {
        let words = [source, &["--calls", "1100"]].concat();
        let report = answer("bench", &redact, &words);
        assert_eq!(report["events"], events, "{report:#}");
        let p50 = ["filter", "empty"].map(|side| {
            let cost = &report[side];
            assert_eq!(
                (&cost["calls"], &cost["failures"]),
                (&json!(1_100), &json!(0))
            );
            let [p50, p99] = ["p50_ns", "p99_ns"].map(|name| cost[name].as_f64().unwrap());
            assert!(p50 > 0.0 && p50 <= p99, "{side}: {report:#}");
            p50
        });
        let ratio = (p50[0] / p50[1] * 100.0).round() / 100.0;
        assert_eq!(report["ratio"].as_f64(), Some(ratio), "{report:#}");
    }
    let (code, out, _) = run("bench", &redact, &["--calls", "10"]);
    let told: Vec<&str> = out.lines().collect();
    assert_eq!((code, told[0]), (0, "4 events, 10 calls"));
    let is_told = |line: usize, name: &str| told[line].trim_start().starts_with(name);
    assert!(
        is_told(1, "filter ") && is_told(2, "empty ") && is_told(3, "ratio "),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_events_that_a_filter_subscribed_to_are_measured() {
    let desk = Desk::new(|setup| setup).await;
    let journal = desk.setup.journal();
    let wants =
        |event: &str, attack: &str| format!("attack = \"{attack}\"\nwants = [\"{event}\"]\n");
    let words = ["--journal", text(&journal), "--calls", "50"];

    let none = desk.filter("none", "hostile", &wants("CODEC", "derive"));
    let (code, out, error) = run("bench", &none, &words);
    let expected = "jackfield: it subscribed to none of the 50 events\n";
    assert_eq!((code, out.as_str(), error.as_str()), (1, "", expected));

    let some = desk.filter("some", "hostile", &wants("DTMF", "trap"));
    let report = answer("bench", &some, &words);
    let cost = (&report["filter"]["calls"], &report["filter"]["failures"]);
    assert_eq!(cost, (&json!(50), &json!(50)), "each call of these traps");
    let (_, out, _) = run("bench", &some, &words);
    assert!(out.ends_with("  50 calls failed\n"), "{out}");
}
