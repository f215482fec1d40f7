use jackfield_sdk::testing::{Handled, Incoming, event, filter, reload};
use jackfield_sdk::{Derived, Filter, Verdict};

use super::CallRecord;
use super::settings::Settings;

const HOUR: u64 = 3_600_000_000;

fn leg(name: &str, id: &str) -> Incoming {
    event(name).header("Unique-ID", id)
}

fn of(event: Incoming, originator: &str) -> Incoming {
    event
        .header("Other-Type", "originator")
        .header("Other-Leg-Unique-ID", originator)
}

fn ended(id: &str) -> Incoming {
    leg("CHANNEL_HANGUP_COMPLETE", id)
}

#[track_caller]
fn run(calls: &mut CallRecord, event: Incoming) -> Handled {
    let after = event.run(calls);
    assert_eq!(after.verdict, Verdict::Pass);
    assert!(after.edits.is_empty(), "a call's events stay as they are");
    after
}

#[track_caller]
fn no_record(calls: &mut CallRecord, event: Incoming) {
    let after = run(calls, event);
    assert!(after.derived.is_empty(), "{:?}", after.derived);
}

#[track_caller]
fn record(calls: &mut CallRecord, event: Incoming) -> Derived {
    let after = run(calls, event);
    assert_eq!(after.derived.len(), 1);
    after.derived.into_iter().next().unwrap()
}

fn refusal(settings: &str) -> String {
    filter::<CallRecord>(settings)
        .err()
        .expect("the settings should be refused")
}

#[test]
fn a_call_of_one_leg_has_a_record_when_it_ends() {
    let mut calls: CallRecord = filter("").unwrap();
    no_record(&mut calls, leg("CHANNEL_CREATE", "a"));
    let event = ended("a")
        .header("Call-Direction", "inbound")
        .header("Caller-Caller-ID-Number", "100")
        .header("Caller-Destination-Number", "101")
        .header("Caller-Channel-Created-Time", "1000")
        .header("Caller-Channel-Progress-Time", "0")
        .header("Caller-Channel-Progress-Media-Time", "2000")
        .header("Caller-Channel-Answered-Time", "0")
        .header("Caller-Channel-Hangup-Time", "3000")
        .header("variable_duration", "12")
        .header("variable_billsec", "0")
        .header("Hangup-Cause", "USER_BUSY");
    let record = record(&mut calls, event);
    assert_eq!(record.name, "CALL_RECORD");
    assert_eq!(record.streams, ["freeswitch:calls"]);
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|h| (h.name.as_str(), h.value.as_str()))
        .collect();
    let expected = [
        ("Unique-ID", "a"),
        ("Call-Direction", "inbound"),
        ("Caller-Caller-ID-Number", "100"),
        ("Caller-Destination-Number", "101"),
        ("Start-Time", "1000"),
        ("Ring-Time", "2000"),
        ("End-Time", "3000"),
        ("Duration", "12"),
        ("Billsec", "0"),
        ("Hangup-Cause", "USER_BUSY"),
        ("Legs", "1"),
    ];
    assert_eq!(headers, expected, "what never happened is absent");
}

#[test]
fn a_record_has_both_legs_whichever_ends_first() {
    for order in [["a", "b"], ["b", "a"]] {
        let mut calls: CallRecord = filter("").unwrap();
        no_record(&mut calls, leg("CHANNEL_CREATE", "a"));
        no_record(&mut calls, of(leg("CHANNEL_OUTGOING", "b"), "a"));
        no_record(&mut calls, of(leg("CHANNEL_CREATE", "b"), "a"));
        let event = |id: &str| {
            let event = ended(id).header("Hangup-Cause", format!("CAUSE_{id}"));
            if id == "b" {
                of(event, "a").header("Caller-Channel-Progress-Time", "7")
            } else {
                event
                    .header("Other-Type", "originatee")
                    .header("Other-Leg-Unique-ID", "b")
            }
        };
        no_record(&mut calls, event(order[0]));
        let record = record(&mut calls, event(order[1]));
        let get = |name: &str| record.get(name);
        assert_eq!(get("Unique-ID"), Some("a"));
        assert_eq!(get("Hangup-Cause"), Some("CAUSE_a"));
        assert_eq!(get("Other-Leg-Unique-ID"), Some("b"));
        assert_eq!(get("Other-Leg-Hangup-Cause"), Some("CAUSE_b"));
        assert_eq!(get("Ring-Time"), Some("7"), "the other leg rang");
        assert_eq!(get("Legs"), Some("2"));
        assert_eq!(
            calls.save(),
            br#"{"version":1,"calls":[]}"#,
            "nothing is left"
        );
    }
}

#[test]
fn of_many_other_legs_the_answered_one_counts() {
    let mut calls: CallRecord = filter("").unwrap();
    no_record(&mut calls, leg("CHANNEL_CREATE", "a"));
    for id in ["b", "c", "d"] {
        no_record(&mut calls, of(leg("CHANNEL_OUTGOING", id), "a"));
    }
    no_record(&mut calls, of(ended("b"), "a"));
    no_record(
        &mut calls,
        of(ended("c"), "a").header("Caller-Channel-Answered-Time", "5"),
    );
    no_record(&mut calls, of(ended("d"), "a"));
    let record = record(&mut calls, ended("a"));
    assert_eq!(record.get("Other-Leg-Unique-ID"), Some("c"));
    assert_eq!(record.get("Legs"), Some("4"));
}

#[test]
fn a_leg_of_a_second_leg_is_of_the_same_call() {
    let mut calls: CallRecord = filter("").unwrap();
    no_record(&mut calls, leg("CHANNEL_CREATE", "a"));
    no_record(&mut calls, of(leg("CHANNEL_OUTGOING", "b"), "a"));
    no_record(&mut calls, of(leg("CHANNEL_OUTGOING", "c"), "b"));
    no_record(&mut calls, ended("a"));
    no_record(&mut calls, of(ended("b"), "a"));
    assert_eq!(
        record(&mut calls, of(ended("c"), "b")).get("Legs"),
        Some("3")
    );
}

#[test]
fn a_call_whose_beginning_was_missed_has_its_record() {
    let mut calls: CallRecord = filter("").unwrap();
    assert_eq!(record(&mut calls, ended("a")).get("Unique-ID"), Some("a"));
    no_record(&mut calls, of(ended("b"), "c"));
    let both = record(&mut calls, ended("c"));
    assert_eq!(both.get("Other-Leg-Unique-ID"), Some("b"));
    no_record(
        &mut calls,
        leg("CHANNEL_CREATE", "late").header("Answer-State", "hangup"),
    );
    assert_eq!(calls.save(), br#"{"version":1,"calls":[]}"#);
}

#[test]
fn calls_whose_end_never_comes_are_forgotten_and_counted() {
    let mut calls: CallRecord = filter("max_legs = 2\nmax_age = '1h'").unwrap();
    no_record(&mut calls, leg("CHANNEL_CREATE", "a"));
    no_record(&mut calls, leg("CHANNEL_CREATE", "b"));
    let third = run(&mut calls, leg("CHANNEL_CREATE", "c"));
    assert_eq!(third.counts["forgotten"], 1, "the oldest goes");
    let later = run(&mut calls, leg("CHANNEL_CREATE", "d").at(HOUR + 1));
    assert_eq!(later.counts["forgotten"], 2, "what is too old goes");
    assert_eq!(
        record(&mut calls, ended("d").at(HOUR + 2)).get("Legs"),
        Some("1")
    );
}

#[test]
fn a_reload_keeps_the_open_calls() {
    let mut old: CallRecord = filter("").unwrap();
    no_record(&mut old, leg("CHANNEL_CREATE", "a"));
    no_record(&mut old, of(leg("CHANNEL_OUTGOING", "b"), "a"));
    no_record(
        &mut old,
        of(ended("b"), "a").header("Hangup-Cause", "NORMAL_CLEARING"),
    );
    let mut new: CallRecord = reload(&old, "streams = []").unwrap();
    let record = record(&mut new, ended("a"));
    assert_eq!(
        record.get("Other-Leg-Hangup-Cause"),
        Some("NORMAL_CLEARING")
    );
    assert!(record.streams.is_empty(), "the routes decide");
}

#[test]
fn a_damaged_state_is_left_and_calls_are_taken_up_as_they_come() {
    for saved in [
        "",
        "{",
        r#"{"version":2,"calls":[]}"#,
        r#"{"version":1,"calls":[7]}"#,
    ] {
        let mut calls = CallRecord::new(Settings::default(), Some(saved.into())).unwrap();
        assert_eq!(record(&mut calls, ended("a")).get("Unique-ID"), Some("a"));
    }
}

#[test]
fn long_values_are_cut() {
    let mut calls: CallRecord = filter("").unwrap();
    let record = record(&mut calls, ended(&"ü".repeat(1_000)));
    assert_eq!(record.get("Unique-ID").map(str::len), Some(64));
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let cases = [
        ("streams = ['']", "`streams` has an empty name"),
        ("max_legs = 0", "`max_legs` is 0: allowed are 1 to 100000"),
        (
            "max_age = '0s'",
            "`max_age` is 0ns: allowed is more than zero, up to 720h",
        ),
        (
            "max_age = 'a day'",
            "settings: `max_age`: invalid value: string \"a day\", expected a duration such as `300ms`, `5s` or `1h30m`",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(refusal(settings), expected, "for {settings:?}");
    }
    assert!(refusal("stream = 'a'").contains("unknown field `stream`, expected one of `streams`"));
}

#[test]
fn the_example_settings_are_valid() {
    filter::<CallRecord>(include_str!("../call-record.toml")).unwrap();
}
