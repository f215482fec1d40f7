use jackfield_sdk::testing::{event, filter};
use jackfield_sdk::{Filter, Verdict};

use super::Route;

const EXAMPLE: &str = include_str!("../route.toml");

fn refusal(rule: &str) -> String {
    filter::<Route>(&format!("[[rule]]\n{rule}"))
        .err()
        .expect("the rule should be refused")
}

#[test]
fn a_matching_event_goes_to_the_rules_streams() {
    let mut route: Route = filter(EXAMPLE).unwrap();
    let after = event("CHANNEL_ANSWER")
        .header("variable_tenant", "acme-berlin")
        .run(&mut route);
    assert_eq!(after.verdict, Verdict::route(["freeswitch:acme"]));
    let after = event("CHANNEL_HANGUP_COMPLETE")
        .header("Hangup-Cause", "NORMAL_CLEARING")
        .run(&mut route);
    assert_eq!(
        after.verdict,
        Verdict::route(["freeswitch:telephony:events", "freeswitch:billing"])
    );
}

#[test]
fn an_event_that_no_rule_matches_passes() {
    let mut route: Route = filter(EXAMPLE).unwrap();
    assert_eq!(
        event("CHANNEL_ANSWER")
            .header("variable_tenant", "other")
            .run(&mut route)
            .verdict,
        Verdict::Pass
    );
    assert_eq!(
        event("CHANNEL_ANSWER").run(&mut route).verdict,
        Verdict::Pass,
        "an absent header matches no pattern"
    );
    assert_eq!(
        event("DTMF")
            .header("variable_tenant", "acme")
            .run(&mut route)
            .verdict,
        Verdict::Pass
    );
}

#[test]
fn a_rule_may_name_one_custom_subclass() {
    let mut route: Route = filter(EXAMPLE).unwrap();
    let attempt = event("CUSTOM")
        .header("Event-Subclass", "sofia::pre_register")
        .run(&mut route);
    assert_eq!(attempt.verdict, Verdict::drop("registration attempt"));
    let done = event("CUSTOM")
        .header("Event-Subclass", "sofia::register")
        .run(&mut route);
    assert_eq!(done.verdict, Verdict::Pass);
}

#[test]
fn the_first_match_wins() {
    let rules = "[[rule]]\nevent = 'A'\nstreams = ['first']\n[[rule]]\nevent = '*'\ndrop = 'rest'";
    let mut route: Route = filter(rules).unwrap();
    assert_eq!(
        event("A").run(&mut route).verdict,
        Verdict::route(["first"])
    );
    assert_eq!(event("B").run(&mut route).verdict, Verdict::drop("rest"));
}

#[test]
fn the_manifest_comes_from_the_rules() {
    let manifest = filter::<Route>(EXAMPLE).unwrap().manifest();
    assert_eq!(
        manifest.events,
        [
            "CHANNEL_ANSWER",
            "CHANNEL_HANGUP_COMPLETE",
            "CUSTOM sofia::pre_register"
        ]
    );
    assert_eq!(
        manifest.headers,
        [
            "Event-Name",
            "variable_tenant",
            "Hangup-Cause",
            "Event-Subclass"
        ]
    );

    let any =
        "[[rule]]\nevent = 'A'\ndrop = 'a'\n[[rule]]\nheader = 'h'\npattern = '*'\ndrop = 'h'";
    let manifest = filter::<Route>(any).unwrap().manifest();
    assert!(
        manifest.events.is_empty(),
        "a rule for every event needs every event"
    );
    assert_eq!(manifest.headers, ["Event-Name", "h"]);
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let none = filter::<Route>("").err().unwrap();
    assert_eq!(
        none,
        "no rule: give at least one `[[rule]]`, or remove the filter"
    );
    let cases = [
        (
            "",
            "it says neither which `event` nor which `header`: `event = \"*\"` is every event",
        ),
        (
            "event = 'A'",
            "it does nothing: give `streams = [\"…\"]` or `drop = \"reason\"`",
        ),
        (
            "event = 'A'\nstreams = []",
            "`streams` is empty: name at least one, or use `drop = \"reason\"`",
        ),
        ("event = 'A'\nstreams = ['']", "`streams` has an empty name"),
        (
            "event = 'A'\nstreams = ['s']\ndrop = 'r'",
            "it has `streams` and `drop`: choose one",
        ),
        (
            "event = 'A'\ndrop = ''",
            "`drop` is empty: give a reason, which the metric will show",
        ),
        (
            "event = ''\ndrop = 'r'",
            "`event` is empty: give a name, or `*` for every event",
        ),
        (
            "event = 'A*'\ndrop = 'r'",
            "`event` is `A*`: a whole name is allowed, or `*` alone for every event",
        ),
        (
            "header = 'h'\ndrop = 'r'",
            "`header` without `pattern`: `pattern = \"*\"` is any value",
        ),
        (
            "event = 'A'\npattern = 'p'\ndrop = 'r'",
            "`pattern` without `header`: name the header to look at",
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(refusal(rule), format!("rule 1: {expected}"));
    }
    assert!(refusal("stream = 's'").contains("unknown field `stream`, expected one of `event`"));
    let bad_type = "settings: `rule[0].streams`: invalid type: string \"s\", expected a sequence";
    assert_eq!(refusal("event = 'A'\nstreams = 's'"), bad_type);
}
