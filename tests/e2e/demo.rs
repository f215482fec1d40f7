//! `jackfield demo`: everything at once, ended by the accounts.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Setup, component};

/// A demo of this checkout, with the filters that were built for these tests: exit code, output, log.
fn demo(args: &[&str]) -> (i32, String, String) {
    let target = component("redact")
        .ancestors()
        .nth(3)
        .unwrap()
        .display()
        .to_string();
    let setup = Setup::default()
        .instead(&[&["demo"], args].concat())
        .env("CARGO_TARGET_DIR", &target);
    setup.env("PATH", &std::env::var("PATH").unwrap()).run()
}

/// The terms of the last line but one: `received 5 = delivered 4 + dropped 1 + …`.
fn term(log: &str, name: &str) -> u64 {
    let accounts = log.lines().rev().nth(1).unwrap();
    let (_, after) = accounts
        .split_once(&format!("{name} "))
        .unwrap_or_else(|| panic!("no {name} in {accounts:?}"));
    after.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_demo_ends_with_the_accounts_and_exit_0() {
    let (code, out, log) = demo(&["--events", "2000", "--rate", "0"]);
    assert_eq!((code, out.as_str()), (0, ""), "{log}");
    assert_eq!(log.lines().last(), Some("balanced, nothing lost"), "{log}");
    let terms =
        ["delivered", "dropped", "dead-lettered", "lost", "pending"].map(|name| term(&log, name));
    assert_eq!(
        term(&log, "received"),
        terms.iter().sum::<u64>(),
        "received is the sum of what became of them: {log}"
    );
    assert!(
        terms[0] > 500 && terms[2..] == [0, 0, 0],
        "most are delivered, none is lost: {log}"
    );
    for part in [
        "FreeSWITCH (simulated)",
        "Redis (private)",
        "page                    http://127.0.0.1:",
        "status                  curl http://127.0.0.1:",
        "10-redact (redact 0.1.0, ",
        "20-route (route ",
        "30-project (project ",
    ] {
        assert!(log.contains(part), "it says where to look, {part:?}: {log}");
    }
}

#[test]
fn a_demo_to_standard_output_prints_each_delivered_event_as_json() {
    let (code, out, log) = demo(&["--stdout", "--events", "200", "--rate", "0"]);
    assert_eq!(code, 0, "{log}");
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    assert!(
        lines
            .iter()
            .all(|line| line["stream"].is_string() && line["event"]["Event-Name"].is_string()),
        "a stream and an event each: {out}"
    );
    let events: BTreeSet<&str> = lines
        .iter()
        .map(|line| line["event"]["Event-Sequence"].as_str().unwrap())
        .collect();
    assert_eq!(
        events.len() as u64,
        term(&log, "delivered"),
        "as many events as the accounts say (one of two streams has two lines): {log}"
    );
}

#[test]
fn the_same_seed_makes_the_same_demo() {
    let delivered = |seed: &str| {
        let (code, _, log) = demo(&["--events", "1000", "--rate", "0", "--seed", seed]);
        assert_eq!(code, 0, "{log}");
        ["received", "delivered", "dropped"].map(|name| term(&log, name))
    };
    assert_eq!(
        delivered("7"),
        delivered("7"),
        "the same calls have the same fate"
    );
}
